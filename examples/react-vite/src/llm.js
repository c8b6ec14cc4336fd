import OpenAI from "openai";

// Direct: VITE_LLM_URL=http://localhost:8484/api/v1 in .env.development. Without it, the page's
// own origin, which Vite's proxy (vite.config.js) or your web server hands on to keyproxy.
const baseURL = import.meta.env.VITE_LLM_URL ?? `${location.origin}/api/v1`;

// The SDK insists on a key, so it gets a word; the true one never leaves keyproxy.
export const llm = new OpenAI({ baseURL, apiKey: "none", dangerouslyAllowBrowser: true });
