"""What goes on in the very turn of the loop in which it is told to.

asyncio lets whoever waits go on in the next turn, before which it asks the system once more what
has come: with few calls under way that is much of what is added to each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVar

T = TypeVar("T")


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
