const keyproxy = process.env.LLM_PROXY ?? "http://localhost:8484";

/** @type {import("next").NextConfig} */
export default {
  // The page's own origin serves the API too: nothing to allow, no CORS.
  async rewrites() {
    return [
      { source: "/api/v1/:path*", destination: `${keyproxy}/api/v1/:path*` },
      { source: "/session", destination: `${keyproxy}/session` },
    ];
  },
  experimental: {
    proxyTimeout: 600_000, // else a rewrite ends after 30 s without a byte, while a model thinks
  },
};
