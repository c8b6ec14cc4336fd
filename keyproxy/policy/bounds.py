"""What a call asks for, as far as it decides the price: sizes and counts, upper bounds. Pure.

The walk of the policy notes in a ``Seen`` what it passes and what it opens; nothing looks a second
time. A token is at least one byte of the body: byte-level BPE and byte fallback never make more
tokens than there are bytes, and JSON never spells a text in fewer. Images are counted, not
measured. What is not known here is taken for the dearest that it could be. Shapes: OpenRouter's
OpenAPI document and SDKs, state November 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from keyproxy.call import Ask
from keyproxy.dialects import Dialect
from keyproxy.settings.grammar.features import names
from keyproxy.strict_json.body import whole_number

TEMPLATE_TOKENS = 1024
"""What templates put around a conversation: tool preambles of Anthropic and Grok's hidden prompt
stay below 700 tokens."""
INPUT_TOKENS = 16
"""The same, for each text to embed or rank."""
MOST = 10**9
"""Tokens of an answer: more is as good as no bound, and too much to reckon with."""
MAX_ROUNDS = 30  # of tools that run upstream, in one call: OpenRouter's default and maximum

TEXT_TYPES = names(
    "text input_text output_text refusal summary_text reasoning_text reasoning reasoning.text"
    " reasoning.summary reasoning.encrypted thinking redacted_thinking tool_use tool_result"
    " function function_call function_call_output custom custom_tool_call custom_tool_call_output"
    " message content base64 url ephemeral url_citation char_location"
)
"""Types within a conversation whose tokens are bytes of the body."""
_WITH_TOOLS = frozenset({"additional_tools", "tool_addition"})
_IMAGES = frozenset({"image_url", "input_image", "image", "computer_screenshot"})
_FILES = frozenset({"file", "input_file", "document"})
_SMALL_TOOLS = frozenset(
    {"openrouter:datetime", "openrouter:tool_search", "openrouter:experimental__search_models"}
)
_COUNTED = frozenset({"fallbacks", "many", "provider", "workspace-files"})
"""Words that open what the models, the answers, the price list or the parts tell of."""


@dataclass(init=False)
class Seen:
    """What the walk through one body has come by; most come by nothing, so that making one is
    free: what is not noted stands in the class."""

    images: int = 0
    image_bytes: int = 0
    answers: int = 1
    results: int = 5
    runs_tools: bool = False
    searches: bool = False
    predicts: bool = False
    compacts: bool = False
    has_media: bool = False
    has_files: bool = False
    has_long_cache: bool = False
    is_unbounded: bool = False
    what: str = ""
    _sources: set[int] | None = None  # of images, which are measured

    def unbound(self, what: str) -> None:
        """No price bounds ``what``, a part as it is called in words; the first is told."""
        if not self.is_unbounded:
            self.is_unbounded, self.what = True, what

    def opened(self, word: str, what: str) -> None:
        """``what`` stands in the body, and is there because the feature ``word`` is on."""
        if word == "web":
            self.searches = True  # each is paid for, and read as input in the round that follows
        elif word == "cache-1h":
            self.has_long_cache = True
        elif word not in _COUNTED:
            self.unbound(what)

    def tool(self, kind: str, word: str) -> None:
        """A tool of this type, which ``word`` opens, runs upstream."""
        self.runs_tools = True
        if kind not in _SMALL_TOOLS:
            is_shown = len(kind) <= 64 and kind.isascii() and kind.isprintable()
            self.opened(word, f"the tool {kind if is_shown else 'that it names'}")

    def model(self, name: str) -> None:
        """This model may answer."""
        if ":online" in name.lower():
            self.searches = True

    def part(self, kind: Any, node: Mapping[str, Any], name: str = "type") -> None:
        """``node`` of a conversation is of a type that is none of ``TEXT_TYPES``; ``name``: how
        the field is spelled that says so."""
        if self._sources and id(node) in self._sources:
            return
        if type(kind) is str and kind in _IMAGES and name == "type":
            self.images += 1
            self.image_bytes += _spelled(node)
            self._sources = self._sources or set()
            self._sources.add(id(node.get("source")))
        elif type(kind) is not str:
            self.media("")
        elif kind not in _WITH_TOOLS:
            self.media(kind)

    def media(self, kind: str) -> None:
        """There is a part of this type, whose tokens are more than its bytes."""
        self.has_media = True
        self.has_files |= kind in _FILES
        if kind in _FILES or not self.what:
            words = {"audio": "the audio", "video": "the video"} | dict.fromkeys(_FILES, "the file")
            known = (words[word] for word in words if word in kind)
            self.what = next(known, "a part that is neither text nor image")


def _spelled(part: Mapping[str, Any]) -> int:
    """How many bytes of the body are the image itself."""
    source = part.get("source")
    if isinstance(source, dict) and str(source.get("media_type")).startswith("image/"):
        data = source.get("data")
        return len(data) if isinstance(data, str) else 0
    url = part.get("image_url")
    if isinstance(url, dict):
        url = url.get("url")
    return len(url) if isinstance(url, str) and url.startswith("data:image/") else 0


def ask_of(
    seen: Seen, dialect: Dialect, body: Mapping[str, Any], raw_bytes: int, models: Iterable[str]
) -> Ask:
    """What ``body``, as it goes up and ``raw_bytes`` long, asks ``models`` for; never raises.

    ``seen``: of the walk through it.
    """
    if not dialect.priced_by:
        return Ask(raw_bytes, is_unbounded=True, part="a call of this endpoint")
    if dialect.priced_by == "pairs":
        return _pairs(seen, body, raw_bytes)
    for model in models:
        seen.model(model)
    contexts = _count(body.get(dialect.texts)) if dialect.texts else 1
    times = 2 if seen.compacts else 1  # read for a summary, written as output; then for the answer
    writes = dialect.priced_by == "answer"
    around = TEMPLATE_TOKENS if writes else INPUT_TOKENS * contexts
    text_tokens = max(0, raw_bytes - seen.image_bytes) + around
    asked = _positive(body.get(dialect.tool_calls))
    tool_calls = min(asked or MAX_ROUNDS, MAX_ROUNDS)
    said = tuple(name for name in dialect.lengths if body.get(name) is not None)
    return Ask(
        text_tokens=times * text_tokens,
        max_output_tokens=_output_cap(dialect, body),
        length_fields=said or dialect.lengths[:1],
        reasoning_tokens=_reasoning(dialect, body),
        answers=times * seen.answers * contexts if writes else 0,
        contexts=times * contexts,
        rounds=1 + tool_calls if seen.runs_tools or seen.searches else 1,
        images=times * seen.images,
        # A prediction that does not come true is billed as output, beyond the cap.
        predicted_tokens=text_tokens if seen.predicts else 0,
        searches=tool_calls if seen.searches else 0,
        results=seen.results,
        has_media=seen.has_media,
        has_files=seen.has_files,
        has_long_cache=seen.has_long_cache,
        is_unbounded=seen.is_unbounded,
        part=seen.what,
    )


def _pairs(seen: Seen, body: Mapping[str, Any], raw_bytes: int) -> Ask:
    """Token by token the query is read once for each document; by the search, a hundred pieces
    of 500 tokens are one (Cohere)."""
    listed, query = body.get("documents"), body.get("query")
    documents = _count(listed)
    query_bytes = 4 * len(query) if isinstance(query, str) else raw_bytes
    texts = [query, *listed] if isinstance(listed, list) else [None]
    is_text = all(isinstance(text, str) for text in texts)
    return Ask(
        text_tokens=raw_bytes + (query_bytes + INPUT_TOKENS) * documents,
        answers=0,
        contexts=documents,
        requests=1 + documents // 100 + raw_bytes // 50_000,
        is_unbounded=seen.is_unbounded or not is_text,
        part=seen.what if is_text else "a document that is no text",
    )


def _output_cap(dialect: Dialect, body: Mapping[str, Any]) -> int | None:
    """Tokens of one answer, thinking included; None where the call sets no bound."""
    cap = 0
    for name in dialect.lengths:
        said = body.get(name)
        if said is not None:
            length = _positive(said)
            if length is None:
                return None  # 0 may be read as no cap at all, and -1 is none
            cap = max(cap, length)
    thinking = _reasoning(dialect, body)
    if cap and thinking >= cap:
        cap += thinking
    return cap or None


def _reasoning(dialect: Dialect, body: Mapping[str, Any]) -> int:
    """Tokens to think with, if a number of them is asked for."""
    places = [(body.get(outer), inner) for outer, inner in dialect.budgets]
    return sum(
        _positive(place.get(inner)) or 0 for place, inner in places if isinstance(place, dict)
    )


def _count(value: Any) -> int:
    """How many texts ``value`` is; a list of numbers is one, as tokens."""
    if not isinstance(value, list) or not value or whole_number(value[0]) is not None:
        return 1
    return len(value)


def _positive(value: Any) -> int | None:
    number = whole_number(value)
    return min(number, MOST) if number is not None and number > 0 else None
