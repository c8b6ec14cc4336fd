"""What the upstream says of each key, and when it is asked. Knows no HTTP; outlives a reload.

A call's 401 may be about that call alone, or the upstream's own trouble: the key stays in use
while ``GET /key`` is asked, and nobody who can provoke a 401 takes the service down. Time is
passed in.
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
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

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
_log = structlog.get_logger("keyproxy")


Ask = Callable[[Secret], Awaitable[KeyReport | None]]
"""None: there was no answer."""


async def _nobody(key: Secret) -> None:
    return None


@dataclass(slots=True)
class KeyState:
    """``refusals``: calls answered 401 since the last 2xx. ``is_unclear``: it was asked about
    because of them, and nothing was said of it. ``is_told``: the upstream itself rejected it."""

    key: Secret
    is_rejected: bool = False
    last_until: float = 0.0
    refusals: int = 0
    is_unclear: bool = False
    is_told: bool = False
    doubted_at: float = float("-inf")


class KeyStates:
    """One for all rings. ``close`` it."""

    def __init__(
        self,
        ask: Ask = _nobody,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.clock = clock
        self._ask = ask
        self._sleep = sleep
        self._states: dict[Secret, KeyState] = {}
        self._questions: dict[Secret, asyncio.Task[bool]] = {}
        self._repeats: dict[Secret, asyncio.Task[None]] = {}

    def of(self, key: Secret) -> KeyState:
        return self._states.setdefault(key, KeyState(key))

    def keep(self, keys: Collection[Secret]) -> None:
        """Forget every other key: one that comes back later has changed for all we know."""
        self._states = {key: state for key, state in self._states.items() if key in keys}
        for key, task in [*self._questions.items(), *self._repeats.items()]:
            if key not in keys:
                task.cancel()

    def rejected(self) -> list[Secret]:
        return [state.key for state in self._states.values() if state.is_rejected]

    def inspect(self, keys: Iterable[Secret]) -> None:
        """Ask about ``keys`` in the background, each once."""
        for key in keys:
            self._question(key)

    def refused(self, key: Secret) -> None:
        """A call with ``key`` was answered 401: ask about it, if that was not just done."""
        state = self._states.get(key)
        if state is None or state.is_rejected:
            return
        state.refusals += 1
        if state.is_unclear:
            self._look_at_refusals(state)
        is_due = key not in self._repeats and self.clock() >= state.doubted_at + PAUSE_SECONDS
        if is_due and not state.is_rejected:
            _log.warning("a call was answered with 401; the key is asked about", key=key.label)
            state.doubted_at, state.is_unclear = self.clock(), False
            task = asyncio.create_task(self._repeat(state, self._question(key)))
            self._repeats[key] = task
            task.add_done_callback(partial(_drop, self._repeats, key))

    def accepted(self, key: Secret) -> None:
        """A call with ``key`` was answered with a 2xx."""
        if (state := self._states.get(key)) is not None:
            state.refusals = 0

    async def is_rejected(self, key: Secret) -> bool:
        """Whether ``key`` is set aside, once a question about it is answered; that is waited for
        ``PATIENCE_SECONDS`` at most."""
        question, state = self._questions.get(key), self._states.get(key)
        if state is None:
            return False  # a reload took it away
        if question is not None and not state.is_rejected:
            done, _ = await asyncio.wait({question}, timeout=PATIENCE_SECONDS)
            if not done:
                self._nothing_said(state)
        return state.is_rejected

    async def run(self) -> None:
        """Ask each minute about keys that are set aside, until cancelled."""
        while True:
            await self._sleep(ASIDE_SECONDS)
            aside = [state for state in self._states.values() if state.is_rejected]
            await asyncio.gather(*map(self._look_again, aside))

    async def close(self) -> None:
        tasks = [*self._questions.values(), *self._repeats.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _question(self, key: Secret) -> asyncio.Task[bool]:
        """The one question about ``key`` under way: whether it was answered."""
        if (question := self._questions.get(key)) is None:
            question = asyncio.create_task(self._put(self.of(key)))
            self._questions[key] = question
            question.add_done_callback(partial(_drop, self._questions, key))
        return question

    async def _repeat(self, state: KeyState, question: asyncio.Task[bool]) -> None:
        """Ask until something is said of the key, or it is set aside."""
        for pause in REPEATS_SECONDS:
            if await _is_answered(question) or state.is_rejected:
                return
            await self._sleep(pause)
            question = self._question(state.key)
        await _is_answered(question)

    async def _look_again(self, state: KeyState) -> None:
        """Ask about a key that is set aside. Where still nothing is said of it, one call may try
        it: an upstream without ``/key`` would never take it back."""
        if not await _is_answered(self._question(state.key)) and not state.is_told:
            state.is_rejected, state.refusals = False, ENOUGH_REFUSALS - 1

    async def _put(self, state: KeyState) -> bool:
        report = await self._ask(state.key)
        if report is not None and report.is_management:
            self._reject(
                state,
                "this is a management key: it can make and delete keys, and cannot call models;"
                " set an ordinary one",
                is_told=True,
            )
        elif report is not None and report.status == 401:
            self._reject(state, "key rejected by the upstream", is_told=True)
        elif report is not None and report.status == 200:
            if state.is_rejected:
                _log.info("key accepted by the upstream again", key=state.key.label)
            state.is_rejected = state.is_unclear = False
            state.refusals = 0
        else:
            self._nothing_said(state)
            return False
        return True

    def _nothing_said(self, state: KeyState) -> None:
        state.is_unclear = True
        self._look_at_refusals(state)

    def _look_at_refusals(self, state: KeyState) -> None:
        if state.refusals >= ENOUGH_REFUSALS and not state.is_rejected:
            why = "the upstream answers calls with 401 and says nothing of the key"
            self._reject(state, why, is_told=False)

    def _reject(self, state: KeyState, why: str, *, is_told: bool) -> None:
        if not state.is_rejected:
            _log.error(why, key=state.key.label)
        state.is_rejected, state.is_told = True, is_told


async def _is_answered(question: asyncio.Task[bool]) -> bool:
    await asyncio.wait({question})
    return not question.cancelled() and question.exception() is None and question.result()


def _drop(tasks: dict[Secret, Any], key: Secret, done: asyncio.Task[Any]) -> None:
    if tasks.get(key) is done:
        del tasks[key]
