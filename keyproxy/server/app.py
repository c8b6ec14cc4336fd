"""The application: routes, the fields every answer carries, and the runner for it.

Tests start exactly this, through ``running``, as production does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aiohttp import web
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy
from yarl import URL

from keyproxy.demo.page import HEADERS as PAGE_HEADERS
from keyproxy.demo.page import PageFile
from keyproxy.errors import KeyproxyError
from keyproxy.kit import EXCHANGE, Kit
from keyproxy.proxy import handle
from keyproxy.record import Record
from keyproxy.server import cors, middleware
from keyproxy.server.middleware import Handler
from keyproxy.settings import Settings
from keyproxy.transport.intake import MAX_FIELD_BYTES, MAX_FIELDS, MAX_LINE_BYTES, check_head
from keyproxy.transport.server import LINGERING_SECONDS, GuardedServer
from keyproxy.transport.sockets import BACKLOG

SHUTDOWN_SECONDS = 0.5
"""For calls that are left when the grace is over; aiohttp waits so long twice."""
_TURNS_TO_ACCEPT = 4  # of the loop, from a connection's arrival until the server knows it
HEALTH_PATHS = ("/healthz", "/readyz")


class ParserMissing(KeyproxyError):
    """aiohttp runs on its Python parser, which accepts heads that others read differently."""


def create_app(
    current: Callable[[], Kit],
    *,
    is_ready: Callable[[], bool],
    ended: Callable[[Record], None],
    pages: Mapping[str, PageFile] | None = None,
) -> web.Application:
    """The proxy as an aiohttp application. ``ended`` reads the record of each call that is over;
    ``pages``: the chat page's files by URL path."""
    calls = middleware.answering(current, _entry(pages or {}), ended)
    app = web.Application(middlewares=[_without_a_path(calls)])
    app.router.register_resource(EveryPath(calls, _health(is_ready)))
    app.on_response_prepare.append(_complete)
    cors.install(app)
    return app


def _without_a_path(calls: Handler) -> Any:
    """CONNECT and ``GET http://host``: aiohttp's router finds no resource, and would answer
    itself, leaving open a connection on which the rest of the request reads as the next one."""

    @web.middleware
    async def route(request: web.Request, handler: Handler) -> web.StreamResponse:
        is_found = request.match_info.http_exception is None
        return await (handler if is_found else calls)(request)

    return route


def _health(is_ready: Callable[[], bool]) -> Handler:
    """Fixed bodies for any Host, without CORS fields and log lines."""

    async def health(request: web.Request) -> web.StreamResponse:
        is_well = request.raw_path == "/healthz" or is_ready()
        return web.Response(
            text="ok\n" if is_well else "not ready\n",
            status=200 if is_well else 503,
            headers={"Cache-Control": "no-store"},
        )

    return health


def _entry(pages: Mapping[str, PageFile]) -> Handler:
    async def entry(request: web.Request) -> web.StreamResponse:
        page = pages.get(request.raw_path.partition("?")[0])
        if page is not None and request.method in ("GET", "HEAD"):
            request[EXCHANGE].record.is_quiet = True
            check_head(request)
            request[EXCHANGE].kit.browser.check_host(request.headers)
            return web.Response(
                body=page.body, headers={**PAGE_HEADERS, "Content-Type": page.content_type}
            )
        return await handle(request)

    return entry


async def _complete(request: web.Request, response: web.StreamResponse) -> None:
    """The fields every answer carries; aiohttp's own ``Server`` field is none of them."""
    response.headers.pop("Server", None)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Vary", "Origin")
    if "Upgrade" in request.headers:
        # The parser stops at an offer; the next call on this connection would not be read.
        response.force_close()
        response.headers["Connection"] = "close"
    if (exchange := request.get(EXCHANGE)) is not None:
        response.headers["X-Request-Id"] = exchange.record.request_id
        response.headers.update(exchange.headers)


class EveryPath(web.AbstractResource):
    """Takes every method and target, raw: paths are matched by ``policy.endpoints``.

    aiohttp's own resources decode a path before they compare it.
    """

    def __init__(self, calls: Handler, health: Handler) -> None:
        super().__init__(name=None)
        self._calls = web.ResourceRoute("*", calls, self, expect_handler=_expect_later)
        self._health = web.ResourceRoute("*", health, self, expect_handler=_expect_later)

    @property
    def canonical(self) -> str:
        return "/"

    async def resolve(self, request: web.Request) -> tuple[web.UrlMappingMatchInfo, set[str]]:
        is_health = request.raw_path in HEALTH_PATHS and request.method in ("GET", "HEAD")
        return web.UrlMappingMatchInfo({}, self._health if is_health else self._calls), set()

    def url_for(self, **kwargs: str) -> URL:
        return URL("/")

    def add_prefix(self, prefix: str) -> None:
        raise NotImplementedError

    def get_info(self) -> Any:
        return {}

    def raw_match(self, path: str) -> bool:
        return True

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[web.AbstractRoute]:
        yield from (self._calls, self._health)


async def _expect_later(request: web.Request) -> None:
    """``100 Continue`` is sent when a body is wanted, not before the checks."""


class Runner(web.AppRunner):
    """``web.AppRunner`` over our protocol, with a client's departure ending its call."""

    def __init__(self, app: web.Application, settings: Settings, max_connections: int) -> None:
        super().__init__(app, handle_signals=False, shutdown_timeout=SHUTDOWN_SECONDS)
        self._settings = settings
        self._max_connections = max_connections
        self._listening: list[socket.socket] = []

    async def listen(self, sock: socket.socket) -> None:
        """Take connections from ``sock``, which is ours from now on."""
        await web.SockSite(self, sock, backlog=BACKLOG).start()
        self._listening.append(sock)

    async def stop_listening(self) -> None:
        """Take no more connections.

        asyncio forgets one that it is accepting while the listener closes (python/cpython#109564),
        and its caller would wait; so it is accepted before.
        """
        loop = asyncio.get_running_loop()
        for sock in self._listening:
            with contextlib.suppress(NotImplementedError):  # Windows
                loop.remove_reader(sock)
        for _ in range(_TURNS_TO_ACCEPT):
            await asyncio.sleep(0)
        self._listening.clear()
        for site in list(self.sites):
            await site.stop()

    async def cleanup(self) -> None:
        await self.stop_listening()
        await super().cleanup()

    async def _make_server(self) -> web.Server:
        if HttpRequestParser is HttpRequestParserPy:
            raise ParserMissing(
                "aiohttp's C parser is missing (AIOHTTP_NO_EXTENSIONS, or a wheel without it); "
                "install a binary wheel of aiohttp"
            )
        app, loop = self._app, asyncio.get_running_loop()
        app._set_loop(loop)
        app.on_startup.freeze()
        await app.startup()
        app.freeze()
        return GuardedServer(
            app._handle,
            request_factory=app._make_request,
            loop=loop,
            max_connections=self._max_connections,
            handler_cancellation=True,
            header_timeout=self._settings.header_timeout_seconds,
            keepalive_timeout=self._settings.keepalive_timeout_seconds,
            unread_timeout=self._settings.idle_timeout_seconds,
            lingering_time=LINGERING_SECONDS,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_FIELDS,
            auto_decompress=False,
            access_log=None,
        )
