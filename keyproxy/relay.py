"""Bytes to the client: each chunk goes out when it comes in, unchanged.

Once the head has gone out there is no error response any more: whatever happens then cuts
the connection, so that a short answer never looks like a whole one.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
from collections.abc import Mapping

from aiohttp import web

from keyproxy.call import End
from keyproxy.errors import AnswerCut
from keyproxy.record import Record
from keyproxy.upstream.send import Answer

_RESET = struct.pack("ii", 1, 0)  # struct linger: on, wait no second


class _HeadWithBody(web.StreamResponse):
    """An answer of known length: its head leaves with the first bytes, in one packet."""

    _send_headers_immediately = False


async def relay(
    request: web.BaseRequest, answer: Answer, record: Record, *, idle_seconds: float
) -> web.StreamResponse:
    """Pass ``answer`` down, each chunk shown to ``record``, which is told how it ended, too.

    A client that reads slowly slows the upstream: each write waits for room. One timer
    watches both sides; when nothing has moved for ``idle_seconds`` the connection is cut.
    """
    kind = web.StreamResponse if answer.length is None else _HeadWithBody
    response = kind(status=answer.head.status, headers=answer.headers)
    response.content_length = answer.length
    record.http_status = answer.head.status
    clock, writer, protocol = asyncio.get_running_loop().time, request.writer, request.protocol
    # The timer is set anew once a second at most, not for each event; it may run late by as much.
    slack_seconds = min(1.0, idle_seconds / 8)
    asked_at = set_at = clock()
    came_at = 0.0
    try:
        async with asyncio.timeout(idle_seconds + slack_seconds) as idle:
            await response.prepare(request)
            is_chunked = "Transfer-Encoding" in response.headers
            while chunk := await answer.read():
                came_at = clock()
                record.watch(chunk, came_at - asked_at)
                transport = protocol.transport
                if is_chunked and transport is not None and not transport.is_closing():
                    # As the writer does, which asks for lengths and compression each time.
                    transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    if protocol.writing_paused:
                        await writer.drain()
                else:
                    await writer.write(chunk)
                asked_at = clock()
                record.client_seconds += asked_at - came_at
                if asked_at - set_at > slack_seconds:
                    set_at = asked_at
                    idle.reschedule(asked_at + idle_seconds + slack_seconds)
            await response.write_eof()
    except AnswerCut as cut:
        record.ended = cut.ended
        _abort(request)
    except TimeoutError:
        record.ended = End.STALLED
        _abort(request)
    except ConnectionError as error:
        record.end_by(error)
    finally:
        if came_at > asked_at:  # the client never took the last piece
            record.client_seconds += clock() - came_at
        elif record.longest_gap_seconds is not None:
            record.longest_gap_seconds = max(record.longest_gap_seconds, clock() - asked_at)
    return response


def _abort(request: web.BaseRequest) -> None:
    """End the connection without the last chunk or the missing bytes.

    Closing lets what was written drain first; an HTTP/1.0 answer that ends with its connection
    would look whole then, so that one is reset (nginx speaks 1.0 unless told).
    """
    if request.transport is None or request.transport.is_closing():
        return
    request.writer.send_headers()  # when none of the body went out, neither has the head
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
