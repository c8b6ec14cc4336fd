// Which way this page is a client: what `?auth=none|session|token|jwt` says, else what the server
// asks for. A product knows which: it needs one line of client.js and none of this.

import {
  anonymous, clientToken, recall, remember, session, SessionRefused, userToken,
} from "./client.js";

const $ = (selector) => document.querySelector(selector);
const [form, field, button, hint, problem, client, told, forget] = [
  "#sign-in", "#token", "#sign-in button", "#token-hint", "#token-problem", "#client", "#told",
  "#forget",
].map($);

const TOLD = {
  none: "It calls without a credential: a client is a network address here.",
  session: "It calls with an anonymous session, which it opens and renews by itself.",
  token: "It calls with the token you gave it.",
  jwt: "It calls with the JWT you gave it.",
};

/** The page's one credential source, `source`, and the field for a token. `enter()` is called
 *  with every new token, and resolves to whether the server took it. */
export function signIn(base, enter) {
  const key = `keyproxy-token ${base}`; // A link with another ?api= must not get this one's.
  const asked = new URLSearchParams(location.search).get("auth");
  const isForced = Object.hasOwn(TOLD, asked ?? "");
  let token = recall(key);
  let way, chosen, choosing;
  start();

  function start() {
    use(isForced ? asked : token ? "token" : "none");
    choosing = null;
  }

  function use(name, source = sourceOf(name)) {
    way = name;
    chosen = source;
  }

  function sourceOf(name) {
    if (name === "session") return session(base);
    if (name === "jwt") return userToken(async () => token); // yours asks your log-in
    return token ? clientToken(token) : anonymous();
  }

  async function source(refusal) {
    if (refusal?.code === "credential_missing" && way === "none" && !isForced) {
      await (choosing ??= choose().finally(() => (choosing = null)));
    }
    return chosen(refusal);
  }

  /** Something is wanted: a session, if the server opens any, else a token. */
  async function choose() {
    const own = session(base);
    try {
      await own();
      use("session", own);
    } catch (error) {
      if (!(error instanceof SessionRefused) || !hasNoSessions(error.response)) throw error;
      use("token");
    }
  }

  /** Show the field if `error` is about a token that is missing or no good; whether it is. */
  function wants(error) {
    if (!isTyped() || !(error.code in PROBLEMS)) return false;
    const isWrong = Boolean(token);
    keep(null);
    show(isWrong ? PROBLEMS[error.code] : "");
    return true;
  }

  function keep(value) {
    token = value;
    remember(key, value);
    if (isTyped()) use(way);
    if (!value) client.hidden = true;
  }

  const isTyped = () => way === "token" || way === "jwt";

  /** The server took what was shown: say so. */
  function settle() {
    form.hidden = true;
    told.textContent = TOLD[isTyped() && !token ? "none" : way];
    forget.hidden = !token;
    client.hidden = false;
  }

  function show(text = "") {
    form.hidden = false;
    problem.textContent = text;
    field.setAttribute("aria-invalid", String(text !== ""));
    form.scrollIntoView({ block: "nearest" });
    field.focus({ preventScroll: true });
    field.select();
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const typed = field.value.trim().replace(/^bearer\s+/i, "");
    if (!typed || button.disabled) return;
    if (!/^[\x21-\x7e]+$/.test(typed)) return show("A token has no spaces and no such letters.");
    problem.textContent = "";
    keep(typed);
    button.disabled = true;
    const isTaken = await enter().finally(() => (button.disabled = false));
    if (!isTaken) return;
    field.value = "";
    $("#input").focus();
  });

  forget.addEventListener("click", () => {
    keep(null);
    start();
    enter();
  });

  return { source, wants, settle, show, needsToken: () => isTyped() && !token };
}

const PROBLEMS = {
  credential_missing: "That token was not understood.",
  credential_invalid: "That token is not accepted here.",
  credential_expired: "That token has ended. Get a new one.",
  provider_key_sent: "That is a provider’s key. It belongs to the server alone: rotate it.",
};

/** Not asked for here, or what answers is not even the proxy. */
function hasNoSessions({ status, headers }) {
  const code = headers.get("X-Keyproxy-Code");
  return code === null ? status < 500 : code === "endpoint_not_allowed";
}
