// The page's life: choose a model, send, read along, stop, wait when told to.

import { apiBase, listModels, streamChat } from "./api.js";
import { explain } from "./errors.js";
import { signIn } from "./sign-in.js";
import {
  addTurn, announce, clearTurns, showDemoModels, showIntro, showModels, showStarters,
} from "./view.js";

const $ = (selector) => document.querySelector(selector);
const [composer, input, find, model, send, stop, hint] = [
  "#composer", "#input", "#find", "#model", "#send", "#stop", "#hint",
].map($);

const USUAL_MODEL = "openai/gpt-4o-mini"; // of hundreds, whose first may be the dearest
const MANY_MODELS = 30; // more than one looks through
const base = apiBase();
const access = signIn(base, loadModels);
const { source } = access;
let models = [];
let conversation = []; // what the model gets to see: { role, content }
let failed = null; // the last question that got no answer, and its turns
let answering = null; // the AbortController of the answer being made
let waitsUntil = 0; // the server asked us to be quiet until then
let ticking; // the timer that counts down

// --- sending -----------------------------------------------------------------------------

async function ask(content) {
  if (failed?.content === content) failed.turns.forEach((turn) => turn.remove());
  failed = null;
  showIntro(false);
  const controller = new AbortController();
  const question = addTurn("user", "You");
  question.write(content);
  const answer = addTurn("assistant", model.value);
  answer.mark("waiting");
  answering = controller;
  input.value = "";
  update();

  const clock = stopwatch();
  const messages = [...conversation, { role: "user", content }];
  let said = "";
  let usage = null;
  let problem = null;
  try {
    const { signal } = controller;
    const parts = streamChat(base, { model: model.value, messages, signal, source });
    for await (const part of parts) {
      if (part.usage) usage = part.usage;
      if (part.isThinking && !said) answer.mark("thinking");
      if (!part.text) continue;
      if (!said) clock.first();
      said += part.text;
      answer.mark("thinking", false);
      answer.mark("waiting", false);
      answer.mark("writing");
      answer.write(part.text);
    }
  } catch (error) {
    problem = error;
  }
  if (answering !== controller) return; // A new chat has begun meanwhile.

  answering = null;
  const read = answer.end();
  if (said) {
    // Half an answer is part of the conversation too: the model can be asked to go on.
    conversation = [...messages, { role: "assistant", content: said }];
  } else {
    question.mark("failed");
    failed = { content, turns: [question, answer] };
    if (!input.value) input.value = content; // nothing has to be typed twice
  }
  const isStopped = problem?.name === "AbortError";
  if (said || isStopped) answer.note(factsOf(clock, usage, isStopped));
  if (problem && !isStopped) report(problem, answer);
  else announce(isStopped ? "Stopped." : read);
  update();
}

function report(problem, turn) {
  const notice = explain(problem, base);
  turn.warn(notice);
  announce(`${notice.title}. ${notice.advice}`);
  if (problem.retryAfterSeconds) wait(problem.retryAfterSeconds);
  access.wants(problem);
}

function stopwatch() {
  const start = performance.now();
  let first = null;
  return {
    first: () => (first = performance.now() - start),
    read: () => ({ first, total: performance.now() - start }),
  };
}

function factsOf(clock, usage, isStopped) {
  const { first, total } = clock.read();
  const seconds = (ms) => `${(ms / 1000).toFixed(2)} s`;
  return [
    isStopped && "Stopped",
    first !== null && `first token ${seconds(first)}`,
    `total ${seconds(total)}`,
    usage && tokensOf(usage),
    usage?.cost > 0 && dollars(usage.cost),
  ].filter(Boolean).join(" · ");
}

function tokensOf({ prompt_tokens: input, completion_tokens: output }) {
  return `${input + output} tokens (${input} in, ${output} out)`;
}

function dollars(amount) {
  const digits = amount < 0.1 ? { maximumSignificantDigits: 2 } : { maximumFractionDigits: 2 };
  const style = { style: "currency", currency: "USD", ...digits };
  return new Intl.NumberFormat("en", style).format(amount);
}

// --- waiting -----------------------------------------------------------------------------

/** Keep Send off for that long. The clock on the wall counts, since timers sleep in
 *  background tabs. */
function wait(seconds) {
  waitsUntil = Date.now() + seconds * 1000;
  clearInterval(ticking);
  ticking = setInterval(() => {
    update();
    if (secondsToWait() > 0) return;
    clearInterval(ticking);
    announce("You can send again.");
  }, 250);
}

function secondsToWait() {
  return Math.max(0, Math.ceil((waitsUntil - Date.now()) / 1000));
}

// --- the state of the controls -----------------------------------------------------------

function update() {
  const seconds = secondsToWait();
  send.hidden = answering !== null;
  stop.hidden = answering === null;
  send.disabled = seconds > 0 || !model.value;
  send.textContent = seconds > 0 ? `Send in ${countdown(seconds)}` : "Send";
  hint.textContent = find.value
    ? describeFound(found())
    : describe(models.find(({ id }) => id === model.value));
}

function countdown(seconds) {
  if (seconds < 60) return `${seconds} s`;
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")} min`;
}

function describe(chosen) {
  if (!chosen) return "";
  if (chosen.id.startsWith("demo/")) return chosen.description;
  const perMillion = (price) => dollars(Number(price) * 1e6);
  const { prompt, completion } = chosen.pricing ?? {};
  // A router's price depends; of other providers' models some price may be unknown.
  if (!(Number(prompt) >= 0 && Number(completion) >= 0)) return chosen.id;
  const prices = `${perMillion(prompt)} in, ${perMillion(completion)} out`;
  return `${chosen.id}: ${prices} / 1M\u00a0tokens`;
}

function describeFound({ length, 0: first }) {
  return first ? `${length} of ${models.length} models; Enter takes ${first.id}` : "No such model";
}

// --- models ------------------------------------------------------------------------------

/** Whether they came; if not, the page says why or asks for a token. */
async function loadModels() {
  try {
    models = await listModels(base, source);
  } catch (problem) {
    if (!access.wants(problem)) report(problem, addTurn("assistant", "Models"));
    offerNone();
    return false;
  }
  access.settle();
  find.hidden = models.length <= MANY_MODELS;
  showModels(model, models);
  const demo = models.filter(({ id }) => id.startsWith("demo/"));
  showDemoModels(demo, tryModel);
  showStarters(demo.length === 0 && models.length > 0, begin);
  const isOffered = (wanted) => models.some(({ id }) => id === wanted);
  const chosen = [recall(), demo[0]?.id, USUAL_MODEL].find(isOffered);
  if (chosen) model.value = chosen;
  update();
  return true;
}

function begin(text) {
  input.value = text;
  input.focus();
}

/** The models whose id or name has all the words that are looked for, anywhere. */
function found() {
  const words = find.value.toLowerCase().split(/\s+/);
  const hasAll = ({ id, name }) => words.every((word) => `${id} ${name}`.toLowerCase().includes(word));
  return models.filter(hasAll);
}

/** Offer those, and the chosen one, which stays until another is taken. */
function narrow(chosen = model.value) {
  const wanted = found();
  showModels(model, models.filter((each) => each.id === chosen || wanted.includes(each)));
  model.value = chosen;
  update();
}

function offerNone() {
  models = [];
  find.hidden = true;
  find.value = "";
  model.replaceChildren(new Option("No models", ""));
  model.disabled = true;
  showDemoModels([], tryModel);
  showStarters(false, begin);
  update();
}

function choose(id) {
  if (find.value) {
    find.value = "";
    narrow(id);
  }
  model.value = id;
  waitsUntil = 0; // the limit may have been the other model's
  remember(id);
  update();
}

function tryModel(id) {
  choose(id);
  input.value ||= "Hello!";
  input.focus();
}

// Storage can be switched off, which must not break the page.
function remember(id) {
  try {
    localStorage.setItem("keyproxy-model", id);
  } catch {}
}

function recall() {
  try {
    return localStorage.getItem("keyproxy-model");
  } catch {
    return null;
  }
}

// --- events ------------------------------------------------------------------------------

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const content = input.value.trim();
  if (!content || answering || send.disabled) return;
  ask(content);
  input.focus();
});

input.addEventListener("keydown", (event) => {
  // While an input method composes (Japanese, Chinese, …), Enter picks a word.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  composer.requestSubmit();
});

function stopAnswer() {
  answering?.abort();
  input.focus();
}

stop.addEventListener("click", stopAnswer);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && answering) stopAnswer();
});

model.addEventListener("change", () => choose(model.value));

find.addEventListener("input", () => {
  narrow();
  announce(find.value && hint.textContent);
});

find.addEventListener("keydown", (event) => {
  if (event.key === "Escape") find.value = "";
  else if (event.key === "Enter" && find.value && found().length) {
    choose(found()[0].id);
    input.focus();
  } else return;
  narrow();
});

$("#new").addEventListener("click", () => {
  answering?.abort();
  answering = failed = null;
  conversation = [];
  clearTurns();
  showIntro(true);
  update();
  input.focus();
});

// The dashboard is for this computer; keyproxy writes its address into the page.
const dashboard = $('meta[name="dashboard"]')?.content;
if (dashboard && /^(localhost|127(\.\d+){3}|\[::1\])$/.test(location.hostname)) {
  $("#dashboard").href = dashboard;
  $("#dashboard").hidden = false;
}

$("#base").textContent = base;
if (access.needsToken()) {
  offerNone();
  access.show();
} else {
  loadModels();
}
