"""A value from elsewhere: asked for once for all who wait, kept while it is good, renewed.

Who uses it says until when it is fresh, how long an old one serves, how often to ask for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Refreshed(Generic[T]):
    """``close`` it, unless its loads end by themselves."""

    def __init__(
        self,
        load: Callable[[], Awaitable[T]],
        stale_seconds: float,
        *,
        keeps: Callable[[T, T | None], bool] = lambda loaded, value: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``keeps``: whether what was loaded takes the place of the value that there is."""
        self._load = load
        self._stale_seconds = stale_seconds
        self._keeps = keeps
        self._clock = clock
        self._loading: asyncio.Task[T] | None = None
        self._began_at = self._loaded_at = float("-inf")
        self._value: T | None = None

    @property
    def value(self) -> T | None:
        """The last one that was kept; None once it is ``stale_seconds`` old."""
        return self._value if self.age_seconds < self._stale_seconds else None

    @property
    def age_seconds(self) -> float:
        """Of the last one that was kept; infinite without any."""
        return self._clock() - self._loaded_at

    @property
    def is_loading(self) -> bool:
        return self._loading is not None

    def begin(self, pause_seconds: float = 0.0) -> None:
        """Begin to load, unless that is under way, or was begun within ``pause_seconds``."""
        now = self._clock()
        if self._loading is None and now - self._began_at >= pause_seconds:
            self._began_at = now
            self._loading = asyncio.create_task(self._run())
            self._loading.add_done_callback(self._done)

    async def wait(self, seconds: float) -> None:
        """Wait for the load under way, ``seconds`` after its beginning at most."""
        if self._loading is not None:
            left = self._began_at + seconds - self._clock()
            await asyncio.wait({self._loading}, timeout=max(0.0, left))

    async def renewed(self) -> T:
        """What the load under way or a new one comes to, kept or not; a caller that leaves does
        not end it. Raises what the load raises."""
        self.begin()
        assert self._loading is not None  # noqa: S101 - as ``begin`` leaves it
        return await asyncio.shield(self._loading)

    async def close(self) -> None:
        """End what is under way."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait({self._loading})

    async def _run(self) -> T:
        loaded = await self._load()
        if self._keeps(loaded, self.value):
            self._value, self._loaded_at = loaded, self._clock()
        return loaded

    def _done(self, task: asyncio.Task[T]) -> None:
        self._loading = None
        if not task.cancelled():
            task.exception()  # seen: every caller may have left
