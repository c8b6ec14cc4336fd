// Markdown of models as elements. What a model writes is untrusted: its markup is shown and never
// taken, no picture is loaded (an address can carry a chat away unasked), and a link tells nobody
// where it was followed from.

import { Marked } from "./vendor/marked.js";
import DOMPurify from "./vendor/purify.js";

const escaped = (text) =>
  text.replace(/[&<>"']/g, (letter) => `&#${letter.codePointAt(0)};`);

const marked = new Marked({
  gfm: true,
  breaks: true, // a line that ends in a chat ends
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || "picture")}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    // The page and the speaker have the first two.
    heading({ tokens, depth }) {
      const level = Math.min(depth + 2, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
  },
});

const ALLOWED = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p",
    "pre", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["align", "href", "start"],
  ADD_URI_SAFE_ATTR: ["align", "start"], // these are no addresses
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_DOM_FRAGMENT: true,
};

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer");
});

/** The blocks of a text, as elements. */
export function blocksOf(text) {
  const fragment = DOMPurify.sanitize(marked.parse(text), ALLOWED);
  for (const table of fragment.querySelectorAll("table")) {
    const frame = document.createElement("div"); // it scrolls where the page is too narrow
    frame.className = "wide";
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const wide of fragment.querySelectorAll(".wide, pre")) wide.tabIndex = 0;
  return [...fragment.childNodes].filter((node) => node.nodeType !== 3 || node.data.trim());
}
