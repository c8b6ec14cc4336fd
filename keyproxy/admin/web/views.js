// Everything that is no plot: tiles, lists, tables.

import { el, icon, table } from "./dom.js";
import { count, exact, percent, seconds, span, time, usd } from "./format.js";

const ICONS = {
  ok: "M9.2 16.6 4.9 12.3l1.4-1.4 2.9 2.9 8.5-8.5 1.4 1.4-9.9 9.9Z",
  warn: "M12 3 1.8 20.5h20.4L12 3Zm1 14.5h-2v-2h2v2Zm0-3.5h-2V9h2v5Z",
  bad: "M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20Zm4.6 13.2-1.4 1.4L12 13.4l-3.2 3.2-1.4-1.4 3.2-3.2-3.2-3.2 1.4-1.4 3.2 3.2 3.2-3.2 1.4 1.4-3.2 3.2 3.2 3.2Z",
  off: "M5 11h14v2H5z",
};
const WORDS = { ok: "well", warn: "look at it", bad: "ill", off: "off" };

function drawn(state) {
  const made = icon(ICONS[state]);
  made.querySelector("path").setAttribute("fill", "currentColor");
  return made;
}

export const alerts = (firing) => firing.map(({ alert, text }) => el("li", { title: alert }, drawn("warn"), el("span", {}, text)));

const FIRST = ["bad", "warn", "ok", "off"]; // what is ill stands where a phone shows it

export const health = (things) => [...things].sort((a, b) => FIRST.indexOf(a.state) - FIRST.indexOf(b.state))
  .map(({ name, state, text }) => el("li", { "data-state": state, title: text }, drawn(state), el("b", {}, name), el("span", {}, el("span", { class: "unseen" }, `${WORDS[state]}: `), text)));

export function tops(found) {
  const most = Math.max(...Object.values(found).flat().map(([, , money]) => money), 0);
  const names = { model: "Model", app: "App", client: "Client", provider: "Provider" };
  return Object.entries(found).map(([by, rows]) => {
    const head = el("h3", { id: `top-${by}` }, `By ${names[by].toLowerCase()}`);
    if (!rows.length) return el("div", { class: "panel" }, head, el("p", { class: "none" }, "Nothing yet."));
    const dearest = most || Math.max(...rows.map(([, calls]) => calls));
    const columns = [
      { head: names[by], cell: ([name, calls, money]) => {
        const bar = el("i");
        bar.style.width = `${Math.max(1, (100 * (most ? money : calls)) / dearest)}%`;
        return el("th", { scope: "row", title: name }, name, el("span", { class: "bar", "aria-hidden": "true" }, bar));
      } },
      { head: "Calls", class: "num n", cell: ([, calls]) => count(calls) },
      { head: "Spend", class: "num usd", cell: ([, , money]) => usd(money), title: ([, , , tokens]) => `${count(tokens)} tokens` },
    ];
    return el("div", { class: "panel" }, head, table(columns, rows, `Spend by ${by}`));
  });
}

export function budgets(list, now) {
  if (!list.length) return el("li", { class: "none" }, "No budget of an app or of all is set.");
  return list.map(({ name, limit, spent, reserved, ends }) => {
    const part = limit ? spent / limit : 1;
    const tone = part >= 1 ? "bad" : part >= 0.8 ? "warn" : "good";
    const bars = [["spent", spent], ["held", reserved]].map(([kind, money]) => {
      const bar = el("i", { class: kind });
      bar.style.width = `${Math.min(100, limit ? (100 * money) / limit : 100)}%`;
      return bar;
    });
    const [whose, ...rest] = name.split(":");
    const unit = rest.pop();
    return el("li", { "data-tone": tone },
      el("div", { class: "head" }, el("b", {}, whose === "total" ? `In all, a ${unit}` : `App ${rest.join(":")}, a ${unit}`), el("span", {}, `${usd(spent)} of ${exact(limit)}`)),
      el("div", { class: "track", role: "img", "aria-label": `${percent(part)} percent spent` }, bars),
      el("small", {}, `${percent(part)} % spent, ${usd(reserved)} set aside; anew in ${span(Math.max(0, ends - now))}`));
  });
}

/** Words, and the line to paste where there is one. */
function hinted(hint) {
  if (!hint) return "–";
  const [, words, line] = /^(.*?(?:: |^))([A-Z][A-Z0-9_]*=.*)$/s.exec(hint) ?? [null, hint, null];
  const text = el("span", {}, words, line && el("code", {}, line));
  if (!line) return el("span", { class: "hint" }, text);
  const button = el("button", { type: "button", "aria-label": `Copy ${line}` }, "Copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard?.writeText(line);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return el("span", { class: "hint" }, text, button);
}

export function refusals(rows) {
  if (!rows.length) return el("p", { class: "none" }, "Nothing was refused.");
  return table([
    { head: "Code", cell: ({ code, status }) => el("span", { class: "badge", "data-tone": status >= 500 ? "bad" : "warn" }, el("code", {}, code)) },
    { head: "Status", class: "num less", cell: ({ status }) => String(status) },
    { head: "Count", class: "num", cell: ({ count: n }) => count(n) },
    { head: "Last", class: "time less", cell: ({ at }) => time(at) },
    { head: "What to change", cell: ({ hint }) => hinted(hint) },
  ], rows, "Refusals of the last hour");
}

const FAILED = new Set(["stalled", "upstream_cut", "upstream_error", "key_in_answer", "failed"]);

function badge(call) {
  if (call.is_open) return el("span", { class: "badge", "data-tone": "open" }, "open");
  const status = call.status ?? 0;
  const tone = status >= 500 || FAILED.has(call.ended) ? "bad" : status >= 400 || !status ? "warn" : "good";
  return el("span", { class: "badge", "data-tone": tone }, String(call.status ?? call.ended));
}

function how({ code, ended, cause, status, is_open }) {
  if (code) return code;
  const told = is_open || ended === "complete" ? (status >= 400 ? "the provider’s answer" : "") : ended.replaceAll("_", " ");
  return told + (cause ? ` (${cause})` : "");
}

export const calls = (rows) => (rows.length
  ? table([
    { head: "Time", class: "time", cell: ({ at }) => time(at) },
    { head: "Status", cell: badge },
    { head: "Model", class: "cut", cell: ({ model, endpoint }) => model ?? endpoint, title: ({ model, endpoint }) => `${endpoint} ${model ?? ""}` },
    { head: "Provider", class: "cut less", cell: ({ provider }) => provider },
    { head: "How it ended", class: "cut less", cell: (call) => how(call) || "–", title: how },
    { head: "App", class: "cut less", cell: ({ app }) => app },
    { head: "Client", class: "cut less", cell: ({ client }) => client, title: ({ client }) => client ?? "" },
    { head: "First token", class: "num less", cell: ({ first }) => seconds(first) },
    { head: "Took", class: "num less", cell: ({ seconds: s }) => seconds(s) },
    { head: "Tokens", class: "num less", cell: ({ tokens }) => (tokens == null ? "–" : count(tokens)) },
    { head: "Cost", class: "num", cell: ({ usd: money }) => (money == null ? "–" : usd(money)) },
  ], rows, "Open calls and the last ones")
  : el("p", { class: "none" }, "No call yet. It shows here as soon as one comes."));

/** A code that a narrow column folds behind its words. */
const foldable = (text) => text.split("_").flatMap((word, at) => (at ? ["_", el("wbr"), word] : word));

export const errors = (rows) => (rows.length
  ? table([
    { head: "Time", class: "time", cell: ({ at }) => time(at) },
    { head: "Status", cell: badge },
    { head: "What", class: "what", cell: (call) => el("code", {}, foldable(how(call))) },
    { head: "Model", class: "cut", cell: ({ model, endpoint }) => model ?? endpoint, title: ({ model, endpoint }) => model ?? endpoint },
    { head: "Provider", class: "less", cell: ({ provider }) => provider },
    { head: "Request", class: "less", cell: ({ id }) => el("code", {}, id) },
  ], rows, "Last calls that failed")
  : el("p", { class: "none" }, "Nothing failed."));
