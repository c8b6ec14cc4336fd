"""Waits a moment longer for an answer's head when its client has left.

The head of a streamed answer comes soon, and says by which id the call can be asked about: so it
is booked at what it cost, and not at the worst case for good. Who lingers is the call's own task,
which keeps its place in flight; nothing of the body is read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

LINGER_SECONDS = 1.0
MOST = 64

T = TypeVar("T")


class Lingering:
    """One for the process. ``end`` it before calls are cut."""

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
            if is_worth_it():
                await self._linger(task)
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

    async def _linger(self, task: asyncio.Task[Any]) -> None:
        call = asyncio.current_task()
        if call is None or self._is_over or len(self._calls) >= MOST:
            return
        self._calls.add(call)
        with contextlib.suppress(asyncio.CancelledError):  # by ``end``: the first one goes on
            await asyncio.wait({task}, timeout=LINGER_SECONDS)
        self._calls.discard(call)
