"""Counters in this process: windows and calls in flight. ``shared.py`` counts in Redis.

Fixed windows in both: exact, shareable between replicas, one number each, with a true reset
time. The sliding counter of the ``limits`` library let 11 calls of 10 through within a second,
since it estimates around a border; a moving window stores every hit. Of that library only its
notation for rates is left: its storages count one window at a time, and the one in memory
walks all its keys on each hit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from keyproxy.limits.table import Entry, Table
from keyproxy.limits.windows import Place, Span, Standing, Verdict, Window, blocking


class InFlight:
    """Open calls by key; a key without one leaves no trace."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(self._open.values())

    def of(self, key: str) -> int:
        return self._open.get(key, 0)

    def enter(self, key: str) -> None:
        self._open[key] = self.of(key) + 1

    def leave(self, key: str) -> None:
        left = self.of(key) - 1
        if left > 0:
            self._open[key] = left
        else:
            self._open.pop(key, None)


class Counters:
    """Looks at all windows of a call, and at its place in flight, before it counts in any.

    Nothing in here waits, so the look and the count are one step. ``wall`` is the calendar's
    clock, in UTC epoch seconds.
    """

    is_shared = False
    """Whether what is counted outlives this process."""

    def __init__(self, table: Table | None = None, wall: Callable[[], float] = time.time) -> None:
        self._table = Table() if table is None else table
        self._wall = wall
        self.in_flight = InFlight()

    @property
    def is_down(self) -> bool:
        """Whether the storage cannot be asked now."""
        return False

    async def take(self, windows: Sequence[Window], place: Place | None = None) -> Verdict:
        """Count one call in every window and give it its place, or do neither.

        An admitted call must ``leave`` its place. Raises ``overloaded``: storage down, and no
        call is to pass without it.
        """
        return self._take(windows, place)

    async def look(self, windows: Sequence[Window]) -> tuple[Standing, ...]:
        """Where the windows stand; nothing is counted. Raises ``overloaded``."""
        return self._look(windows)

    async def adjust(self, windows: Sequence[Window]) -> None:
        """Add its cost, which may be negative, to each window that still runs, to no less than 0.

        A window that is over stays over. Their spans are those that ``take`` gave back.
        """
        self._adjust(windows)

    async def recall(self, windows: Sequence[Window]) -> None:
        """Add to these windows what was counted in them before this process began."""
        for window in map(self._placed, windows):
            entry = self._entry(window)
            self._counted(self._standing(window, entry), entry)

    def leave(self, place: Place) -> None:
        """Give up a place that ``take`` gave."""
        self.in_flight.leave(place.key)

    def _take(self, windows: Sequence[Window], place: Place | None) -> Verdict:
        self._table.forget()
        placed = [self._placed(window) for window in windows]
        entries = [self._entry(window) for window in placed]
        standings = tuple(map(self._standing, placed, entries))
        is_crowded = place is not None and self.in_flight.of(place.key) >= place.most
        if is_crowded or blocking(standings):
            return Verdict(False, standings, is_crowded)
        if place is not None:
            self.in_flight.enter(place.key)
        return Verdict(True, tuple(map(self._counted, standings, entries)))

    def _counted(self, standing: Standing, entry: Entry | None) -> Standing:
        window, wait = standing.window, standing.resets_in_seconds
        entry = entry or Entry(0, self._table.clock() + wait)
        self._put(window, Entry(entry.units + window.cost, entry.ends, entry.stamp))
        return Standing(window, standing.remaining - window.cost, wait)

    def _look(self, windows: Sequence[Window]) -> tuple[Standing, ...]:
        placed = [self._placed(window) for window in windows]
        return tuple([self._standing(window, self._entry(window)) for window in placed])

    def _placed(self, window: Window) -> Window:
        """An aligned window with the span that runs now."""
        if not window.is_aligned or window.span is not None:
            return window
        begins = int(self._wall()) // window.seconds * window.seconds
        return window._replace(span=Span(begins, begins + window.seconds))

    def _standing(self, window: Window, entry: Entry | None) -> Standing:
        if entry is None:
            return Standing(window, window.amount, self._length(window))
        left = max(0, window.amount - entry.units)
        excess = max(0, entry.units - window.amount)
        return Standing(window, left, entry.ends - self._table.clock(), excess)

    def _length(self, window: Window) -> float:
        """How long a window lasts that begins to be counted now."""
        if window.span is None:
            return window.seconds
        return max(0.0, window.span.ends - self._wall())

    def _adjust(self, windows: Sequence[Window]) -> None:
        for window in map(self._placed, windows):
            entry = self._entry(window)
            if entry is not None:
                units = max(0, entry.units + window.cost)
                self._put(window, Entry(units, entry.ends, entry.stamp))

    def _entry(self, window: Window) -> Entry | None:
        return self._table.get(window.name, counted_by(window), window.seconds)

    def _put(self, window: Window, entry: Entry) -> None:
        key = counted_by(window)
        self._table.put(window.name, key, window.seconds, entry, is_kept=window.is_kept)


def counted_by(window: Window) -> str:
    """The window's key, and which one of the calendar it is."""
    return window.key if window.span is None else f"{window.key}@{window.span.begins}"
