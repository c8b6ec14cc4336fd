"""structlog set-up and masking.

Masking is the second line of defence: keys do not get here in the first place.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, MutableMapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import lru_cache
from typing import Any, TextIO

import structlog

from keyproxy.console import ShortLines
from keyproxy.key_forms import BEGINNINGS, PIECE, STARS

_SECRET = re.compile(rf"{PIECE}|[Bb][Ee][Aa][Rr][Ee][Rr]\s+[A-Za-z0-9._~+/=-]{{8,}}", re.ASCII)
_BEGINNINGS = (*map(str.lower, BEGINNINGS), "bearer")
_MAX_TEXT = 20_000
_MOST_KEPT, _LONGEST_KEPT = 1_000, 100
_MOST_SHAPES = 256
_NUMBERS = (int, float, bool, type(None))
_OURS = frozenset({"request_id", "trace_id", "timestamp", "cost"})
"""What is made here of digits and letters, and differs from line to line."""
_as_json = json.JSONEncoder(default=str).encode


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, texts)))


class Masking:
    """A structlog processor that takes secrets out of every text, known ones by value."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._beginnings = _any_of(_BEGINNINGS)
        self._written = _Written(self)
        self._shapes: dict[tuple[object, ...], tuple[str, list[int], list[int]]] = {}

    def hide(self, secrets: Iterable[str]) -> None:
        """From now on these values are masked too, whatever they look like."""
        self._secrets.update(secret for secret in secrets if len(secret) >= 8)
        known = map(str.lower, self._secrets)
        others = [each for each in known if not any(mark in each for mark in _BEGINNINGS)]
        self._beginnings = _any_of((*_BEGINNINGS, *others))
        self._written.clear()

    def __call__(
        self, logger: Any, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        for name, value in event.items():
            event[name] = self.masked(value)
        return event

    def json(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        """The masked event as JSON: a renderer."""
        values = list(event.values())
        shape = (*event, *map(type, values))
        if (known := self._shapes.get(shape)) is None:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            known = self._shapes[shape] = _shape(event)
        line, texts, others = known
        for at in texts:
            values[at] = self._written[values[at]]
        for at in others:
            values[at] = _as_json(self.masked(values[at]))
        return line % tuple(values)

    def masked(self, value: Any) -> Any:
        if isinstance(value, _NUMBERS):
            return value
        if isinstance(value, (list, tuple)):
            return [self.masked(item) for item in value]
        if isinstance(value, dict):
            return {key: self.masked(item) for key, item in value.items()}
        text = str(value)[:_MAX_TEXT]
        for secret in self._secrets:
            text = text.replace(secret, STARS)
        return _SECRET.sub(STARS, text)

    def is_harmless(self, text: str) -> bool:
        """Whether no secret begins in it, as is so of nearly each."""
        return len(text) <= _MAX_TEXT and self._beginnings.search(text.lower()) is None


class _Written(dict[str | bool | None, str]):
    """Texts and words as JSON, by what they say. Harmless ones stay: most are in line after line,
    those of settings, of clients, of models."""

    def __init__(self, masking: Masking) -> None:
        self._masking = masking

    def __missing__(self, said: str | bool | None) -> str:
        text = str(said)
        if not self._masking.is_harmless(text):
            return _as_json(self._masking.masked(text))
        written = _as_json(said)
        if len(text) <= _LONGEST_KEPT:
            if len(self) >= _MOST_KEPT:
                self.clear()
            self[said] = written
        return written


def _shape(event: MutableMapping[str, Any]) -> tuple[str, list[int], list[int]]:
    """A line of JSON to be filled with the event's values, and which of them are texts or words,
    which are others that are written as JSON before: all but numbers, and texts of ours."""
    members, texts, others = [], [], []
    for at, (name, value) in enumerate(event.items()):
        is_ours = name in _OURS and type(value) is str
        members.append(_as_json(name).replace("%", "%%") + (': "%s"' if is_ours else ": %s"))
        if isinstance(value, (str, bool, type(None))) and not is_ours:
            texts.append(at)
        elif type(value) not in (int, float, str):
            others.append(at)
    return "{" + ", ".join(members) + "}", texts, others


masking = Masking()


class _Lines:
    """Writes our lines, each at once and between those of other libraries, which ``handler``
    writes. What cannot be written is lost: a call must not fail by its log."""

    def __init__(self, handler: logging.StreamHandler[TextIO], stream: TextIO) -> None:
        self._lock: AbstractContextManager[Any] = handler.lock or nullcontext()
        self._stream = stream

    def info(self, line: str) -> None:
        with self._lock, suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = warning = error = critical = info


def _stamped(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["level"] = method
    second, nano = divmod(time.time_ns(), 10**9)
    event["timestamp"] = f"{_written_second(second)}.{nano // 1000:06}Z"
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, method, event)
    return event


@lru_cache(1)
def _written_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def configure(style: str, level: str, stream: TextIO | None = None) -> None:
    """Log to ``stream`` (stderr), as ``console`` or ``json``; other libraries' lines too.

    ``console`` is short, but for the level ``debug``, which shows all fields.
    """
    stream = stream or sys.stderr
    rendering: list[Any] = [structlog.processors.EventRenamer("message"), masking.json]
    if style == "console":
        is_terminal = stream.isatty()
        # no-color.org; on Windows the library wants one more package for colours.
        has_colour = is_terminal and sys.platform != "win32" and not os.environ.get("NO_COLOR")
        renderer: Any
        if level == "debug":
            renderer = structlog.dev.ConsoleRenderer(
                colors=has_colour, exception_formatter=structlog.dev.plain_traceback
            )
        else:
            columns = shutil.get_terminal_size().columns if is_terminal else None
            renderer = ShortLines(has_colour=has_colour, columns=columns)
        rendering = [masking, renderer]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_stamped],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    lines = _Lines(handler, stream)
    structlog.configure(
        processors=[_stamped, *rendering],
        logger_factory=lambda *_: lines,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
