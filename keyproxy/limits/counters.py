"""Counters in this process: windows and calls in flight. ``shared.py`` counts in Redis.

Fixed windows in both: exact, shareable between replicas, one number each, with a true reset
time. The sliding counter of the ``limits`` library let 11 calls of 10 through within a second,
since it estimates around a border; a moving window stores every hit. Of that library only its
notation for rates is left: its storages count one window at a time, and the one in memory
walks all its keys on each hit.

Flat in CPU: an entry is found by one look in a dict, and whoever needs a new row looks at a few.
Flat in memory: a row is one dict entry of small integers and 18 bytes for each window length,
about 160 bytes for a client's two windows; tuples and texts took three times that. What a client
has set aside stands in the row of what it has spent.
"""

from __future__ import annotations

import math
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from keyproxy.dataclass import dataclass, field
from keyproxy.limits.windows import Change, Place, Verdict, Window

MAX_ROWS = 340_000  # 100,000 clients with an address and a budget each, and some
_SEEN_FOR_ROW = 4  # more than one, so that no more than a third of all rows are over
_LATE_SECONDS = 3600.0
"""A window of the calendar is remembered for so long behind its end: a clock may be set back."""
_NOBODY = -1
_Seen = tuple[Window, int, float, int, "Column | None"]
"""What is counted in a window, the seconds left of it, and where its figures stand, if it runs."""


@dataclass(slots=True)
class Column:
    """All windows of one column, by row. An ``end`` in the past is a window that is over."""

    counts: array[int] = field(default_factory=lambda: array("q"))
    ends: array[float] = field(default_factory=lambda: array("d"))
    stamps: array[int] = field(default_factory=lambda: array("H"))

    def grow(self, rows: int = 1) -> None:
        self.counts.extend([0] * rows)
        self.ends.extend([0.0] * rows)
        self.stamps.extend([0] * rows)


class Entry(NamedTuple):
    """A running window. ``stamp`` is the writer's own mark, up to 65535."""

    units: int
    ends: float
    stamp: int = 0


class Table:
    """Running windows, bounded. ``clock`` never goes back, in seconds.

    ``rows``: by a window's identity; ``columns``: by its column. Its counters look there, too.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, max_rows: int = MAX_ROWS
    ) -> None:
        self.clock = clock
        self._max_rows = max_rows
        self.rows: dict[int, int] = {}
        self._keys: array[int] = array("q")  # by row, to take a row's key out of the dict
        self._free: list[int] = []
        self.columns: dict[int, Column] = {}
        self._hand = 0
        self._kept: set[int] = set()

    def __len__(self) -> int:
        return len(self.rows)

    def get(self, window: Window) -> Entry | None:
        """The running window, or nothing."""
        row, column = self.rows.get(window.identity), self.columns.get(window.column)
        if row is None or column is None or column.ends[row] <= self.clock():
            return None
        return Entry(column.counts[row], column.ends[row], column.stamps[row])

    def put(self, window: Window, entry: Entry) -> None:
        """Set a window. Full, the table forgets one that would have ended soon and that is not
        to be kept, of which there must be only a few."""
        column = self.columns.get(window.column)
        if column is None:
            column = self.columns[window.column] = Column()
            column.grow(len(self._keys))
        row = self.rows.get(window.identity)
        if row is None:
            row = self.rows[window.identity] = self._new_row()
            self._keys[row] = window.identity
            if window.is_kept:
                self._kept.add(row)
        column.counts[row] = entry.units
        column.ends[row] = entry.ends
        column.stamps[row] = entry.stamp

    def _forget(self) -> None:
        """Drop what is over, a few rows at a time."""
        keys, now, columns = self._keys, self.clock(), self.columns.values()
        for _ in range(_SEEN_FOR_ROW if keys else 0):
            row = self._hand = (self._hand + 1) % len(keys)
            for column in columns:
                if column.ends[row] > now:
                    break
            else:
                if keys[row] != _NOBODY:
                    self._drop(row)
                    self._free.append(row)

    def _new_row(self) -> int:
        self._forget()
        if self._free:
            return self._free.pop()
        if len(self._keys) < self._max_rows:
            self._keys.append(_NOBODY)
            for column in self.columns.values():
                column.grow()
            return len(self._keys) - 1
        row, soonest = _NOBODY, math.inf
        for _ in range(_SEEN_FOR_ROW + len(self._kept)):
            hand = self._hand = (self._hand + 1) % len(self._keys)
            ends = max([column.ends[hand] for column in self.columns.values()])
            if ends < soonest and hand not in self._kept:
                row, soonest = hand, ends
        self._drop(row)
        return row

    def _drop(self, row: int) -> None:
        del self.rows[self._keys[row]]
        self._kept.discard(row)
        self._keys[row] = _NOBODY
        for column in self.columns.values():
            column.ends[row] = 0.0


class Counters:
    """Looks at all windows of a call, and at its place in flight, before it counts in any.

    Nothing in here waits, so the look and the count are one step. ``wall`` is the calendar's
    clock, in UTC epoch seconds: which of the calendar's windows runs, its asker says by the span.
    """

    is_shared = False
    """Whether what is counted outlives this process."""

    def __init__(self, table: Table | None = None, wall: Callable[[], float] = time.time) -> None:
        self._table = Table() if table is None else table
        self._wall = wall
        self.in_flight: Counter[str] = Counter()
        """Open calls by the key of their place; one without any leaves no trace."""

    @property
    def is_down(self) -> bool:
        """Whether the storage cannot be asked now."""
        return False

    async def take(
        self, windows: Sequence[Window], place: Place | None = None, cost: int = 1
    ) -> Verdict:
        """Count ``cost`` units in every window, and in its ``opened`` one, and give the call its
        place, or do neither.

        An admitted call must ``leave`` its place. Raises ``overloaded``: storage down, and no
        call is to pass without it.
        """
        table, in_flight = self._table, self.in_flight
        rows, columns, now, wall = table.rows, table.columns, table.clock(), self._wall()
        open_calls = 0 if place is None else in_flight.get(place.key, 0)
        is_crowded = place is not None and open_calls >= place.most
        is_admitted = not is_crowded
        seen: list[_Seen] = []
        for window in windows:
            units, column, span = 0, None, window.span
            left = window.seconds if span is None else span.ends - wall
            if left < 0:
                left = 0.0
            try:
                row, known = rows[window.identity], columns[window.column]
            except KeyError:
                row = _NOBODY
            else:
                if (ends := known.ends[row]) > now:  # else it begins with this call
                    units, column = known.counts[row], known
                    if span is None:
                        left = ends - now
            if units + cost > window.amount and cost > 0:
                is_admitted = False
            seen.append((window, units, left, row, column))
        if not is_admitted:
            opened = [self._running(each.opened).units for each in windows if each.opened]
            return Verdict(False, [each[:3] for each in seen], is_crowded, opened)
        if place is not None:
            in_flight[place.key] = open_calls + 1
        return Verdict(True, self._count(seen, cost))

    def _count(self, seen: Sequence[_Seen], cost: int) -> list[tuple[Window, int, float]]:
        """Count ``cost`` in windows that were just looked at; how they stand then. An ``opened``
        one is of the same client, so that it has the same row."""
        table, columns, now = self._table, self._table.columns, self._table.clock()
        found, begun = [], []
        for window, units, left, row, column in seen:
            found.append((window, units + cost, left))
            inner = window.opened
            if column is None:
                begun += [(each, left) for each in (window, inner) if each is not None]
                continue
            column.counts[row] = units + cost
            if window.span is not None:
                column.ends[row] = now + left + _LATE_SECONDS
            if inner is None:
                continue
            if inner.column not in columns:
                begun.append((inner, left))
                continue
            held = columns[inner.column]
            held.counts[row] = cost + (held.counts[row] if held.ends[row] > now else 0)
            held.ends[row] = column.ends[row]
        for window, left in begun:  # last, since a full table forgets others for them
            late = 0.0 if window.span is None else _LATE_SECONDS
            table.put(window, Entry(cost, now + left + late))
        return found

    async def look(self, windows: Sequence[Window]) -> list[int]:
        """How many units are counted in each of these windows; counts nothing."""
        return [self._running(window).units for window in windows]

    async def adjust(self, changes: Sequence[Change]) -> None:
        """Count more, or less, in each window that still runs, to no less than 0.

        A window that is over stays over.
        """
        self.adjust_here(changes)

    def adjust_here(self, changes: Sequence[Change]) -> None:
        """As ``adjust``, in this process only."""
        rows, columns, now = self._table.rows, self._table.columns, self._table.clock()
        for window, units in changes:
            try:
                row, column = rows[window.identity], columns[window.column]
            except KeyError:
                continue  # forgotten
            if column.ends[row] > now:
                count = column.counts[row] + units
                column.counts[row] = count if count > 0 else 0

    async def recall(self, changes: Sequence[Change]) -> None:
        """Add to these windows what was counted in them before this process began."""
        for window, units in changes:
            entry = self._running(window)
            self._table.put(window, entry._replace(units=entry.units + units))

    def leave(self, place: Place) -> None:
        """Give up a place that ``take`` gave."""
        if (left := self.in_flight[place.key] - 1) > 0:
            self.in_flight[place.key] = left
        else:
            self.in_flight.pop(place.key, None)

    def _running(self, window: Window) -> Entry:
        """What is counted in a window; nothing in one that begins with this call."""
        left: float = window.seconds
        if window.span is not None:
            left = max(0.0, window.span.ends - self._wall()) + _LATE_SECONDS
        return self._table.get(window) or Entry(0, self._table.clock() + left)
