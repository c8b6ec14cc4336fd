// What applications do with the `ai` package, one case each, whichever provider of it is at hand:
// `open(base, id, options)` gives its model.

import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import { counting, failure, PIXEL } from "./outcome.mjs";

export const prompt = "Grüße aus Köln 🙂 你好";

const weather = (asked) =>
  tool({
    description: "The weather in a city",
    inputSchema: z.object({ city: z.string() }),
    execute: async (input) => {
      asked.push({ name: "get_weather", input });
      return "rain";
    },
  });

export const casesOf = (open) => ({
  async chat(base) {
    const answer = await generateText({ model: open(base, "demo/echo"), prompt });
    return { text: answer.text, finish: answer.finishReason, tokens: answer.usage.outputTokens };
  },

  async stream(base) {
    const pieces = [];
    const answer = streamText({ model: open(base, "demo/echo"), prompt });
    for await (const piece of answer.textStream) pieces.push(piece);
    return { pieces, tokens: (await answer.usage).outputTokens };
  },

  async structured(base) {
    const answer = await generateText({
      model: open(base, "demo/echo"),
      prompt: '{"city":"Köln"}',
      output: Output.object({ schema: z.object({ city: z.string() }) }),
    });
    return answer.output;
  },

  async image(base) {
    const picture = { type: "image", image: PIXEL, mediaType: "image/png" };
    const content = [{ type: "text", text: prompt }, picture];
    const messages = [{ role: "user", content }];
    return { text: (await generateText({ model: open(base, "demo/echo"), messages })).text };
  },

  async tools(base) {
    const asked = [];
    const answer = await generateText({
      model: open(base, "demo/tools"),
      prompt,
      tools: { get_weather: weather(asked) },
      stopWhen: stepCountIs(3),
    });
    return { asked, last: answer.text };
  },

  async toolsStream(base) {
    const asked = [];
    const answer = streamText({
      model: open(base, "demo/tools"),
      prompt,
      tools: { get_weather: weather(asked) },
    });
    await answer.finishReason;
    return { asked };
  },

  async refusedModel(base) {
    const fetch = counting();
    const model = open(base, "demo/chat", { fetch });
    const error = await failure(() => generateText({ model, prompt }));
    return { ...error, calls: fetch.calls };
  },

  async upstreamLimited(base) {
    return failure(() =>
      generateText({ model: open(base, "demo/429"), prompt, maxRetries: 0 }),
    );
  },

  async abort(base) {
    const controller = new AbortController();
    const answer = streamText({
      model: open(base, "demo/long"),
      prompt,
      abortSignal: controller.signal,
    });
    for await (const _ of answer.textStream) controller.abort();
    return {};
  },
});
