// The `ai` package with `@openrouter/ai-sdk-provider`, and with `@ai-sdk/openai` where a case says
// so, as an application uses them, one case each.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { embed, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import { counting, failure, PIXEL } from "./outcome.mjs";

const prompt = "Grüße aus Köln 🙂 你好";

function model(base, id, options = {}) {
  const provider = createOpenRouter({ baseURL: `${base}/api/v1`, apiKey: "none", ...options });
  return provider(id, { usage: { include: true } });
}

export const cases = {
  async chat(base) {
    const answer = await generateText({ model: model(base, "demo/echo"), prompt });
    return { text: answer.text, finish: answer.finishReason, tokens: answer.usage.outputTokens };
  },

  async stream(base) {
    const pieces = [];
    const answer = streamText({ model: model(base, "demo/echo"), prompt });
    for await (const piece of answer.textStream) pieces.push(piece);
    return { pieces, tokens: (await answer.usage).outputTokens };
  },

  async structured(base) {
    const answer = await generateText({
      model: model(base, "demo/echo"),
      prompt: '{"city":"Köln"}',
      output: Output.object({ schema: z.object({ city: z.string() }) }),
    });
    return answer.output;
  },

  async image(base) {
    const picture = { type: "image", image: PIXEL, mediaType: "image/png" };
    const content = [{ type: "text", text: prompt }, picture];
    const messages = [{ role: "user", content }];
    return { text: (await generateText({ model: model(base, "demo/echo"), messages })).text };
  },

  async embeddings(base) {
    const provider = createOpenAICompatible({ name: "keyproxy", baseURL: `${base}/api/v1` });
    const model = provider.embeddingModel("openai/text-embedding-3-small");
    return { embedding: (await embed({ model, value: "Grüße" })).embedding };
  },

  async tools(base) {
    const asked = [];
    const get_weather = tool({
      description: "The weather in a city",
      inputSchema: z.object({ city: z.string() }),
      execute: async (input) => {
        asked.push(input);
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

  async refusedModel(base) {
    const fetch = counting();
    const error = await failure(() =>
      generateText({ model: model(base, "demo/chat", { fetch }), prompt }),
    );
    return { ...error, calls: fetch.calls };
  },

  async upstreamLimited(base) {
    return failure(() =>
      generateText({ model: model(base, "demo/429"), prompt, maxRetries: 0 }),
    );
  },

  async abort(base) {
    const controller = new AbortController();
    const answer = streamText({
      model: model(base, "demo/long"),
      prompt,
      abortSignal: controller.signal,
    });
    for await (const _ of answer.textStream) controller.abort();
    return {};
  },
};
