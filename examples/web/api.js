// The two calls this page makes. No key anywhere: the proxy adds it on the server.

import { anonymous, fetchAs, SessionRefused } from "./client.js";
import { readEvents } from "./sse.js";

/** Where the API is: `?api=http://localhost:8484/api/v1`, else beside this page. In a product
 *  write a constant here, or a link could send your users' words to another server. */
export function apiBase() {
  const asked = new URLSearchParams(location.search).get("api") || "/api/v1";
  return new URL(asked, location.href).href.replace(/\/+$/, "");
}

/** Why there is no (whole) answer.
 *
 *  kind: "network" nothing came back, "strange" something that is not the API answered,
 *  "refused" an HTTP error, "stream" an error inside the answer, "cut" an answer with no end. */
export class ApiError extends Error {
  constructor(kind, message, details = {}) {
    super(message);
    this.kind = kind;
    Object.assign(this, details); // status, code, retryAfterSeconds, …
  }
}

/** The models this page may use, as the API lists them: id, name, description, pricing, … */
export async function listModels(base, source = anonymous()) {
  const response = await request(source, `${base}/models`);
  const list = await response.json().catch(() => null);
  if (!Array.isArray(list?.data)) throw new ApiError("strange", "");
  return list.data;
}

/** Ask for an answer and yield it as it is made: `{ text }` pieces, `{ isThinking }` while the
 *  model reasons, and near the end `{ usage }`.
 *
 *  `source` says who asks (client.js). Abort `signal` to stop; leaving the loop stops as well. */
export async function* streamChat(base, { model, messages, signal, source = anonymous() }) {
  const response = await request(source, `${base}/chat/completions`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ model, messages, stream: true }),
    signal,
  });
  const requestId = response.headers.get("X-Request-Id");
  let hasEnded = false;
  try {
    for await (const data of readEvents(response.body)) {
      if (data === "[DONE]") {
        hasEnded = true;
        break;
      }
      const chunk = JSON.parse(data);
      // The status was 200 long ago, so an error can only come like this.
      if (chunk.error) throw new ApiError("stream", chunk.error.message, { requestId });
      const choice = chunk.choices?.[0]; // Chunks with usage may have none.
      if (choice?.delta?.reasoning) yield { isThinking: true };
      if (choice?.delta?.content) yield { text: choice.delta.content };
      if (choice?.finish_reason) hasEnded = true;
      if (chunk.usage) yield { usage: chunk.usage };
    }
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    throw new ApiError("cut", error.message, { requestId });
  }
  if (!hasEnded) throw new ApiError("cut", "", { requestId });
}

async function request(source, url, options) {
  let response;
  try {
    response = await fetchAs(source, url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error instanceof SessionRefused) throw await refusedSession(error.response);
    throw new ApiError("network", error.message, { isAnswering: await isAnswering(url) });
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** fetch() hides why it failed. A "no-cors" request comes through whenever anything answers, so
 *  it tells a server that is down from one that does not let this page in. */
async function isAnswering(url) {
  try {
    const signal = AbortSignal.timeout(3000);
    await fetch(new URL("/healthz", url), { mode: "no-cors", cache: "no-store", signal });
    return true;
  } catch {
    return false;
  }
}

/** Calls that waited for the same session are all refused with the same response. */
async function refusedSession(response) {
  if (response.ok) return new ApiError("strange", "");
  return Object.assign(await refusal(response.clone()), { isSession: true });
}

async function refusal(response) {
  const { status, headers } = response;
  const error = (await response.json().catch(() => null))?.error; // It may be an HTML page.
  return new ApiError("refused", error?.message ?? response.statusText, {
    status,
    code: headers.get("X-Keyproxy-Code"), // set if the proxy refused, not what is behind it
    retryAfterSeconds: retryAfterSeconds(headers.get("Retry-After")),
    requestId: headers.get("X-Request-Id"),
  });
}

/** `Retry-After` is a number of seconds or a date. */
function retryAfterSeconds(value) {
  if (!value) return null;
  const seconds = /^\d+$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, Math.ceil(seconds)) : null;
}
