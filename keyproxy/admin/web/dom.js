// Elements without HTML in texts: whatever a caller wrote stays a text.

export const $ = (id) => document.getElementById(id);

export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value == null || value === false) continue;
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child != null));
  return made;
}

const NS = "http://www.w3.org/2000/svg";

export function icon(path) {
  const svg = document.createElementNS(NS, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const drawn = document.createElementNS(NS, "path");
  drawn.setAttribute("d", path);
  svg.append(drawn);
  return svg;
}

const shown = new WeakMap();

/** Put new children in, unless they would be the same: focus and scrolling stay. */
export function fill(parent, data, make) {
  const text = JSON.stringify(data);
  if (shown.get(parent) === text) return;
  shown.set(parent, text);
  parent.replaceChildren(...[make(data)].flat().filter((child) => child != null));
}

/** A table: columns are {head, cell, class}. */
export function table(columns, rows, caption) {
  const cell = (column, row) => {
    const made = column.cell(row);
    return made instanceof HTMLTableCellElement ? made : el("td", { class: column.class, title: column.title?.(row) }, made ?? "–");
  };
  return el("table", {},
    caption && el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, columns.map((each) => el("th", { scope: "col", class: each.class }, each.head)))),
    el("tbody", {}, rows.map((row) => el("tr", { class: row.is_open ? "open" : null }, columns.map((each) => cell(each, row))))));
}
