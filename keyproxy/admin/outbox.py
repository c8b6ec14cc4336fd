"""Alerts on their way to whoever is told: posted one by one, signed, repeated with back-off.

A receiver that hangs, fails or redirects keeps nobody waiting but the alerts behind it, of which
some are held in memory; the log has all.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Literal

import aiohttp
import structlog

from keyproxy import __version__
from keyproxy.errors import SettingsFault
from keyproxy.settings import Secret, Settings
from keyproxy.transport.fetch import fetch

MOST_HELD = 100
TIMEOUT_SECONDS = 10.0
PAUSES_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0)
"""Between the tries for one alert; after the last it is given up."""
_MAX_ANSWER_BYTES = 64 * 1024
_log = structlog.get_logger("keyproxy.alerts")


@dataclass(frozen=True, slots=True)
class Alert:
    """What is posted. ``id`` is the same each time it is; ``content`` is ``text`` for Discord."""

    id: str
    alert: str
    state: Literal["firing", "resolved"]
    at: str
    instance: str
    app: str | None
    value: float
    limit: float
    text: str
    content: str

    def body(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def signature(secret: Secret, body: bytes, at: int) -> str:
    """``t=…,v1=…``: the unix time, and an HMAC-SHA256 in hex over ``t.body``."""
    signed = hmac.digest(secret.reveal().encode(), b"%d.%b" % (at, body), "sha256")
    return f"t={at},v1={signed.hex()}"


Open = Callable[[str], aiohttp.ClientSession]
"""A client for an address, to be entered. Raises SettingsFault."""


async def post(open_session: Open, settings: Settings, body: bytes) -> str | None:
    """Send ``body`` to ``KEYPROXY_ALERT_URL``, and nowhere else: why that failed, or None."""
    assert settings.alert_url is not None  # noqa: S101 - the caller looked
    url = settings.alert_url.reveal()
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


@dataclass(eq=False)
class Outbox:
    """Sends alerts in their order. ``run`` it; ``put`` never waits."""

    open_session: Open
    settings: Callable[[], Settings]
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    _held: deque[Alert] = field(default_factory=lambda: deque(maxlen=MOST_HELD), init=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def put(self, alert: Alert) -> None:
        """Hold it until it was delivered; of too many the oldest goes."""
        if self.settings().alert_url is None:
            return
        if len(self._held) == MOST_HELD:
            _log.warning("too many alerts wait; one was not delivered", id=self._held[0].id)
        self._held.append(alert)
        self._news.set()

    async def run(self) -> None:
        """Deliver what is held, until cancelled."""
        while True:
            await self._news.wait()
            while self._held:
                alert = self._held.popleft()
                try:
                    await self._deliver(alert)
                except Exception:  # one odd alert must not keep others back
                    _log.exception("an alert was not delivered", id=alert.id)
            self._news.clear()

    async def _deliver(self, alert: Alert) -> None:
        trouble = None
        for pause in (*PAUSES_SECONDS, None):
            if (settings := self.settings()).alert_url is None:
                return
            before, trouble = trouble, await post(self.open_session, settings, alert.body())
            if trouble is None:
                return
            if trouble != before:
                _log.warning("an alert cannot be delivered", id=alert.id, reason=trouble)
            if pause is not None:
                await self.sleep(pause)
        _log.error("an alert was not delivered", id=alert.id, reason=trouble)
