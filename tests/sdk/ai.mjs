// The `ai` package with `@openrouter/ai-sdk-provider`, and with `@ai-sdk/openai` where a case says
// so, as an application uses them, one case each.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { generateText, stepCountIs, tool } from "ai";
import { z } from "zod";

import { casesOf, prompt } from "./ai-cases.mjs";
import { failure } from "./outcome.mjs";

function model(base, id, options = {}) {
  const provider = createOpenRouter({ baseURL: `${base}/api/v1`, apiKey: "none", ...options });
  return provider(id, { usage: { include: true } });
}

export const cases = {
  ...casesOf(model),

  /** OpenAI's provider speaks /responses, and refers to its answers unless it is told not to. */
  async responsesTools(base) {
    const provider = createOpenAI({ baseURL: `${base}/api/v1`, apiKey: "none" });
    const get_weather = tool({
      description: "The weather in a city",
      inputSchema: z.object({ city: z.string() }),
      execute: async () => "rain",
    });
    const run = (options) =>
      generateText({
        model: provider.responses("openai/gpt-5"),
        prompt,
        tools: { get_weather },
        stopWhen: stepCountIs(3),
        providerOptions: { openai: options },
      });
    const refused = await failure(() => run({}));
    return { refused: refused.message, last: (await run({ store: false })).text };
  },
};
