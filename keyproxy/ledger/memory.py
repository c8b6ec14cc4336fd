"""The book where there is no ledger: calls that must be settled, as long as the process lives."""

from __future__ import annotations

import time
from collections.abc import Callable

from keyproxy.call import Cost, Told
from keyproxy.dataclass import dataclass, field, replace
from keyproxy.ledger.entry import Entry, Unsettled
from keyproxy.record import Record

MOST_UNSETTLED = 10_000
"""Beyond it the oldest stay estimated for good."""


@dataclass(slots=True)
class MemoryBook:
    """Does as the ledger where ``KEYPROXY_LEDGER=off``: remembers in this process, as long as it
    lives, what must be settled, and nothing else."""

    clock: Callable[[], float] = time.time
    _open: dict[str, Entry] = field(init=False, default_factory=dict)
    _unsettled: dict[tuple[str, int], tuple[float, Unsettled]] = field(
        init=False, default_factory=dict
    )

    def begin(self, entry: Entry) -> None:
        self._open[entry.id] = entry

    def note(self, id: str, answer_id: str | None, key: str | None = None) -> None:
        if (entry := self._open.get(id)) is not None:
            entry.attempts[-1].note(answer_id, key)

    def withdraw(self, id: str) -> None:
        self._open.pop(id, None)

    def complete(self, id: str, record: Record, seconds: float) -> None:
        if (entry := self._open.pop(id, None)) is None:
            return
        entry.end(record, seconds)
        if not entry.attempts[-1].is_final:  # those before it are known since they ended
            self._unsettled[id, len(entry.attempts)] = (0.0, entry.unsettled(record.served))
            if len(self._unsettled) > MOST_UNSETTLED:
                del self._unsettled[next(iter(self._unsettled))]

    def is_surely_ours(self, at: float) -> bool:
        return True

    async def left(self, id: str, n: int) -> tuple[bool, bool]:
        return True, True

    async def release(self, row: Unsettled) -> bool:
        return False

    async def unsettled(self, limit: int) -> list[Unsettled]:
        now = self.clock()
        due = [row for until, row in self._unsettled.values() if until <= now]
        return due[:limit]

    async def settle(
        self, id: str, cost: Cost | None = None, told: Told | None = None, n: int = 1
    ) -> bool:
        return self._unsettled.pop((id, n), None) is not None

    def postpone(self, row: Unsettled, until: float) -> None:
        if (row.id, row.n) in self._unsettled:
            self._unsettled[row.id, row.n] = (until, replace(row, tries=row.tries + 1))
