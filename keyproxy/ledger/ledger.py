"""The ledger: one row for each call that reached the upstream, in an SQLite file.

A row outlives the process before its call goes out, with the reservation as its cost, and is
completed after it: whatever kills the process, no call is missing and none is booked too low.
Nobody waits for the file. Knows no HTTP and no prices. Several processes may share a file; each
settles its own rows and takes over those of processes that have gone.
"""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from keyproxy.call import Cost, Told
from keyproxy.dataclass import dataclass, field
from keyproxy.ledger import notes, queries, tables
from keyproxy.ledger.entry import Entry, Unsettled
from keyproxy.ledger.file import ask
from keyproxy.ledger.memory import MemoryBook
from keyproxy.ledger.orders import Order
from keyproxy.ledger.recovery import write_orphans
from keyproxy.ledger.writer import MOST_ORDERS, Writer
from keyproxy.record import Record

RETENTION_SECONDS = 400 * 86_400.0  # a year and a month: last year's month beside this one
PATIENCE_SECONDS = 1.0
"""A row that waits for so long is late, and whoever asks the file something goes without."""
HANGING_SECONDS = 10.0
"""A ledger that is late for so long is down to those who watch."""
_SEEN_EVERY_SECONDS = 20.0
_SWEEP_EVERY_SECONDS = 3600.0
_SWEPT_AT_ONCE = 200
_SWEEP_PAUSE_SECONDS = 0.1
_log = structlog.get_logger("keyproxy.ledger")
_T = TypeVar("_T")


@dataclass(slots=True)
class Ledger:
    """Books calls. Every method belongs to the loop it was made on."""

    path: Path
    retention_seconds: float = RETENTION_SECONDS
    patience_seconds: float = PATIENCE_SECONDS
    busy_seconds: float = PATIENCE_SECONDS
    most_waiting: int = MOST_ORDERS
    clock: Callable[[], float] = time.time
    _id: str = field(init=False, default_factory=lambda: f"writer_{os.urandom(9).hex()}")
    _open: dict[str, tuple[Entry, tables.Row]] = field(init=False, default_factory=dict)
    _new: set[str] = field(init=False, default_factory=set)  # of those, not in line as they are now
    _watch: asyncio.TimerHandle | None = field(init=False, default=None)
    _sweep_at: float = field(init=False, default=0.0)
    _late_since: float | None = field(init=False, default=None)
    _writer: Writer = field(init=False)

    def __post_init__(self) -> None:
        self._writer = Writer(
            *(self.path, tables.book, self._keep_house, self._leave, self._put_new),
            busy_seconds=self.busy_seconds,
            most_orders=self.most_waiting,
        )

    @property
    def losses(self) -> int:
        """How many calls of this process are not in the file as they ended, for good."""
        return self._writer.lost.count

    @property
    def backlog(self) -> int:
        """How many rows and questions wait for the file."""
        return len(self._writer.orders)

    @property
    def is_failing(self) -> bool:
        """Whether nothing can be written just now; calls go on and wait in memory."""
        return self._writer.is_failing or self._late_since is not None

    @property
    def is_down(self) -> bool:
        """As ``is_failing``, but for a disk or a process that was held up for a moment."""
        since = self._late_since
        is_hanging = since is not None and self.clock() >= since + HANGING_SECONDS
        return self._writer.is_failing or is_hanging

    def begin(self, entry: Entry) -> None:
        """Book a call before its last attempt goes out."""
        beginning = tables.beginning(entry, self._id)
        self._open[entry.id] = entry, beginning
        self._new.add(entry.id)
        if not self._writer.spool(tables.begun(beginning, entry)):
            self._put_new()

    def note(self, id: str, answer_id: str | None, key: str | None = None) -> None:
        """What the head of an attempt's answer told: its id, by which some providers can be asked,
        and under which key. In the file before long, unless the call ends before."""
        if (found := self._open.get(id)) is None:
            return
        found[0].attempts[-1].note(answer_id, key)
        self._new.add(id)
        self._writer.wake()

    def _put_new(self) -> None:
        """Put in line what has begun, or was noted, and has not ended: what ends at once is written
        once."""
        for id in self._new:
            entry, beginning = self._open[id]
            self._writer.put(Order(tables.begun(beginning, entry)))
        self._new.clear()
        if self._watch is None and self.backlog:
            self._expect(self._writer.ordered)

    def withdraw(self, id: str) -> None:
        """Forget a call that never reached the upstream."""
        if (found := self._open.pop(id, None)) is not None:
            attempts = len(found[0].attempts)
            self._new.discard(id)
            self._writer.forget(id)
            self._writer.spool((id, attempts))
            self._writer.put(Order(work=partial(tables.delete, id, attempts)))

    def complete(self, id: str, record: Record, seconds: float) -> None:
        """Book how a call and its attempts ended; at once, nobody waits. It may begin again, with
        a further attempt. An id that is not open is left alone."""
        if (found := self._open.get(id)) is not None:
            entry, beginning = found
            entry.end(record, seconds)
            rows = tables.ended(beginning, entry, record, seconds)
            del self._open[id]
            self._new.discard(id)
            self._writer.spool(rows)
            self._writer.put(Order(rows, is_last=True))

    def is_surely_ours(self, at: float) -> bool:
        """Whether a call that began then is too young to be another process' by now."""
        return self.clock() < at + tables.GONE_AFTER_SECONDS - 2 * _SEEN_EVERY_SECONDS

    async def left(self, id: str, n: int) -> tuple[bool, bool]:
        """Whether the row of a call that was completed here is still ours to settle, and what was
        set aside for its ``n``-th attempt; both where the ledger cannot be asked just now."""
        if self.is_failing:
            return True, True
        return await self._asked(partial(notes.left, id, n, self._id)) or (True, True)

    async def release(self, row: Unsettled) -> bool:
        """Whether what was set aside for an attempt of a process that is gone is to be given back
        now: once, by one process. False where the ledger cannot be asked just now."""
        return await self._asked(partial(notes.release, row.id, row.n, self._id)) is True

    async def unsettled(self, limit: int) -> list[Unsettled]:
        """Attempts of ended calls without a final cost that may be tried now, the oldest tries
        first.

        Calls of processes that have gone are taken over here: no other process gets them.
        Empty where the ledger cannot be asked just now.
        """
        return await self._asked(partial(tables.unsettled, self._id, self.clock(), limit)) or []

    async def settle(
        self, id: str, cost: Cost | None = None, told: Told | None = None, n: int = 1
    ) -> bool:
        """Book the final cost of a call's ``n``-th attempt, or that what stands there is final; one
        that is settled already keeps its own, and one that another process has now is left to it.

        True once it is durable, however long that takes: of several, and of several processes,
        one gets it.
        """
        work = partial(tables.settle, id, n, self._id, cost, told)
        return await self._writer.ask(Order(work=work)) is True

    def postpone(self, row: Unsettled, until: float) -> None:
        """Let ``unsettled`` not tell of a call before ``until`` (unix time); counts a try."""
        self._writer.put(Order(work=partial(tables.postpone, row, until)))

    async def spent(
        self, since: float, until: float = math.inf, *, is_least: bool = False
    ) -> Mapping[tuple[str, str], Decimal]:
        """What budgets count by (app, client) in that time, open reservations included, in USD.

        ``is_least``: without what other processes may still give back. Raises ``LedgerFault``.
        """
        gone = self.clock() - tables.GONE_AFTER_SECONDS if is_least else math.inf
        await self.flush()
        question = partial(queries.spent, since=since, until=until, gone=gone)
        return await asyncio.to_thread(ask, self.path, question)

    async def settled_by_others(self, since: float) -> Decimal:
        """What calls of other processes have cost since then, where that is final, in USD. Raises
        ``LedgerFault``, ``sqlite3.Error``."""
        question = partial(queries.settled_spend, since=since, but=self._id)
        return await asyncio.to_thread(ask, self.path, question)

    def keep(self, id: str, text: str | None) -> None:
        """Have the next process find ``text`` under ``id``; None: nothing any more."""
        self._writer.put(Order(work=partial(notes.keep, id, text, self._id)))

    async def kept(self) -> list[str] | None:
        """What is kept here or by processes that have gone; None where it cannot be asked now."""
        return await self._asked(partial(notes.kept, self._id, self.clock()))

    async def flush(self) -> bool:
        """Wait until all that was ordered is durable; False where that takes too long."""
        return await self._asked(lambda connection: True) is True

    async def start(self) -> None:
        """Open the file. Raises ``LedgerFault``."""
        await self._writer.start()

    async def close(self) -> None:
        """Write what is in line and let the file go; calls that are open stay for the next one."""
        self._put_new()
        if self._watch is not None:
            self._watch.cancel()
        await self._writer.close(self._open)

    async def _asked(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """What ``work`` returns behind all that was ordered before; None after some patience."""
        self._put_new()
        try:
            # Not wait_for: before Python 3.12 it forgets a cancellation that meets the answer.
            async with asyncio.timeout(self.patience_seconds):
                answer: _T | None = await self._writer.ask(Order(work=work))
                return answer
        except TimeoutError:
            return None

    def _expect(self, order: int) -> None:
        """One timer for all rows looks whether that one is written in time."""
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(self.patience_seconds, self._check, order)

    def _check(self, order: int) -> None:
        self._watch = None
        if self._writer.written < order:
            if self._late_since is None and not self._writer.is_failing:
                self._late_since = self.clock()
                _log.error("the ledger is slow; calls go on, and their rows wait in memory")
            self._expect(order)
        elif self._late_since is not None:
            self._late_since = None
            _log.info("the ledger is in time again")

    def _keep_house(self, connection: sqlite3.Connection) -> float:
        """The thread's chore: write what processes that are gone could not; say that we live; let
        old rows go, a few at a time."""
        write_orphans(self.path, connection)
        now = self.clock()
        connection.execute("INSERT OR REPLACE INTO writers VALUES (?, ?)", (self._id, now))
        if now < self._sweep_at:
            return _SEEN_EVERY_SECONDS
        gone = tables.sweep(now - self.retention_seconds, _SWEPT_AT_ONCE, connection)
        if gone == _SWEPT_AT_ONCE:
            return _SWEEP_PAUSE_SECONDS
        self._sweep_at = now + _SWEEP_EVERY_SECONDS
        return _SEEN_EVERY_SECONDS

    def _leave(self, connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM writers WHERE id = ?", (self._id,))


@asynccontextmanager
async def opened(path: Path, **options: Any) -> AsyncIterator[Ledger]:
    """A ledger in ``path``, flushed and closed at the end. Raises ``LedgerFault``."""
    ledger = Ledger(path, **options)
    try:
        await ledger.start()
        yield ledger
    finally:
        await ledger.close()


Book = Ledger | MemoryBook
"""Where calls are booked."""
