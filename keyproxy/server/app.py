"""Every request becomes an answer here, with the fields that each of ours carries.

Errors become answers here and nowhere else; every call leaves one log line. Tests start this,
through ``running``, as production does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import web
from aiohttp_cors import CorsConfig, ResourceOptions
from aiohttp_cors.urldispatcher_router_adapter import ResourcesUrlDispatcherRouterAdapter

from keyproxy import pairing
from keyproxy.admin.watched import Readers
from keyproxy.browser import EXPOSED_HEADERS, is_preflight
from keyproxy.dataclass import dataclass, field
from keyproxy.demo.page import HEADERS as PAGE_HEADERS
from keyproxy.demo.page import PageFile
from keyproxy.errors import Refusal, overloaded
from keyproxy.floods import Floods, Refused
from keyproxy.kit import Exchange, Kit
from keyproxy.proxy import handle
from keyproxy.record import Record, trace_id
from keyproxy.server.assembly import PROVIDER
from keyproxy.settings import Settings
from keyproxy.settings.advice import written_hint
from keyproxy.transport import refusals
from keyproxy.transport.connection import Connection, Serving
from keyproxy.transport.health import HEALTH_PATHS, health
from keyproxy.transport.intake import check_head
from keyproxy.transport.messages import NO_LINES, Lines, Request, Response, lines
from keyproxy.transport.server import Server

_NO_SNIFFING = "X-Content-Type-Options: nosniff\r\n"
_EVERY_ANSWER = f"{_NO_SNIFFING}Vary: Origin\r\n"


@dataclass(frozen=True, slots=True)
class App:
    """Answers every request. ``current`` gives the kit in force; ``pages``: the chat page's files
    by URL path; ``floods`` has the refusals without lines of their own, until its server closes."""

    current: Callable[[], Kit]
    is_ready: Callable[[], bool]
    readers: Readers
    pages: Mapping[str, PageFile]
    floods: Floods = field(default_factory=Floods)

    def serve(self, settings: Settings, max_connections: int) -> Server:
        """A server of this app; must be made within the loop."""
        hears = self.readers.refused
        return Server(Serving(self.answer, _dress, settings, max_connections, self.floods, hears))

    async def answer(self, request: Request, connection: Connection) -> Response:
        """The answer to ``request``; a stream has gone out by then."""
        path = request.target.partition("?")[0]
        is_read = request.method in ("GET", "HEAD")
        if is_read and request.target in HEALTH_PATHS:
            return health(path, is_ready=self.is_ready())
        kit = self.current()
        record = Record(request.method, path)
        record.is_cutting = kit.life.cuts_calls
        record.trace_id = trace_id(request.headers.get("traceparent"))
        record.origin = kit.browser.allowed_origin(request.headers)
        exchange = request.exchange = Exchange(kit, record, connection)
        try:
            exchange.cors = await _cors_fields(request, record.origin)
            if is_read and path in self.pages:
                response = _page(request, exchange, self.pages[path])
            elif kit.life.pairing is not None and path == pairing.PATH:
                response = _paired(request, exchange, kit.life.pairing)
            else:
                response = await handle(request, exchange)
            record.http_status = response.status
            return response
        except asyncio.CancelledError as error:
            record.end_by(error)
            raise
        except Exception as error:
            return _refused(request, exchange, error)
        finally:
            if not self._is_one_of_many(record):
                record.write()
            self.readers.ended(record)
            record.watchers.clear()  # they hold it: only a collection would free that circle

    def _is_one_of_many(self, record: Record) -> bool:
        """Whether it is a refusal that a counted line tells of; never a fault of ours."""
        code, status = record.code, record.http_status
        if code is None or status is None or record.is_quiet or record.error is not None:
            return False
        return self.floods.absorbs(Refused(code, status, record.level, record.app, record.client))


def _page(request: Request, exchange: Exchange, page: PageFile) -> Response:
    exchange.record.is_quiet = True
    check_head(request)
    kit = exchange.kit
    kit.browser.check_host(request.headers)
    if kit.life.pairing is not None and not exchange.record.path.startswith(pairing.PATH):
        kit.life.pairing.check(request)
    return Response(200, {**PAGE_HEADERS, "Content-Type": page.content_type}, page.body)


def _paired(request: Request, exchange: Exchange, pairs: pairing.Pairing) -> Response:
    check_head(request)
    exchange.kit.browser.check_host(request.headers)
    exchange.kit.browser.check_origin(request.headers)
    return Response(204, {"Set-Cookie": pairs.pair(request)})


def _refused(request: Request, exchange: Exchange, error: Exception) -> Response:
    record = exchange.record
    record.end_by(error)
    if isinstance(error, ConnectionError):
        raise error
    refusal = _as_refusal(error)
    hint = written_hint(refusal.hint, exchange.kit.app_of(record).settings)
    record.http_status, record.code, record.side = refusal.status, refusal.code, refusal.side
    record.hint, record.param = hint, refusal.param
    if (cause := error if isinstance(error, MemoryError) else error.__cause__) is not None:
        record.cause = type(cause).__name__  # its text may hold what was sent
    if refusal.code == "internal_error":
        record.error = error
    if exchange.connection.has_begun:
        # A second head must never be written into the answer.
        exchange.connection.close()
        raise ConnectionError("the answer had begun") from error
    shown = None if exchange.kit.settings.mode == "serve" else hint
    return Response(
        refusal.status,
        refusals.headers(refusal),
        refusals.body(refusal, request.target, record.request_id, shown),
        must_close=refusal.must_close or not request.is_whole,
    )


def _as_refusal(error: Exception) -> Refusal:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):  # a library or a step of ours made something else of it
            return overloaded()
        cause = cause.__cause__
    return error if isinstance(error, Refusal) else refusals.internal()


def _dress(request: Request, response: Response) -> Lines:
    """The fields of an answer and what each of ours carries. Health has no exchange, and brings
    its own."""
    if (exchange := request.exchange) is None:
        return lines(response.headers.items())
    fields = [*response.headers.items(), *exchange.headers.items()]
    exchange.headers.clear()  # a stream may last for minutes
    every = _NO_SNIFFING if "Vary" in response.headers else _EVERY_ANSWER  # a preflight's is longer
    id = exchange.record.request_id
    return Lines(f"{lines(fields)}{every}X-Request-Id: {id}\r\n{exchange.cors}")


class _AllowedOrigin(ResourcesUrlDispatcherRouterAdapter):
    """aiohttp-cors' own adapter knows exact origins, by route; here our guard has decided already,
    for every path alike, and has answered preflights itself."""

    def is_preflight_request(self, request: web.BaseRequest) -> bool:
        return False

    def is_cors_enabled_on_request(self, request: web.BaseRequest) -> bool:
        return True

    def get_non_preflight_request_config(
        self, request: web.BaseRequest
    ) -> dict[str | None, ResourceOptions]:
        return {request.headers["Origin"]: _CORS_OPTIONS}


def _with_cors() -> web.Application:
    """aiohttp-cors writes its fields in a signal of an application, so it gets one."""
    app = web.Application()
    CorsConfig(app, router_adapter=_AllowedOrigin(app.router, {}))
    app.on_response_prepare.freeze()
    return app


async def _cors_fields(request: Request, origin: str | None) -> Lines:
    """What aiohttp-cors writes into an answer to ``origin``, the one of ``request`` and allowed.

    It is the same for each of its answers, so it is asked once and kept. We answer preflights.
    """
    if origin is None or is_preflight(request.method, request.headers):
        return NO_LINES
    if (known := _CORS_FIELDS.get(origin)) is not None:
        return known
    answer = web.StreamResponse()
    await _CORS.on_response_prepare.send(request, answer)  # type: ignore[arg-type]
    if len(_CORS_FIELDS) >= _MOST_ORIGINS:  # "*" allows as many as a caller can write
        _CORS_FIELDS.clear()
    return _CORS_FIELDS.setdefault(origin, lines(answer.headers.items()))


_EXPOSED = tuple(dict.fromkeys((*EXPOSED_HEADERS, *PROVIDER.passed)))
_CORS_OPTIONS = ResourceOptions(expose_headers=_EXPOSED)  # type: ignore[no-untyped-call]
_CORS = _with_cors()
_MOST_ORIGINS = 512
_CORS_FIELDS: dict[str, Lines] = {}
