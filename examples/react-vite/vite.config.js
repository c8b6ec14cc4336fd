import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// The page's own origin serves the API too, as a web server in front does it in production.
const target = process.env.LLM_PROXY ?? "http://localhost:8484";

export default defineConfig({
  plugins: [react()],
  server: {
    // changeOrigin: false leaves the Host that the page was opened by; keyproxy looks at it.
    proxy: { "/api/v1": { target, changeOrigin: false }, "/session": { target, changeOrigin: false } },
  },
});
