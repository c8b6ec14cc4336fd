"""What an answer says it used, read off its bytes as they pass. Pure: no I/O, no clock, no prices.

An ordinary event costs a few byte searches and is not kept; only events that may hold usage, an
error or an end are read. Usage counts at the places where an upstream puts it and nowhere else.
What is hostile or ambiguous (negative, NaN, a text, a name said twice) is None: then the
reservation stands. Shapes: OpenRouter, and the providers behind it, as of October 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from typing import Any

from keyproxy.call import Usage
from keyproxy.dialects import Dialect
from keyproxy.price import MAX_COST
from keyproxy.strict_json.scanner import REFUSED, Place, Skimmer, Wanted

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
_DELTA: Place = ("choices", None, "delta")
_TEXT: Place = ("choices", None, "text")
_IN_BODY: tuple[Place, ...] = (("usage",), ("x_groq", "usage"))
_LAST_TYPES = frozenset(
    {"message_stop", "response.completed", "response.incomplete", "response.failed"}
)
_TYPES_BEFORE_OUTPUT = frozenset(
    {"message_start", "ping", "message_delta", "message_stop", "response.created"}
    | {"response.queued", "response.in_progress", *_ERROR_TYPES}
)
_SAYS_USAGE = re.compile(rb'"usage"\s*+:\s*+(?!null)')
_BOUNDARY = re.compile(rb"\n\r?\n")
_EVENT_ENDS = (b"\n\n", b"\n\r\n")
_MAY_BE_LAST = (b"}", b"}\n", b"}\r\n", b"]", b"]\n", b"]\r\n")
_ERROR_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_GENERATION_ID = re.compile(r"gen-[A-Za-z0-9_-]{8,100}")


class UsageReader:
    """One for each answer; ``watch`` sees every chunk, the rest says what was learnt so far.

    - ``generation_id``: the answer's ``gen-…``, or None.
    - ``is_finished``: the answer said that it is complete.
    - ``error``: the code or type of the error that it told of, whatever its status; "error" where
      none is readable, None (and ``error_seen`` false) where it told of none.
    - ``has_output``: something was generated, or that cannot be ruled out.
    """

    def __init__(self, dialect: Dialect, is_event_stream: bool) -> None:
        self.generation_id: str | None = None
        self.is_finished = False
        self.error: str | None = None
        self.has_output = False
        self._dialect = dialect
        self._needles = dialect.needles
        self._places = dialect.usage_in_events if is_event_stream else _IN_BODY
        self._wanted, self._wanted_at_first = _wanted(self._places)
        self._said: dict[str, Any] | None = None
        self._rest = bytearray()  # of an event whose end has not come
        self._body = None if is_event_stream else Skimmer(self._wanted)
        self._long_line: Skimmer | None = None

    @property
    def usage(self) -> Usage | None:
        """None when the answer did not say, or nothing that can be true."""
        return None if self._said is None else _usage(self._said, self._dialect)

    @property
    def error_seen(self) -> bool:
        return self.error is not None

    def watch(self, chunk: bytes) -> None:
        """Look at the next bytes of the answer. Never raises."""
        if self._body is not None:
            self._watch_body(self._body, chunk)
        elif (
            self._rest
            or not self.has_output
            or self._long_line is not None
            or not chunk.endswith(_EVENT_ENDS)
            or self._may_matter(chunk)
        ):
            self._watch_events(chunk)

    def _watch_body(self, body: Skimmer, chunk: bytes) -> None:
        if self.is_finished or not chunk:
            return
        self.has_output = True  # in doubt; raw audio for one never becomes whole
        body.feed(chunk)
        if body.is_whole:
            self.is_finished = True
            self._take(body.found)
            self.has_output = ("error",) not in body.found

    def _watch_events(self, chunk: bytes) -> None:
        if self._long_line is not None:
            chunk = self._read_long_line(self._long_line, chunk)
        rest = self._rest
        seen = max(0, len(rest) - 2)
        rest += chunk
        if end := max(_end_of_last(mark, rest, seen) for mark in _EVENT_ENDS):
            events = bytes(rest[:end])
            del rest[:end]
            if not self.has_output or self._may_matter(events):
                for event in _BOUNDARY.split(events):
                    self._read_event(event)
        if len(rest) > MAX_EVENT_BYTES:
            self._long_line = self._next_document()
            line = bytes(rest[rest.rfind(b"\n") + 1 :])
            self._long_line.feed(line.removeprefix(b"data:"))
            rest.clear()
        elif rest.endswith(_MAY_BE_LAST):  # some end without the blank line
            self._read_event(bytes(rest))

    def _read_long_line(self, line: Skimmer, chunk: bytes) -> bytes:
        """Read the event's one line of data to its end; JSON has no bare line feeds in it."""
        data, feed, rest = chunk.partition(b"\n")
        line.feed(data)
        if feed:
            self._long_line = None
            if line.is_whole:
                self._take_event(line)
        return feed + rest

    def _may_matter(self, data: bytes) -> bool:
        """Whether usage, an error or an end may be in it. It need not."""
        for needle in self._needles:
            if needle in data:
                return True
        return b'"usage"' in data and _SAYS_USAGE.search(data) is not None

    def _read_event(self, event: bytes) -> None:
        if self.has_output and not self._may_matter(event):
            return
        lines = event.splitlines()
        data = b"\n".join(line[5:] for line in lines if line.startswith(b"data:"))
        if data.strip() == b"[DONE]":
            self.is_finished = True
        elif data:
            document = self._next_document()
            document.feed(data)
            if document.is_whole:
                self._take_event(document)

    def _next_document(self) -> Skimmer:
        return Skimmer(self._wanted if self.has_output else self._wanted_at_first)

    def _take_event(self, document: Skimmer) -> None:
        self._take(document.found)
        kind = document.found.get(_TYPE)
        if isinstance(kind, str) and kind in _LAST_TYPES:
            self.is_finished = True
        self.has_output = self.has_output or _is_output(document.found, self._dialect)

    def _take(self, found: Mapping[Place, Any]) -> None:
        if self.generation_id is None:
            ids = (found.get(place) for place in _IDS)
            valid = (
                each for each in ids if isinstance(each, str) and _GENERATION_ID.fullmatch(each)
            )
            self.generation_id = next(valid, None)
        kind = found.get(_TYPE)
        is_error = isinstance(kind, str) and kind in _ERROR_TYPES
        told = next((found[place] for place in _ERRORS if place in found), None)
        if told is not None or is_error or found.get(_FINISH) == "error":
            code = found.get(_CODE) if is_error else None
            self.error = _error_code(told, code) or self.error or "error"
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
def _wanted(places: tuple[Place, ...]) -> tuple[Wanted, Wanted]:
    """What every document may say, and what matters besides until there was output."""
    always = (*places, *_ERRORS, *_IDS, _TYPE, _CODE, _FINISH)
    return Wanted(always), Wanted((*always, _DELTA, _TEXT))


def _end_of_last(mark: bytes, data: bytearray, start: int) -> int:
    """Where the last ``mark`` from ``start`` on ends; 0 when there is none."""
    return data.rfind(mark, start) + len(mark) if data.find(mark, start) >= 0 else 0


def _error_code(told: Any, code: Any) -> str | None:
    """The first of an error's names that is a plain word or number."""
    said = (told.get("code"), told.get("type")) if isinstance(told, dict) else ()
    for each in (*said, code):
        if isinstance(each, (str, Decimal)) and _ERROR_CODE.fullmatch(text := str(each)):
            return text
    return None


def _is_output(found: Mapping[Place, Any], dialect: Dialect) -> bool:
    """Whether an event may be more than a beginning, an end, an error or a sign of life."""
    kind = found.get(_TYPE)
    if kind is not None:
        return kind is REFUSED or kind not in _TYPES_BEFORE_OUTPUT
    if not dialect.has_choices:
        return ("error",) not in found
    delta = found.get(_DELTA)
    if isinstance(delta, dict):
        return any(value for name, value in delta.items() if name != "role")
    return delta is not None or bool(found.get(_TEXT))


def _usage(said: Mapping[str, Any], dialect: Dialect) -> Usage | None:
    read = _of_messages if dialect.counts_cache_apart else _of_openai
    costs = _part(said, "cost_details")
    tools = _part(said, "server_tool_use_details", "server_tool_use")
    usage = Usage(
        **read(said),
        cost=_money(said.get("cost")),
        is_byok=said.get("is_byok") not in (None, False),
        upstream_cost=_money(costs.get("upstream_inference_cost")),
        web_searches=_count(tools.get("web_search_requests")),
        tool_calls=_count(tools.get("tool_calls_executed")),
    )
    return None if usage in (Usage(), Usage(is_byok=True)) else usage


def _of_messages(said: Mapping[str, Any]) -> dict[str, int | None]:
    """Anthropic counts cached tokens beside the input, all others within it."""
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    plain, cached, written = (said.get(name) for name in names)
    parts = [_count(plain), *(_count(each) for each in (cached, written) if each is not None)]
    known = [part for part in parts if part is not None]
    return {
        "input_tokens": sum(known) if len(known) == len(parts) else None,
        "output_tokens": _count(said.get("output_tokens")),
        "cached_tokens": _count(cached),
        "cache_write_tokens": _count(written),
        "reasoning_tokens": _count(_part(said, "output_tokens_details").get("reasoning_tokens")),
    }


def _of_openai(said: Mapping[str, Any]) -> dict[str, int | None]:
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
    return {
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "cached_tokens": cached,
        "cache_write_tokens": written,
        "reasoning_tokens": reasoning,
    }


def _part(said: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The first of these objects that is there; an empty one when none is."""
    return next((said[name] for name in names if isinstance(said.get(name), dict)), {})


def _count(value: Any) -> int | None:
    if not isinstance(value, Decimal) or not _is_amount(value) or value > MAX_TOKENS:
        return None
    return int(value) if value == int(value) else None


def _money(value: Any) -> Decimal | None:
    if not isinstance(value, Decimal) or not _is_amount(value) or value > MAX_COST:
        return None
    return value


def _is_amount(value: Decimal) -> bool:
    """Neither NaN nor infinite, below zero, or with an exponent that sums would choke on."""
    return not value.is_signed() and value.as_tuple().exponent in EXPONENTS
