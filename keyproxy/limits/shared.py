"""Counters that many processes share, in Redis or Valkey, and what happens without it.

Each replica remembers what the storage last said of a window (its shadow) and counts on from
there while the storage is down, so that N replicas let at most N times a limit through. What
it counted alone, and what a restarted server has lost, it tells with its next call.
"""

# What is known of a window here, its shadow, and what its next call tells the storage:
#
#   none --- it answers ---> KNOWN --- it restarted, or may not have heard ---> DOUBTED
#    |                       |   ^                                                |
#    |   it is down:         |   +---- up again: told as the least it has --------+
#    |   counted here        v   |
#    +--------------------> OWED +---- up again: told, to be added
#
# Down is what connection.py says. "local" then goes on so; "closed" refuses every call, "open" lets
# it pass uncounted. Each is told by one call only, and again if that was surely not heard: what is
# answered when nobody waits any more was heard, and a call that it took was decided twice.

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import structlog

from keyproxy.errors import Refusal
from keyproxy.limits import commands
from keyproxy.limits.commands import Act, News
from keyproxy.limits.connection import ANSWER_SECONDS, LATE_SECONDS, Lane, StorageDown
from keyproxy.limits.counters import Counters, Entry, Table
from keyproxy.limits.windows import Change, Place, Verdict, Window
from keyproxy.settings.grammar.network import StorageServer

Failure = Literal["local", "closed", "open"]

_INSTEAD = {
    "local": "each process counts for itself",
    "closed": "calls are refused",
    "open": "calls are let through uncounted",
}
_FIRST_TRY_SECONDS = 0.5  # a start does not wait for longer
_LAST_WORDS_SECONDS = 0.1
_WINDOWS_A_COMMAND = 200  # few enough that no call waits long behind them
# Clocks run apart by less than this: so close to the end of a window that began with a call, the
# storage may be in its next one. One of the calendar is told by its name.
_DRIFT = 0.001
_GENERATIONS = 65_536  # as many as an entry's stamp can tell apart
_log = structlog.get_logger("keyproxy.limits")


class SharedCounters(Counters):
    """Counters whose own table is the shadow of a shared storage. Made by ``open_shared``.

    A place is held for ``lease_seconds``, unless its process still lives and renews it.
    """

    is_shared = True

    def __init__(
        self,
        server: StorageServer,
        failure: Failure,
        *,
        trust: ssl.SSLContext | None = None,
        on_change: Callable[[bool], None] = lambda is_down: None,
        lease_seconds: float = 30.0,
        renew_seconds: float = 10.0,
        answer_seconds: float = ANSWER_SECONDS,
        late_seconds: float = LATE_SECONDS,
    ) -> None:
        super().__init__()
        self._failure = failure
        self._lease_seconds, self._renew_seconds = lease_seconds, renew_seconds
        self.on_change = on_change
        self._owed = Table(self._table.clock)  # counted here and not told yet
        self._generation = 0  # of the server's starts; what an older one said may be lost
        self._run_id = ""
        self._held: set[Place] = set()
        self._lane = Lane(
            server,
            trust,
            commands.SCRIPTS,
            on_up=self._came_up,
            on_change=self._changed,
            answer_seconds=answer_seconds,
            late_seconds=late_seconds,
        )

    @property
    def is_down(self) -> bool:
        return self._lane.is_down

    async def take(
        self, windows: Sequence[Window], place: Place | None = None, cost: int = 1
    ) -> Verdict:
        if self._lane.is_down:
            return await self._take_alone(windows, place, cost)
        try:
            verdict = await self._asked("take", _with_opened(windows, cost), place)
        except BaseException as error:  # the server may have given a place all the same
            if place is not None:
                self._lane.tell(commands.release(place))
            if isinstance(error, StorageDown):
                return await self._take_alone(windows, place, cost)
            raise
        if verdict.is_admitted and place is not None:
            self.in_flight[place.key] += 1
            self._held.add(place)
        found = [each for each in verdict.found if not each[0].is_open]
        opened = [units for window, units, _ in verdict.found if window.is_open]
        return replace(verdict, found=found, opened=opened)

    async def look(self, windows: Sequence[Window]) -> list[int]:
        if windows and not self._lane.is_down:
            with suppress(StorageDown):
                verdict = await self._asked("look", [(window, 0) for window in windows])
                return [units for _, units, _ in verdict.found]
        return await super().look(windows)

    async def adjust(self, changes: Sequence[Change]) -> None:
        if self._lane.is_down:
            self._adjust_alone(changes)
        else:
            with suppress(StorageDown):
                await self._asked("adjust", changes)

    async def recall(self, changes: Sequence[Change]) -> None:
        """Have the storage hold at least what was counted in these windows before this process
        began: it knows that, and more, unless it was emptied.

        It is told at once, since what other processes give back later must stay given back. One
        that is down is told with the next call of each window.
        """
        least: Counter[Window] = Counter()
        for window, units in changes:
            least[replace(window, amount=0)] += units
        waiting = list(least)
        for at in range(0, len(waiting), _WINDOWS_A_COMMAND):
            told = waiting[at : at + _WINDOWS_A_COMMAND]
            for window in told:
                entry = self._running(window)
                entry = entry._replace(units=max(entry.units, least[window]))
                self._table.put(window, self._doubted(entry))
            if not self._lane.is_down:
                with suppress(StorageDown):
                    await self._asked("look", [(window, 0) for window in told])

    def leave(self, place: Place) -> None:
        super().leave(place)
        if place in self._held:
            self._held.remove(place)
            self._lane.tell(commands.release(place))

    # While the storage is down

    async def _take_alone(
        self, windows: Sequence[Window], place: Place | None, cost: int
    ) -> Verdict:
        if self._failure == "closed":
            raise Refusal(
                "overloaded",
                "Calls cannot be counted just now, and none is let through uncounted; try again"
                " soon.",
                retry_after_seconds=1,
                hint="KEYPROXY_STORAGE_FAILURE=local",
            )
        if self._failure == "open":
            verdict = Verdict(True, ())
            if place is not None:
                self.in_flight[place.key] += 1
        else:
            verdict = await super().take(windows, place, cost)
        if verdict.is_admitted:
            for window, units in _with_opened([each[0] for each in verdict.found], cost):
                self._owe(window, units)
            if place is not None:
                self._held.add(place)
        return verdict

    def _adjust_alone(self, changes: Sequence[Change]) -> None:
        self.adjust_here(changes)
        for window, units in changes:
            self._owe(window, units)

    def _owe(self, window: Window, units: int) -> None:
        if units and (entry := self._table.get(window)) is not None:
            before = self._owed.get(window)
            count = units + (before.units if before is not None else 0)
            self._owed.put(window, Entry(count, entry.ends))

    # What is said to the storage, and what it says

    async def _asked(
        self, act: Act, changes: Sequence[Change], place: Place | None = None
    ) -> Verdict:
        """What the storage says. The shadow follows it even when its caller stops waiting."""
        news = [self._news(window) for window, _ in changes]
        command = commands.count(act, changes, news, place, self._lease_seconds)
        asked_at = self._table.clock()
        answer = self._lane.ask(command)
        answer.add_done_callback(partial(self._heard, act, changes, news, asked_at))
        await asyncio.wait([answer])  # which does not call the question back when it is cancelled
        return commands.verdict(changes, answer.result())

    def _news(self, window: Window) -> News:
        """What is to be told of a window. Only one call may tell it: what others give back
        meanwhile would be undone by a floor that is told again."""
        entry = self._table.get(window)
        if entry is None:
            return News()
        owing = self._owed.get(window)
        owed = 0 if owing is None else owing.units
        if owing is not None:
            self._owed.put(window, owing._replace(units=0))
        left = entry.ends - self._table.clock()
        is_over = window.span is None and left < window.seconds * _DRIFT
        is_known = is_over or entry.stamp == self._generation
        floor = 0 if is_known else max(0, entry.units - owed)
        if floor:
            self._table.put(window, entry._replace(stamp=self._generation))
        return News(floor, owed, round(left * 1000)) if floor or owed else News()

    def _heard(
        self,
        act: Act,
        changes: Sequence[Change],
        news: Sequence[News],
        asked_at: float,
        answer: asyncio.Future[Any],
        twice: Sequence[Change] | None = None,
    ) -> None:
        """``twice``: of an answer for which nobody waited, what is counted here by now, or was
        refused, and is counted once too often if the storage has counted it."""
        if isinstance(down := answer.exception(), StorageDown):
            # What the server may have heard is said again only where twice is too much, not
            # too little.
            if twice is None and act == "adjust":
                twice = [each for each in changes if each[1] > 0 and self._table.get(each[0])]
                self._adjust_alone(twice)
            if down.later is not None:
                twice = changes if twice is None else twice
                late = partial(self._heard, act, changes, news, asked_at, twice=twice)
                down.later.add_done_callback(late)
                return
            for (window, units), (floor, owed, _) in zip(changes, news, strict=True):
                if floor and (entry := self._table.get(window)) is not None:
                    self._table.put(window, self._doubted(entry))
                if owed > 0 or not down.may_be_heard:
                    self._owe(window, owed)
                if act == "adjust" and units < 0 and not down.may_be_heard:
                    self._adjust_alone([(window, units)])
            return
        verdict, now = commands.verdict(changes, answer.result()), self._table.clock()
        if act == "take" and not verdict.is_admitted:
            twice = None
        for change, (window, units, left_seconds) in zip(changes, verdict.found, strict=True):
            # From when it was asked: so a shadow neither outlives its window nor takes the place
            # of the next one's. One that has not begun has none.
            ends = asked_at + left_seconds
            if ends > now and (units or self._table.get(window) is not None):
                self._table.put(window, Entry(units, ends, self._generation))
                if twice and change in twice:
                    self._owe(window, -change[1])
                if (owing := self._owed.get(window)) is not None:  # counted here since it was asked
                    self.adjust_here([(window, owing.units)])

    def _doubted(self, entry: Entry) -> Entry:
        """What is known of a window, to be told again: the server may not hold it."""
        return entry._replace(stamp=(self._generation - 1) % _GENERATIONS)

    def _came_up(self, run_id: str) -> None:
        if not run_id or run_id != self._run_id:
            self._run_id = run_id
            self._generation = (self._generation + 1) % _GENERATIONS
        self._renew()

    def _renew(self) -> None:
        """Renew the leases of all open calls; without one, see whether the storage is there."""
        renewals = list(commands.renewals(self._held, self._lease_seconds))
        for command in renewals or [("PING",)]:
            self._lane.ask(command).add_done_callback(lambda answer: answer.exception())

    def _changed(self, reason: str | None) -> None:
        if reason is not None:
            _log.warning(
                "limits storage down",
                storage=str(self._lane.server),
                reason=reason,
                until_it_is_back=_INSTEAD[self._failure],
            )
        else:
            _log.info("limits storage back", storage=str(self._lane.server))
        self.on_change(reason is not None)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._renew_seconds)
            if not self.is_down:
                self._renew()


def _with_opened(windows: Sequence[Window], cost: int) -> list[Change]:
    """To count ``cost`` in each, and in its ``opened`` one."""
    each = [(window, window.opened) for window in windows]
    return [(window, cost) for pair in each for window in pair if window is not None]


@asynccontextmanager
async def open_shared(
    server: StorageServer, failure: Failure, **options: Any
) -> AsyncIterator[SharedCounters]:
    """Counters in ``server``; ``options`` are those of ``SharedCounters``.

    A server that does not answer holds nobody up: it is down then, and looked for.
    """
    import redis.asyncio.connection  # noqa: F401 (the optional extra; slow, so before calls wait)

    counters = SharedCounters(server, failure, **options)
    is_tried = asyncio.Event()
    tasks = [
        asyncio.create_task(counters._lane.run(is_tried)),
        asyncio.create_task(counters._beat()),
    ]
    try:
        try:
            async with asyncio.timeout(_FIRST_TRY_SECONDS):
                await is_tried.wait()
        except TimeoutError:
            counters._lane.give_up("not reached yet")
        yield counters
        with suppress(TimeoutError, StorageDown):  # releases that were just told
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await counters._lane.ask(("PING",))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        counters._lane.close()
