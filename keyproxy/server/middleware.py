"""Errors become answers here and nowhere else; every call leaves one log line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from keyproxy.errors import Refusal, overloaded
from keyproxy.kit import EXCHANGE, Exchange, Kit
from keyproxy.record import Record, trace_id
from keyproxy.settings import DEFAULT_APP
from keyproxy.settings.advice import written_hint
from keyproxy.transport import refusals

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answering(
    current: Callable[[], Kit], handler: Handler, ended: Callable[[Record], None]
) -> Handler:
    """``handler`` with an exchange around it. ``current`` gives the kit in force; ``ended`` reads
    the record of each call that is over."""

    async def answer(request: web.Request) -> web.StreamResponse:
        kit = current()
        path = request.raw_path.partition("?")[0]
        record = Record(request.method, path, is_cutting=kit.is_cutting)
        record.has_begun = lambda: request.writer.output_size > 0
        record.trace_id = trace_id(request.headers.get("traceparent"))
        record.origin = kit.browser.allowed_origin(request.headers)
        exchange = request[EXCHANGE] = Exchange(kit, record)
        try:
            response = await handler(request)
            record.http_status = response.status
            return response
        except asyncio.CancelledError as error:
            record.end_by(error)
            raise
        except Exception as error:
            return _answered(request, exchange, error)
        finally:
            record.write()
            ended(record)

    return answer


def _answered(request: web.Request, exchange: Exchange, error: Exception) -> web.StreamResponse:
    record = exchange.record
    record.end_by(error)
    if isinstance(error, ConnectionError):
        raise error
    refusal = _as_refusal(error)
    app = exchange.kit.apps[record.app or DEFAULT_APP]
    hint = written_hint(refusal.hint, app.settings)
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


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Also where a library or a step of ours has made something else of it."""
    while error is not None and not isinstance(error, MemoryError):
        error = error.__cause__
    return error is not None


def _as_refusal(error: Exception) -> Refusal:
    if _is_out_of_memory(error):
        return overloaded()
    if isinstance(error, Refusal):
        return error
    return Refusal("internal_error", "Something went wrong here.", must_close=True)
