// The dashboard: keeps an hour of cells, shows what the process tells each second.

import { $, el, fill, icon } from "./dom.js";
import { count, percent, seconds, span, usd } from "./format.js";
import { Plot, Spark } from "./plots.js";
import { Refused, ask, keepFollowing, token } from "./stream.js";
import * as views from "./views.js";

const HOUR = 3600;
// The columns of a cell, as the process sends them.
const [AT, ANSWERED, REFUSED, FAILED, USD, IN, OUT, MEDIAN, LATE] = Array(9).keys();
const RANGES = { "15m": { length: 900, step: 15 }, "1h": { length: HOUR, step: 60 }, "30d": { days: true } };
const PER = { 15: "15 s", 60: "minute" };

const cells = new Map();
let latest = null;
let history = null;
let range = new URLSearchParams(location.search).get("range");
if (!(range in RANGES)) range = "1h";

const plots = [...document.querySelectorAll("[data-plot]")].map((figure) => new Plot(figure));

// Colours

const THEMES = {
  auto: ["as the system has them", "M12 3v18M12 3a9 9 0 0 1 0 18 9 9 0 0 1 0-18ZM12 7l6 3M12 12h7M12 17l5-2"],
  dark: ["dark", "M20.5 14.2A8.6 8.6 0 0 1 9.8 3.5a8.6 8.6 0 1 0 10.7 10.7Z"],
  light: ["light", "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8ZM12 2v2M12 20v2M2 12h2M20 12h2M4.9 4.9l1.4 1.4M17.7 17.7l1.4 1.4M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4"],
};
const isDark = matchMedia("(prefers-color-scheme: dark)");
let theme = localStorage.getItem("keyproxy-theme") ?? "auto";
if (!(theme in THEMES)) theme = "auto";

function applyTheme() {
  const dark = theme === "dark" || (theme === "auto" && isDark.matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").replaceChildren(icon(THEMES[theme][1]));
  $("theme").setAttribute("aria-label", `Colours: ${THEMES[theme][0]}`);
  $("theme").title = `Colours: ${THEMES[theme][0]}`;
  if (latest) show();
}

$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  theme = names[(names.indexOf(theme) + 1) % names.length];
  localStorage.setItem("keyproxy-theme", theme);
  applyTheme();
});
isDark.addEventListener("change", applyTheme);

// What is told

function say(text) {
  $("said").textContent = text;
}

function onState(state) {
  const link = $("link");
  if (link.dataset.state === state) return;
  if (state === "lost") say("The connection is lost. Trying again.");
  else if (link.dataset.state === "lost") say("Connected again.");
  link.dataset.state = state;
  link.lastElementChild.textContent = state === "live" ? "live" : "reconnecting";
}

function onEvent(name, data) {
  if (name === "state") cells.clear();
  for (const cell of data.cells) cells.set(cell[AT], cell);
  for (const at of cells.keys()) if (at < data.now - HOUR - 60) cells.delete(at);
  latest = data;
  if (!document.hidden) show();
  if (name === "state") lookBack();
}

async function lookBack() {
  if (range !== "30d" || document.hidden || !latest?.process.has_ledger) return;
  try {
    history = (await (await ask("state.json")).json()).history;
    show();
  } catch (error) {
    if (!(error instanceof Refused)) return;
    say(error.message);
  }
}

// What is shown

const sum = (list, column) => list.reduce((total, cell) => total + cell[column], 0);

/** Cells put together to points `step` seconds long; what is empty is 0, but for times. */
function points({ length, step }, now) {
  const to = Math.floor(now / step) * step;
  const times = [];
  for (let at = to - length + step; at <= to; at += step) times.push(at);
  const columns = Array.from({ length: 8 }, () => times.map(() => 0));
  columns[6].fill(null);
  columns[7].fill(null);
  for (const cell of cells.values()) {
    const index = (Math.floor(cell[AT] / step) * step - times[0]) / step;
    if (index < 0 || index >= times.length) continue;
    for (let at = ANSWERED; at <= OUT; at++) columns[at - 1][index] += cell[at];
    for (const at of [MEDIAN, LATE]) if (cell[at] != null) columns[at - 1][index] = Math.max(columns[at - 1][index] ?? 0, cell[at]);
  }
  return [times, ...columns];
}

function showPlots({ now, process }) {
  if (RANGES[range].days) {
    const days = new Map((history?.days ?? []).map(([name, ...figures]) => [Date.parse(name) / 1000, figures]));
    const today = Math.floor(now / 86400) * 86400;
    const times = Array.from({ length: 30 }, (_, at) => today - (29 - at) * 86400);
    const of = (column) => times.map((at) => days.get(at)?.[column] ?? 0);
    const options = { per: "day", days: true, from: times[0] - 43200, to: today + 43200 };
    const found = { calls: [times, of(0)], spend: [times, of(1)], first: [], tokens: [times, of(2), of(3)] };
    const missing = process.has_ledger ? "Reading the ledger …" : "Days are in the ledger, which is off.";
    for (const plot of plots) plot.show(history ? found[plot.name] : [], options, history ? undefined : missing);
    return;
  }
  const { length, step } = RANGES[range];
  const [times, answered, refused, failed, money, input, output, median, late] = points(RANGES[range], now);
  const last = times.at(-1);
  const options = { per: PER[step], days: false, from: last - length, to: last + step };
  const found = { calls: [times, answered, refused, failed], spend: [times, money], first: [times, median, late], tokens: [times, input, output] };
  for (const plot of plots) plot.show(found[plot.name], options);
}

const TILES = [
  ["Calls a minute", "c-answered"], ["Open now", null], ["Spend, last hour", "c-spend"],
  ["Failed, 15 min", "c-failed"], ["First token", "c-first"], ["Tokens a minute", "c-out"],
];
const tiles = TILES.map(([name, stroke]) => {
  const big = el("dd", { class: "big" });
  const sub = el("dd", { class: "sub" });
  const spark = el("dd", { class: "spark", "aria-hidden": "true" });
  const tile = el("div", {}, el("dt", {}, name), big, sub, spark);
  $("tiles").append(tile);
  return { tile, big, sub, spark: stroke && new Spark(spark, stroke) };
});

function showTiles({ now, open, unsettled_usd }) {
  const every = [...cells.values()].filter((cell) => cell[AT] > now - HOUR);
  const minute = every.filter((cell) => cell[AT] > now - 60);
  const quarter = every.filter((cell) => cell[AT] > now - 900);
  const total = (list) => sum(list, ANSWERED) + sum(list, REFUSED) + sum(list, FAILED);
  const failed = sum(quarter, FAILED);
  const tried = failed + sum(quarter, ANSWERED);
  const timed = every.filter((cell) => cell[MEDIAN] != null).sort((a, b) => a[AT] - b[AT]).slice(-6);
  const middle = (column) => timed.map((cell) => cell[column]).sort((a, b) => a - b)[Math.floor(timed.length / 2)];
  const [amount, unit] = seconds(middle(MEDIAN)).split(" ");
  const texts = [
    [count(total(minute)), "", `${count(total(every))} in the last hour`],
    [count(open.calls), "", open.reserved_usd ? `${usd(open.reserved_usd)} at most` : "nothing under way"],
    [usd(sum(every, USD)), "", unsettled_usd ? `${usd(unsettled_usd)} not final` : "all of it final"],
    [tried ? percent(failed / tried) : "0", "%", `${count(failed)} failed, ${count(sum(quarter, REFUSED))} refused`],
    [amount, unit ?? "", timed.length ? `95 of 100 within ${seconds(Math.max(...timed.map((cell) => cell[LATE])))}` : "no stream yet"],
    [count(sum(minute, IN) + sum(minute, OUT)), "", `${count(sum(every, IN))} in, ${count(sum(every, OUT))} out`],
  ];
  const [times, answered, refused, failures, money, input, output, median] = points({ length: 900, step: 30 }, now);
  const lines = [answered.map((n, at) => n + refused[at] + failures[at]), null, money, failures, median, input.map((n, at) => n + output[at])];
  tiles.forEach(({ tile, big, sub, spark }, at) => {
    const [figure, measure, more] = texts[at];
    fill(big, [figure, measure], () => [figure, measure && el("small", {}, ` ${measure}`)]);
    sub.textContent = more;
    spark?.show(times, lines[at]);
    tile.dataset.tone = at === 3 && tried >= 20 && failed / tried >= 0.2 ? "bad" : "";
  });
}

let seenError = null;

function show() {
  const { process, now, open } = latest;
  $("main").hidden = false;
  $("mode").hidden = false;
  $("mode").textContent = process.mode;
  $("about").textContent = `this process, up ${span(now - process.began_at)}`;
  $("version").textContent = `keyproxy ${process.version}`;
  $("firing").hidden = !latest.alerts.length;
  fill($("alerts"), latest.alerts, views.alerts);
  fill($("health"), latest.health, views.health);
  showTiles(latest);
  showPlots(latest);
  const old = RANGES[range].days;
  $("spend-span").textContent = old ? "last 30 days, out of the ledger" : "last hour";
  fill($("tops"), old ? history?.tops ?? { model: [], app: [], client: [], provider: [] } : latest.tops, views.tops);
  fill($("budgets"), latest.budgets.map((each) => ({ ...each, left: span(each.ends - now) })), (list) => views.budgets(list, now));
  fill($("refusals"), latest.refusals, views.refusals);
  const opened = open.list.map((call) => ({ ...call, is_open: true })).reverse();
  fill($("calls"), [...opened, ...latest.calls], views.calls);
  fill($("errors"), latest.errors, views.errors);
  const newest = latest.errors[0]?.id;
  if (seenError !== null && newest && newest !== seenError) say(`A call failed: ${latest.errors[0].code ?? latest.errors[0].status ?? latest.errors[0].ended}`);
  seenError = newest ?? "";
}

for (const input of document.getElementsByName("range")) {
  input.checked = input.value === range;
  input.addEventListener("change", () => {
    range = input.value;
    if (latest) show();
    lookBack();
  });
}
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && latest) show();
});
setInterval(lookBack, 60_000);
$("metrics").addEventListener("click", async (event) => {
  event.preventDefault(); // a link from elsewhere is not shown figures; this page may ask
  const text = await (await ask("metrics")).text();
  location.assign(URL.createObjectURL(new Blob([text], { type: "text/plain" })));
});

// The token

async function run() {
  for (;;) {
    try {
      await keepFollowing(onEvent, onState);
    } catch (error) {
      onState("lost");
      $("link").lastElementChild.textContent = "not shown";
      $("main").hidden = true;
      $("door").hidden = false;
      if (error.status !== 401) {
        $("why").textContent = error.message;
        return;
      }
      if (token.get()) $("why").textContent = "That token is not the one of KEYPROXY_ADMIN_TOKEN_FILE.";
      token.drop();
      $("token").focus();
      await new Promise((given) => $("door").addEventListener("submit", (event) => {
        event.preventDefault();
        token.set($("token").value.trim());
        $("token").value = "";
        given();
      }, { once: true }));
      $("door").hidden = true;
    }
  }
}

applyTheme();
run();
