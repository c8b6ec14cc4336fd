"""Delivers alerts, beside the calls.

They are posted one by one, signed, repeated with back-off. A receiver that hangs, fails or
redirects keeps nobody waiting but the alerts behind it, of which some are held in memory; the log
has all.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import structlog

from keyproxy import __version__
from keyproxy.dataclass import dataclass, field
from keyproxy.errors import SettingsFault
from keyproxy.settings import Secret, Settings
from keyproxy.transport.fetch import fetch

MOST_HELD = 100
TIMEOUT_SECONDS = 10.0
PAUSES_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0)
"""Between the tries for one alert; after the last it is given up."""
LAST_PAUSE_SECONDS = 0.25
"""The same when the process ends."""
_MAX_ANSWER_BYTES = 64 * 1024
_log = structlog.get_logger("keyproxy.alerts")
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
