// The `ai` package with `@ai-sdk/openai-compatible`, as an application uses it.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed } from "ai";

import { casesOf } from "./ai-cases.mjs";

const open = (base, options) =>
  createOpenAICompatible({ name: "keyproxy", baseURL: `${base}/api/v1`, ...options });

export const cases = {
  ...casesOf((base, id, options) => open(base, { includeUsage: true, ...options })(id)),

  async embeddings(base) {
    const model = open(base).embeddingModel("openai/text-embedding-3-small");
    return { embedding: (await embed({ model, value: "Grüße" })).embedding };
  },
};
