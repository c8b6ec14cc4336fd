"""The memory behind the counters: numbers in arrays, a row for each key, bounded.

Flat in CPU: an entry is found by one look in a dict, and forgetting looks at two rows a call.
Flat in memory: a row is one dict entry of small integers and 18 bytes for each window length,
about 160 bytes for a client's two windows; tuples and texts took three times that.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_ROWS = 250_000  # 100,000 clients with an address each, and some
_FORGOTTEN_PER_CALL = 2  # more than one, so that the table shrinks while it is used
_SEEN_FOR_ROOM = 4
_NOBODY = -1
# Of a text's 64-bit hash, which is keyed anew in each process, 60 bits fit a small integer:
# two of 250,000 keys meet with a chance of 1 in 30 million, and nobody can choose them.
_HASH_BITS = (1 << 60) - 1


@dataclass(slots=True)
class Column:
    """All windows of one length, by row. An ``end`` in the past is a window that is over."""

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
    """Running windows by name, key and length. ``clock`` never goes back, in seconds."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, max_rows: int = MAX_ROWS
    ) -> None:
        self.clock = clock
        self._max_rows = max_rows
        self._rows: dict[int, int] = {}
        self._keys: array[int] = array("q")  # by row, to take a row's key out of the dict
        self._free: list[int] = []
        self._columns: dict[int, Column] = {}
        self._hand = 0
        self._kept: set[int] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, name: str, key: str, seconds: int) -> Entry | None:
        """The running window, or nothing."""
        row = self._rows.get(hash((name, key)) & _HASH_BITS)
        column = self._columns.get(seconds)
        if row is None or column is None or (ends := column.ends[row]) <= self.clock():
            return None
        return Entry(column.counts[row], ends, column.stamps[row])

    def put(
        self, name: str, key: str, seconds: int, entry: Entry, *, is_kept: bool = False
    ) -> None:
        """Set a window. Full, the table forgets one that would have ended soon and that is not
        to be kept, of which there must be only a few."""
        column = self._columns.get(seconds)
        if column is None:
            column = self._columns[seconds] = Column()
            column.grow(len(self._keys))
        identity = hash((name, key)) & _HASH_BITS
        row = self._rows.get(identity)
        if row is None:
            row = self._rows[identity] = self._new_row()
            self._keys[row] = identity
            if is_kept:
                self._kept.add(row)
        column.counts[row] = entry.units
        column.ends[row] = entry.ends
        column.stamps[row] = entry.stamp

    def forget(self) -> None:
        """Drop what is over, a little at a time; to be called once for each call."""
        if not self._keys:
            return
        now, columns = self.clock(), self._columns.values()
        for _ in range(_FORGOTTEN_PER_CALL):
            row = self._next()
            for column in columns:
                if column.ends[row] > now:
                    break
            else:
                if self._keys[row] != _NOBODY:
                    self._drop(row)
                    self._free.append(row)

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        if len(self._keys) < self._max_rows:
            self._keys.append(_NOBODY)
            for column in self._columns.values():
                column.grow()
            return len(self._keys) - 1
        seen = [self._next() for _ in range(_SEEN_FOR_ROOM + len(self._kept))]
        row = min([row for row in seen if row not in self._kept], key=self._last_end)
        self._drop(row)
        return row

    def _next(self) -> int:
        self._hand = (self._hand + 1) % len(self._keys)
        return self._hand

    def _last_end(self, row: int) -> float:
        return max([column.ends[row] for column in self._columns.values()])

    def _drop(self, row: int) -> None:
        del self._rows[self._keys[row]]
        self._kept.discard(row)
        self._keys[row] = _NOBODY
        for column in self._columns.values():
            column.ends[row] = 0.0
