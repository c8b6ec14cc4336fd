// The `ai` package with `@ai-sdk/openai`, where the application asks for its chat.

import { createOpenAI } from "@ai-sdk/openai";

import { casesOf } from "./ai-cases.mjs";

export const cases = casesOf((base, id, options = {}) =>
  createOpenAI({ baseURL: `${base}/api/v1`, apiKey: "none", ...options }).chat(id),
);
