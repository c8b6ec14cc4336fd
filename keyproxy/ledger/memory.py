"""A book without a file: what must be settled is remembered in this process, and nothing else."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Protocol

from keyproxy.call import Cost, Usage
from keyproxy.ledger.entry import Entry, Unsettled
from keyproxy.record import Record

ZERO = Decimal(0)
MOST_UNSETTLED = 10_000
"""Beyond it the oldest stay estimated for good."""


class Book(Protocol):
    """Where calls are booked: the ledger, or a book in memory."""

    async def begin(self, entry: Entry) -> bool: ...
    def note(self, id: str, generation_id: str | None, key: str | None = None) -> None: ...
    def withdraw(self, id: str) -> None: ...
    def complete(self, id: str, record: Record, seconds: float) -> None: ...
    async def is_ours(self, id: str) -> bool: ...
    async def unsettled(self, limit: int) -> list[Unsettled]: ...
    async def settle(
        self,
        id: str,
        cost: Cost | None = None,
        usage: Usage | None = None,
        served: str | None = None,
    ) -> bool: ...
    def postpone(self, id: str, until: float) -> None: ...


class MemoryBook:
    """Stands where ``KEYPROXY_LEDGER=off``: cut calls are settled while the process lives."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._open: dict[str, Entry] = {}
        self._unsettled: OrderedDict[str, tuple[float, Unsettled]] = OrderedDict()

    async def begin(self, entry: Entry) -> bool:
        self._open[entry.id] = entry
        return True

    def note(self, id: str, generation_id: str | None, key: str | None = None) -> None:
        if (entry := self._open.get(id)) is not None:
            key = key or entry.key
            self._open[id] = replace(entry, generation_id=generation_id, key=key)

    def withdraw(self, id: str) -> None:
        self._open.pop(id, None)

    def complete(self, id: str, record: Record, seconds: float) -> None:
        entry, cost = self._open.pop(id, None), record.cost
        is_exact = cost is not None and cost.source == "exact"
        if entry is None or entry.generation_id is None or is_exact:
            return
        row = Unsettled(
            id=entry.id,
            at=entry.at,
            app=entry.app,
            client=entry.client,
            endpoint=entry.endpoint,
            models=entry.models,
            served=record.served,
            key=entry.key,
            generation_id=entry.generation_id,
            reserved=entry.reserved,
            cost=entry.reserved if cost is None else cost.usd,
            counted=(entry.reserved or ZERO) if cost is None else cost.counted,
            cost_source="estimated" if cost is None else cost.source,
            http_status=record.upstream_status,
            ended=record.ended,
            tries=0,
        )
        self._unsettled[id] = (0.0, row)
        while len(self._unsettled) > MOST_UNSETTLED:
            self._unsettled.popitem(last=False)

    async def is_ours(self, id: str) -> bool:
        return True

    async def unsettled(self, limit: int) -> list[Unsettled]:
        now = self._clock()
        due = [row for until, row in self._unsettled.values() if until <= now]
        return due[:limit]

    async def settle(
        self,
        id: str,
        cost: Cost | None = None,
        usage: Usage | None = None,
        served: str | None = None,
    ) -> bool:
        return self._unsettled.pop(id, None) is not None

    def postpone(self, id: str, until: float) -> None:
        if (known := self._unsettled.get(id)) is not None:
            self._unsettled[id] = (until, replace(known[1], tries=known[1].tries + 1))
