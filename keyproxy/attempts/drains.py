"""Answers that are read on when their client has left, where the provider bills them to the end: so
it is known what they cost. Nothing is kept but what the books read off them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import structlog

from keyproxy.transport.reply import BrokenOff, Reply
from keyproxy.upstream.headers import KeySearch

MOST = 32
"""At once, in a process."""
LONGEST_SECONDS = 60.0
_log = structlog.get_logger("keyproxy.routing")


class Drains:
    """One for a process: ``end`` it before the books are closed."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False

    def take(
        self,
        stack: AsyncExitStack,
        reply: Reply,
        search: KeySearch,
        watchers: Sequence[Callable[[bytes], None]],
    ) -> None:
        """Read ``reply`` to its end, and close what is on ``stack`` then: the attempt, and what is
        set aside for it. A key in it, by ``search``, cuts it. Where there is no room for it,
        nothing is taken from ``stack``."""
        if self._is_over or len(self._tasks) >= MOST or not reply.is_open:
            return
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def look(data: bytes) -> None:
            if (passed := search.feed(data)) is None:
                reply.close()
                return
            for watcher in watchers:
                watcher(passed)

        def ended(error: BrokenOff | None) -> None:
            if not over.done():
                over.set_result(None)

        reply.pass_on(look, ended)  # at once, while nobody else reads it
        task = asyncio.create_task(self._drain(stack.pop_all(), over))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self, seconds: float = 0.0) -> None:
        """Let those under way end within so many seconds; the rest are cut, and estimated."""
        self._is_over = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    @staticmethod
    async def _drain(stack: AsyncExitStack, over: asyncio.Future[None]) -> None:
        async with stack:
            try:
                async with asyncio.timeout(LONGEST_SECONDS):
                    await over
            except TimeoutError:
                _log.info("an answer was not read to its end", after_seconds=LONGEST_SECONDS)
