"""The one HTTP client for every outgoing call: its trust, its proxy, its connections.

They trust the upstream's framing less than aiohttp's do. aiohttp reads any number of 1xx answers
before the real one, and does not notice what arrives behind an answer or on an idle pooled
connection: a second answer nobody asked for would be handed to the next caller. It also leaves a
body waiting whose framing broke, and takes a reset for the end of one without a length. All of it
ends connection and body here (nginx tests: proxy_extra_data, proxy_unfinished).
"""

from __future__ import annotations

import asyncio.sslproto
import functools
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import truststore
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import BadHttpMessage
from yarl import URL

from keyproxy.errors import SettingsFault
from keyproxy.settings import Settings
from keyproxy.settings.grammar import Unfit, network

_TLS_READ_BYTES = 32 * 1024
_READ_BYTES = 32 * 1024
_POOL_SECONDS = 30.0  # below the idle limits of edges (Cloudflare: 400 s, load balancers: 60 s)
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


@asynccontextmanager
async def open_session(settings: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client without cookies, netrc and decompression."""
    # asyncio gives each TLS connection a 256 KiB read buffer: 310 KB a stream instead of 88.
    asyncio.sslproto.SSLProtocol.max_size = _TLS_READ_BYTES
    connector = GuardedConnector(
        limit=0, ssl=trust(settings.upstream_ca_file), keepalive_timeout=_POOL_SECONDS
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        read_bufsize=_READ_BYTES,
        proxy=_proxy(settings),
        timeout=aiohttp.ClientTimeout(total=None, connect=settings.connect_timeout_seconds),
    ) as session:
        yield session


def trust(extra_ca: Path | None) -> ssl.SSLContext:
    """Whom every outgoing connection of ours believes: the system's store, and ``extra_ca``.

    macOS and Windows keep corporate CAs where OpenSSL does not look.
    """
    context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if extra_ca is not None:
        context.load_verify_locations(extra_ca)
    return context


def _proxy(settings: Settings) -> str | None:
    """The corporate proxy to CONNECT through. Never for plain HTTP: it would read the key.

    Raises SettingsFault for one of the environment that cannot be used.
    """
    base = URL(settings.upstream)
    if settings.upstream_proxy is None or base.scheme != "https":
        return None
    proxy = settings.upstream_proxy.reveal()
    if proxy != "env":
        return proxy
    found = None if proxy_bypass(base.host or "") else getproxies().get("https")
    if not found:
        return None
    try:
        return network.upstream_proxy(found if "://" in found else f"http://{found}").reveal()
    except Unfit as unfit:
        raise SettingsFault("HTTPS_PROXY", found=unfit.found, expected=unfit.expected) from unfit
