"""Who runs it is told when something leaves its range, and again when it is back.

Looks at the process each second, beside the calls: a new condition is one log event with a stable
``alert`` name and one POST, and so is its end. A call never waits for any of it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import structlog

from keyproxy.admin.conditions import Condition, Conditions
from keyproxy.admin.outbox import Alert, Outbox

LOOK_SECONDS = 1.0
AGAIN_SECONDS = 60.0
"""What has just ended is told no sooner again: something that flickers must not fill a channel."""
_log = structlog.get_logger("keyproxy.alerts")
Key = tuple[str, str | None, str]


@dataclass(eq=False)
class Alerts:
    """``run`` it beside the calls. ``instance`` names this process to whoever is told."""

    conditions: Conditions
    outbox: Outbox
    instance: Callable[[], str]
    wall: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    _firing: dict[Key, Condition] = field(default_factory=dict, init=False)
    _ended_at: dict[Key, float] = field(default_factory=dict, init=False)

    async def run(self) -> None:
        """Look, and tell, until cancelled."""
        has_failed = False
        while True:
            try:
                await self.look()
                has_failed = False
            except Exception as error:  # the next look may succeed
                if not has_failed:
                    _log.warning("alerts cannot look", error=f"{type(error).__name__}: {error}")
                has_failed = True
            await self.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Tell of what has left its range since the last look, and of what is back."""
        now = self.clock()
        found = {_key(each): each for each in await self.conditions.look(self.wall())}
        for key in [key for key in self._firing if key not in found]:
            self._ended_at[key] = now
            self._tell("resolved", self._firing.pop(key))
        self._ended_at = {k: at for k, at in self._ended_at.items() if now < at + AGAIN_SECONDS}
        for key, condition in found.items():
            is_new = key not in self._firing and key not in self._ended_at
            if is_new or key in self._firing:
                self._firing[key] = condition
            if is_new:
                self._tell("firing", condition)

    def _tell(self, state: Literal["firing", "resolved"], condition: Condition) -> None:
        instance = self.instance()
        said = condition.text if state == "firing" else f"No longer: {condition.text}"
        alert = made(state, condition, instance, f"keyproxy at {instance}: {said}", self.wall())
        write = _log.warning if state == "firing" else _log.info
        facts = {"app": alert.app} if alert.app is not None else {}
        write(
            said,
            alert=alert.alert,
            state=state,
            id=alert.id,
            **facts,
            value=alert.value,
            limit=alert.limit,
        )
        self.outbox.put(alert)


def made(
    state: Literal["firing", "resolved"],
    condition: Condition,
    instance: str,
    text: str,
    at: float,
) -> Alert:
    """The alert that tells of ``condition``."""
    when = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return Alert(
        id=f"alert_{os.urandom(12).hex()}",
        alert=condition.alert,
        state=state,
        at=when.replace("+00:00", "Z"),
        instance=instance,
        app=condition.app,
        value=condition.value,
        limit=condition.limit,
        text=text,
        content=text,
    )


def _key(condition: Condition) -> Key:
    return condition.alert, condition.app, condition.about
