"""Garbage collections, kept short and rare: what lives as long as the process is not looked at.

Hundreds of thousands of objects (modules, settings, rules) would be walked each half minute under
load, with everything standing still, to collect nothing. For the process only: whoever runs the
service within another program keeps that program's ways.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import structlog

PAUSE_SECONDS = 60.0
"""Between two times that all objects are looked at because of reloads; each takes some 50 ms."""
_YOUNG = 5_000
"""Objects more than before, until the young ones are looked at; a hundred times that for a full
collection. Python's 700 brought one each half minute under load, for nothing: what calls leave is
let go by counting references. At worst half a million objects wait for one, some 50 MB."""
_log = structlog.get_logger("keyproxy")


class Heap:
    """Made once the process listens; what there is by then is set apart."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._is_due = False
        gc.set_threshold(_YOUNG, 10, 10)
        self._set_apart()

    def reloaded(self) -> None:
        """There are new settings; the old ones, set apart before, are to be let go."""
        self._is_due = True
        self.look()

    def look(self) -> None:
        """Let go what reloads have left behind, when the last time was long enough ago."""
        if self._is_due and self._clock() - self._done_at >= PAUSE_SECONDS:
            gc.unfreeze()
            self._set_apart()

    def _set_apart(self) -> None:
        gc.collect()
        gc.freeze()
        self._is_due, self._done_at = False, self._clock()
        _log.debug("what lives long is set apart", objects=gc.get_freeze_count())
