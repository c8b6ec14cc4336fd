"""Finds out what cut and abandoned calls have cost: asks ``/generation``, again and again.

Until then a call counts with what was set aside for it, which is never below the truth. After
the last try that stays, marked as estimated.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import structlog

from keyproxy.call import End, Told
from keyproxy.dataclass import KW_ONLY, dataclass, field
from keyproxy.ledger.entry import Unsettled
from keyproxy.ledger.ledger import Book
from keyproxy.money.budget import Budgets
from keyproxy.price import told_cost

LOOK_SECONDS = 1.0
AT_ONCE = 16
ASK_SECONDS = 30.0
"""For one answer: a hanging one must not keep all others waiting."""
PAUSES_SECONDS = (2, 5, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Between the tries; OpenRouter may answer 404 for some minutes. Two hours in all."""
ERROR_PAUSES_SECONDS = (2, 60, 600)
"""The same for errors, which rarely cost: they come in crowds, and asking is traffic, too."""
_log = structlog.get_logger("keyproxy.money")

Ask = Callable[[Unsettled], Awaitable[Told | None]]
"""What the upstream says of a call; None where it does not know it yet or cannot be asked."""
Settled = Callable[[Unsettled], None]
"""Hears of a row that is final now, with the cost and the usage that were told; without, what stood
there stays."""


@dataclass(slots=True)
class Settler:
    """Settles the rows of one book, whichever app they are of.

    ``budgets``: those in force, by app. ``counts``: whether the budgets hold what a row was booked
    with; those of another process with counters of its own do not. It is asked once for each row,
    when that has ended. ``lock``: held while a row ends and the budgets come to count it so.
    ``run_on`` starts that, and the end of a reservation: neither is broken off should we be.
    """

    book: Book
    ask: Ask
    budgets: Mapping[str, Budgets]
    counts: Callable[[Unsettled], bool] = lambda row: True
    _: KW_ONLY
    settled: Settled = lambda row: None
    run_on: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]] = asyncio.create_task
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    clock: Callable[[], float] = time.time
    look_seconds: float = LOOK_SECONDS
    pauses_seconds: tuple[float, ...] = PAUSES_SECONDS
    ask_seconds: float = ASK_SECONDS

    async def run(self) -> None:
        """Settle what can be settled, until cancelled."""
        while True:
            try:
                while await self.settle_due() == AT_ONCE:
                    pass  # there may be more: after a kill, all that were open
            except Exception:  # settling goes on for as long as the process does
                _log.exception("settling failed")
            await asyncio.sleep(self.look_seconds)

    async def settle_due(self) -> int:
        """Try some rows whose time has come, each once; how many."""
        rows = await self.book.unsettled(AT_ONCE)
        await asyncio.gather(*(self._try(row) for row in rows))
        return len(rows)

    async def _try(self, row: Unsettled) -> None:
        try:
            await self._settle(row)
        except Exception:  # one odd row must keep no other waiting
            _log.exception("settling failed", request_id=row.id)
            await self._postpone(row)

    async def _settle(self, row: Unsettled) -> None:
        budgets = self.budgets.get(row.app)
        tried = row.attempt
        is_killed = tried.ended == End.KILLED  # with shared storage its reservation is open still
        if budgets is not None and budgets.may_wait and is_killed:
            await asyncio.shield(self.run_on(self._release(row, budgets)))
        if tried.generation_id is None:
            await self._end(row)
            return
        found = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.ask_seconds):
                found = await self.ask(row)
        if found is None or found.usage.cost is None:
            await self._postpone(row)
        else:
            await self._end(row, found)

    async def _release(self, row: Unsettled, budgets: Budgets) -> None:
        if await self.book.release(row):
            await budgets.release(row.client, row.attempt.begun_at, row.attempt.reserved)

    async def _postpone(self, row: Unsettled) -> None:
        """Try again later; after the last try what counts now stays."""
        is_error = (row.attempt.http_status or 0) >= 400
        pauses = ERROR_PAUSES_SECONDS if is_error else self.pauses_seconds
        if row.tries < len(pauses):
            self.book.postpone(row, self.clock() + pauses[row.tries])
            return
        await self._end(row)
        if is_error and not row.attempt.cost:
            return  # as was to be expected
        _log.warning("the upstream never told what a call has cost", request_id=row.id)

    async def _end(self, row: Unsettled, told: Told | None = None) -> None:
        """Book the final cost, and have the budgets count it; without one what stands stays."""
        await asyncio.shield(self.run_on(self._make_final(row, told)))

    async def _make_final(self, row: Unsettled, told: Told | None) -> None:
        cost = None if told is None else told_cost(told.usage)
        # First the row, and only for whom it was settled: nothing is given back twice, whatever
        # ends this process now, or took the call over while this process stood still.
        async with self.lock:
            is_ours = await self.book.settle(row.id, cost, told, row.n)
            is_counted = self.counts(row)
            if not is_ours:
                return
            budgets, tried, before = self.budgets.get(row.app), row.attempt, row.attempt.counted
            if told is not None and cost is not None:
                tried.cost, tried.counted, tried.cost_source = cost.usd, cost.counted, cost.source
                row.usage, row.served = told.usage, told.model or row.served
            self.settled(row)
            if is_counted and budgets is not None:
                await budgets.correct(row.client, tried.begun_at, tried.counted - before)
