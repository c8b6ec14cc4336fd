// The `ai` package with `@ai-sdk/openai`, as an application uses it: it speaks /responses.

import { createOpenAI } from "@ai-sdk/openai";
import { defaultSettingsMiddleware, wrapLanguageModel } from "ai";

import { casesOf } from "./ai-cases.mjs";

// Unless it is told so, it refers to stored answers, which no proxy of several accounts may allow.
const middleware = defaultSettingsMiddleware({
  settings: { providerOptions: { openai: { store: false } } },
});

export const cases = casesOf((base, id, options = {}) => {
  const provider = createOpenAI({ baseURL: `${base}/api/v1`, apiKey: "none", ...options });
  return wrapLanguageModel({ model: provider(id), middleware });
});
