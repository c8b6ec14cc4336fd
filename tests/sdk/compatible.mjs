// The `ai` package with `@ai-sdk/openai-compatible`, as an application uses it, one case each.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const prompt = "Grüße aus Köln 🙂 你好";

const model = (base, id) =>
  createOpenAICompatible({ name: "keyproxy", baseURL: `${base}/api/v1`, includeUsage: true })(id);

export const cases = {
  async chat(base) {
    const answer = await generateText({ model: model(base, "demo/echo"), prompt });
    return { text: answer.text, finish: answer.finishReason, tokens: answer.usage.outputTokens };
  },

  async stream(base) {
    const pieces = [];
    const answer = streamText({ model: model(base, "demo/echo"), prompt });
    for await (const piece of answer.textStream) pieces.push(piece);
    return { pieces };
  },

  async tools(base) {
    const asked = [];
    const get_weather = tool({
      description: "The weather in a city",
      inputSchema: z.object({ city: z.string() }),
      execute: async (input) => {
        asked.push({ get_weather: input });
        return "rain";
      },
    });
    const answer = await generateText({
      model: model(base, "demo/tools"),
      prompt,
      tools: { get_weather },
      stopWhen: stepCountIs(3),
    });
    return { asked, last: answer.text };
  },
};
