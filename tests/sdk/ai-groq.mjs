// The `ai` package with `@ai-sdk/groq`, as an application uses it.

import { createGroq } from "@ai-sdk/groq";

import { casesOf } from "./ai-cases.mjs";

export const cases = casesOf((base, id, options = {}) =>
  createGroq({ baseURL: `${base}/api/v1`, apiKey: "none", ...options })(id),
);
