"""The keys of the upstream: which one a call is sent with, what is said of each, when it is asked.

Holds them wrapped; only ``headers`` unwraps them. Several keys are not a way around an account's
limits (they are global there): they are for rotation and for separate budgets. A call's 401 may be
about that call alone, or the upstream's own trouble: the key stays in use while ``GET /key`` is
asked, and nobody who can provoke a 401 takes the service down.
"""

#                  /key: 401, or a management key
#   IN USE -----------------------------------------------> ASIDE, told
#    |  ^  ^                                                      |
#    |  |  +----------- each minute: /key says 200 ---------------+
#    |  |
#    |  +-------------- each minute: 200, or nothing: one call may try it ---+
#    |                                                                       |
#    +--- five calls in a row 401, and /key says nothing ---> ASIDE, not told
#
# A call's 401 is asked about and changes nothing by itself.

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any

import structlog

from keyproxy.dataclass import dataclass, field
from keyproxy.settings import Secret
from keyproxy.upstream.provider import KeyReport

PATIENCE_SECONDS = 2.0
"""So long a call waits for what is said of its key."""
PAUSE_SECONDS = 5.0
"""From a question that a call's 401 caused to the next such one."""
REPEATS_SECONDS = (1.0, 5.0, 30.0, 60.0)
"""From an answer that says nothing of the key to the next question."""
ENOUGH_REFUSALS = 5
"""Calls answered 401 in a row: so many set a key aside that nothing is said of."""
ASIDE_SECONDS = 60.0
HOUR_SECONDS = 3600.0
UNAFFORDABLE_SECONDS = 60.0
"""A 402 may concern one dear call only, so the key just goes last for a while."""
_log = structlog.get_logger("keyproxy")


@dataclass(slots=True)
class KeyState:
    """``refusals``: calls answered 401 since the last 2xx. ``is_unclear``: it was asked about
    because of them, and nothing was said of it. ``is_told``: the upstream itself rejected it.

    ``question``: the last one about it, and whether it was answered; ``report``: what was said of
    a key that works. ``doubt``: asks because of a 401 until that is answered.
    """

    key: Secret
    is_rejected: bool = False
    last_until: float = 0.0
    refusals: int = 0
    is_unclear: bool = False
    is_told: bool = False
    doubted_at: float = float("-inf")
    asked_at: float = float("inf")
    report: KeyReport | None = None
    question: asyncio.Task[bool] | None = None
    doubt: asyncio.Task[None] | None = None

    def cancel(self) -> list[asyncio.Task[Any]]:
        """Ask no more about it; what was under way."""
        tasks = [task for task in (self.question, self.doubt) if task is not None]
        for task in tasks:
            task.cancel()
        return tasks


@dataclass(eq=False)
class KeyStates:
    """What is known of all keys; outlives a reload. ``close`` it.

    ``ask`` gives what the upstream says of a key, None without an answer; without it, there is
    nobody to ask.
    """

    ask: Callable[[Secret], Awaitable[KeyReport | None]] | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    are_well: bool = field(default=True, init=False)
    """No key was refused, could not pay or is set aside; False until ``usable`` looks again."""
    _states: dict[Secret, KeyState] = field(default_factory=dict, init=False)

    def of(self, key: Secret) -> KeyState:
        return self._states.setdefault(key, KeyState(key))

    def keep(self, keys: Collection[Secret]) -> None:
        """Forget every other key: one that comes back later has changed for all we know."""
        for key in self._states.keys() - set(keys):
            self._states.pop(key).cancel()

    def inspect(self, keys: Iterable[Secret]) -> None:
        """Ask in the background about those of ``keys`` that are new, or set aside."""
        for state in map(self.of, keys):
            if state.question is None or state.is_rejected:
                self._question(state)

    def refused(self, key: Secret) -> None:
        """A call with ``key`` was answered 401: ask about it, if that was not just done."""
        state = self._states.get(key)
        if state is None or state.is_rejected:
            return
        self.are_well, state.refusals = False, state.refusals + 1
        self._look_at_refusals(state)
        is_due = self.clock() >= state.doubted_at + PAUSE_SECONDS
        is_doubted = state.doubt is not None and not state.doubt.done()
        if is_due and not is_doubted and not state.is_rejected:
            _log.warning("a call was answered with 401; the key is asked about", key=key.label)
            state.doubted_at, state.is_unclear = self.clock(), False
            state.doubt = asyncio.create_task(self._repeat(state, self._question(state)))

    def accepted(self, key: Secret) -> None:
        """A call with ``key`` was answered with a 2xx."""
        if not self.are_well and (state := self._states.get(key)) is not None:
            state.refusals = 0

    def usable(self, keys: Iterable[Secret]) -> list[Secret]:
        """Those of ``keys`` to try for one call, best first; none when all were rejected."""
        if self.are_well:
            return list(keys)
        now, every = self.clock(), self._states.values()
        self.are_well = not any(
            state.is_rejected or state.refusals or state.last_until > now for state in every
        )
        states = self.states(keys)
        states.sort(key=lambda state: state.last_until > now)
        return [state.key for state in states if not state.is_rejected]

    def states(self, keys: Iterable[Secret]) -> list[KeyState]:
        """What is known of each of ``keys``."""
        return [self._states.get(key) or KeyState(key) for key in keys]

    def demote(self, key: Secret) -> None:
        """Try ``key`` last for a minute: its account could not pay for a call."""
        if (state := self._states.get(key)) is not None:
            self.are_well = False
            state.last_until = self.clock() + UNAFFORDABLE_SECONDS

    async def are_rejected(self, keys: Iterable[Secret]) -> bool:
        """Whether all of ``keys`` are set aside; waits for the answers to questions about them
        for ``PATIENCE_SECONDS`` at most."""
        return all(await asyncio.gather(*map(self._is_rejected, keys)))

    async def _is_rejected(self, key: Secret) -> bool:
        state = self._states.get(key)
        if state is None:
            return False  # a reload took it away
        if state.question is not None and not state.is_rejected:
            done, _ = await asyncio.wait({state.question}, timeout=PATIENCE_SECONDS)
            if not done:
                self._nothing_said(state)
        return state.is_rejected

    async def run(self) -> None:
        """Ask each minute about keys that are set aside and hourly about each, which may come to
        its limit or its end, until cancelled."""
        while True:
            await self.sleep(ASIDE_SECONDS)
            aside = [state for state in self._states.values() if state.is_rejected]
            await asyncio.gather(*map(self._look_again, aside))
            for state in self._states.values():
                if self.clock() >= state.asked_at + HOUR_SECONDS:
                    self._question(state)

    async def close(self) -> None:
        tasks = [task for state in self._states.values() for task in state.cancel()]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _question(self, state: KeyState) -> asyncio.Task[bool]:
        """The one question about a key under way: whether it was answered."""
        if state.question is None or state.question.done():
            state.asked_at = self.clock()
            state.question = asyncio.create_task(self._put(state))
        return state.question

    async def _repeat(self, state: KeyState, question: asyncio.Task[bool]) -> None:
        """Ask until something is said of the key, or it is set aside."""
        for pause in REPEATS_SECONDS:
            if await _is_answered(question) or state.is_rejected:
                return
            await self.sleep(pause)
            question = self._question(state)
        await _is_answered(question)

    async def _look_again(self, state: KeyState) -> None:
        """Ask about a key that is set aside. Where still nothing is said of it, one call may try
        it: an upstream without ``/key`` would never take it back."""
        if not await _is_answered(self._question(state)) and not state.is_told:
            state.is_rejected, state.refusals = False, ENOUGH_REFUSALS - 1

    async def _put(self, state: KeyState) -> bool:
        report = None if self.ask is None else await self.ask(state.key)
        if report is None or report.status not in (200, 401) or not report.is_verdict:
            self._nothing_said(state)
            return False
        if report.status == 401:
            self._reject(state, "key rejected by the upstream", is_told=True)
        elif report.is_management:
            why = (
                "this is a management key: it can make and delete keys, and cannot call models;"
                " set an ordinary one"
            )
            self._reject(state, why, is_told=True)
        else:
            if state.is_rejected:
                _log.info("key accepted by the upstream again", key=state.key.label)
            state.is_rejected = state.is_unclear = False
            state.refusals, state.report = 0, report
        return True

    def _nothing_said(self, state: KeyState) -> None:
        state.is_unclear = True
        self._look_at_refusals(state)

    def _look_at_refusals(self, state: KeyState) -> None:
        if state.is_unclear and state.refusals >= ENOUGH_REFUSALS and not state.is_rejected:
            why = "the upstream answers calls with 401 and says nothing of the key"
            self._reject(state, why, is_told=False)

    def _reject(self, state: KeyState, why: str, *, is_told: bool) -> None:
        if not state.is_rejected:
            _log.error(why, key=state.key.label)
        self.are_well = False
        state.is_rejected, state.is_told = True, is_told


async def _is_answered(question: asyncio.Task[bool]) -> bool:
    await asyncio.wait({question})
    return not question.cancelled() and question.exception() is None and question.result()
