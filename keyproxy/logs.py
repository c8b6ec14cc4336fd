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
from collections.abc import Iterable, MutableMapping
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog

from keyproxy.console import ShortLines
from keyproxy.key_forms import BEGINNINGS, PIECE

MASK = "***"
_SECRET = re.compile(rf"{PIECE}|[Bb][Ee][Aa][Rr][Ee][Rr]\s+[A-Za-z0-9._~+/=-]{{8,}}", re.ASCII)
_BEGINNINGS = (*map(str.lower, BEGINNINGS), "bearer")
_MAX_TEXT = 20_000
_MOST_KEPT, _LONGEST_KEPT = 1_000, 100
_NUMBERS = (int, float, bool, type(None))
_as_json = json.JSONEncoder(default=str).encode


class Masking:
    """A structlog processor that takes secrets out of every text, known ones by value."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._needles = _BEGINNINGS
        # Most texts are in line after line: those of settings, of clients, of models.
        self._harmless: set[str] = set()

    def hide(self, secrets: Iterable[str]) -> None:
        """From now on these values are masked too, whatever they look like."""
        self._secrets.update(secret for secret in secrets if len(secret) >= 8)
        known = map(str.lower, self._secrets)
        others = [each for each in known if not any(mark in each for mark in _BEGINNINGS)]
        self._needles = (*_BEGINNINGS, *others)
        self._harmless.clear()

    def __call__(
        self, logger: Any, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        harmless = self._harmless
        unknown = [
            (name, value)
            for name, value in event.items()
            if type(value) not in _NUMBERS and not (isinstance(value, str) and value in harmless)
        ]
        texts = [value for _, value in unknown if isinstance(value, str)]
        if len(texts) == len(unknown) and self._is_harmless("\n".join(texts)):
            self._remember(texts)
        else:
            for name, value in unknown:
                event[name] = self._masked(value)
        return event

    def json(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        """The masked event as JSON: a renderer."""
        return _as_json(self(logger, method, event))

    def _masked(self, value: Any) -> Any:
        if isinstance(value, _NUMBERS):
            return value
        if isinstance(value, (list, tuple)):
            return [self._masked(item) for item in value]
        if isinstance(value, dict):
            return {key: self._masked(item) for key, item in value.items()}
        text = str(value)[:_MAX_TEXT]
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return _SECRET.sub(MASK, text)

    def _is_harmless(self, text: str) -> bool:
        """Whether no secret begins in it, as is so of nearly each."""
        folded = text.lower()
        return len(text) <= _MAX_TEXT and not any(map(folded.__contains__, self._needles))

    def _remember(self, texts: Iterable[str]) -> None:
        if len(self._harmless) >= _MOST_KEPT:
            self._harmless.clear()
        self._harmless.update(text for text in texts if len(text) <= _LONGEST_KEPT)


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
    event["timestamp"] = f"{datetime.now(UTC).isoformat()[:-6]}Z"
    if "exc_info" in event:
        event = structlog.processors.format_exc_info(logger, method, event)
    return event


def _with_message(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    event["message"] = event.pop("event")
    return event


def configure(style: str, level: str, stream: TextIO | None = None) -> None:
    """Log to ``stream`` (stderr), as ``console`` or ``json``; other libraries' lines too.

    ``console`` is short, but for the level ``debug``, which shows all fields.
    """
    stream = stream or sys.stderr
    rendering: list[Any] = [_with_message, masking.json]
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
