"""What an answer says it used, read off its bytes as they pass. Pure: no I/O, no clock, no prices.

An ordinary event costs a few byte searches and is not kept; read are only the first ones, until
one has an id, and those that may hold usage, an error or an end. Usage counts at the places where
an upstream puts it and nowhere else. What is hostile or ambiguous (negative, NaN, a text, a name
said twice) is None: then the reservation stands. Shapes: OpenRouter, and the providers behind it,
as of October 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any

from keyproxy.call import IN_COST, ToldCost, Usage
from keyproxy.dialects import Dialect
from keyproxy.price import EXPONENTS, MAX_COST
from keyproxy.strict_json.scanner import Place, Skimmer, Wanted, pick, read_whole

MAX_EVENT_BYTES = 64 * 1024
"""Of an event so far. A longer one is not kept but read as it comes: it may be the last one of
``/responses``, which repeats the whole output."""
MAX_TOKENS = 10**9  # no model has a thousandth of it

_ERRORS: tuple[Place, ...] = (("error",), ("response", "error"), ("choices", None, "error"))
_ERROR_TYPES = frozenset({"error", "response.error", "response.failed"})
_IDS: tuple[Place, ...] = (("id",), ("response", "id"), ("message", "id"), ("request_id",))
_TYPE: Place = ("type",)
_CODE: Place = ("code",)  # beside the type, in an error event of ``/responses``
_FINISH: Place = ("choices", None, "finish_reason")
_IN_BODY: tuple[Place, ...] = (("usage",), ("x_groq", "usage"))
_LAST_TYPES = frozenset(
    {"message_stop", "response.completed", "response.incomplete", "response.failed"}
)
_SAYS_USAGE = re.compile(rb'"usage"\s*+:\s*+(?!null)')
_BOUNDARY = re.compile(rb"\n\r?\n")
_EVENT_ENDS = (b"\n\n", b"\n\r\n")
_MAY_BE_LAST = (b"}", b"}\n", b"}\r\n", b"]", b"]\n", b"]\r\n")
_ERROR_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_GENERATION_ID = re.compile(r"gen-[A-Za-z0-9_-]{8,100}")
# Where a usage object says what, by the names of ``Usage``; of what it says twice the last counts.
_WITHIN_INPUT = {"cached_tokens": "cached_tokens", "cache_write_tokens": "cache_write_tokens"}
_WITHIN_OUTPUT = {"reasoning_tokens": "reasoning_tokens"}
_TOOLS = {"web_search_requests": "web_searches", "tool_calls_executed": "tool_calls"}
_IN_ALL: Mapping[str | None, Any] = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "output_tokens_details": _WITHIN_OUTPUT,
    "server_tool_use": _TOOLS,
    "server_tool_use_details": _TOOLS,
    "cost_details": {"upstream_inference_cost": "upstream_cost"},
}
_IN_MESSAGES = {
    **_IN_ALL,
    "cache_read_input_tokens": "cached_tokens",
    "cache_creation_input_tokens": "cache_write_tokens",
}
_IN_OTHERS = {
    **_IN_ALL,
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "total_tokens": "total_tokens",
    "num_cached_tokens": "cached_tokens",
    "input_tokens_details": _WITHIN_INPUT,
    "prompt_tokens_details": _WITHIN_INPUT,
    "completion_tokens_details": _WITHIN_OUTPUT,
}
_NOTHING = Usage()
_NONE_SAID: Mapping[str, Any] = {}


class UsageReader:
    """One for each answer; ``watch`` sees every chunk, then ``finish`` is called, and the rest says
    what was learnt.

    - ``generation_id``: the answer's ``gen-…``, or None; it may be known from the head.
    - ``answer_id``: the first id of any form, where none was known from the head.
    - ``is_finished``: the answer said that it is complete.
    - ``error``: the code or type of the error that it told of, whatever its status; "error" where
      none is readable, None where it told of none.
    """

    __slots__ = (
        *("_body", "_dialect", "_found_id", "_has_id", "_holds_key", "_is_event_stream"),
        *("_long_line", "_places", "_rest", "_said", "_told_cost", "_wanted"),
        *("answer_id", "error", "generation_id", "is_finished"),
    )

    def __init__(
        self,
        dialect: Dialect,
        is_event_stream: bool,
        generation_id: str | None = None,
        told_cost: ToldCost | None = IN_COST,
        found_id: Callable[[str], None] = lambda id: None,
        holds_key: Callable[[str], bool] = lambda text: False,
    ) -> None:
        """``told_cost``: where its provider says what a call has cost. ``found_id`` is told the
        ``generation_id`` that the head did not say, as it passes. A text that ``holds_key``, behind
        JSON's escapes perhaps, is neither an id nor an error's name."""
        self.generation_id = generation_id
        self.answer_id: str | None = None
        self.is_finished = False
        self.error: str | None = None
        self._found_id, self._holds_key = found_id, holds_key
        self._dialect, self._told_cost = dialect, told_cost
        self._places = dialect.usage_in_events if is_event_stream else _IN_BODY
        self._wanted = _wanted(self._places)
        self._said = _NONE_SAID
        self._has_id = generation_id is not None  # or one of another form
        self._is_event_stream = is_event_stream
        self._rest = bytearray()  # of an event whose end has not come
        self._body: Skimmer | None = None  # of an answer that did not come whole
        self._long_line: Skimmer | None = None

    @property
    def usage(self) -> Usage | None:
        """None when the answer did not say, or nothing that can be true."""
        return _usage(self._said, self._dialect, self._told_cost)

    def watch(self, chunk: bytes) -> None:
        """Look at the next bytes of the answer. Never raises."""
        if not self._is_event_stream:
            if not self.is_finished:
                self._watch_body(chunk)
        elif (
            self._rest
            or self._long_line is not None
            or not chunk.endswith(_EVENT_ENDS)
            or self._may_matter(chunk)
        ):
            self._watch_events(chunk)

    def _watch_body(self, chunk: bytes) -> None:
        if self._body is None:
            if (
                chunk.endswith(_MAY_BE_LAST)
                and (found := read_whole(chunk, self._wanted)) is not None
            ):
                self.is_finished = True
                self._take(found)
                return
            self._body = Skimmer(self._wanted)
        self._body.feed(chunk)
        self.is_finished = self._body.is_whole
        self._take_if_whole(self._body)

    def _watch_events(self, chunk: bytes) -> None:
        if self._long_line is not None:
            chunk = self._read_long_line(self._long_line, chunk)
        rest = self._rest
        seen = max(0, len(rest) - 2)
        rest += chunk
        if end := max(_end_of_last(mark, rest, seen) for mark in _EVENT_ENDS):
            events = bytes(rest[:end])
            del rest[:end]
            if self._may_matter(events):
                for event in _BOUNDARY.split(events):
                    self._read_event(event)
        if len(rest) > MAX_EVENT_BYTES:
            self._long_line = Skimmer(self._wanted)
            line = bytes(rest[rest.rfind(b"\n") + 1 :])
            self._long_line.feed(line.removeprefix(b"data:"))
            rest.clear()

    def finish(self) -> None:
        """No more will come: read what is there of an event that ends without its blank line. Not
        sooner: it may come a byte at a time."""
        if self._rest:
            self._read_event(bytes(self._rest))
            self._rest.clear()

    def _read_long_line(self, line: Skimmer, chunk: bytes) -> bytes:
        """Read the event's one line of data to its end; JSON has no bare line feeds in it."""
        data, feed, rest = chunk.partition(b"\n")
        line.feed(data)
        if feed:
            self._long_line = None
            self._take_if_whole(line)
        return feed + rest

    def _may_matter(self, data: bytes) -> bool:
        """Whether usage, an error or an end may be in it, or the first id. It need not."""
        if not self._has_id:
            return True
        find = data.find  # ``in`` takes longer: it tries each needle as a number first
        for needle in self._dialect.needles:
            if find(needle) >= 0:
                return True
        return find(b'"usage"') >= 0 and _SAYS_USAGE.search(data) is not None

    def _read_event(self, event: bytes) -> None:
        if not self._may_matter(event):
            return
        lines = event.splitlines()
        data = b"\n".join(line[5:] for line in lines if line.startswith(b"data:"))
        if data.strip() == b"[DONE]":
            self.is_finished = True
        elif data:
            found = read_whole(data, self._wanted)
            if found is not None:
                self._take(found)
                return
            document = Skimmer(self._wanted)
            document.feed(data)
            self._take_if_whole(document)

    def _take_if_whole(self, document: Skimmer) -> None:
        if document.is_whole:
            self._take(document.found)

    def _take(self, found: Mapping[Place, Any]) -> None:
        """What a whole document says."""
        if self.generation_id is None:
            texts = [id for place in _IDS if type(id := found.get(place)) is str]
            ids = [id for id in texts if not self._holds_key(id)]
            if ids and not self._has_id:
                self._has_id = True
                self.answer_id = next(filter(_ID.fullmatch, ids), None)
            self.generation_id = next(filter(_GENERATION_ID.fullmatch, ids), None)
            if self.generation_id is not None:
                self._found_id(self.generation_id)
        kind = found.get(_TYPE)
        is_error = type(kind) is str and kind in _ERROR_TYPES
        if type(kind) is str and kind in _LAST_TYPES:
            self.is_finished = True
        told = _first(found, _ERRORS, None)
        if told is not None or is_error or found.get(_FINISH) == "error":
            code = _error_code(told, found.get(_CODE) if is_error else None)
            self.error = code if code and not self._holds_key(code) else self.error or "error"
        said = _first(found, self._places, {})
        if not isinstance(said, dict):
            self._said = _NONE_SAID  # the last one wins, also when it is not to be trusted
        elif said and self._dialect.counts_cache_apart:
            # Cumulative: what the last event says replaces what the first said, field by field.
            news = {name: value for name, value in said.items() if value is not None}
            self._said = {**self._said, **news}
        elif said:
            self._said = said


@cache
def _wanted(places: tuple[Place, ...]) -> Wanted:
    """What a document may say that matters."""
    return Wanted((*places, *_ERRORS, *_IDS, _TYPE, _CODE, _FINISH))


def _first(found: Mapping[Place, Any], places: Iterable[Place], otherwise: Any) -> Any:
    for place in places:
        if place in found:
            return found[place]
    return otherwise


def _end_of_last(mark: bytes, data: bytearray, start: int) -> int:
    """Where the last ``mark`` from ``start`` on ends; 0 when there is none."""
    return data.rfind(mark, start) + len(mark) if data.find(mark, start) >= 0 else 0


def _error_code(told: Any, code: Any) -> str | None:
    """The first of an error's names that is a plain word or number."""
    said = (told.get("code"), told.get("type")) if isinstance(told, dict) else ()
    for each in (*said, code):
        if type(each) in (str, int, Decimal) and _ERROR_CODE.fullmatch(text := str(each)):
            return text
    return None


def _usage(said: Mapping[str, Any], dialect: Dialect, told_cost: ToldCost | None) -> Usage | None:
    told: dict[str, Any] = {}
    pick(said, _IN_MESSAGES if dialect.counts_cache_apart else _IN_OTHERS, told)
    for name, value in told.items():
        if name == "upstream_cost":
            told[name] = _amount(value)
        elif type(value) is not int or value > MAX_TOKENS:
            told[name] = _count(value)
    total = told.pop("total_tokens", None)
    usage = Usage(**told)
    if not dialect.counts_cache_apart:
        _reconcile(usage, total)
    elif usage.input_tokens is not None:
        apart = [told[name] for name in ("cached_tokens", "cache_write_tokens") if name in told]
        usage.input_tokens = None if None in apart else usage.input_tokens + sum(apart)
    if told_cost is IN_COST:
        usage.cost = _amount(said.get(told_cost.name))
    elif told_cost is not None:
        cost = _amount(said.get(told_cost.name), MAX_COST / told_cost.usd)
        usage.cost = None if cost is None else cost * told_cost.usd
    if usage.cost is None and usage == _NOTHING:
        return None
    usage.is_byok = said.get("is_byok") not in (None, False)
    return usage


def _reconcile(usage: Usage, total: int | None) -> None:
    within = (usage.cached_tokens or 0) + (usage.cache_write_tokens or 0)
    if usage.input_tokens is not None and within > usage.input_tokens:
        usage.input_tokens = usage.cached_tokens = usage.cache_write_tokens = None
    if usage.output_tokens is not None:
        # Some leave reasoning out of it; then the total (xAI, Gemini) or a larger part tells.
        if total is not None and usage.input_tokens is not None:
            usage.output_tokens = max(usage.output_tokens, total - usage.input_tokens)
        if usage.reasoning_tokens is not None and usage.reasoning_tokens > usage.output_tokens:
            usage.output_tokens += usage.reasoning_tokens


def _count(value: Any) -> int | None:
    number = _amount(value, MAX_TOKENS)
    return int(number) if number is not None and number == int(number) else None


def _amount(value: Any, most: Decimal | int = MAX_COST) -> Decimal | None:
    """A number that is neither NaN nor infinite, below zero, above ``most``, or with an exponent
    that sums would choke on."""
    if type(value) is int:
        value = Decimal(value)
    elif type(value) is not Decimal or value.as_tuple().exponent not in EXPONENTS:
        return None
    return None if value.is_signed() or value > most else value
