"""One connection of a client: a timer for heads, our own answers to broken ones.

aiohttp has a keep-alive timer only, and answers head faults itself with an echo of the input
and its version. This class changes just that; parsing stays aiohttp's C parser.
"""

#   connected ---> HEAD --- whole, and no fault in it ---> CALL --- answered ---> IDLE ---> closed
#                  |  ^                                    |                       |  keep-alive is
#                  |  +------------ first byte of the next head -------------------+  over
#                  |                                       |
#                  +--- late, too large, broken            +--- nothing taken of the answer for
#                          |                                    ``unread_timeout``, or reading is
#                          v                                    paused and one call goes on ---> cut
#                       ANSWERED 4xx, read on for a while so that it arrives ---> closed

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo

from keyproxy.errors import Refusal
from keyproxy.floods import Floods, Refused
from keyproxy.record import new_request_id
from keyproxy.transport import intake, refusals
from keyproxy.transport.intake import MAX_HEAD_BYTES, MAX_LINE_BYTES

LINGERING_SECONDS = 2.0
"""How long an unread body is drained after a refusal, so that the client can read it."""
_log = structlog.get_logger("keyproxy.server")
_TWICE = "A header that may stand once, such as Content-Type, is there twice; send it once."


class HeadGuard(RequestHandler):
    """One client connection.

    A head must be whole within ``header_timeout`` of its first byte, on a new connection of
    the connect itself. Between calls the keep-alive timer of aiohttp rules. A client that takes
    nothing of its answer for ``unread_timeout`` is cut; aiohttp would wait for it for ever.
    """

    def __init__(
        self,
        manager: Any,
        *,
        header_timeout: float,
        unread_timeout: float,
        floods: Floods,
        refused: Callable[[str], None],
        **options: Any,
    ) -> None:
        super().__init__(manager, **options)
        self._floods = floods
        self._refused = refused
        self._unread_timeout = unread_timeout
        self._unread_timer: asyncio.TimerHandle | None = None
        self._header_timeout = header_timeout
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._last_payload: Any = EMPTY_PAYLOAD
        self._seen_of_body = 0
        self._stray_bytes = 0
        self._behind: Callable[[bool], None] | None = None

    @property
    def is_busy(self) -> bool:
        """A call is being answered."""
        return self._request_in_progress

    @property
    def request(self) -> web.BaseRequest | None:
        """The one that is being answered."""
        return self._current_request if self._request_in_progress else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        self._stop_unread_timer()
        super().connection_lost(exc)

    async def start(self) -> None:
        transport = self.transport
        try:
            await super().start()
        finally:
            self._watch_unread(transport)  # closing waits until everything was taken

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_unread(self.transport)
        if self._behind is not None:
            self._behind(True)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._behind is not None:
            self._behind(False)
        if self.transport is not None and not self.transport.is_closing():
            self._stop_unread_timer()

    def tell_behind(self, behind: Callable[[bool], None] | None) -> None:
        """Call ``behind`` whenever the client is slow to take its answer, and when it is no
        more."""
        self._behind = behind
        if behind is not None and self.writing_paused:
            behind(True)

    def pause_reading(self) -> None:
        super().pause_reading()
        self._watch_paused()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Asked for with each piece that is read of a body, paused or not; the parser holds nothing
        back unless it was."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def _pause_reading_for_buffer(self) -> None:
        super()._pause_reading_for_buffer()
        self._watch_paused()

    def _watch_paused(self, seen: web.BaseRequest | None = None) -> None:
        """Calls queue behind the one under way, and while reading pauses for them its client's
        departure cannot be seen: when the same call holds them up for long, cut."""
        self._loop.call_later(self._header_timeout, self._look_paused, seen)

    def _look_paused(self, seen: web.BaseRequest | None) -> None:
        current = self._current_request
        is_paused = self._reading_paused or self._buffer_paused
        if self.transport is None or not (is_paused and self._messages):
            return
        if current is not None and current is seen:
            self.transport.abort()
        else:
            self._watch_paused(current)

    def data_received(self, data: bytes) -> None:
        if self._close:
            return  # the rest of a refused head is read and dropped
        is_head = self._last_payload.is_eof()
        count = self._request_count
        super().data_received(data)
        if self._request_count != count:
            self._head_bytes = 0
            self._stop_timer()
            self._inspect()
        elif data and is_head:
            if self._head_timer is None:
                self._start_timer()
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._end("head_too_large")
        elif data:
            self._watch_stray(len(data))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a head fault: fixed JSON, no echo, no ``Server``, and the connection ends."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; there can be no second one")
        if status == 400:
            refusal = _refusal_of(exc)
        elif isinstance(exc, MemoryError):
            refusal = refusals.of_head("overloaded")
        else:
            refusal = refusals.internal()
            self.logger.error("Unhandled error in a handler", exc_info=exc)
        self._refused(refusal.code)
        request_id = _logged(refusal, self._floods)
        response = web.Response(
            status=refusal.status,
            body=refusals.body(refusal, "", request_id),
            headers=refusals.headers_alone(refusal, request_id),
        )
        response.force_close()
        return response

    def log_exception(self, *args: Any, **options: Any) -> None:
        """A body that breaks off while it is drained is the client's fault, and no error here."""
        if not isinstance(options.get("exc_info"), RequestPayloadError):
            super().log_exception(*args, **options)

    def _watch_stray(self, count: int) -> None:
        """End a body behind whose last byte more comes than a head may have: the parser keeps
        trailers, each as large as a field."""
        seen = self._last_payload.total_bytes
        self._stray_bytes = self._stray_bytes + count if seen == self._seen_of_body else 0
        self._seen_of_body = seen
        if self._stray_bytes > MAX_HEAD_BYTES and not self._last_payload.is_eof():
            self._last_payload.set_exception(RequestPayloadError("broken framing"))
            self.close()

    def _inspect(self) -> None:
        """Refuse what the parser reads and others read differently.

        A fault inside a body is told to whoever reads it, and would wait for its rest.
        """
        for index, (message, payload) in enumerate(self._messages):
            if isinstance(message, _ErrInfo):
                if not self._last_payload.is_eof():
                    self._last_payload.set_exception(RequestPayloadError("broken framing"))
            elif code := intake.fault_in(message):
                fault = _ErrInfo(status=400, exc=refusals.of_head(code), message="")
                self._messages[index] = (fault, EMPTY_PAYLOAD)
            elif message.chunked:
                # The parser would give its last trailer to the next request, as a field.
                self._messages[index] = (message._replace(should_close=True), payload)
            self._last_payload = payload

    def _start_timer(self) -> None:
        if self._header_timeout > 0:
            self._head_timer = self._loop.call_later(
                self._header_timeout, self._end, "head_timeout"
            )

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _watch_unread(self, transport: asyncio.Transport | None) -> None:
        """Cut the connection once nothing was taken of what is written for the timeout."""
        self._stop_unread_timer()
        if transport is not None and (left := transport.get_write_buffer_size()) > 0:
            self._unread_timer = self._loop.call_later(
                self._unread_timeout, self._look_unread, transport, left
            )

    def _look_unread(self, transport: asyncio.Transport, before: int) -> None:
        if transport.get_write_buffer_size() < before:
            self._watch_unread(transport)
        else:
            transport.abort()

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _end(self, code: str) -> None:
        """Answer and close; behind an answer under way, only close.

        The rest is drained for a while: closing over unread bytes would take the answer back.
        """
        self.close()
        if self._request_in_progress or self._messages or self.transport is None:
            return
        self._stop_timer()
        self._refused(code)
        self.transport.write(raw(code, self._floods))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._head_timer = self._loop.call_later(LINGERING_SECONDS, self.force_close)


def _refusal_of(exc: BaseException | None) -> Refusal:
    if isinstance(exc, Refusal):
        return exc
    said = str(getattr(exc, "message", ""))
    if isinstance(exc, LineTooLong):
        _, limit, _ = exc.args
        return refusals.of_head("uri_too_long" if limit == MAX_LINE_BYTES else "head_too_large")
    if said.startswith("Too many headers"):
        return refusals.of_head("head_too_large")
    if said.startswith("Duplicate "):
        return Refusal("bad_request", _TWICE)
    return refusals.of_head("bad_request")


def _logged(refusal: Refusal, floods: Floods) -> str:
    """The request id of an answer to a broken head, which has no call line but this one."""
    request_id, status, code = new_request_id(), refusal.status, refusal.code
    if not floods.absorbs(Refused(code, status)):
        _log.info("head refused", request_id=request_id, http_status=status, code=code)
    return request_id


def raw(code: str, floods: Floods) -> bytes:
    """A whole answer, for a connection on which no request was parsed."""
    refusal = refusals.of_head(code)
    return refusals.raw(refusal, _logged(refusal, floods))
