"""What ``send`` asks of the HTTP client, and how that can fail.

One request as far as the head of its answer, or to the end of a small body; how long a head is
waited for when its client has left. The client's exceptions become our refusals here. Knows
neither calls nor keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from keyproxy.errors import Refusal
from keyproxy.settings import Settings
from keyproxy.transport.http1 import Lines, Malformed
from keyproxy.transport.pool import ConnectFailed, ConnectLate, Pool
from keyproxy.transport.reply import BrokenOff, Reply
from keyproxy.upstream.answers import invalid
from keyproxy.upstream.provider import Provider

LINGER_SECONDS = 1.0
MOST = 64
"""Callers that linger at once."""

T = TypeVar("T")


class Requests:
    """Requests below one base address."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._first_byte_seconds = settings.first_byte_timeout_seconds
        self._idle_seconds = settings.idle_timeout_seconds

    async def answer(
        self,
        method: str,
        path: str,
        fields: Lines,
        body: bytes,
        connected: Callable[[], None] | None = None,
        seconds: float | None = None,
        *,
        is_rooted: bool = False,
    ) -> Reply:
        """An answer whose head has come, within so many ``seconds`` where they are fewer than
        usual; ``connected`` is called once there is a connection.

        Raises ``upstream_unreachable``, ``upstream_timeout``, ``upstream_invalid``.
        """
        try:
            return await self._pool.ask(
                method,
                path,
                fields,
                body,
                timeout_seconds=min(seconds or math.inf, self._first_byte_seconds),
                connected=connected,
                is_rooted=is_rooted,
            )
        except TimeoutError as error:
            text, is_free = "The upstream did not answer in time.", isinstance(error, ConnectLate)
            raise Refusal("upstream_timeout", text, is_free=is_free) from error
        except Malformed as error:
            raise invalid("its head is malformed") from error
        except (ConnectFailed, BrokenOff) as error:
            is_free = isinstance(error, ConnectFailed)
            raise unreachable(is_free=is_free) from error.__cause__ or error

    async def whole(self, reply: Reply, max_bytes: int) -> bytes | None:
        """The body of an answer, or None when it is larger. Raises ``upstream_unreachable``."""
        try:
            async with asyncio.timeout(self._idle_seconds):
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

    async def outlast(
        self, work: Coroutine[Any, Any, T], is_worth_it: Callable[[], bool]
    ) -> tuple[T, bool]:
        """What ``work`` returns, and whether the caller was cancelled meanwhile.

        When it is cancelled, ``work`` goes on for ``LINGER_SECONDS`` at most, for ``MOST`` callers
        at once if it ``is_worth_it`` by then, and for none after ``end``; without a result
        CancelledError is raised.
        """
        task = asyncio.create_task(work)
        try:
            return await asyncio.shield(task), False
        except asyncio.CancelledError:
            call = asyncio.current_task()
            is_full = self._is_over or len(self._calls) >= MOST
            if call is not None and not is_full and is_worth_it():
                self._calls.add(call)
                with contextlib.suppress(asyncio.CancelledError):  # by ``end``: the first goes on
                    await asyncio.wait({task}, timeout=LINGER_SECONDS)
                self._calls.discard(call)
            if not task.done() or task.cancelled() or task.exception() is not None:
                raise
            return task.result(), True
        finally:
            task.cancel()

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
    return Refusal(
        "upstream_key_rejected",
        "The upstream does not accept this server's key. Only its operator can mend that.",
        hint=f"run `keyproxy check`, then set a valid {provider.key_variable}",
        is_free=True,
    )
