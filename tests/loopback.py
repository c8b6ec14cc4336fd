"""A server of aiohttp's on a free port of loopback: what every fake upstream and vendor is."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


@asynccontextmanager
async def listening(
    served: Any, at: socket.socket | None = None, **options: Any
) -> AsyncIterator[int]:
    """The port of ``served``, an application or a handler of every request; ``options`` are those
    of ``web.TCPSite``. ``at``: a socket that listens elsewhere."""
    runner: web.BaseRunner
    if isinstance(served, web.Application):
        runner = web.AppRunner(
            served, handler_cancellation=True, access_log=None, shutdown_timeout=0.1
        )
    else:
        server = web.Server(served, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = (
        web.TCPSite(runner, "127.0.0.1", 0, **options) if at is None else web.SockSite(runner, at)
    )
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
