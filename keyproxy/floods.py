"""A flood of equal refusals: a few lines of it are written, the rest is counted.

Nobody reads the thousandth line of a client that asks too often, and whoever asks must not be able
to fill the disk. Equal are those of one code, app and client. Bounded, and nothing is lost: what
has no line of its own is in the ``count`` of the next counted line.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import structlog

LINES = 10
"""So many in a window are written; whoever tries things out by hand makes fewer."""
WINDOW_SECONDS = 60.0
MOST_KINDS = 1000
"""Kept apart at once; what comes on top is told apart by its code only."""
_log = structlog.get_logger("keyproxy")


class Refused(NamedTuple):
    """A kind of refusal: which of whom. ``level`` is that of its lines."""

    code: str
    http_status: int
    level: str = "info"
    app: str | None = None
    client: str | None = None


class Floods:
    """Which refusals have a line of their own. Belongs to the loop; ``close`` it."""

    def __init__(self, window_seconds: float = WINDOW_SECONDS) -> None:
        self._window_seconds = window_seconds
        self._seen: dict[Refused, int] = {}
        self._window: asyncio.TimerHandle | None = None
        self._began_at = 0.0

    def absorbs(self, refused: Refused) -> bool:
        """Whether it is one of a flood, and was counted; else it is to be written."""
        seen = self._seen.get(refused)
        if seen is None and len(self._seen) >= MOST_KINDS:
            refused = refused._replace(app=None, client=None)
            seen = self._seen.get(refused)
        self._seen[refused] = seen = (seen or 0) + 1
        if self._window is None:
            self._begin_window()
        return seen > LINES

    def close(self) -> None:
        """Write what was counted until now."""
        if self._window is not None:
            self._window.cancel()
            self._write_counts()

    def _begin_window(self) -> None:
        loop = asyncio.get_running_loop()
        self._began_at = loop.time()
        self._window = loop.call_later(self._window_seconds, self._end_window)

    def _end_window(self) -> None:
        """A flood that goes on has had its lines."""
        self._write_counts()
        self._seen = {kind: LINES for kind, seen in self._seen.items() if seen >= 2 * LINES}
        self._window = None
        if self._seen:
            self._begin_window()

    def _write_counts(self) -> None:
        seconds = round(asyncio.get_running_loop().time() - self._began_at, 1)
        for refused, seen in self._seen.items():
            if seen > LINES:
                facts = {name: fact for name, fact in refused._asdict().items() if fact is not None}
                write = getattr(_log, facts.pop("level"))
                write("refused again", **facts, count=seen - LINES, seconds=seconds)
