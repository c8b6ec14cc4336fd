// What a case hands to the test: a result, or the failure as the application sees it. Runs in Node
// and in browsers alike.

const READ = ["retry-after", "x-keyproxy-code", "x-should-retry", "x-request-id", "ratelimit"];

/** A fetch that counts what the SDK really sends, retries included. */
export function counting() {
  const counted = (...request) => {
    counted.calls += 1;
    return fetch(...request);
  };
  counted.calls = 0;
  return counted;
}

/** The error that `call` ends with, in plain values. */
export async function failure(call) {
  let result;
  try {
    result = await call();
  } catch (error) {
    return described(error);
  }
  throw new Error(`this should have failed: ${JSON.stringify(result)}`);
}

export function described(error) {
  const headers = error.headers ?? error.responseHeaders;
  const read = (name) => headers?.get?.(name) ?? headers?.[name] ?? null;
  return {
    name: error.constructor.name,
    status: error.status ?? error.statusCode ?? null,
    code: error.code ?? null,
    type: error.type ?? null,
    param: error.param ?? null,
    message: error.message,
    headers: Object.fromEntries(READ.map((name) => [name, read(name)])),
  };
}

/** A picture of one pixel, as base64 of PNG. */
export const PIXEL =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
