"""How a request to the upstream can fail, as our refusals; a small body, read to its end; how long
a head is waited for when its client has left. Knows neither calls nor keys.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, NoReturn, TypeVar

from keyproxy.errors import Refusal
from keyproxy.key_forms import KNOWN
from keyproxy.settings.providers import key_variables
from keyproxy.transport.http1 import Malformed
from keyproxy.transport.pool import ConnectFailed, ConnectLate
from keyproxy.transport.reply import BrokenOff, Reply
from keyproxy.upstream.answers import invalid
from keyproxy.upstream.provider import Provider

LINGER_SECONDS = 1.0
MOST = 64
"""Callers that linger at once."""

FAULTS = (TimeoutError, Malformed, ConnectFailed, BrokenOff)
"""What ``Pool.ask`` raises."""
T = TypeVar("T")


def fail(error: Exception) -> NoReturn:
    """Raise what one of ``FAULTS`` is to the caller: ``upstream_unreachable``,
    ``upstream_timeout``, ``upstream_invalid``."""
    if isinstance(error, TimeoutError):
        text, is_free = "The upstream did not answer in time.", isinstance(error, ConnectLate)
        raise Refusal("upstream_timeout", text, is_free=is_free) from error
    if isinstance(error, Malformed):
        raise invalid("its head is malformed") from error
    raise unreachable(is_free=isinstance(error, ConnectFailed)) from error.__cause__ or error


async def whole(reply: Reply, max_bytes: int, idle_seconds: float) -> bytes | None:
    """The body of an answer, or None when it is larger. Raises ``upstream_unreachable``."""
    try:
        async with asyncio.timeout(idle_seconds):
            return await reply.read_whole(max_bytes)
    except (BrokenOff, TimeoutError) as error:
        raise unreachable() from error


class Lingering:
    """Waits a moment longer for an answer's head when its client has left: it comes soon, and says
    by which id the call can be asked about, which is booked at what it cost, then, and not at the
    worst case for good.

    Who lingers is the call's own task, which keeps its place in flight; nothing of the body is
    read. One for the process: ``end`` it before calls are cut.
    """

    def __init__(self) -> None:
        self._calls: set[asyncio.Task[Any]] = set()
        self._is_over = False

    async def outlast(self, awaited: asyncio.Future[T]) -> T | None:
        """What its caller was cancelled waiting for, if it comes within ``LINGER_SECONDS``; for
        ``MOST`` callers at once, and for none after ``end``."""
        call = asyncio.current_task()
        if call is None or self._is_over or len(self._calls) >= MOST:
            return None
        self._calls.add(call)
        with contextlib.suppress(asyncio.CancelledError):  # by ``end``: the first goes on
            await asyncio.wait({awaited}, timeout=LINGER_SECONDS)
        self._calls.discard(call)
        has_come = awaited.done() and not awaited.cancelled() and awaited.exception() is None
        return awaited.result() if has_come else None

    async def end(self) -> None:
        """Let nobody linger any more. Returns when those who did have ended."""
        self._is_over = True
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


def unreachable(*, is_free: bool = False) -> Refusal:
    """``is_free``: there was not even a connection."""
    text = "The upstream cannot be reached at the moment."
    return Refusal("upstream_unreachable", text, is_free=is_free)


def key_rejected(provider: Provider) -> Refusal:
    name = provider.name
    key = key_variables(name)[0] if name in KNOWN else f"key_file in [providers.{name}]"
    return Refusal(
        "upstream_key_rejected",
        "The upstream does not accept this server's key. Only its operator can mend that.",
        hint=f"run `keyproxy check`, then set a valid {key}",
        is_free=True,
    )
