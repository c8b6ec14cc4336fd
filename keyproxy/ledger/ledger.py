"""The ledger: one row for each call that reached the upstream, in an SQLite file.

A row is durable before its call goes out, with the reservation as its cost, and is completed
after it: whatever kills the process, no call is missing and none is booked too low. Knows no
HTTP and no prices. Several processes may share a file; each settles its own rows and takes over
those of processes that have gone.
"""

from __future__ import annotations

import asyncio
import functools
import math
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import structlog

from keyproxy.call import Cost, Usage
from keyproxy.ledger import queries, writes
from keyproxy.ledger.entry import (
    Entry,
    Unsettled,
    row_of,
    settled_columns,
)
from keyproxy.ledger.file import ask
from keyproxy.ledger.writer import MOST_ORDERS, Writer
from keyproxy.record import Record

RETENTION_SECONDS = 400 * 86_400.0  # a year and a month: last year's month beside this one
# How long a call waits for its row. A slow disk takes a tenth of it; then the call goes on.
PATIENCE_SECONDS = 1.0
_SEEN_EVERY_SECONDS = 20.0
_SWEEP_EVERY_SECONDS = 3600.0
_SWEPT_AT_ONCE = 200
_SWEEP_PAUSE_SECONDS = 0.1
_log = structlog.get_logger("keyproxy.ledger")
_T = TypeVar("_T")


class Ledger:
    """Books calls. Made by ``opened``; every method belongs to the loop it was made on."""

    def __init__(
        self,
        path: Path,
        *,
        retention_seconds: float = RETENTION_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        busy_seconds: float = PATIENCE_SECONDS,
        most_waiting: int = MOST_ORDERS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self._id = f"writer_{os.urandom(9).hex()}"
        self._retention_seconds = retention_seconds
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._open: dict[str, Entry] = {}
        self._sweep_at = 0.0
        self._is_late = False
        self._writer = Writer(
            path, writes.book, self._keep_house, self._leave, busy_seconds, most_waiting
        )

    @property
    def losses(self) -> int:
        """How many calls of this process are not in the file as they ended, for good."""
        return self._writer.losses

    @property
    def is_failing(self) -> bool:
        """Whether nothing can be written just now; calls go on and wait in memory."""
        return self._writer.is_failing or self._is_late

    async def begin(self, entry: Entry) -> bool:
        """Book a call before it goes out; False where that could not be made durable in time.

        Cancelled, the call is withdrawn: it did not go out.
        """
        self._open[entry.id] = entry
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        is_in_line = self._writer.book(row_of(entry, self._id), answer)
        if self.is_failing or not is_in_line:
            return False
        try:
            await asyncio.wait([answer], timeout=self._patience_seconds)
        except asyncio.CancelledError:
            self.withdraw(entry.id)
            raise
        if not answer.done():
            self._be_late(answer)
            return False
        return answer.result()

    def note(self, id: str, generation_id: str | None, key: str | None = None) -> None:
        """What the answer's head told: by what to ask for the cost, and under which key."""
        if (entry := self._open.get(id)) is None:
            return
        entry = replace(entry, generation_id=generation_id, key=key or entry.key)
        self._open[id] = entry
        self._writer.book(row_of(entry, self._id))

    def withdraw(self, id: str) -> None:
        """Forget a call that never reached the upstream."""
        if self._open.pop(id, None) is not None:
            self._writer.forget(id)
            self._writer.do(functools.partial(writes.delete, id))

    def complete(self, id: str, record: Record, seconds: float) -> None:
        """Book how a call ended; at once, nobody waits. An id that is not open is left alone.

        The row is settled if the cost is exact or there is no generation id to ask by.
        """
        if (entry := self._open.get(id)) is not None:
            row = row_of(entry, self._id, record, seconds)
            del self._open[id]
            self._writer.book(row, is_last=True)

    async def is_ours(self, id: str) -> bool:
        """Whether no other process has settled a call that was completed here; True where the
        ledger cannot be asked just now."""
        if self.is_failing:
            return True
        return await self._asked(functools.partial(writes.is_of, id, self._id)) is not False

    async def unsettled(self, limit: int) -> list[Unsettled]:
        """Ended calls without a final cost that may be tried now, the oldest tries first.

        Calls of processes that have gone are taken over here: no other process gets them.
        Empty where the ledger cannot be asked just now.
        """
        now = self._clock()
        rows = await self._asked(functools.partial(writes.unsettled, self._id, now, limit))
        return [] if rows is None else rows

    async def settle(
        self,
        id: str,
        cost: Cost | None = None,
        usage: Usage | None = None,
        served: str | None = None,
    ) -> bool:
        """Book the final cost of a call, or that what stands there is final; one that is settled
        already keeps its own, and one that another process has now is left to it.

        True once it is durable, however long that takes: of several, and of several processes,
        one gets it.
        """
        changes = settled_columns(cost, usage, served)
        answer: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()
        work = functools.partial(writes.update, id, self._id, changes)
        is_in_line = self._writer.ask(work, answer)
        return is_in_line and await answer is True

    def postpone(self, id: str, until: float) -> None:
        """Let ``unsettled`` not tell of a call before ``until`` (unix time); counts a try."""
        self._writer.do(functools.partial(writes.postpone, id, until))

    async def spent(
        self, since: float, until: float = math.inf, *, is_least: bool = False
    ) -> Mapping[tuple[str, str], Decimal]:
        """What budgets count by (app, client) in that time, open reservations included, in USD.

        ``is_least``: without what other processes may still give back. Raises ``LedgerFault``.
        """
        gone = self._clock() - writes.GONE_AFTER_SECONDS if is_least else math.inf
        return await self._read(lambda connection: queries.spent(connection, since, until, gone))

    async def summary(
        self,
        by: queries.By,
        since: float | None = None,
        until: float | None = None,
        top: int | None = None,
    ) -> queries.Summary:
        """Calls grouped, as ``queries.summary``. Raises ``LedgerFault``."""
        return await self._read(
            lambda connection: queries.summary(connection, by, since, until, top)
        )

    async def flush(self) -> bool:
        """Wait until all that was ordered is durable; False where that takes too long."""
        return await self._asked(lambda connection: True) is True

    async def start(self) -> None:
        """Open the file. Raises ``LedgerFault``."""
        await self._writer.start()

    async def close(self) -> None:
        """Write what is in line and let the file go; calls that are open stay for the next one."""
        await self._writer.close(self._open)

    async def _asked(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """What ``work`` returns behind all that was ordered before; None after some patience."""
        answer: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        if not self._writer.ask(work, answer):
            return None
        try:
            # Not wait_for: before Python 3.12 it forgets a cancellation that meets the answer.
            async with asyncio.timeout(self._patience_seconds):
                return await answer
        except TimeoutError:
            return None

    async def _read(self, question: Callable[[sqlite3.Connection], _T]) -> _T:
        await self.flush()
        return await asyncio.to_thread(ask, self.path, question)

    def _be_late(self, answer: asyncio.Future[bool]) -> None:
        """Nobody waits for the ledger again until it has done what ``answer`` stands for."""
        if not self._is_late:
            self._is_late = True
            _log.error("the ledger is slow; calls go on without waiting for it")
            answer.add_done_callback(self._be_in_time)

    def _be_in_time(self, answer: asyncio.Future[bool]) -> None:
        self._is_late = False
        if answer.result():
            _log.info("the ledger is in time again")

    def _keep_house(self, connection: sqlite3.Connection) -> float:
        """The thread's chore: say that we live; let old rows go, a few at a time."""
        now = self._clock()
        connection.execute("INSERT OR REPLACE INTO writers VALUES (?, ?)", (self._id, now))
        if now < self._sweep_at:
            return _SEEN_EVERY_SECONDS
        gone = writes.sweep(now - self._retention_seconds, _SWEPT_AT_ONCE, connection)
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
