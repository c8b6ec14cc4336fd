"""One whole answer over the HTTP client: bounded in bytes and time, never redirected.

For what is read as a whole: key sets, verdicts, reports, lists. Calls are ``upstream``'s matter.
And what is kept of such: asked for once for all who wait, kept while it is good, renewed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

import aiohttp
from multidict import CIMultiDictProxy

from keyproxy.dataclass import dataclass, field

T = TypeVar("T")
_PLAIN = {"Accept": "application/json", "Accept-Encoding": "identity"}
"""Compression is not asked for: a small body cannot become a large one."""


class Whole(NamedTuple):
    """``raw`` is None for a body that is larger than was allowed."""

    status: int
    headers: CIMultiDictProxy[str]
    raw: bytes | None


async def fetch(
    session: aiohttp.ClientSession,
    url: str,
    *,
    max_bytes: int,
    timeout_seconds: float | None = None,
    head: Mapping[str, str] | None = None,
    sent: Mapping[str, str] | bytes | None = None,
) -> Whole:
    """The answer to a GET, or to a POST of a form or of bytes; ``head`` goes beside or over ours.

    Raises ``TimeoutError``, ``aiohttp.ClientError``, ``OSError``, and ``UnicodeError`` for a name
    that is none.
    """
    async with (
        asyncio.timeout(timeout_seconds),
        session.request(
            "GET" if sent is None else "POST",
            url,
            headers={**_PLAIN, **(head or {})},
            data=sent,
            allow_redirects=False,
        ) as answer,
    ):
        raw = bytearray()
        async for chunk in answer.content.iter_any():
            raw += chunk
            if len(raw) > max_bytes:
                answer.close()
                return Whole(answer.status, answer.headers, None)
        return Whole(answer.status, answer.headers, bytes(raw))


@dataclass(eq=False)
class Refreshed(Generic[T]):
    """A value from elsewhere: asked for once for all who wait, kept while it is good, renewed.

    Who uses it says until when it is fresh, how long an old one serves, how often to ask for it.
    ``keeps``: whether what was loaded takes the place of the value that there is. ``close`` it,
    unless its loads end by themselves.
    """

    load: Callable[[], Awaitable[T]]
    stale_seconds: float
    keeps: Callable[[T, T | None], bool] = lambda loaded, value: True
    clock: Callable[[], float] = time.monotonic
    _loading: asyncio.Task[T] | None = field(default=None, init=False)
    _began_at: float = field(default=float("-inf"), init=False)
    _loaded_at: float = field(default=float("-inf"), init=False)
    _value: T | None = field(default=None, init=False)

    @property
    def value(self) -> T | None:
        """The last one that was kept; None once it is ``stale_seconds`` old."""
        return self._value if self.age_seconds < self.stale_seconds else None

    @property
    def age_seconds(self) -> float:
        """Of the last one that was kept; infinite without any."""
        return self.clock() - self._loaded_at

    @property
    def is_loading(self) -> bool:
        return self._loading is not None

    def begin(self, pause_seconds: float = 0.0) -> None:
        """Begin to load, unless that is under way, or was begun within ``pause_seconds``."""
        now = self.clock()
        if self._loading is None and now - self._began_at >= pause_seconds:
            self._began_at = now
            self._loading = asyncio.create_task(self._run())
            self._loading.add_done_callback(self._done)

    async def wait(self, seconds: float) -> None:
        """Wait for the load under way, ``seconds`` after its beginning at most."""
        if self._loading is not None:
            left = self._began_at + seconds - self.clock()
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
        loaded = await self.load()
        if self.keeps(loaded, self.value):
            self._value, self._loaded_at = loaded, self.clock()
        return loaded

    def _done(self, task: asyncio.Task[T]) -> None:
        self._loading = None
        if not task.cancelled():
            task.exception()  # seen: every caller may have left
