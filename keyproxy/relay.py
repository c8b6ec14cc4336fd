"""Bytes to the client: each piece goes out when it comes in, unchanged.

Once the head has gone out there is no error response any more: whatever happens then cuts
the connection, so that a short answer never looks like a whole one.
"""

#   the body came with its head ---> searched; both in one packet -------------------+
#   it did not ---> the head goes out ---> PASSING --- last byte ---> last chunk ---+--> COMPLETE
#                                           |   ^  |
#                each piece as it comes: ---+---+  +--- a key in it, nothing moved, broken off,
#             searched, watched, written                the client left, our stop ---> cut
#
# Nobody waits for a piece: the upstream's connection pushes it through ``Passing``. The client's
# connection holds the upstream's back while it is behind.

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from collections.abc import Mapping
from typing import cast

import structlog
from aiohttp import web

from keyproxy.call import End
from keyproxy.record import Record
from keyproxy.transport.connection import HeadGuard
from keyproxy.transport.reply import BrokenOff
from keyproxy.upstream.send import Answer

_RESET = struct.pack("ii", 1, 0)  # struct linger: on, wait no second
_SURELY_TAKEN_BYTES = 32 * 1024  # a transport takes twice as much before it asks us to wait
_log = structlog.get_logger("keyproxy.upstream")


class _Whole(web.StreamResponse):
    """An answer that is there: its head leaves with its body, in one packet."""

    _send_headers_immediately = False


async def relay(
    request: web.BaseRequest, answer: Answer, record: Record, *, idle_seconds: float
) -> web.StreamResponse:
    """Pass ``answer`` down, each piece shown to ``record``, which is told how it ended, too.

    A client that reads slowly slows the upstream. When nothing has moved for ``idle_seconds``
    the connection is cut.
    """
    is_whole = answer.reply.is_whole
    kind = _Whole if is_whole else web.StreamResponse
    response = kind(status=answer.head.status, headers=answer.headers)
    response.content_length = answer.reply.length
    record.http_status = answer.head.status
    body = b""
    try:
        await response.prepare(request)
        if not is_whole:
            is_chunked = "Transfer-Encoding" in response.headers
            for head in (response.headers, answer.headers, answer.reply.headers):
                head.clear()  # a stream may last for minutes, and has gone through with them
            guard = cast(HeadGuard, request.protocol)
            await Passing(guard, answer, record, is_chunked, idle_seconds).over()
        elif body := answer.reply.waiting():
            if answer.search.is_in(body):
                _cut_for_key(record)
            else:
                record.watch(body)
        if record.ended is End.COMPLETE:
            await _finish(request, response, body, record, idle_seconds)
    except TimeoutError:
        record.ended = End.STALLED
    except ConnectionError as error:
        record.end_by(error)
    if record.ended is not End.COMPLETE:
        _abort(request)
    return response


async def _finish(
    request: web.BaseRequest,
    response: web.StreamResponse,
    body: bytes,
    record: Record,
    idle_seconds: float,
) -> None:
    """Write what is left, and wait until a client that is slow has taken most of it."""
    if len(body) <= _SURELY_TAKEN_BYTES and not request.protocol.writing_paused:
        await response.write_eof(body)
        return
    since = record.clock()
    try:
        async with asyncio.timeout(idle_seconds):
            await response.write_eof(body)
    finally:
        record.client_seconds += record.clock() - since


class Passing:
    """A body on its way from the upstream's connection to that of the client."""

    def __init__(
        self,
        guard: HeadGuard,
        answer: Answer,
        record: Record,
        is_chunked: bool,
        idle_seconds: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._guard, self._record, self._is_chunked = guard, record, is_chunked
        self._reply, self._search = answer.reply, answer.search
        self._outlives_client = answer.outlives_client
        self._over: asyncio.Future[None] = loop.create_future()
        self._fault: Exception | None = None
        self._clock, self._idle_seconds = loop.time, idle_seconds
        self._moved_at = loop.time()
        self._is_behind = False  # the client
        self._timer = loop.call_later(idle_seconds, self._look)

    async def over(self) -> None:
        """Return when all has passed, or the record says what has cut it."""
        try:
            self._reply.pass_on(self._take, self._end)
            self._guard.tell_behind(self._hold_back)
            await self._over
        finally:
            self._guard.tell_behind(None)
            self._timer.cancel()
            self._record.waited(self._clock() - self._moved_at, is_for_client=self._is_behind)
        if (fault := self._fault) is not None:
            self._fault = None  # it knows this frame
            raise fault
        if self._record.ended is End.COMPLETE and (rest := self._search.rest()):
            self._write(rest)

    def _take(self, data: bytes) -> None:
        """The next piece comes."""
        try:
            passed = self._search.feed(data)
            if passed:
                self._write(passed)
            elif passed is None:
                _cut_for_key(self._record)
                self._reply.close()
        except Exception as fault:
            self._fault = fault
            if not self._outlives_client:
                self._reply.close()
            elif not self._over.done():
                self._over.set_result(None)

    def _write(self, data: bytes) -> None:
        now = self._clock()
        self._record.watch(data, now - self._moved_at)
        self._moved_at = now
        transport = self._guard.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client left")
        # As aiohttp's writer does, which asks for lengths and compression each time.
        transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def _hold_back(self, is_behind: bool) -> None:
        """The client is slow to take what was written, or is no more."""
        now = self._clock()
        if is_behind:
            self._reply.pause()
        else:
            self._record.waited(now - self._moved_at, is_for_client=True)
            self._reply.resume()
        self._is_behind, self._moved_at = is_behind, now

    def _end(self, error: BrokenOff | None) -> None:
        """No piece comes any more."""
        if self._over.done():
            return  # we were cancelled
        is_told = self._fault is not None or self._record.ended is not End.COMPLETE
        if error is not None and not is_told:
            self._record.ended = End.UPSTREAM_CUT
        self._over.set_result(None)

    def _look(self) -> None:
        """The timer is set anew only when it goes off, not for each piece."""
        if self._over.done():
            return  # it has ended in this very turn
        until = self._moved_at + self._idle_seconds
        if self._clock() < until:
            self._timer = asyncio.get_running_loop().call_at(until, self._look)
        else:
            self._record.ended = End.STALLED
            self._reply.close()


def _cut_for_key(record: Record) -> None:
    _log.error("the upstream's answer held a key and was cut")
    record.ended = End.KEY_IN_ANSWER


def _abort(request: web.BaseRequest) -> None:
    """End the connection without the last chunk or the missing bytes.

    Closing lets what was written drain first; an HTTP/1.0 answer that ends with its connection
    would look whole then, so that one is reset (nginx speaks 1.0 unless told).
    """
    if request.transport is None or request.transport.is_closing():
        return
    request.writer.send_headers()  # of one that was to leave with its body
    if request.version < (1, 1):
        sock = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        request.transport.abort()
    request.protocol.force_close()


def conditional(
    request: web.BaseRequest, status: int, body: bytes, fields: Mapping[str, str]
) -> web.Response:
    """The JSON in ``body``, an answer of ours, under a tag of its own; 304 for a client that
    names the tag, since it has the answer already (RFC 9110, 13.1.2)."""
    tag = hashlib.blake2b(body, digest_size=16).hexdigest()
    fields = {**fields, "Cache-Control": "private, no-cache", "ETag": f'"{tag}"'}
    known = {etag.value for etag in request.if_none_match or ()}
    if status == 200 and known & {tag, "*"}:
        return web.Response(status=304, headers=fields)
    return web.Response(status=status, body=body, content_type="application/json", headers=fields)
