// What went wrong, in words for the person in front of the page.

/** A title and advice for an ApiError, and the small print that helps whoever is asked for help. */
export function explain(error, base) {
  const [title, advice] = choose(error, base);
  const isFromServer = error.kind === "refused" || error.kind === "stream";
  const details = [
    isFromServer && error.message && `“${error.message}”`,
    error.status && `status ${error.status}`,
    error.code,
    error.requestId && `request ${error.requestId}`,
  ];
  return { title, advice, details: details.filter(Boolean).join(" · ") };
}

function choose(error, base) {
  if (error.kind === "network") return unreachable(error, new URL(base).origin);
  if (error.kind === "strange") {
    return ["This is not the API", `${base} answers, but not as keyproxy does. Try another ?api=…`];
  }
  if (error.kind === "cut") {
    return ["The answer was cut off", "The connection ended early. You can ask again."];
  }
  if (error.isSession && (error.status === 404 || !error.code)) {
    return ["This server opens no sessions", "Take ?auth=session out of this page’s address."];
  }
  if (error.kind === "stream") {
    return ["The model stopped with an error", "It can happen after a good beginning. Ask again."];
  }
  return BY_CODE[error.code] ?? BY_STATUS[error.status] ?? byClass(error.status);
}

// The browser tells a page only that fetch() failed, so both causes get a cure.
function unreachable(error, server) {
  if (!navigator.onLine) return ["You are offline", "Check the connection and send again."];
  if (error.isAnswering) {
    const cure =
      location.origin === "null"
        ? "A page opened as a file has no origin of its own: serve it, from localhost for a start."
        : "Its log has the line to paste that allows it too; for this page alone it is " +
          `KEYPROXY_ALLOWED_ORIGINS=${location.origin}`;
    return [
      "The server does not let this page in",
      `${server} is running but sends no CORS headers for this page. ${cure}`,
    ];
  }
  return [
    "The server cannot be reached",
    `Nothing answers at ${server}. Is it running? Start it with: keyproxy dev`,
  ];
}

// The proxy's own refusals, by X-Keyproxy-Code.
const BY_CODE = {
  origin_not_allowed: [
    "This page is not allowed to ask",
    `Its origin, ${globalThis.location?.origin}, is not in KEYPROXY_ALLOWED_ORIGINS.`,
  ],
  credential_missing: [
    "The server wants to know who is asking",
    "Give it a token, then send again.",
  ],
  credential_invalid: [
    "The server does not accept this client",
    "Its token or session is not known there, or belongs to another page.",
  ],
  credential_expired: ["You were signed in too long ago", "Sign in again, then send once more."],
  provider_key_sent: [
    "That is a provider’s key",
    "It belongs to the server alone. Rotate it, and give this page a client token.",
  ],
  captcha_failed: [
    "The server wants a captcha to be solved first",
    "This example loads no script of others. Whoever runs the page adds the captcha’s widget, " +
      "and gives its response to session(base, { solveCaptcha }) in client.js.",
  ],
  model_not_allowed: ["This model is not offered here", "Choose another one from the list."],
  too_many_in_flight: ["Too many answers at once", "Wait until another answer has ended."],
  budget_exhausted: ["Your budget is used up", "It will be filled up again in time."],
  call_too_costly: ["This message could cost too much", "Write less, or ask for less."],
  upstream_key_rejected: [
    "The server’s key was rejected",
    "You cannot mend this. Whoever runs the server has to put in a valid key.",
  ],
  shutting_down: ["The server is restarting", "Send again in a moment."],
};

const BY_STATUS = {
  400: ["The request was not understood", "This is a fault of the page rather than yours."],
  // The proxy's own 401s have a code: this one is the provider's, and no log-in mends it.
  401: ["The provider did not accept this", "You cannot mend it. Whoever runs the server can."],
  402: ["The server’s credits are used up", "Whoever runs the server has to add some."],
  403: ["This was refused", "Change the message or choose another model."],
  404: ["There is no such thing here", "Check the address of the API (?api=…) and the model."],
  408: ["It took too long", "Send again."],
  413: ["The message is too long", "Make it shorter, or begin a new chat."],
  429: ["Too many requests", "Wait a little, or choose another model."],
  503: ["The model is not available", "Send again in a moment, or choose another model."],
  504: ["The model took too long", "Send again, or choose another model."],
};

function byClass(status) {
  return status >= 500
    ? ["Something broke on the way to the model", "Send again in a moment."]
    : ["The request was refused", "Change the message or choose another model."];
}
