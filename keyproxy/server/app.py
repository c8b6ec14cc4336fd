"""Every request becomes an answer here, with the fields that each of ours carries.

Errors become answers here and nowhere else; every call leaves one log line. It stands on aiohttp's
low-level server: a router would decode a path before ``policy.endpoints`` compares it, and send
``100 Continue`` before the checks. Tests start this, through ``running``, as production does.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import hdrs, web
from aiohttp_cors import CorsConfig, ResourceOptions
from aiohttp_cors.urldispatcher_router_adapter import ResourcesUrlDispatcherRouterAdapter
from multidict import CIMultiDict, istr

from keyproxy import pairing
from keyproxy.browser import EXPOSED_HEADERS, is_preflight
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
from keyproxy.transport.health import HEALTH_PATHS, health
from keyproxy.transport.intake import check_head
from keyproxy.transport.server import GuardedServer

_REQUEST_ID = istr("X-Request-Id")
_EVERY_ANSWER: dict[str, str] = {istr("X-Content-Type-Options"): "nosniff", hdrs.VARY: "Origin"}


@dataclass(frozen=True, slots=True)
class App:
    """Answers every request. ``current`` gives the kit in force; ``ended`` reads the record of each
    call that is over, ``refused`` hears of what was no request; ``pages``: the chat page's files by
    URL path; ``floods`` has the refusals without lines of their own."""

    current: Callable[[], Kit]
    is_ready: Callable[[], bool]
    ended: Callable[[Record], None]
    refused: Callable[[str], None]
    pages: Mapping[str, PageFile]
    floods: Floods

    def serve(self, settings: Settings, max_connections: int) -> GuardedServer:
        """A server of this app; must be made within the loop. Raises ParserMissing."""
        make_request = functools.partial(Request, loop=asyncio.get_running_loop())
        return GuardedServer(
            self.answer, make_request, settings, max_connections, self.floods, self.refused
        )

    async def answer(self, request: Request) -> web.StreamResponse:
        """The answer to ``request``; a stream has gone out by then."""
        path = request.raw_path.partition("?")[0]
        is_read = request.method in ("GET", "HEAD")
        if is_read and request.raw_path in HEALTH_PATHS:
            return health(path, is_ready=self.is_ready())
        kit = self.current()
        record = Record(request.method, path, is_cutting=kit.is_cutting)
        writer = request.writer
        record.has_begun = lambda: writer.output_size > 0
        record.trace_id = trace_id(request.headers.get("traceparent"))
        record.origin = kit.browser.allowed_origin(request.headers)
        exchange = request.exchange = Exchange(kit, record)
        try:
            if is_read and path in self.pages:
                response: web.StreamResponse = _page(request, exchange, self.pages[path])
            elif kit.pairing is not None and path == pairing.PATH:
                response = _paired(request, exchange, kit.pairing)
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
            self.ended(record)
            record.watchers.clear()  # they hold it: only a collection would free that circle

    def _is_one_of_many(self, record: Record) -> bool:
        """Whether it is a refusal that a counted line tells of; never a fault of ours."""
        code, status = record.code, record.http_status
        if code is None or status is None or record.is_quiet or record.error is not None:
            return False
        return self.floods.absorbs(Refused(code, status, record.level, record.app, record.client))


def _page(request: web.BaseRequest, exchange: Exchange, page: PageFile) -> web.Response:
    exchange.record.is_quiet = True
    check_head(request)
    kit = exchange.kit
    kit.browser.check_host(request.headers)
    if kit.pairing is not None and not exchange.record.path.startswith(pairing.PATH):
        kit.pairing.check(request)
    return web.Response(body=page.body, headers={**PAGE_HEADERS, "Content-Type": page.content_type})


def _paired(request: web.BaseRequest, exchange: Exchange, pairs: pairing.Pairing) -> web.Response:
    check_head(request)
    exchange.kit.browser.check_host(request.headers)
    exchange.kit.browser.check_origin(request.headers)
    return web.Response(status=204, headers={"Set-Cookie": pairs.pair(request)})


def _refused(request: web.BaseRequest, exchange: Exchange, error: Exception) -> web.Response:
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
    if record.has_begun():
        # A second head must never be written into the answer.
        request.protocol.force_close()
        raise ConnectionError("the answer had begun") from error
    shown = None if exchange.kit.settings.mode == "serve" else hint
    response = web.Response(
        status=refusal.status,
        body=refusals.body(refusal, request.raw_path, record.request_id, shown),
        headers=refusals.headers(refusal),
    )
    if refusal.must_close or not request.content.is_eof():
        response.force_close()
    return response


def _as_refusal(error: Exception) -> Refusal:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):  # a library or a step of ours made something else of it
            return overloaded()
        cause = cause.__cause__
    return error if isinstance(error, Refusal) else refusals.internal()


class Request(web.BaseRequest):
    """A request whose answer gets the fields that all carry, just before its head goes out.

    Health and what is answered to a broken head have no exchange, and bring their own.
    """

    ATTRS = web.BaseRequest.ATTRS | {"exchange"}
    exchange: Exchange | None = None

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        headers = response.headers
        headers.pop(hdrs.SERVER, None)  # aiohttp adds its name and version
        if hdrs.UPGRADE in self.headers:
            # The parser stops at an offer; the next call on this connection would not be read.
            response.force_close()
            headers[hdrs.CONNECTION] = "close"
        if (exchange := self.exchange) is None:
            return
        for name, value in _EVERY_ANSWER.items():
            headers.setdefault(name, value)
        headers[_REQUEST_ID] = exchange.record.request_id
        headers.update(exchange.headers)
        exchange.headers.clear()  # a stream may last for minutes
        origin = exchange.record.origin
        if origin is not None and not is_preflight(self.method, self.headers):
            headers.update(_CORS_FIELDS.get(origin) or await _cors_fields(self, origin))


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


async def _cors_fields(request: web.BaseRequest, origin: str) -> Mapping[str, str]:
    """What aiohttp-cors writes into an answer to ``origin``, the one of ``request`` and allowed.

    It is the same for each of its answers, so it is asked once and kept.
    """
    answer = web.StreamResponse()
    await _CORS.on_response_prepare.send(request, answer)  # type: ignore[arg-type]
    if len(origin) > _LONGEST_ORIGIN:
        return answer.headers
    if len(_CORS_FIELDS) >= _MOST_ORIGINS:  # "*" allows as many as a caller can write
        _CORS_FIELDS.clear()
    return _CORS_FIELDS.setdefault(origin, CIMultiDict(answer.headers))


_EXPOSED = tuple(dict.fromkeys((*EXPOSED_HEADERS, *PROVIDER.passed)))
_CORS_OPTIONS = ResourceOptions(expose_headers=_EXPOSED)  # type: ignore[no-untyped-call]
_CORS = _with_cors()
_MOST_ORIGINS = 512
_LONGEST_ORIGIN = 300  # a name has 253 characters
_CORS_FIELDS: dict[str, Mapping[str, str]] = {}
