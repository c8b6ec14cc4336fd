// How the conversation and the models look. Knows the document, not the API.
//
// Text of models and servers is untrusted: markdown.js makes elements of an answer, all else goes
// in as text nodes, never as HTML.

import { blocksOf } from "./markdown.js";

const log = document.querySelector("#log");
const turns = document.querySelector("#turns");
const announcer = document.querySelector("#announcer");
let isAtEnd = false; // of the log: is its last line in sight?

/** Add a turn to the log; `speaker` is "user" or "assistant", `name` is for screen readers. */
export function addTurn(speaker, name) {
  const turn = copyOf("#turn");
  turn.classList.add(speaker);
  turn.querySelector("h2").textContent = name;
  const text = turn.querySelector(".text");
  const facts = turn.querySelector(".facts");
  const writing = speaker === "assistant" ? markdown(text) : plain(text);
  follow(() => turns.append(turn), { always: true });
  return {
    write: writing.write,
    mark: (state, isOn = true) => turn.classList.toggle(state, isOn),
    /** No more will be written; what was, as it reads. */
    end: () => {
      turn.classList.remove("waiting", "thinking", "writing");
      writing.show();
      return text.innerText;
    },
    note: (line) =>
      follow(() => {
        facts.textContent = line;
        facts.hidden = false;
      }),
    warn: (notice) => follow(() => turn.append(noticeOf(notice)), { always: true }),
    remove: () => turn.remove(),
  };
}

function plain(element) {
  return { write: (piece) => follow(() => element.append(piece)), show() {} };
}

/** Pieces come faster than a screen shows them: what has come is shown once a frame. */
function markdown(element) {
  let said = "";
  let frame;
  function show() {
    cancelAnimationFrame(frame);
    frame = undefined;
    follow(() => renew(element, blocksOf(said)));
  }
  function write(piece) {
    said += piece;
    frame ??= requestAnimationFrame(show);
  }
  return { write, show };
}

/** Blocks that are the same stay, with what is selected in them. */
function renew(element, blocks) {
  const isSame = (block, at) => element.childNodes[at]?.isEqualNode(block);
  const changed = blocks.findIndex((block, at) => !isSame(block, at));
  const kept = changed < 0 ? blocks.length : changed;
  while (element.childNodes.length > kept) element.lastChild.remove();
  element.append(...blocks.slice(kept));
}

/** What the page is, and what may be tried: there while nobody has said anything. */
export function showIntro(isShown) {
  document.querySelector("#intro").hidden = !isShown;
}

export function clearTurns() {
  turns.replaceChildren();
  log.scrollTop = 0;
}

/** Have a screen reader say `text` once, when it has nothing else to say. */
export function announce(text) {
  announcer.textContent = text;
}

/** Fill the select with models, grouped by author, in the order they came. */
export function showModels(select, models) {
  select.replaceChildren();
  for (const { id, name } of models) {
    const author = id.split("/")[0];
    let group = select.querySelector(`optgroup[label="${CSS.escape(author)}"]`);
    if (!group) {
      group = document.createElement("optgroup");
      group.label = author;
      select.append(group);
    }
    group.append(new Option(name ?? id, id));
  }
  select.disabled = models.length === 0;
}

/** List the demo's models, if there are any, as buttons that call `choose(id)`. */
export function showDemoModels(models, choose) {
  const rows = models.map(({ id, description }) => {
    const row = copyOf("#demo-model");
    row.querySelector("code").textContent = id;
    row.querySelector("span").textContent = description;
    row.querySelector("button").addEventListener("click", () => choose(id));
    return row;
  });
  document.querySelector("#demo-models").replaceChildren(...rows);
  document.querySelector("#demo").hidden = rows.length === 0;
}

/** Questions to begin with, where there is a model that answers them; `ask` gets the text. */
export function showStarters(isShown, ask) {
  const starters = document.querySelector("#starters");
  starters.hidden = !isShown;
  for (const button of starters.querySelectorAll("button")) {
    button.onclick = () => ask(button.textContent);
  }
}

function noticeOf({ title, advice, details }) {
  const notice = copyOf("#notice");
  notice.querySelector("strong").textContent = title;
  notice.querySelector(".advice").textContent = advice;
  notice.querySelector(".details").textContent = details;
  return notice;
}

/** Change the log and keep its end in sight, unless the reader has scrolled up to read. */
function follow(change, { always = false } = {}) {
  change();
  if (always || isAtEnd) showEnd();
}

function showEnd() {
  log.scrollTop = log.scrollHeight;
}

log.addEventListener("scroll", () => {
  isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
});

// The log gets smaller when a phone shows its keyboard, and when the message grows.
new ResizeObserver(() => isAtEnd && showEnd()).observe(log);

function copyOf(template) {
  return document.querySelector(template).content.firstElementChild.cloneNode(true);
}
