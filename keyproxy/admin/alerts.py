"""Who runs it is told when something leaves its range, and again when it is back.

Looks at the process each second, beside the calls: a new condition is one log event with a stable
``alert`` name and one POST, and so is its end. A call never waits for any of it. What was told
and is not over is kept in the ledger, where there is one: the next process tells of its end.

Alerts are posted one by one, signed, repeated with back-off. A receiver that hangs, fails or
redirects keeps nobody waiting but the alerts behind it, of which some are held in memory; the log
has all.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import aiohttp
import structlog

from keyproxy import __version__
from keyproxy.admin.conditions import Condition, Conditions
from keyproxy.errors import SettingsFault
from keyproxy.ledger.ledger import Ledger
from keyproxy.settings import Secret, Settings
from keyproxy.transport.fetch import fetch

LOOK_SECONDS = 1.0
AGAIN_SECONDS = 60.0
"""What has just ended is told no sooner again: something that flickers must not fill a channel."""
LAST_SECONDS = 2.0
"""A stop waits for so long, within what containers are given to end."""
MOST_HELD = 100
TIMEOUT_SECONDS = 10.0
PAUSES_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0)
"""Between the tries for one alert; after the last it is given up."""
LAST_PAUSE_SECONDS = 0.25
"""The same when the process ends."""
_MAX_ANSWER_BYTES = 64 * 1024
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


Alert = Mapping[str, Any]
"""What is posted as JSON; its ``id`` is the same each time it is."""


def signature(secret: Secret, body: bytes, at: int) -> str:
    """``t=…,v1=…``: the unix time, and an HMAC-SHA256 in hex over ``t.body``."""
    signed = hmac.digest(secret.reveal().encode(), b"%d.%b" % (at, body), "sha256")
    return f"t={at},v1={signed.hex()}"


Open = Callable[[str], aiohttp.ClientSession]
"""A client for an address, to be entered. Raises SettingsFault."""


async def post(open_session: Open, settings: Settings, alert: Alert) -> str | None:
    """Send ``alert`` to ``KEYPROXY_ALERT_URL``, and nowhere else: why that failed, or None."""
    assert settings.alert_url is not None  # noqa: S101 - the caller looked
    url, body = settings.alert_url.reveal(), json.dumps(alert).encode()
    head = {"Content-Type": "application/json", "User-Agent": f"keyproxy/{__version__}"}
    if settings.alert_secret is not None:
        head["X-Keyproxy-Signature"] = signature(settings.alert_secret, body, int(time.time()))
    limits = {"max_bytes": _MAX_ANSWER_BYTES, "timeout_seconds": TIMEOUT_SECONDS}
    try:
        async with open_session(url) as session:
            answer = await fetch(session, url, sent=body, head=head, **limits)  # type: ignore[arg-type]
    except TimeoutError:
        return f"no answer within {TIMEOUT_SECONDS:.0f} seconds"
    except (aiohttp.ClientError, OSError, UnicodeError, SettingsFault) as error:
        return f"cannot be reached ({type(error).__name__})"  # its text may hold the address
    if 300 <= answer.status < 400:
        return f"it redirects ({answer.status}), which is not followed"
    return None if answer.status < 300 else f"status {answer.status}"


Taken = Callable[[], None]


@dataclass(eq=False)
class Outbox:
    """Sends alerts in their order. ``run`` it; ``put`` never waits."""

    open_session: Open
    settings: Callable[[], Settings]
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    _held: deque[tuple[Alert, Taken]] = field(default_factory=deque, init=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _is_last: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _is_done: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def put(self, alert: Alert, taken: Taken = lambda: None) -> None:
        """Hold it until it was ``taken``; of too many the oldest goes. Where nobody is told, the
        log has taken it."""
        if self.settings().alert_url is None:
            taken()
            return
        if len(self._held) > MOST_HELD:  # the first is under way
            _log.warning("too many alerts wait; one was not delivered", id=self._held[1][0]["id"])
            del self._held[1]
        self._held.append((alert, taken))
        self._news.set()

    async def finish(self) -> None:
        """The process ends: try at once what waits for its next try, and wait until all is done."""
        self._is_last.set()
        self._news.set()
        await self._is_done.wait()

    async def run(self) -> None:
        """Deliver what is held, until cancelled, or the last is done."""
        try:
            while self._held or not self._is_last.is_set():
                await self._news.wait()
                self._news.clear()
                while self._held:
                    await self._send(*self._held[0])
                    self._held.popleft()
        finally:
            self._is_done.set()
            if ids := [alert["id"] for alert, _ in self._held]:
                _log.error("alerts were not delivered before the stop", count=len(ids), ids=ids)

    async def _send(self, alert: Alert, taken: Taken) -> None:
        try:
            if await self._deliver(alert):
                taken()
        except Exception:  # one odd alert must not keep others back
            _log.exception("an alert was not delivered", id=alert["id"])

    async def _deliver(self, alert: Alert) -> bool:
        trouble = None
        for pause in (*PAUSES_SECONDS, None):
            if (settings := self.settings()).alert_url is None:
                return True
            before, trouble = trouble, await post(self.open_session, settings, alert)
            if trouble is None:
                return True
            if trouble != before:
                _log.warning("an alert cannot be delivered", id=alert["id"], reason=trouble)
            if pause is not None:
                await self._rest(pause)
        _log.error("an alert was not delivered", id=alert["id"], reason=trouble)
        return False

    async def _rest(self, seconds: float) -> None:
        if self._is_last.is_set():
            await self.sleep(LAST_PAUSE_SECONDS)
            return
        ends = [asyncio.ensure_future(self.sleep(seconds))]
        ends.append(asyncio.ensure_future(self._is_last.wait()))
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in ends:
                each.cancel()
