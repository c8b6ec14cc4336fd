// The `openai` package as an application uses it, one case each.

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

import { counting, described, failure, PIXEL } from "./outcome.mjs";

const HELLO = [{ role: "user", content: "Grüße aus Köln 🙂 你好" }];
const WEATHER = {
  name: "get_weather",
  description: "The weather in a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

function open(base, options = {}) {
  return new OpenAI({
    baseURL: `${base}/api/v1`,
    apiKey: "none",
    dangerouslyAllowBrowser: true, // there is no key in here
    ...options,
  });
}

const chat = (client, model, more = {}) =>
  client.chat.completions.create({ model, messages: HELLO, ...more });

export const cases = {
  async chat(base) {
    const answer = await chat(open(base), "demo/echo");
    return {
      text: answer.choices[0].message.content,
      finish: answer.choices[0].finish_reason,
      tokens: answer.usage.completion_tokens,
      requestId: answer._request_id,
    };
  },

  async stream(base) {
    const pieces = [];
    let usage = null;
    const stream = await chat(open(base), "demo/echo", {
      stream: true,
      stream_options: { include_usage: true },
    });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content) pieces.push(chunk.choices[0].delta.content);
      usage = chunk.usage ?? usage;
    }
    return { pieces, tokens: usage.completion_tokens };
  },

  async tools(base) {
    const tools = [{ type: "function", function: WEATHER }];
    const answer = await chat(open(base), "demo/tools", { tools, tool_choice: "auto" });
    const [{ id, function: asked }] = answer.choices[0].message.tool_calls;
    const result = { role: "tool", tool_call_id: id, content: "rain" };
    const messages = [...HELLO, answer.choices[0].message, result];
    const last = await open(base).chat.completions.create({ model: "demo/tools", messages, tools });
    return { asked, last: last.choices[0].message.content };
  },

  async toolsStream(base) {
    const tools = [{ type: "function", function: WEATHER }];
    const stream = open(base).chat.completions.stream({
      model: "demo/tools",
      messages: HELLO,
      tools,
    });
    const [{ function: asked }] = (await stream.finalMessage()).tool_calls;
    return { asked: { name: asked.name, arguments: asked.arguments } };
  },

  /** What is asked for in a form comes in it: the demo says back what it was told. */
  async structured(base) {
    const answer = await open(base).chat.completions.parse({
      model: "demo/echo",
      messages: [{ role: "user", content: '{"city":"Köln"}' }],
      response_format: zodResponseFormat(z.object({ city: z.string() }), "place"),
    });
    return answer.choices[0].message.parsed;
  },

  async image(base) {
    const url = `data:image/png;base64,${PIXEL}`;
    const content = [{ type: "text", text: HELLO[0].content }, { type: "image_url", image_url: { url } }];
    const messages = [{ role: "user", content }];
    const answer = await open(base).chat.completions.create({ model: "demo/echo", messages });
    return { text: answer.choices[0].message.content };
  },

  async embeddings(base) {
    const asked = { model: "openai/text-embedding-3-small", input: "Grüße" };
    const answer = await open(base).embeddings.create({ ...asked, encoding_format: "float" });
    return { embedding: answer.data[0].embedding };
  },

  async everyField(base) {
    const answer = await chat(open(base), "demo/echo", {
      frequency_penalty: 0,
      logit_bias: {},
      logprobs: false,
      max_completion_tokens: 64,
      metadata: { of: "a test" },
      modalities: ["text"],
      n: 1,
      parallel_tool_calls: true,
      presence_penalty: 0,
      prompt_cache_key: "k",
      reasoning_effort: "low",
      response_format: { type: "json_object" },
      safety_identifier: "u",
      seed: 1,
      service_tier: "auto",
      stop: ["§"],
      store: false,
      temperature: 1,
      tool_choice: "auto",
      tools: [{ type: "function", function: WEATHER }],
      top_p: 1,
      user: "u",
      verbosity: "low",
    });
    return { text: answer.choices[0].message.content };
  },

  async responses(base) {
    const answer = await open(base).responses.create({ model: "demo/echo", input: "Grüße 🙂" });
    return { text: answer.output_text, status: answer.status };
  },

  async responsesStream(base) {
    const pieces = [];
    let status = null;
    const input = [{ role: "user", content: "Grüße 🙂 aus Köln" }];
    const stream = await open(base).responses.create({ model: "demo/echo", input, stream: true });
    for await (const event of stream) {
      if (event.type === "response.output_text.delta") pieces.push(event.delta);
      status = event.response?.status ?? status;
    }
    return { pieces, status };
  },

  async models(base) {
    const ids = [];
    for await (const model of open(base).models.list()) ids.push(model.id);
    return { ids };
  },

  async refusedModel(base) {
    const fetch = counting();
    const error = await failure(() => chat(open(base, { fetch }), "demo/chat"));
    return { ...error, calls: fetch.calls };
  },

  async limitedLong(base) {
    const fetch = counting();
    const client = open(base, { fetch });
    await chat(client, "demo/echo");
    const error = await failure(() => chat(client, "demo/echo"));
    return { ...error, calls: fetch.calls };
  },

  async limitedShort(base) {
    const fetch = counting();
    const client = open(base, { fetch });
    const answers = [await chat(client, "demo/echo"), await chat(client, "demo/echo")];
    return { texts: answers.map((a) => a.choices[0].message.content), calls: fetch.calls };
  },

  async upstreamLimited(base) {
    return failure(() => chat(open(base, { maxRetries: 0 }), "demo/429"));
  },

  async outOfCredits(base) {
    const fetch = counting();
    const error = await failure(() => chat(open(base, { fetch }), "demo/402"));
    return { ...error, calls: fetch.calls };
  },

  async wrongBase(base) {
    const fetch = counting();
    const client = open(base, { fetch, baseURL: `${base}/api` });
    return { ...(await failure(() => chat(client, "demo/echo"))), calls: fetch.calls };
  },

  async ownKey(base) {
    const client = open(base, { apiKey: `sk-proj-${"x1".repeat(24)}` });
    return failure(() => chat(client, "demo/echo"));
  },

  async cut(base) {
    const pieces = [];
    try {
      for await (const chunk of await chat(open(base), "demo/cut", { stream: true })) {
        pieces.push(chunk.choices[0].delta.content);
      }
    } catch (error) {
      return { ...described(error), pieces };
    }
    throw new Error("a cut stream looked whole");
  },

  async errorInStream(base) {
    return failure(async () => {
      for await (const _ of await chat(open(base), "demo/midstream-error", { stream: true }));
    });
  },

  async abort(base) {
    const controller = new AbortController();
    const stream = await open(base).chat.completions.create(
      { model: "demo/long", messages: HELLO, stream: true },
      { signal: controller.signal },
    );
    let seen = 0;
    for await (const _ of stream) {
      seen += 1;
      if (seen === 3) controller.abort();
    }
    return { seen };
  },

  async timeout(base) {
    return failure(() => chat(open(base, { timeout: 300, maxRetries: 0 }), "demo/hang"));
  },
};
