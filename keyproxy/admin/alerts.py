"""Who runs it is told when something leaves its range, and again when it is back.

Looks at the process each second, beside the calls: a new condition is one log event with a stable
``alert`` name and one POST, and so is its end. A call never waits for any of it. What was told
and is not over is kept in the ledger, where there is one: the next process tells of its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Literal

import structlog

from keyproxy.admin.conditions import Condition, Conditions
from keyproxy.admin.outbox import Alert, Outbox
from keyproxy.dataclass import dataclass, field
from keyproxy.ledger.ledger import Ledger

LOOK_SECONDS = 1.0
AGAIN_SECONDS = 60.0
"""What has just ended is told no sooner again: something that flickers must not fill a channel."""
LAST_SECONDS = 2.0
"""A stop waits for so long, within what containers are given to end."""
_LOGGED = ("alert", "state", "id", "app", "value", "limit")
_log = structlog.get_logger("keyproxy.alerts")
State = Literal["firing", "resolved"]
Key = tuple[str, str | None, str]


@dataclass(eq=False)
class Alerts:
    """``run`` it beside the calls. ``instance`` names this process to whoever is told.

    What an earlier process told of is neither told anew, nor over before this one can tell.
    """

    conditions: Conditions
    outbox: Outbox
    instance: Callable[[], str]
    ledger: Ledger | None = None
    wall: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    _firing: dict[Key, tuple[Condition, str]] = field(default_factory=dict, init=False)
    _ended_at: dict[Key, float] = field(default_factory=dict, init=False)
    _recalled_at: dict[Key, float] = field(default_factory=dict, init=False)
    _has_recalled: bool = field(default=False, init=False)
    _is_blind: bool = field(default=False, init=False)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def run(self) -> None:
        """Look, and tell, until cancelled."""
        while True:
            await self._try_to_look()
            await self.sleep(LOOK_SECONDS)

    async def _try_to_look(self) -> None:
        try:
            await self.look()
            self._is_blind = False
        except Exception as error:  # the next look may succeed
            if not self._is_blind:
                _log.warning("alerts cannot look", error=f"{type(error).__name__}: {error}")
            self._is_blind = True

    async def look(self) -> None:
        """Tell of what has left its range since the last look, and of what is back."""
        async with self._looking:
            await self._recall()
            self._compare(await self.conditions.look(self.wall()))

    def firing(self) -> list[tuple[str, str]]:
        """Of each that is not over: its name, and the sentence."""
        return [(condition.alert, condition.text) for condition, _ in self._firing.values()]

    async def finish(self) -> None:
        """Look once more, and have what is held delivered, as far as a moment is enough."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_SECONDS):
                await self._try_to_look()
                await self.outbox.finish()

    async def _recall(self) -> None:
        if self._has_recalled or self.ledger is None:
            return
        if (kept := await self.ledger.kept()) is None:
            return
        self._has_recalled = True
        for text in kept:
            with contextlib.suppress(ValueError, TypeError):  # of another keyproxy
                instance, *facts = json.loads(text)
                condition = Condition(*facts)
                self._firing.setdefault(_key(condition), (condition, instance))
                self._recalled_at[_key(condition)] = self.clock()

    def _compare(self, looked: Sequence[Condition]) -> None:
        now = self.clock()
        found = {_key(each): each for each in looked}
        for key in [key for key in self._firing if key not in found]:
            condition, instance = self._firing[key]
            recalled_at = self._recalled_at.get(key)
            if recalled_at is None or self.conditions.is_over(condition, now - recalled_at):
                self._ended_at[key] = now
                del self._firing[key]
                self._tell("resolved", condition, instance)
        self._ended_at = {k: at for k, at in self._ended_at.items() if now < at + AGAIN_SECONDS}
        for key, condition in found.items():
            self._recalled_at.pop(key, None)
            if key in self._firing:
                self._firing[key] = condition, self._firing[key][1]
            elif key not in self._ended_at:
                self._firing[key] = condition, self.instance()
                self._tell("firing", *self._firing[key])

    def _tell(self, state: State, condition: Condition, instance: str) -> None:
        said = condition.text if state == "firing" else f"No longer: {condition.text}"
        alert = alert_of(condition, state, said, instance, self.wall())
        write = _log.warning if state == "firing" else _log.info
        write(said, **{name: alert[name] for name in _LOGGED if alert[name] is not None})
        self.outbox.put(alert, partial(self._keep, state, condition, instance))

    def _keep(self, state: State, condition: Condition, instance: str) -> None:
        """Whoever is told knows that it fires, or no longer."""
        if self.ledger is not None:
            text = json.dumps([instance, *condition]) if state == "firing" else None
            self.ledger.keep(json.dumps(_key(condition)), text)


def alert_of(condition: Condition, state: State, said: str, instance: str, at: float) -> Alert:
    """What is posted of ``condition``, of which ``said`` tells in a sentence."""
    text = f"keyproxy at {instance}: {said}"
    when = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return {
        "id": f"alert_{os.urandom(12).hex()}",
        "alert": condition.alert,
        "state": state,
        "at": when.replace("+00:00", "Z"),
        "instance": instance,
        "app": condition.app,
        "value": condition.value,
        "limit": condition.limit,
        "text": text,
        "content": text,  # the same for Discord
    }


def _key(condition: Condition) -> Key:
    return condition.alert, condition.app, condition.about
