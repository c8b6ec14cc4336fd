"""Server-sent events for open dashboards: the state once, then what is new each second.

A tick is made once for all who read, and only while somebody does. Nobody has a queue: who is
late gets the next tick, and who takes nothing for some seconds is cut.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from keyproxy.errors import Refusal
from keyproxy.transport.connection import Connection
from keyproxy.transport.messages import Request, Response

TICK_SECONDS = 1.0
UNREAD_SECONDS = 10.0
MOST_READERS = 40
_ON_ITS_WAY_BYTES = 64 << 10
_log = structlog.get_logger("keyproxy.admin")
Look = Callable[[], Awaitable[dict[str, Any]]]


class Events:
    """``first`` is what a reader gets at once, ``tick`` what all get each second. Belongs to the
    loop; ``close`` it."""

    def __init__(
        self,
        first: Look,
        tick: Look,
        tick_seconds: float = TICK_SECONDS,
        unread_seconds: float = UNREAD_SECONDS,
    ) -> None:
        self._first = first
        self._tick = tick
        self._tick_seconds = tick_seconds
        self._unread_seconds = unread_seconds
        self.readers = 0
        self._next: asyncio.Future[bytes] | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._is_closed = False

    async def show(self, request: Request, connection: Connection) -> Response:
        """Events until the reader leaves, stops to read, or we close. Raises ``overloaded``."""
        if self.readers >= MOST_READERS:
            raise Refusal("overloaded", "Too many dashboards are open.", retry_after_seconds=5.0)
        response = Response(
            200,
            {
                "Content-Type": "text/event-stream",
                "Cache-Control": "no-store, no-transform",
                "X-Accel-Buffering": "no",  # nginx would collect the events
            },
        )
        if request.method == "HEAD":
            return response
        self.readers += 1
        try:
            if self._ticking is None:
                self._ticking = asyncio.create_task(self._run())
            text = _event("state", await self._first())
            _keep_little_on_its_way(connection)
            connection.begin(response)
            while text and not self._is_closed:
                async with asyncio.timeout(self._unread_seconds):
                    connection.write(text)
                    await connection.drained()
                if self._next is None:
                    self._next = asyncio.get_running_loop().create_future()
                text = await asyncio.shield(self._next)
            connection.finish()
        except TimeoutError:
            _log.info("a dashboard that stopped to read was cut")
            connection.transport.abort()
        finally:
            self.readers -= 1
            if not self.readers and self._ticking is not None:
                self._ticking.cancel()
                self._ticking = None
        return response

    async def close(self) -> None:
        """End all streams."""
        self._is_closed = True
        self._tell(b"")

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._tick_seconds)
            try:
                text = _event("tick", await self._tick())
            except Exception:  # later ones may do
                _log.exception("what is new could not be told")
                continue
            self._tell(text)

    def _tell(self, text: bytes) -> None:
        waiting, self._next = self._next, None
        if waiting is not None and not waiting.done():
            waiting.set_result(text)


def _keep_little_on_its_way(connection: Connection) -> None:
    """Left alone, the system would hold megabytes for a reader that has stopped."""
    sock = connection.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ON_ITS_WAY_BYTES)


def _event(name: str, data: dict[str, Any]) -> bytes:
    text = json.dumps(data, separators=(",", ":"))  # ASCII: U+2028 ends a line, too, for some
    return f"event: {name}\ndata: {text}\n\n".encode()
