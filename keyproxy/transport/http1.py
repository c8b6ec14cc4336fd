"""The client's side of one HTTP/1.1 connection: a request goes up, its answer comes down.

llhttp parses, strictly, through httptools; what it lets through and others read differently ends
here (RFC 9112). An upstream may send nothing that was not asked for: not behind an answer, not on
an idle connection, no switch of protocol, no endless head. An answer is whole only where its
framing says so: whoever reads one that breaks off learns of it.
"""

#   IDLE --- ask ---> HEAD --- final head ---> BODY --- last byte ---> OVER ---+
#    ^                 |                        |                      |       |
#    |                 |  late, malformed,      |  malformed,          |  more |  request not wholly
#    |                 |  too large, lost       |  lost                |  came |  sent, must close
#    |                 v                        v                      v       v
#    |               the asker is told    the reader is told   connection is closed
#    +-------------- released to whoever keeps it: request sent, nothing left over -------------+

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools

from keyproxy.transport.reply import BrokenOff, Fields, Reply

MAX_HEAD_BYTES = 128 * 1024
"""Between two bytes of a body, too: heads, interim ones, chunk extensions and trailers."""
MAX_FIELDS = 128
MAX_FIELD_BYTES = 8190
MAX_INTERIM = 16  # 100 and 103 come once or twice
_SURELY_SENT_BYTES = 16 * 1024  # any system takes as much from a connection that was idle
_PIECE_BYTES = 256 * 1024
"""A longer body goes up piece by piece: a transport copies what it cannot send at once."""


class Malformed(Exception):
    """The upstream sent what is no answer in HTTP/1.1. Says what was wrong."""


_IDLE, _HEAD, _BODY, _OVER, _CLOSED = range(5)


class Connection(asyncio.Protocol):
    """One connection. ``released`` is told when the next request may go over it, ``lost`` when it
    is gone."""

    __slots__ = (
        *("_alarm", "_answered", "_due", "_ends_by_close", "_fault", "_fields", "_has_more"),
        *("_interim", "_is_cut_short", "_is_full", "_is_long", "_late", "_loop"),
        *("_lost", "_must_close", "_overhead", "_parser", "_pieces", "_released", "_reply"),
        *("_state", "_transport", "_unsent"),
    )

    def __init__(
        self, released: Callable[[Connection], None], lost: Callable[[Connection], None]
    ) -> None:
        self._released, self._lost = released, lost
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._state = _IDLE
        self._transport: asyncio.Transport | None = None
        self._is_full = False  # for writing
        self._due = 0.0  # for the head that is waited for
        self._alarm: asyncio.TimerHandle | None = None
        self._clear()

    def _clear(self) -> None:
        self._answered: asyncio.Future[Reply] | None = None
        self._reply: Reply | None = None
        self._late: Reply | None = None  # of an asker who is cancelled, and has not woken
        self._pieces: list[bytes] = []  # of the body, out of what is just being parsed
        self._unsent: bytes | memoryview = b""
        self._fault = ""
        self._overhead = 0  # bytes that are none of a body
        self._interim = 0
        self._ends_by_close = self._has_more = self._must_close = False
        self._is_long = self._is_cut_short = False  # what is sent

    @property
    def is_usable(self) -> bool:
        """Nothing is under way, and nothing was heard of an end."""
        transport = self._transport
        return self._state == _IDLE and transport is not None and not transport.is_closing()

    def ask(self, head: bytes, body: bytes, timeout_seconds: float) -> asyncio.Future[Reply]:
        """The answer to a request, as soon as its head has come; whoever waits for it no more says
        so by ``give_up``.

        What is left of a long body is not sent when the answer comes before. The future raises
        ``TimeoutError``, ``Malformed``, ``BrokenOff``, when the connection is closed.
        """
        self._clear()
        self._state = _HEAD
        self._answered = answered = self._loop.create_future()
        transport = self._transport
        assert transport is not None  # noqa: S101 - else it is not usable
        self._set_alarm(self._loop.time() + timeout_seconds)
        self._is_long = len(body) > _SURELY_SENT_BYTES
        if len(body) <= _PIECE_BYTES:
            transport.write(head + body)
        else:
            self._unsent = memoryview(body)
            transport.write(head)
            self._send_on()
        return answered

    def _send_on(self) -> None:
        while self._unsent and not self._is_full and self._transport is not None:
            piece, self._unsent = self._unsent[:_PIECE_BYTES], self._unsent[_PIECE_BYTES:]
            self._transport.write(piece)

    def _set_alarm(self, due: float) -> None:
        """One timer for a connection, which stays set from one request to the next."""
        self._due = due
        if self._alarm is not None:
            if self._alarm.when() <= due:
                return
            self._alarm.cancel()
        self._alarm = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._alarm = None
        if self._state != _HEAD:
            return
        if self._loop.time() < self._due:
            self._set_alarm(self._due)
        else:
            self.abort(TimeoutError("no answer in time"))

    def wait_on(self, answered: asyncio.Future[Reply]) -> asyncio.Future[Reply]:
        """What stands in place of ``answered`` for whoever was cancelled while he waited."""
        if not answered.cancelled():
            return answered
        again: asyncio.Future[Reply] = self._loop.create_future()
        if self._answered is not answered:  # another request has the connection
            again.cancel()
        elif self._late is not None:
            again.set_result(self._late)
            self._late = self._answered = None
        elif self._state == _CLOSED:
            again.cancel()
        else:
            self._answered = again
        return again

    def give_up(self, answered: asyncio.Future[Reply]) -> None:
        """Abort, unless another request has the connection by now: it is released with the last
        byte of an answer, and who asked wakes up later."""
        answered.cancel()
        is_answer = not answered.cancelled() and answered.exception() is None
        reply = answered.result() if is_answer else None
        if self._answered is answered or (reply is not None and self._reply is reply):
            self.abort()

    def abort(self, error: Exception | None = None) -> None:
        """End it at once; ``error`` is told to whoever waits for the answer."""
        self._end_by(error or BrokenOff("the connection was given up"))
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End it when what was written has gone out."""
        if self._transport is not None:
            self._transport.close()

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        if self._state not in (_HEAD, _BODY):
            self.abort()  # nobody asked for it
            return
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fault = "it speaks another protocol"
        except httptools.HttpParserError as error:
            self._fault = str(error) or "it is malformed"
        if self._pieces and self._reply is not None:
            pieces, self._pieces = self._pieces, []
            self._reply.feed(b"".join(pieces))  # which may abort
        if self._state == _OVER:
            self._conclude()
        elif self._overhead > MAX_HEAD_BYTES:
            self._fault = "its head does not end"
        if self._fault and self._state != _IDLE:
            self.abort(Malformed(self._fault))

    def eof_received(self) -> None:
        if self._state == _BODY and self._ends_by_close:
            self.on_message_complete()
            self._conclude()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_by(BrokenOff("the connection was lost"))
        self._transport = None
        del self._parser  # it holds us
        if self._alarm is not None:
            self._alarm.cancel()
        self._lost(self)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._send_on()

    # What the parser tells.

    def on_message_begin(self) -> None:
        self._has_more = self._state == _OVER
        self._fields: Fields = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._state != _HEAD:
            return  # a trailer
        name, value = name.lower(), value.strip(b" \t")  # llhttp leaves it behind a value
        if name in self._fields:
            self._fields[name].append(value)
        else:
            self._fields[name] = [value]

    def on_headers_complete(self) -> None:
        if self._state != _HEAD:
            return
        parser, status = self._parser, self._parser.get_status_code()
        if 100 <= status < 200 and status != 101:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                self._fault = "its head does not end"
            return
        fields = self._fields
        version, length = parser.get_http_version(), fields.get(b"content-length")
        are_many = sum(map(len, fields.values())) > MAX_FIELDS
        if are_many or (self._overhead > MAX_FIELD_BYTES and _has_long_one(fields)):
            self._fault = "its head is too large"
        if version not in ("1.0", "1.1") or status == 101:
            self._fault = "it speaks another protocol"
        if (codings := fields.get(b"transfer-encoding")) is not None:
            is_chunked = len(codings) == 1 and codings[0].lower() == b"chunked"
            if not is_chunked or version == "1.0":
                self._fault = "its framing is ambiguous"
        if self._fault:
            return
        is_framed = codings is not None or length is not None or status in (204, 304)
        self._ends_by_close = not is_framed
        self._state = _BODY
        size = None if length is None else int(length[0])
        self._reply = reply = Reply(status, fields, size, self._transport, self.abort)
        del self._fields  # a stream may last for minutes
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(reply)
            self._answered = None
        else:
            self._late = reply
        if self._unsent:
            self._unsent, self._is_cut_short = b"", True

    def on_body(self, data: bytes) -> None:
        self._overhead = 0
        if self._state == _BODY:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        if self._reply is not None and self._state == _BODY:
            self._state = _OVER
            # Again: a trailer may say it, too. And an error may come early: what a TLS transport
            # has not sent of a request it does not tell.
            is_early = self._is_long and self._reply.status >= 400
            self._must_close = is_early or not self._parser.should_keep_alive()

    # How an exchange ends.

    def _conclude(self) -> None:
        """The answer is whole: keep the connection, or not."""
        if self._reply is not None:
            self._reply.end()
            self._reply = None
        transport = self._transport
        if transport is None:
            return
        is_odd = self._fault or self._has_more or self._is_cut_short
        if is_odd or self._must_close or transport.get_write_buffer_size():
            transport.abort() if is_odd else transport.close()
            self._fault = ""
            return
        transport.resume_reading()
        self._state = _IDLE
        self._released(self)

    def _end_by(self, error: Exception) -> None:
        """Tell whoever waits for the head or takes the body; nobody does once it is over."""
        if self._state == _HEAD and self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)
        self._state = _CLOSED
        if self._reply is not None:
            reply, self._reply = self._reply, None
            reply.end(error if isinstance(error, BrokenOff) else BrokenOff(str(error)))
        self._unsent = b""


def _has_long_one(fields: Fields) -> bool:
    return any(len(value) > MAX_FIELD_BYTES for values in fields.values() for value in values)
