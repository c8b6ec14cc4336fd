"""A small real receiver of alerts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.loopback import listening


@dataclass(frozen=True)
class Got:
    """One POST."""

    body: bytes
    headers: Any

    @property
    def alert(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass
class Receiver:
    """What it was told, and how it answers next."""

    url: str = ""
    got: list[Got] = field(default_factory=list)
    answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] | None = None
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.method == "POST"
        self.got.append(Got(await request.read(), request.headers.copy()))
        async with self._news:
            self._news.notify_all()
        return web.Response() if self.answer is None else await self.answer(request)

    def answer_with(self, *statuses: int) -> None:
        """Answer with one after the other, and on with the last."""
        left = list(statuses)

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=left.pop(0) if len(left) > 1 else left[0])

        self.answer = answer

    async def told(self, number: int = 1) -> list[dict[str, Any]]:
        """What it was told, once that is so many."""
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: len(self.got) >= number)
        return [each.alert for each in self.got]


@asynccontextmanager
async def receiving(host: str = "127.0.0.1", **options: Any) -> AsyncIterator[Receiver]:
    """A receiver on loopback; ``options`` are those of ``listening``."""
    receiver = Receiver()
    scheme = "https" if "ssl_context" in options else "http"
    async with listening(receiver.handle, **options) as port:
        receiver.url = f"{scheme}://{host}:{port}/hook/s3cret-path"
        yield receiver
