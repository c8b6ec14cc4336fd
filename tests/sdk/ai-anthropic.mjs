// The `ai` package with `@ai-sdk/anthropic`, as an application uses it.

import { createAnthropic } from "@ai-sdk/anthropic";

import { casesOf } from "./ai-cases.mjs";

export const cases = casesOf((base, id, options = {}) =>
  createAnthropic({ baseURL: `${base}/api/v1`, apiKey: "none", ...options })(id),
);
