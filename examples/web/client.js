// The four ways to be a client of keyproxy, to copy one of: nobody, a client token, a user's
// JWT, an anonymous session. README.md says which to choose.
//
// A credential source is an async function that gives the value of `Authorization`, or nothing.
// After a 401 it is asked once more, with what was refused, and may give something else.

/** Nobody in particular: on your own computer, or behind a log-in of your own. */
export function anonymous() {
  return async () => undefined;
}

/** A client token, as `keyproxy token` prints it. Whoever has the page can read it. */
export function clientToken(token) {
  return async () => `Bearer ${token}`;
}

/** The JWT of a user who is logged in; `getToken` is asked at every call. `isStale`: the last one
 *  was refused, so take none from a cache.
 *
 *  Supabase  async () => (await supabase.auth.getSession()).data.session?.access_token
 *  Clerk     ({ isStale }) => clerk.session?.getToken({ skipCache: isStale })
 *  Auth0     ({ isStale }) => auth0.getTokenSilently({ cacheMode: isStale ? "off" : "on" })
 *  Firebase  ({ isStale }) => auth.currentUser?.getIdToken(isStale) */
export function userToken(getToken) {
  return async ({ refused } = {}) => {
    const token = await getToken({ isStale: refused !== undefined });
    return token ? `Bearer ${token}` : undefined;
  };
}

/** An anonymous session: opened with the first call, renewed before it ends, replaced when the
 *  proxy does not know it any more. Nobody notices.
 *
 *  `solveCaptcha`: where the proxy wants a captcha, an async function that gives the response of
 *  the solved widget (README.md has one). */
export function session(base, { solveCaptcha } = {}) {
  const url = `${base.replace(/\/api\/v1\/?$/, "")}/session`; // beside the API, not below it
  const key = `keyproxy-session ${url}`; // one address never gets the other's
  let held = recall(key);
  let opening = null;
  let timer;

  const page = globalThis.document; // none in a worker, in Node, in an app
  const isDue = () => Date.now() >= held?.renewAt;

  // Calls that come meanwhile wait for the same session: each would be a client of its own.
  function open() {
    opening ??= openSession(url, held?.token, solveCaptcha)
      .then((opened) => {
        held = opened;
        remember(key, held);
        schedule();
      })
      .finally(() => (opening = null));
    return opening;
  }

  // Hidden pages let theirs end. Timers sleep with the laptop, so waking up looks as well.
  function renewIfDue() {
    if (isDue() && page?.visibilityState !== "hidden") open().catch(() => {});
    // There is time left: if it failed, the next call tries again, and says why not.
  }

  function schedule() {
    clearTimeout(timer);
    timer = setTimeout(renewIfDue, held.renewAt - Date.now());
    timer.unref?.(); // in Node it is no reason to go on
  }

  page?.addEventListener("visibilitychange", renewIfDue);
  if (held && !isDue()) schedule();

  return async ({ refused } = {}) => {
    const isOver = !held || Date.now() >= held.endsAt;
    if (isOver || refused === `Bearer ${held.token}`) await open();
    else renewIfDue();
    return `Bearer ${held.token}`;
  };
}

const RENEWED_AFTER = 5 / 6; // of its hour: ten minutes before the end
const OPEN_SECONDS = 20;

/** There is no session: `response` is how `POST /session` was answered. */
export class SessionRefused extends Error {
  constructor(response) {
    super("no session was opened");
    this.response = response;
  }
}

/** Shown the old one, the proxy renews it and the client stays the same. */
async function openSession(url, token, solveCaptcha) {
  let response = token || !solveCaptcha ? await post(url, token) : null;
  const isAsked = !response || response.headers.get("X-Keyproxy-Code") === "captcha_failed";
  if (solveCaptcha && isAsked) response = await post(url, token, await solveCaptcha());
  const opened = response.ok ? await response.clone().json().catch(() => null) : null;
  if (!opened?.token || !(opened.expires_in > 0)) throw new SessionRefused(response);
  const now = Date.now();
  const lifetime = opened.expires_in * 1000;
  return {
    token: opened.token,
    renewAt: now + lifetime * RENEWED_AFTER,
    endsAt: now + lifetime,
  };
}

function post(url, token, captcha) {
  const headers = {};
  if (token) headers["Authorization"] = `Bearer ${token}`;
  if (captcha) headers["Content-Type"] = "application/json";
  const body = captcha && JSON.stringify({ captcha });
  const signal = AbortSignal.timeout(OPEN_SECONDS * 1000);
  return fetch(url, { method: "POST", headers, body, signal });
}

// Where SDKs put what they were given as their key; two credentials are one too many.
const SDK_KEYS = ["x-api-key", "x-goog-api-key"];

/** fetch() as the client that `source` makes it, of all that fetch() takes: SDKs pass `Headers`,
 *  and some a whole `Request`. Tried once more if another credential comes after a 401, and never
 *  a third time; not at all with a body that can be read only once. */
export async function fetchAs(source, resource, options = {}) {
  const request = resource.clone ? resource : null; // no URL and no text has that
  const ask = (refusal) => unlessAborted(source(refusal), options.signal ?? request?.signal);
  const send = (credential, what) => {
    const headers = new Headers(options.headers ?? request?.headers);
    if (credential) {
      for (const name of SDK_KEYS) headers.delete(name);
      headers.set("Authorization", credential);
    }
    return fetch(what, { ...options, headers });
  };
  const shown = await ask();
  const response = await send(shown, request?.clone() ?? resource);
  const code = response.headers.get("X-Keyproxy-Code") ?? "";
  if (response.status !== 401 || !code.startsWith("credential_")) return response;
  const other = await ask({ refused: shown, code });
  if (!other || other === shown || isReadOnce(options.body)) return response;
  response.body?.cancel().catch(() => {});
  return send(other, resource);
}

/** What an SDK takes for its `fetch`. Where no session is to be had it reads why, as it reads every
 *  other refusal; an error thrown here it would take for a broken network, and try again. */
export function fetchFor(source) {
  return (resource, options) =>
    fetchAs(source, resource, options).catch((error) => {
      if (error instanceof SessionRefused && error.response?.ok === false) return error.response;
      throw error;
    });
}

const isReadOnce = (body) => Boolean(body?.getReader || body?.[Symbol.asyncIterator]);

/** Stop means now, even while a session is being opened for others as well. */
function unlessAborted(promise, signal) {
  if (!signal) return promise;
  const aborted = new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
  return Promise.race([promise, aborted]);
}

/** Keep a value until the tab is closed; nothing forgets it. Storage may be switched off. */
export function remember(key, value) {
  try {
    if (value) sessionStorage.setItem(key, JSON.stringify(value));
    else sessionStorage.removeItem(key);
  } catch {}
}

export function recall(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key));
  } catch {
    return null;
  }
}
