// The SDKs with the helper that a page copies, as its README says: a made-up session first, which
// the proxy refuses, then a real one. `calls` counts what is really sent to the API.

import { HTTPClient, OpenRouter } from "@openrouter/sdk";
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import Anthropic from "@anthropic-ai/sdk";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import OpenAI from "openai";

import { fetchAs, fetchFor, session } from "../../examples/web/client.js";
import { readEvents } from "../../examples/web/sse.js";
import { failure } from "./outcome.mjs";

const messages = [{ role: "user", content: "Grüße" }];
const MODEL = "demo/echo";
const MADE_UP = "Bearer kps_made-up";

function madeUpFirst(base) {
  const real = session(base);
  let asked = 0;
  return async (refusal) => (asked++ ? real(refusal) : MADE_UP);
}

/** Where the global fetch is watched; the helper uses it. */
async function counted(work) {
  const original = globalThis.fetch;
  const sent = [];
  globalThis.fetch = (resource, options) => {
    sent.push(new URL(resource.url ?? resource).pathname.replace(/.*\/(?=session|chat|messages)/, ""));
    return original(resource, options);
  };
  try {
    return { text: await work(), sent };
  } finally {
    globalThis.fetch = original;
  }
}

function openai(base, fetch, more = {}) {
  const given = { apiKey: "none", dangerouslyAllowBrowser: true, fetch, ...more };
  return new OpenAI({ baseURL: `${base}/api/v1`, ...given });
}

function anthropic(base, fetch, more = {}) {
  const given = { apiKey: "none", dangerouslyAllowBrowser: true, fetch, ...more };
  return new Anthropic({ baseURL: `${base}/api`, ...given });
}

const chatText = async (client) =>
  (await client.chat.completions.create({ model: MODEL, messages })).choices[0].message.content;
const messageText = async (client) =>
  (await client.messages.create({ model: MODEL, max_tokens: 64, messages })).content[0].text;

const plain = (source) => (resource, options) => fetchAs(source, resource, options);

export const cases = {
  openai: (base) => counted(() => chatText(openai(base, plain(madeUpFirst(base))))),

  anthropic: (base) => counted(() => messageText(anthropic(base, plain(madeUpFirst(base))))),

  openrouter: (base) =>
    counted(async () => {
      const httpClient = new HTTPClient({ fetcher: fetchFor(madeUpFirst(base)) });
      const client = new OpenRouter({ serverURL: `${base}/api/v1`, apiKey: "none", httpClient });
      const answer = await client.chat.send({ chatRequest: { model: MODEL, messages } });
      return answer.choices[0].message.content;
    }),

  ai: (base) =>
    counted(async () => {
      const fetch = fetchFor(madeUpFirst(base));
      const open = createOpenRouter({ baseURL: `${base}/api/v1`, apiKey: "none", fetch });
      return (await generateText({ model: open(MODEL), prompt: "Grüße" })).text;
    }),

  "ai-compatible": (base) =>
    counted(async () => {
      const fetch = fetchFor(madeUpFirst(base));
      const open = createOpenAICompatible({ name: "keyproxy", baseURL: `${base}/api/v1`, fetch });
      let text = "";
      for await (const piece of streamText({ model: open(MODEL), prompt: "Grüße" }).textStream) {
        text += piece;
      }
      return text;
    }),

  fetch: (base) =>
    counted(async () => {
      const response = await fetchAs(madeUpFirst(base), `${base}/api/v1/chat/completions`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ model: MODEL, messages, stream: true }),
      });
      let text = "";
      for await (const data of readEvents(response.body)) {
        if (data !== "[DONE]") text += JSON.parse(data).choices[0]?.delta?.content ?? "";
      }
      return text;
    }),

  /** Whatever fetch() takes. */
  async shapes(base) {
    const url = `${base}/api/v1/chat/completions`;
    const body = JSON.stringify({ model: MODEL, messages });
    const head = { "Content-Type": "application/json", "X-Api-Key": "none" };
    const post = { method: "POST", body };
    const shapes = [
      [url, { ...post, headers: head }],
      [url, { ...post, headers: new Headers(head) }],
      [url, { ...post, headers: Object.entries(head) }],
      [new URL(url), { ...post, headers: head }],
      [new Request(url, { ...post, headers: head }), undefined],
      [new Request(url, { ...post, headers: head }), {}],
      [new Request(url, { method: "POST", headers: head }), { body }],
      [new Request(url, post), { headers: head }],
    ];
    const told = [];
    for (const [resource, options] of shapes) {
      const response = await fetchAs(madeUpFirst(base), resource, options);
      told.push([response.status, (await response.json()).choices?.[0].message.content]);
    }
    return told;
  },

  /** A body that is read while it is sent cannot be sent again. */
  async readOnce(base) {
    const bytes = new TextEncoder().encode(JSON.stringify({ model: MODEL, messages }));
    const stream = new Blob([bytes]).stream();
    const response = await fetchAs(madeUpFirst(base), `${base}/api/v1/chat/completions`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: stream,
      duplex: "half",
    });
    return response.status;
  },

  /** No session is to be had: the SDK reads why, and the proxy is asked once. */
  refused: (base) =>
    counted(() =>
      failure(() => chatText(openai(base, fetchFor(session(base)), { maxRetries: 2 }))),
    ),

  /** The SDKs ask a function for their key before each call. */
  async jwts(base) {
    const now = Math.floor(Date.now() / 1000);
    const jwts = [await jwt(now - 3600), await jwt(now + 3600)];
    const told = [];
    for (const [open, text] of [
      [openai, chatText],
      [anthropic, messageText],
    ]) {
      let asked = 0;
      const client = open(base, undefined, { apiKey: async () => jwts[asked++], maxRetries: 0 });
      for (let n = 0; n < 2; n++) told.push(await text(client).catch((error) => error.status));
    }
    return told;
  },
};

const SECRET = "fake-shared-secret-of-an-issuer-0123456789-abcdefghijklmnopqrstuvwx"; // as jwt_issuer.py

async function jwt(exp) {
  const bytes = (text) => new TextEncoder().encode(text);
  const b64 = (raw) => btoa(String.fromCharCode(...raw)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
  const said = [{ alg: "HS256" }, { sub: "user-1", aud: "demo", exp }];
  const signed = said.map((part) => b64(bytes(JSON.stringify(part)))).join(".");
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", bytes(SECRET), algorithm, false, ["sign"]);
  const signature = new Uint8Array(await crypto.subtle.sign("HMAC", key, bytes(signed)));
  return `${signed}.${b64(signature)}`;
}
