"""A client connection that trusts the upstream's framing less than aiohttp's does.

aiohttp reads any number of 1xx answers before the real one, and does not notice what arrives
behind an answer or on an idle pooled connection: a second answer nobody asked for would be
handed to the next caller. It also leaves a body waiting whose framing broke, and takes a reset
for the end of one without a length. All of it ends connection and body here (nginx tests:
proxy_extra_data, proxy_unfinished).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import BadHttpMessage

on_connection: ContextVar[Callable[[], None] | None] = ContextVar("on_connection", default=None)
"""Called once the request that is made in this context has a connection. (aiohttp's tracing tells
that, too, and much more: it takes 30 us a request.)"""
MAX_INTERIM = 16  # 100 and 103 come once or twice
MAX_HEAD_BYTES = 128 * 1024  # with 128 fields of 8190 bytes allowed, a parser alone takes 1 MB


class GuardedHandler(ResponseHandler):
    """One connection to the upstream."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._final: Any = None
        self._interim = 0
        self._head_bytes = 0

    def set_response_params(self, **params: Any) -> None:
        """A request is about to be sent: what follows is its answer."""
        self._final, self._interim, self._head_bytes = None, 0, 0
        super().set_response_params(**params)

    def feed_data(self, data: Any, size: int = 0) -> None:
        if self._final is not None:
            self._drop()
            return
        message, payload = data
        if message.code >= 200 or message.code == 101:
            self._final = payload
        else:
            self._interim += 1
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        if data and self._final is not None and self._final.is_eof():
            self._drop()
            return
        if self._final is None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._final is None and (
            self._head_bytes > MAX_HEAD_BYTES or self._interim > MAX_INTERIM
        ):
            self.set_exception(BadHttpMessage("the answer's head does not end"))
            self._drop()
        elif self.exception() is not None:
            self._break_off()

    def connection_lost(self, exc: BaseException | None) -> None:
        if exc is not None:
            self._break_off()
        super().connection_lost(exc)
        self._break_off()

    def _break_off(self) -> None:
        """Whoever reads the body learns that it is not whole."""
        body = self._final
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("the answer's body broke off"))

    def _drop(self) -> None:
        self.force_close()
        if self.transport is not None:
            self.transport.abort()


class GuardedConnector(aiohttp.TCPConnector):
    """``TCPConnector`` over ``GuardedHandler``; aiohttp has no public seam for it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        make: Callable[..., ResponseHandler] = GuardedHandler
        if not hasattr(self, "_factory"):
            raise TypeError("this aiohttp makes its connections another way")
        self._factory = functools.partial(make, loop=self._loop)

    async def connect(self, *request: Any, **options: Any) -> Any:
        connection = await super().connect(*request, **options)
        if (tell := on_connection.get()) is not None:
            tell()
        return connection
