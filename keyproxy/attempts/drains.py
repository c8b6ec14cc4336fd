"""Answers that are read on when their client has left, where the provider bills them to the end: so
it is known what they cost. Nothing is kept but what the books read off them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import structlog

from keyproxy.record import Record
from keyproxy.transport.reply import BrokenOff, Reply
from keyproxy.upstream.headers import KeySearch

MOST = 32
"""At once, in a process."""
MOST_BYTES = 256 * 1024
"""Of the body of a call whose answer has not begun: it is kept as long, several times its size."""
LONGEST_SECONDS = 60.0
T = TypeVar("T")
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
        set aside for it. Where there is no room for it, nothing is taken from ``stack``."""
        if self._has_room and reply.is_open:
            self._begin(stack, read(reply, search, watchers))

    async def outlast(
        self,
        stack: AsyncExitStack,
        asking: Coroutine[Any, Any, T],
        record: Record,
        late: Callable[[T], Awaitable[None]],
    ) -> T:
        """What ``asking`` returns, which may be the answer to come or be held. When the caller is
        cancelled after bytes went up, it goes on where there is room, and what it returns is for
        ``late``; what is on ``stack`` is closed then."""
        task = asyncio.create_task(asking)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._has_room and record.is_connected and not record.is_cutting():
                self._begin(stack, _go_on(task, late))
            else:
                task.cancel()
                await task  # which may know what became of the call
            raise

    @property
    def _has_room(self) -> bool:
        return not self._is_over and len(self._tasks) < MOST

    def _begin(self, stack: AsyncExitStack, rest: Awaitable[None]) -> None:
        task = asyncio.create_task(_drain(stack.pop_all(), rest))
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


def read(
    reply: Reply, search: KeySearch, watchers: Sequence[Callable[[bytes], None]]
) -> Awaitable[None]:
    """Show the rest of ``reply`` to ``watchers``, from now on; it is over when what is returned is.
    A key in it, by ``search``, cuts it."""
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
    return over


async def _go_on(task: asyncio.Task[T], late: Callable[[T], Awaitable[None]]) -> None:
    await late(await task)


async def _drain(stack: AsyncExitStack, rest: Awaitable[None]) -> None:
    async with stack:
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                await rest
        except TimeoutError:
            _log.info("an answer was not read to its end", after_seconds=LONGEST_SECONDS)
