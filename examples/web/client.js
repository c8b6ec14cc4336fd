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
    if (isDue() && document.visibilityState === "visible") open().catch(() => {});
    // There is time left: if it failed, the next call tries again, and says why not.
  }

  function schedule() {
    clearTimeout(timer);
    timer = setTimeout(renewIfDue, held.renewAt - Date.now());
  }

  document.addEventListener("visibilitychange", renewIfDue);
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

/** fetch() as the client that `source` makes it. Tried once more if another credential comes
 *  after a 401, and never a third time. `options.headers` is a plain object. */
export async function fetchAs(source, url, options = {}) {
  const ask = (refusal) => unlessAborted(source(refusal), options.signal);
  const send = (credential) => {
    const own = credential ? { Authorization: credential } : {};
    return fetch(url, { ...options, headers: { ...options.headers, ...own } });
  };
  const shown = await ask();
  const response = await send(shown);
  const code = response.headers.get("X-Keyproxy-Code") ?? "";
  if (response.status !== 401 || !code.startsWith("credential_")) return response;
  const other = await ask({ refused: shown, code });
  return other && other !== shown ? send(other) : response;
}

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
