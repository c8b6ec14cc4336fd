"""Whether an answer has begun to say something, or tells of an error before it does. Pure.

Before that its call can still go elsewhere, and nobody sees the difference. What is not understood
counts as output: then nothing is held back any longer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from keyproxy.dialects import Dialect

MOST_BYTES = 64 * 1024
_BOUNDARY = re.compile(rb"\r?\n\r?\n")
_SILENT = frozenset(
    {"message_start", "ping", "response.created", "response.in_progress", "response.queued"}
)
"""Types of events in which nothing is said yet."""
_ERRORS = frozenset({"error", "response.failed", "response.error"})


class Seen(NamedTuple):
    """``error``: JSON that holds it at its top."""

    what: Literal["output", "error"]
    error: Any = None


OUTPUT = Seen("output")


class FirstOutput:
    """One for each answer that is held; shown its bytes until it says what it has seen."""

    def __init__(self, dialect: Dialect, *, is_event_stream: bool) -> None:
        self._dialect = dialect
        self._is_event_stream = is_event_stream
        self._rest = bytearray()

    def watch(self, data: bytes | None) -> Seen | None:
        """What is known with the next bytes, or at the end (None); None while it is nothing."""
        if not self._is_event_stream:
            if data is not None:
                self._rest += data
                return OUTPUT if len(self._rest) > MOST_BYTES else None
            return _of_json(self._rest) or OUTPUT
        looked, begins = max(0, len(self._rest) - 3), 0
        self._rest += data if data is not None else b"\n\n"
        for end in _BOUNDARY.finditer(self._rest, looked):
            event = self._rest[begins : end.start()]
            if (seen := _of_event(event)) is not None:
                return seen
            begins = end.end()
        del self._rest[:begins]
        return OUTPUT if data is None or len(self._rest) > MOST_BYTES else None


def _of_event(event: bytes | bytearray) -> Seen | None:
    data = b"\n".join(line[5:] for line in event.splitlines() if line.startswith(b"data:"))
    return _of_json(data) if data.strip() else None  # a comment


def _of_json(raw: bytes | bytearray) -> Seen | None:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return OUTPUT
    if (error := _error(body)) is not None:
        return Seen("error", error)
    return None if isinstance(body, dict) and _is_silent(body) else OUTPUT


def _error(body: Any) -> Any:
    """The error that ``body`` tells of, as JSON that holds it at its top; None where it tells of
    none."""
    if not isinstance(body, dict):
        return None
    if body.get("error") is not None:
        return body
    for place in (body.get("response"), *_choices(body)):
        if isinstance(place, dict) and place.get("error") is not None:
            return {"error": place["error"]}
    is_told = any(choice.get("finish_reason") == "error" for choice in _choices(body))
    return body if is_told or _type(body) in _ERRORS else None


def _is_silent(body: dict[str, Any]) -> bool:
    if _type(body) in _SILENT:
        return True
    if body.get("object") != "chat.completion.chunk" or body.get("usage"):
        return False
    return not any(map(_says_something, _choices(body)))


def _type(body: dict[str, Any]) -> str:
    kind = body.get("type")
    return kind if isinstance(kind, str) else ""


def _says_something(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    said = delta.items() if isinstance(delta, dict) else ()
    is_delta = any(value for name, value in said if name != "role")
    return is_delta or choice.get("finish_reason") is not None


def _choices(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            yield choice
