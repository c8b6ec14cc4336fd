// The `@openrouter/sdk` package as an application uses it, one case each. It checks every answer
// against its own types.

import { HTTPClient, OpenRouter } from "@openrouter/sdk";

import { counting, described, failure } from "./outcome.mjs";

const HELLO = [{ role: "user", content: "Grüße aus Köln 🙂 你好" }];
const FUNCTION = {
  name: "get_weather",
  parameters: { type: "object", properties: { city: { type: "string" } } },
};

function open(base, options = {}) {
  return new OpenRouter({ serverURL: `${base}/api/v1`, apiKey: "none", ...options });
}

const chat = (client, model, more = {}) =>
  client.chat.send({ chatRequest: { model, messages: HELLO, ...more } });

export const cases = {
  async chat(base) {
    const answer = await chat(open(base), "demo/echo");
    return {
      text: answer.choices[0].message.content,
      finish: answer.choices[0].finishReason,
      tokens: answer.usage.completionTokens,
    };
  },

  async stream(base) {
    const pieces = [];
    let usage = null;
    for await (const chunk of await chat(open(base), "demo/echo", { stream: true })) {
      if (chunk.choices[0]?.delta.content) pieces.push(chunk.choices[0].delta.content);
      usage = chunk.usage ?? usage;
    }
    return { pieces, tokens: usage?.completionTokens };
  },

  async tools(base) {
    const tools = [{ type: "function", function: FUNCTION }];
    const answer = await chat(open(base), "demo/tools", { tools, toolChoice: "auto" });
    const [{ function: asked }] = answer.choices[0].message.toolCalls;
    return { asked };
  },

  async responses(base) {
    const responsesRequest = { model: "demo/echo", input: "Grüße 🙂" };
    const answer = await open(base).responses.send({ responsesRequest });
    return { text: answer.output[0].content[0].text, status: answer.status };
  },

  async responsesStream(base) {
    const pieces = [];
    let status = null;
    const responsesRequest = { model: "demo/echo", input: "Grüße 🙂 aus Köln", stream: true };
    for await (const event of await open(base).responses.send({ responsesRequest })) {
      if (event.type === "response.output_text.delta") pieces.push(event.delta);
      status = event.response?.status ?? status;
    }
    return { pieces, status };
  },

  async models(base) {
    const pages = [];
    for await (const page of await open(base).models.list({ limit: 4 })) {
      pages.push(page.result.data.map((model) => model.id));
      if (pages.length === 9) break;
    }
    const client = open(base);
    const { data: counted } = await client.models.count();
    const { data: one } = await client.models.get({ author: "demo", slug: "echo" });
    const { data: served } = await client.endpoints.list({ author: "demo", slug: "echo" });
    return { pages, count: counted.count, one: one.id, served: served.endpoints[0].modelName };
  },

  async escapedSlug(base) {
    try {
      await open(base).endpoints.list({ author: "openai", slug: "gpt-4o-mini:free" });
    } catch (error) {
      return described(error);
    }
    return {};
  },

  async refusedModel(base) {
    const fetcher = counting();
    const httpClient = new HTTPClient({ fetcher });
    const error = await failure(() => chat(open(base, { httpClient }), "demo/chat"));
    return { ...error, calls: fetcher.calls };
  },

  async limitedLong(base) {
    const fetcher = counting();
    const client = open(base, { httpClient: new HTTPClient({ fetcher }) });
    await chat(client, "demo/echo");
    const error = await failure(() => chat(client, "demo/echo"));
    return { ...error, calls: fetcher.calls };
  },

  async outOfCredits(base) {
    return failure(() => chat(open(base), "demo/402"));
  },

  async abort(base) {
    const stream = await chat(open(base), "demo/long", { stream: true });
    const reader = stream.getReader();
    await reader.read();
    await reader.cancel();
    return {};
  },
};
