"""What an answer says it used, read off its bytes as they pass. Pure: no I/O, no clock, no prices.

An ordinary event costs a few byte searches and is not kept; read are only the first ones, until
one has an id, and those that may hold usage, an error or an end. Usage counts at the places where
an upstream puts it and nowhere else. What is hostile or ambiguous (negative, NaN, a text, a name
said twice) is None: then the reservation stands. Shapes: OpenRouter, and the providers behind it,
as of October 2026.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any

from keyproxy.call import IN_COST, ToldCost, Usage
from keyproxy.dialects import Dialect
from keyproxy.price import MAX_COST
from keyproxy.strict_json.scanner import Place, Skimmer, Wanted, read_whole

MAX_EVENT_BYTES = 64 * 1024
"""Of an event so far. A longer one is not kept but read as it comes: it may be the last one of
``/responses``, which repeats the whole output."""
MAX_TOKENS = 10**9  # no model has a thousandth of it
EXPONENTS = range(-40, 10)  # a float in its shortest form may have 17 digits below 1e-20

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
_Tokens = tuple[int | None, int | None, int | None, int | None, int | None]
"""Of the input and the output; cached, written to a cache, reasoning: as ``Usage`` has them."""


class UsageReader:
    """One for each answer; ``watch`` sees every chunk, then ``finish`` is called, and the rest says
    what was learnt.

    - ``generation_id``: the answer's ``gen-…``, or None; it may be known from the head.
    - ``answer_id``: the first id of any form, where none was known from the head.
    - ``is_finished``: the answer said that it is complete.
    - ``error``: the code or type of the error that it told of, whatever its status; "error" where
      none is readable, None where it told of none.
    """

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
        self._said: dict[str, Any] | None = None
        self._has_id = generation_id is not None  # or one of another form
        self._is_event_stream = is_event_stream
        self._rest = bytearray()  # of an event whose end has not come
        self._body: Skimmer | None = None  # of an answer that did not come whole
        self._long_line: Skimmer | None = None

    @property
    def usage(self) -> Usage | None:
        """None when the answer did not say, or nothing that can be true."""
        if self._said is None:
            return None
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
        for needle in self._dialect.needles:
            if needle in data:
                return True
        return b'"usage"' in data and _SAYS_USAGE.search(data) is not None

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
            texts = (id for id in map(found.get, _IDS) if isinstance(id, str))
            ids = [id for id in texts if not self._holds_key(id)]
            if ids and not self._has_id:
                self._has_id = True
                self.answer_id = next(filter(_ID.fullmatch, ids), None)
            self.generation_id = next(filter(_GENERATION_ID.fullmatch, ids), None)
            if self.generation_id is not None:
                self._found_id(self.generation_id)
        kind = found.get(_TYPE)
        if isinstance(kind, str) and kind in _LAST_TYPES:
            self.is_finished = True
        is_error = isinstance(kind, str) and kind in _ERROR_TYPES
        told = next((found[place] for place in _ERRORS if place in found), None)
        if told is not None or is_error or found.get(_FINISH) == "error":
            code = _error_code(told, found.get(_CODE) if is_error else None)
            self.error = code if code and not self._holds_key(code) else self.error or "error"
        said: Any = next((found[place] for place in self._places if place in found), {})
        if not isinstance(said, dict):
            self._said = {}  # the last one wins, also when it is not to be trusted
        elif said and self._dialect.counts_cache_apart:
            # Cumulative: what the last event says replaces what the first said, field by field.
            news = {name: value for name, value in said.items() if value is not None}
            self._said = {**(self._said or {}), **news}
        elif said:
            self._said = said


@cache
def _wanted(places: tuple[Place, ...]) -> Wanted:
    """What a document may say that matters."""
    return Wanted((*places, *_ERRORS, *_IDS, _TYPE, _CODE, _FINISH))


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
    read = _of_messages if dialect.counts_cache_apart else _of_openai
    costs = _part(said, "cost_details")
    tools = _part(said, "server_tool_use_details", "server_tool_use")
    tokens = read(said)
    cost, upstream_cost = None, _amount(costs.get("upstream_inference_cost"))
    if told_cost is IN_COST:
        cost = _amount(said.get("cost"))
    elif told_cost is not None:
        cost = _amount(said.get(told_cost.name), MAX_COST / told_cost.usd)
        cost = None if cost is None else cost * told_cost.usd
    searches = _count(tools.get("web_search_requests"))
    calls = _count(tools.get("tool_calls_executed"))
    told = (*tokens, cost, upstream_cost, searches, calls)
    if told.count(None) == len(told):
        return None
    is_byok = said.get("is_byok") not in (None, False)
    return Usage(*tokens, cost, is_byok, upstream_cost, searches, calls)


def _of_messages(said: Mapping[str, Any]) -> _Tokens:
    """Anthropic counts cached tokens beside the input, all others within it."""
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    plain, cached, written = (said.get(name) for name in names)
    parts = [_count(plain), *(_count(each) for each in (cached, written) if each is not None)]
    known = [part for part in parts if part is not None]
    tokens_in = sum(known) if len(known) == len(parts) else None
    tokens_out = _count(said.get("output_tokens"))
    reasoning = _count(_part(said, "output_tokens_details").get("reasoning_tokens"))
    return tokens_in, tokens_out, _count(cached), _count(written), reasoning


def _of_openai(said: Mapping[str, Any]) -> _Tokens:
    """Chat's names and those of ``/responses``."""
    within_input = _part(said, "prompt_tokens_details", "input_tokens_details")
    within_output = _part(said, "completion_tokens_details", "output_tokens_details")
    tokens_in = _count(said.get("prompt_tokens", said.get("input_tokens")))
    tokens_out = _count(said.get("completion_tokens", said.get("output_tokens")))
    cached = _count(within_input.get("cached_tokens", said.get("num_cached_tokens")))
    written = _count(within_input.get("cache_write_tokens"))
    reasoning = _count(within_output.get("reasoning_tokens"))
    if tokens_in is not None and (cached or 0) + (written or 0) > tokens_in:
        tokens_in = cached = written = None
    if tokens_out is not None:
        # Some leave reasoning out of it; then the total (xAI, Gemini) or a larger part tells.
        total = _count(said.get("total_tokens"))
        if total is not None and tokens_in is not None:
            tokens_out = max(tokens_out, total - tokens_in)
        if reasoning is not None and reasoning > tokens_out:
            tokens_out += reasoning
    return tokens_in, tokens_out, cached, written, reasoning


def _part(said: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The first of these objects that is there; an empty one when none is."""
    for name in names:
        if isinstance(part := said.get(name), dict):
            return part
    return {}


def _count(value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is int:
        return value if value <= MAX_TOKENS else None
    number = _amount(value, MAX_TOKENS)
    return int(number) if number is not None and number == int(number) else None


def _amount(value: Any, most: Decimal | int = MAX_COST) -> Decimal | None:
    """A number that is neither NaN nor infinite, below zero, above ``most``, or with an exponent
    that sums would choke on."""
    if value is None:
        return None
    if type(value) is int:
        value = Decimal(value)
    elif not isinstance(value, Decimal) or value.as_tuple().exponent not in EXPONENTS:
        return None
    return None if value.is_signed() or value > most else value
