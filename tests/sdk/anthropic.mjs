// The `@anthropic-ai/sdk` package as an application uses it, one case each.

import Anthropic from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import { z } from "zod";

import { counting, described, failure, PIXEL } from "./outcome.mjs";

const HELLO = [{ role: "user", content: "Grüße aus Köln 🙂 你好" }];
const WEATHER = {
  name: "get_weather",
  description: "The weather in a city",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

function open(base, options = {}) {
  return new Anthropic({
    baseURL: `${base}/api`,
    apiKey: "none",
    dangerouslyAllowBrowser: true, // there is no key in here
    ...options,
  });
}

const ask = (model, more = {}) => ({ model, max_tokens: 64, messages: HELLO, ...more });

export const cases = {
  async chat(base) {
    const answer = await open(base).messages.create(ask("demo/echo"));
    return {
      text: answer.content[0].text,
      finish: answer.stop_reason,
      tokens: answer.usage.output_tokens,
    };
  },

  async structured(base) {
    const answer = await open(base).messages.parse({
      ...ask("demo/echo"),
      messages: [{ role: "user", content: '{"city":"Köln"}' }],
      output_config: { format: zodOutputFormat(z.object({ city: z.string() })) },
    });
    return answer.parsed_output;
  },

  async image(base) {
    const source = { type: "base64", media_type: "image/png", data: PIXEL };
    const content = [{ type: "text", text: HELLO[0].content }, { type: "image", source }];
    const answer = await open(base).messages.create(
      ask("demo/echo", { messages: [{ role: "user", content }] }),
    );
    return { text: answer.content[0].text };
  },

  async stream(base) {
    const pieces = [];
    const stream = open(base).messages.stream(ask("demo/echo"));
    stream.on("text", (text) => pieces.push(text));
    const answer = await stream.finalMessage();
    return { pieces, tokens: answer.usage.output_tokens };
  },

  async rawStream(base) {
    const types = new Set();
    const stream = await open(base).messages.create(ask("demo/echo", { stream: true }));
    for await (const event of stream) types.add(event.type);
    return { types: [...types] };
  },

  async beta(base) {
    const answer = await open(base).beta.messages.create(
      ask("demo/echo", { betas: ["context-1m-2025-08-07"] }),
    );
    return { text: answer.content[0].text };
  },

  async tools(base) {
    const more = { tools: [WEATHER], tool_choice: { type: "auto" } };
    const answer = await open(base).messages.create(ask("demo/tools", more));
    const asked = answer.content.find((block) => block.type === "tool_use");
    const result = { type: "tool_result", tool_use_id: asked.id, content: "rain" };
    const messages = [
      ...HELLO,
      { role: "assistant", content: answer.content },
      { role: "user", content: [result] },
    ];
    const last = await open(base).messages.create(ask("demo/tools", { ...more, messages }));
    return { asked: { name: asked.name, input: asked.input }, last: last.content[0].text };
  },

  async toolsStream(base) {
    const stream = open(base).messages.stream(ask("demo/tools", { tools: [WEATHER] }));
    const answer = await stream.finalMessage();
    const asked = answer.content.find((block) => block.type === "tool_use");
    return { asked: { name: asked.name, input: asked.input } };
  },

  async toolRunner(base) {
    const fetch = counting();
    const runner = open(base, { fetch }).beta.messages.toolRunner(
      ask("demo/tools", { tools: [{ ...WEATHER, run: ({ city }) => `rain in ${city}` }] }),
    );
    const last = await runner.runUntilDone();
    return { last: last.content[0].text, calls: fetch.calls };
  },

  async toolRunnerStream(base) {
    const fetch = counting();
    const runner = open(base, { fetch }).beta.messages.toolRunner(
      ask("demo/tools", {
        stream: true,
        tools: [{ ...WEATHER, run: ({ city }) => `rain in ${city}` }],
      }),
    );
    let last;
    for await (const stream of runner) last = await stream.finalMessage();
    return { last: last.content[0].text, calls: fetch.calls };
  },

  async everyField(base) {
    const answer = await open(base).messages.create(
      ask("demo/echo", {
        cache_control: { type: "ephemeral" },
        metadata: { user_id: "u" },
        output_config: { effort: "low" },
        service_tier: "auto",
        stop_sequences: ["§"],
        system: [{ type: "text", text: "Be kind.", cache_control: { type: "ephemeral" } }],
        thinking: { type: "disabled" },
        tools: [WEATHER],
        tool_choice: { type: "none" },
      }),
    );
    return { text: answer.content[0].text };
  },

  async models(base) {
    const ids = [];
    for await (const model of open(base).models.list()) ids.push(model.id);
    return { ids };
  },

  async refusedModel(base) {
    const fetch = counting();
    const error = await failure(() => open(base, { fetch }).messages.create(ask("demo/chat")));
    return { ...error, calls: fetch.calls };
  },

  async limitedLong(base) {
    const fetch = counting();
    const client = open(base, { fetch });
    await client.messages.create(ask("demo/echo"));
    const error = await failure(() => client.messages.create(ask("demo/echo")));
    return { ...error, calls: fetch.calls };
  },

  async limitedShort(base) {
    const fetch = counting();
    const client = open(base, { fetch });
    const answers = [];
    for (let i = 0; i < 2; i++) answers.push(await client.messages.create(ask("demo/echo")));
    return { texts: answers.map((answer) => answer.content[0].text), calls: fetch.calls };
  },

  async upstreamLimited(base) {
    return failure(() => open(base, { maxRetries: 0 }).messages.create(ask("demo/429")));
  },

  async outOfCredits(base) {
    const fetch = counting();
    const error = await failure(() => open(base, { fetch }).messages.create(ask("demo/402")));
    return { ...error, calls: fetch.calls };
  },

  async wrongBase(base) {
    const fetch = counting();
    const client = open(base, { fetch, baseURL: `${base}/api/v1` });
    return { ...(await failure(() => client.messages.create(ask("demo/echo")))), calls: fetch.calls };
  },

  async ownKey(base) {
    const client = open(base, { apiKey: `sk-ant-api03-${"x1".repeat(24)}` });
    return failure(() => client.messages.create(ask("demo/echo")));
  },

  async cut(base) {
    const pieces = [];
    const stream = open(base).messages.stream(ask("demo/cut"));
    stream.on("text", (text) => pieces.push(text));
    try {
      await stream.finalMessage();
    } catch (error) {
      return { ...described(error), pieces };
    }
    throw new Error("a cut stream looked whole");
  },

  async errorInStream(base) {
    return failure(() => open(base).messages.stream(ask("demo/midstream-error")).finalMessage());
  },

  async abort(base) {
    const stream = await open(base).messages.create(ask("demo/long", { max_tokens: 4000, stream: true }));
    let seen = 0;
    for await (const _ of stream) {
      seen += 1;
      if (seen === 5) stream.controller.abort();
    }
    return { seen };
  },

  async timeout(base) {
    return failure(() =>
      open(base, { timeout: 300, maxRetries: 0 }).messages.create(ask("demo/hang")),
    );
  },
};
