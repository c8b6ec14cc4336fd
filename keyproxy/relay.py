"""Bytes to the client: each piece goes out when it comes in, unchanged.

Once the head has gone out there is no error response any more: whatever happens then cuts
the connection, so that a short answer never looks like a whole one.
"""

#   the body came with its head ---> searched; both in one packet -------------------+
#   it did not ---> the head goes out ---> PASSING --- last byte ---> last chunk ---+--> COMPLETE
#                                           |   ^  |
#                each piece as it comes: ---+---+  +--- a key in it, nothing moved, broken off,
#             searched, written, watched                the client left, our stop ---> cut
#
# Nobody waits for a piece: the upstream's connection pushes it through ``Passing``. The client's
# connection holds the upstream's back while it is behind.

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Mapping
from time import monotonic

import structlog

from keyproxy.call import End
from keyproxy.record import Record
from keyproxy.transport.connection import Connection
from keyproxy.transport.messages import Request, Response
from keyproxy.transport.reply import BrokenOff
from keyproxy.upstream.send import Answer

_log = structlog.get_logger("keyproxy.upstream")


async def relay(
    connection: Connection, answer: Answer, record: Record, *, idle_seconds: float
) -> Response:
    """Pass ``answer`` down, each piece shown to ``record`` behind the client, whether or not that
    one takes it: it is paid for. ``record`` is told how it ended, too.

    A client that reads slowly slows the upstream. When nothing has moved for ``idle_seconds``
    the connection is cut.
    """
    reply = answer.reply
    response = Response(answer.head.status, answer.headers)
    record.http_status = response.status
    try:
        if reply.is_whole:
            _send(connection, response, answer, record)
            if not connection.is_behind:
                # What follows waits for the other answers of this turn: done in a row, each step
                # of many calls finds the processor's caches full of itself.
                with contextlib.suppress(asyncio.CancelledError):  # the client has it all
                    await asyncio.sleep(0)
        else:
            connection.begin(response, reply.length)
            # A stream may last for minutes, and has gone through with them.
            del response.headers, answer.headers, reply.headers
            await Passing(connection, answer, record, idle_seconds).over()
        if connection.is_behind and record.ended is End.COMPLETE:
            since = record.clock()
            try:
                async with asyncio.timeout(idle_seconds):
                    await connection.drained()
            finally:
                record.client_seconds += record.clock() - since
    except TimeoutError:
        record.ended = End.STALLED
    except ConnectionError as error:
        record.end_by(error)
    if record.ended is not End.COMPLETE:
        connection.cut()
    return response


def _send(connection: Connection, response: Response, answer: Answer, record: Record) -> None:
    """An answer that is there: its head leaves with its body, in one packet."""
    body, length = answer.reply.waiting(), answer.reply.length
    if body and answer.search.is_in(body):
        _cut_for_key(record)
        connection.begin(response, length)
        return
    response.body = body
    try:
        connection.send(response, has_length=length is not None)
    finally:
        if body:
            record.watch(body)


class Passing:
    """A body on its way from the upstream's connection to that of the client."""

    __slots__ = (
        *("_connection", "_fault", "_idle_seconds", "_moved_at", "_outlives_client", "_over"),
        *("_record", "_reply", "_search", "_timer"),
    )

    def __init__(
        self, connection: Connection, answer: Answer, record: Record, idle_seconds: float
    ) -> None:
        loop = asyncio.get_running_loop()
        self._connection, self._record = connection, record
        self._reply, self._search = answer.reply, answer.search
        self._outlives_client = answer.outlives_client
        self._over: asyncio.Future[None] = loop.create_future()
        self._fault: Exception | None = None
        self._idle_seconds, self._moved_at = idle_seconds, monotonic()
        self._timer = loop.call_later(idle_seconds, self._look)

    async def over(self) -> None:
        """Return when all has passed, or the record says what has cut it."""
        try:
            self._reply.pass_on(self._take, self._end)
            self._connection.tell_behind(self._hold_back)
            await self._over
        finally:
            self._connection.tell_behind(None)
            self._timer.cancel()
            waited = monotonic() - self._moved_at
            self._record.waited(waited, is_for_client=self._connection.is_behind)
        if (fault := self._fault) is not None:
            self._fault = None  # it knows this frame
            raise fault
        if self._record.ended is End.COMPLETE:
            if rest := self._search.rest():
                self._write(rest)
            self._connection.finish()

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
        now = monotonic()
        gap_seconds, self._moved_at = now - self._moved_at, now
        try:
            self._connection.write(data)
        finally:
            self._record.watch(data, gap_seconds)

    def _hold_back(self, is_behind: bool) -> None:
        """The client is slow to take what was written, or is no more."""
        now = monotonic()
        if is_behind:
            self._reply.pause()
        else:
            self._record.waited(now - self._moved_at, is_for_client=True)
            self._reply.resume()
        self._moved_at = now

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
        left = self._moved_at + self._idle_seconds - monotonic()
        if left > 0:
            self._timer = asyncio.get_running_loop().call_later(left, self._look)
        else:
            self._record.ended = End.STALLED
            self._reply.close()


def _cut_for_key(record: Record) -> None:
    _log.error("the upstream's answer held a key and was cut")
    record.ended = End.KEY_IN_ANSWER


def conditional(request: Request, status: int, body: bytes, fields: Mapping[str, str]) -> Response:
    """The JSON in ``body``, an answer of ours, under a tag of its own; 304 for a client that
    names the tag, since it has the answer already (RFC 9110, 13.1.2)."""
    tag = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
    fields = {**fields, "Cache-Control": "private, no-cache", "ETag": tag}
    asked = request.headers.get("If-None-Match", "")
    if status == 200 and (asked == "*" or tag in asked):
        return Response(304, fields)
    return Response(status, {**fields, "Content-Type": "application/json"}, body)
