"""What goes on in the very turn of the loop in which it is told to.

asyncio begins a task, and lets one go on, in the next turn, before which it asks the system once
more what has come: with few calls under way that is much of what is added to each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")
Work = Callable[[], Awaitable[None]]
_MOST_IDLE = 64


class Prompt(asyncio.Future[T]):
    """A future whose waiting task goes on within ``tell``. What is raised, or cancelled, comes in
    the next turn, as ever."""

    _waiter: tuple[Callable[[Any], object], Context] | None = None

    def add_done_callback(
        self, fn: Callable[[Any], object], /, *, context: Context | None = None
    ) -> None:
        super().add_done_callback(fn, context=context)
        if context is not None:  # a task gives its own
            self._waiter = fn, context

    def tell(self, result: T) -> None:
        """The result; said last by whoever says it, since the waiter may call him again. Tasks do
        not nest: where one says it, the waiter has to wait for its turn."""
        waiter, self._waiter = self._waiter, None
        is_free = waiter is not None and asyncio.current_task() is None
        if waiter is not None and is_free and self.remove_done_callback(waiter[0]):
            self.set_result(result)
            waiter[1].run(waiter[0], self)
        else:
            self.set_result(result)


class Workers:
    """Tasks that do one piece of work after another: who waits for the next begins it at once, and
    a new one in the next turn. To be closed."""

    def __init__(self) -> None:
        self._idle: list[tuple[asyncio.Task[None], Prompt[Work]]] = []
        self._most_idle = _MOST_IDLE

    def take(self) -> tuple[asyncio.Task[None], Prompt[Work]]:
        """One, and where it is to be told its work. Once cancelled it does no other."""
        if self._idle:
            return self._idle.pop()
        told: Prompt[Work] = Prompt()
        return asyncio.create_task(self._run(told)), told

    async def _run(self, told: Prompt[Work] | None) -> None:
        while told is not None:
            work = await told
            del told  # some work lasts for minutes
            await work()
            del work
            told = self._next()

    def _next(self) -> Prompt[Work] | None:
        """Where who has done his work is told the next; None: he ends."""
        task = asyncio.current_task()
        if task is None or task.cancelling() or len(self._idle) >= self._most_idle:
            return None
        told: Prompt[Work] = Prompt()
        self._idle.append((task, told))
        return told

    def close(self) -> None:
        """Let those end that do nothing, and the others after their work."""
        self._most_idle = 0
        for task, _ in self._idle:
            task.cancel()
        self._idle.clear()
