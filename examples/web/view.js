// How the conversation and the models look. Knows the document, not the API.
//
// Text of models and servers is untrusted: it goes in as text nodes, never as HTML.

const log = document.querySelector("#log");
const turns = document.querySelector("#turns");
const announcer = document.querySelector("#announcer");
let isAtEnd = false; // of the log: is its last line in sight?

/** Add a turn to the log; `speaker` is "user" or "assistant", `name` is for screen readers. */
export function addTurn(speaker, name) {
  const turn = copyOf("#turn");
  turn.classList.add(speaker);
  turn.querySelector("h2").textContent = name;
  const text = turn.querySelector(".text").appendChild(new Text());
  const facts = turn.querySelector(".facts");
  follow(() => turns.append(turn), { always: true });
  return {
    write: (piece) => follow(() => text.appendData(piece)),
    mark: (state, isOn = true) => turn.classList.toggle(state, isOn),
    note: (line) =>
      follow(() => {
        facts.textContent = line;
        facts.hidden = false;
      }),
    warn: (notice) => follow(() => turn.append(noticeOf(notice)), { always: true }),
    remove: () => turn.remove(),
  };
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
