"""structlog set-up, masking, and lines as JSON.

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
from collections.abc import Callable, Hashable, Iterable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, TextIO

import structlog

from keyproxy.console import ShortLines
from keyproxy.key_forms import BEGINNINGS, PIECE, STARS

_SECRET = re.compile(rf"{PIECE}|[Bb][Ee][Aa][Rr][Ee][Rr]\s+[A-Za-z0-9._~+/=-]{{8,}}", re.ASCII)
_BEGINNINGS = (*map(str.lower, BEGINNINGS), "bearer")
_MAX_TEXT = 20_000
_MOST_KEPT, _LONGEST_KEPT = 1_000, 100
_LONGEST_TEMPLATE = 2_000
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_NUMBERS = (int, float, bool, type(None))
_OURS = frozenset({"request_id", "trace_id", "timestamp", "cost"})
"""What is made here of digits and letters, and differs from line to line."""
Said = dict[str, Any]
"""Facts by their names in a line."""
Facts = tuple[tuple[Hashable, ...], Sequence[Any]]
"""Of a call: those that many calls have alike, those of its own; None: not known."""
_as_json = json.JSONEncoder(default=str).encode


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, texts)))


class Masking:
    """A structlog processor that takes secrets out of every text, known ones by value."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._beginnings = _any_of(_BEGINNINGS)
        self._written = _Written(self)
        self._templates: dict[tuple[object, ...], tuple[str, list[int]]] = {}

    def hide(self, secrets: Iterable[str]) -> None:
        """From now on these values are masked too, whatever they look like."""
        self._secrets.update(secret for secret in secrets if len(secret) >= 8)
        known = map(str.lower, self._secrets)
        others = [each for each in known if not any(mark in each for mark in _BEGINNINGS)]
        self._beginnings = _any_of((*_BEGINNINGS, *others))
        self._written.clear()
        self._templates.clear()

    def __call__(
        self, logger: Any, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        for name, value in event.items():
            event[name] = self.masked(value)
        return event

    def json(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        """The masked event as JSON: a renderer."""
        return self._line({name: self._as_json(name, value) for name, value in event.items()})

    def call_json(self, level: str, facts: Facts, line: Callable[[Sequence[Any]], Said]) -> str:
        """The same of a call. What it has in common with others is masked and written once; facts
        of its own are filled in, floats to one digit. ``line`` gets their types, which mark where
        they stand in it."""
        shared, own = facts
        key = level, shared, *map(type, own)
        if (known := self._templates.get(key)) is None:
            said = line([None if fact is None else type(fact) for fact in own])
            known = self._template(said | {"level": level, "timestamp": str})
            if len(self._templates) >= _MOST_KEPT:
                self._templates.clear()
            if len(known[0]) <= _LONGEST_TEMPLATE:
                self._templates[key] = known
        template, texts = known
        told = [fact for fact in own if fact is not None]
        for at in texts:
            told[at] = self._written[told[at]]
        return template % (*told, _now())

    def _template(self, event: Said) -> tuple[str, list[int]]:
        """A line to be filled where the event has types, and which of what fills it is masked
        first: all but numbers and texts of ours."""
        event["message"] = event.pop("event")
        kinds = {name: kind for name, kind in event.items() if isinstance(kind, type)}
        places = {
            name: '"%s"' if name in _OURS else "%.1f" if kind is float else "%s"
            for name, kind in kinds.items()
        }
        line = {
            name: places.get(name) or self._as_json(name, value).replace("%", "%%")
            for name, value in event.items()
        }
        masked = [name not in _OURS and kinds[name] not in (int, float) for name in kinds]
        return self._line(line), [at for at, is_masked in enumerate(masked) if is_masked]

    def _line(self, members: Mapping[str, str]) -> str:
        written = [f"{self._written[name]}: {value}" for name, value in members.items()]
        return "{" + ", ".join(written) + "}"

    def _as_json(self, name: str, value: Any) -> str:
        if type(value) is int or type(value) is float:
            return repr(value)
        if type(value) is str and name in _OURS:
            return f'"{value}"'
        if isinstance(value, (str, bool, type(None))):
            return self._written[value]
        return _as_json(self.masked(value))

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


masking = Masking()


_as_line = masking.json


class _Lines:
    """Writes our lines, each at once and between those of other libraries, which ``handler``
    writes. What cannot be written is lost: a call must not fail by its log."""

    def __init__(self, handler: logging.StreamHandler[TextIO], stream: TextIO) -> None:
        self._lock: AbstractContextManager[Any] = handler.lock or nullcontext()
        self._stream = stream

    def info(self, line: str) -> None:
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                pass

    debug = warning = error = critical = info


def _stamped(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["level"], event["timestamp"] = method, _now()
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, method, event)
    return event


def _now() -> str:
    second, nano = divmod(time.time_ns(), 10**9)
    return f"{_written_second(second)}.{nano // 1000:06}Z"


@lru_cache(1)
def _written_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def write_call(
    level: str, facts: Callable[[], Facts], line: Callable[[Sequence[Any]], Said], *, is_alike: bool
) -> None:
    """Write the ``line`` of a call that says ``facts`` of its own beside those it may share.

    It goes the way that a logger of structlog's sends one, without the four copies that it makes.
    As JSON, one that ``is_alike`` is filled into what calls like it have written.
    """
    config = structlog.get_config()
    if not config["wrapper_class"].is_enabled_for(None, _LEVELS[level]):
        return
    logger, processors = config["logger_factory"](), config["processors"]
    if is_alike and processors[-1] is _as_line:
        said: Any = masking.call_json(level, facts(), line)
    else:
        said = line(facts()[1])
        try:
            for process in processors:
                said = process(logger, level, said)
        except structlog.DropEvent:
            return
    getattr(logger, level)(said)


def configure(style: str, level: str, stream: TextIO | None = None) -> None:
    """Log to ``stream`` (stderr), as ``console`` or ``json``; other libraries' lines too.

    ``console`` is short, but for the level ``debug``, which shows all fields.
    """
    stream = stream or sys.stderr
    rendering: list[Any] = [structlog.processors.EventRenamer("message"), _as_line]
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
