"""Counting windows, in memory; the only user of the ``limits`` library's storages.

Fixed windows: exact, cheap, shareable between replicas, with a true reset time. (The library's
sliding counter lets nearly twice a limit through around a border, and its moving window keeps
a row for every hit.) The library's own in-memory storage walks all its keys on each hit and
hops threads; ours costs the same with one client as with 100,000.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import Storage

MAX_KEYS = 500_000  # 100,000 clients with four windows each, and some; about 270 bytes a key
_FORGOTTEN_PER_HIT = 2  # more than one, so that the table shrinks while it is used


class MemoryStorage(Storage):
    """Counters that expire, one ordered table for each window length.

    Within a table entries stand in the order in which they expire, so forgetting looks at the
    oldest only. Full, the oldest counter goes: the one that would have expired next. (An
    OrderedDict finds its first entry at once; a dict steps over all that were deleted before it.)
    """

    STORAGE_SCHEME = ["keyproxy+memory"]  # noqa: RUF012  (the library's registry wants a list)

    def __init__(
        self,
        uri: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_keys: int = MAX_KEYS,
    ) -> None:
        super().__init__(uri)
        self._clock = clock
        self._max_keys = max_keys
        self._tables: dict[int, OrderedDict[str, tuple[int, float]]] = {}
        self._lengths: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._lengths)

    def now(self) -> float:
        return self._clock()

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now = self._clock()
        table = self._tables.setdefault(expiry, OrderedDict())
        self._forget(table, now)
        count, ends = table.get(key, (0, 0.0))
        if ends <= now:
            table.pop(key, None)  # its place in the order is that of the old window
            if len(self._lengths) >= self._max_keys:
                self._drop_oldest()
            count, ends = 0, now + expiry
        table[key] = (count + amount, ends)
        self._lengths[key] = expiry
        return count + amount

    async def get(self, key: str) -> int:
        count, ends = self._entry(key)
        return count if ends > self._clock() else 0

    async def get_expiry(self, key: str) -> float:
        now = self._clock()
        _, ends = self._entry(key)
        return ends if ends > now else now

    async def check(self) -> bool:
        return True

    async def reset(self) -> int:
        count = len(self._lengths)
        self._tables.clear()
        self._lengths.clear()
        return count

    async def clear(self, key: str) -> None:
        if (expiry := self._lengths.pop(key, None)) is not None:
            self._tables[expiry].pop(key, None)

    def _entry(self, key: str) -> tuple[int, float]:
        expiry = self._lengths.get(key)
        return (0, 0.0) if expiry is None else self._tables[expiry].get(key, (0, 0.0))

    def _forget(self, table: OrderedDict[str, tuple[int, float]], now: float) -> None:
        for _ in range(_FORGOTTEN_PER_HIT):
            oldest = next(iter(table), None)
            if oldest is None or table[oldest][1] > now:
                return
            self._remove(table, oldest)

    def _drop_oldest(self) -> None:
        fullest = max(self._tables.values(), key=len)
        self._remove(fullest, next(iter(fullest)))

    def _remove(self, table: OrderedDict[str, tuple[int, float]], key: str) -> None:
        del table[key]
        self._lengths.pop(key, None)


@dataclass(frozen=True, slots=True)
class Window:
    """One limit of one client: at most ``amount`` calls in ``seconds``."""

    name: str
    key: str
    amount: int
    seconds: int

    @property
    def item(self) -> RateLimitItem:
        return _item(self.name, self.amount, self.seconds)


@lru_cache(maxsize=64)
def _item(name: str, amount: int, seconds: int) -> RateLimitItem:
    return RateLimitItemPerSecond(amount, seconds, namespace=name)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a client stands in a window; ``resets_in_seconds`` is rounded by the reader."""

    window: Window
    remaining: int
    resets_in_seconds: float


@dataclass(frozen=True, slots=True)
class Verdict:
    is_admitted: bool
    standings: tuple[Standing, ...]


class Counters:
    """Looks at all windows of a call before it counts in any."""

    def __init__(self, storage: MemoryStorage | None = None) -> None:
        self._storage = MemoryStorage() if storage is None else storage

    async def take(self, windows: Sequence[Window]) -> Verdict:
        """Count one call in every window, or in none.

        In memory no await in here gives way to another task, so the look and the count are
        one step.
        """
        keys = [window.item.key_for(window.key) for window in windows]
        counts = [await self._storage.get(key) for key in keys]
        is_admitted = all(
            count < window.amount for count, window in zip(counts, windows, strict=True)
        )
        if is_admitted:
            counts = [
                await self._storage.incr(key, window.seconds)
                for key, window in zip(keys, windows, strict=True)
            ]
        return Verdict(is_admitted, await self._standings(windows, keys, counts))

    async def look(self, windows: Sequence[Window]) -> tuple[Standing, ...]:
        """Where the windows stand; nothing is counted."""
        keys = [window.item.key_for(window.key) for window in windows]
        return await self._standings(windows, keys, [await self._storage.get(k) for k in keys])

    async def _standings(
        self, windows: Sequence[Window], keys: Sequence[str], counts: Sequence[int]
    ) -> tuple[Standing, ...]:
        now = self._storage.now()
        standings = []
        for window, key, count in zip(windows, keys, counts, strict=True):
            wait = await self._storage.get_expiry(key) - now
            left = max(0, window.amount - count)
            standings.append(Standing(window, left, wait if wait > 0 else window.seconds))
        return tuple(standings)
