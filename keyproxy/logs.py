"""structlog set-up and masking.

Masking is the second line of defence: keys do not get here in the first place.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, MutableMapping
from typing import Any, TextIO

import structlog

from keyproxy.console import ShortLines
from keyproxy.key_forms import PIECE

MASK = "***"
_SECRET = re.compile(rf"{PIECE}|(?i:bearer)\s+[A-Za-z0-9._~+/=-]{{8,}}", re.ASCII)
_MAX_TEXT = 20_000


class Masking:
    """A structlog processor that takes secrets out of every text, known ones by value."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def hide(self, secrets: Iterable[str]) -> None:
        """From now on these values are masked too, whatever they look like."""
        self._secrets.update(secret for secret in secrets if len(secret) >= 8)

    def __call__(
        self, logger: Any, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        for name, value in event.items():
            event[name] = self._masked(value)
        return event

    def _masked(self, value: Any) -> Any:
        if isinstance(value, (int, float, bool, type(None))):
            return value
        if isinstance(value, (list, tuple)):
            return [self._masked(item) for item in value]
        if isinstance(value, dict):
            return {key: self._masked(item) for key, item in value.items()}
        text = str(value)[:_MAX_TEXT]
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return _SECRET.sub(MASK, text)


masking = Masking()


def configure(style: str, level: str, stream: TextIO | None = None) -> None:
    """Log to ``stream`` (stderr), as ``console`` or ``json``; other libraries' lines too.

    ``console`` is short, but for the level ``debug``, which shows all fields.
    """
    stream = stream or sys.stderr
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        *([structlog.processors.EventRenamer("message")] if style == "json" else []),
        masking,
    ]
    renderer: Any = structlog.processors.JSONRenderer()
    if style == "console":
        is_terminal = stream.isatty()
        # no-color.org; on Windows the library wants one more package for colours.
        has_colour = is_terminal and sys.platform != "win32" and not os.environ.get("NO_COLOR")
        if level == "debug":
            renderer = structlog.dev.ConsoleRenderer(
                colors=has_colour, exception_formatter=structlog.dev.plain_traceback
            )
        else:
            columns = shutil.get_terminal_size().columns if is_terminal else None
            renderer = ShortLines(has_colour=has_colour, columns=columns)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
