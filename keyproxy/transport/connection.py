"""One connection of a client: requests come in, and are answered one after the other.

``transport/requests.py`` takes the bytes apart. What is no request gets an answer of our own.
"""

#   connected ---> HEAD --- whole, and no fault in it ---> CALL --- answered ---> IDLE ---> closed
#                  |  ^                                    | |                    |  keep-alive is
#                  |  +------------ first byte of the next head ------------------+  over
#                  |                                       | |
#                  |                                       | +-- body not whole --> DRAIN: read on
#                  |                                       |                  for a while, then IDLE
#                  +--- late, too large, broken            |
#                          |                               +--- nothing taken of the answer for
#                          v                                    ``unread_seconds``, or reading is
#                  LEAVING: answered 4xx, read on for a         paused and one call goes on ---> cut
#                  while so that it arrives ---> closed

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import cast

import structlog

from keyproxy.dataclass import dataclass, field
from keyproxy.errors import Refusal
from keyproxy.floods import Floods
from keyproxy.settings import Settings
from keyproxy.transport import refusals
from keyproxy.transport.messages import HTTP_1_1, Lines, Request, Response, head, lines
from keyproxy.transport.requests import Requests

LINGERING_SECONDS = 2.0
"""How long an unread body is drained after a refusal, so that the client can read it."""
_AHEAD_BYTES = 64 * 1024  # kept unparsed behind the call that is being answered
_LAST_CHUNK = b"0\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, wait no second
_HEAD, _CALL, _IDLE, _DRAIN, _LEAVING, _CLOSED = range(6)
_log = structlog.get_logger("keyproxy.server")


@dataclass(slots=True)
class Serving:
    """What the connections of one server share. ``dress`` writes the fields of an answer to a
    request with those that each has, ``refused`` hears the code of each answer to what is none."""

    answer: Callable[[Request, Connection], Awaitable[Response]]
    dress: Callable[[Request, Response], Lines]
    settings: Settings
    max_connections: int
    floods: Floods
    refused: Callable[[str], None] = lambda code: None
    is_closing: bool = False
    connections: set[Connection] = field(default_factory=set)


class Connection(asyncio.Protocol):
    """A head must be whole within the header timeout from its first byte, on a new connection from
    the connect itself. A client that takes nothing of its answer for the idle timeout is cut.

    ``request`` is the one that ``task`` answers, or whose body is drained.
    """

    transport: asyncio.Transport
    _requests: Requests

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._loop = asyncio.get_running_loop()
        self._state = _HEAD
        self.request: Request | None = None
        self.task: asyncio.Task[None] | None = None
        self._keeps, self.has_begun = True, False  # the answer
        self._is_chunked = self._is_unbounded = False  # its end is the connection's
        self._behind: Callable[[bool], None] | None = None
        self._room: asyncio.Future[None] | None = None  # to write; None: there is some
        self._unread, self._due = 0, math.inf
        self._alarm: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None  # while calls queue up

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._requests, serving = Requests(self.transport), self._serving
        serving.connections.add(self)
        self._wait(_HEAD, serving.settings.header_timeout_seconds or math.inf)
        if len(serving.connections) > serving.max_connections:
            self._say(refusals.of_head("overloaded"))
            self.close()

    def data_received(self, data: bytes) -> None:
        if self._state in (_LEAVING, _CLOSED):
            return
        requests = self._requests
        requests.feed(data, self.request)
        if len(requests.tail) > _AHEAD_BYTES:
            self.transport.pause_reading()
            if self._watch is None:
                self._watch_paused()
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state = _CLOSED
        for timer in filter(None, (self._alarm, self._watch)):
            timer.cancel()
        self._requests.close()
        self.resume_writing()
        if self.task is None:
            self._forget()
        else:
            self.task.cancel()
            self.task.add_done_callback(self._forget)  # where it has not begun

    def _forget(self, task: asyncio.Task[None] | None = None) -> None:
        self.task = self.request = None
        self._serving.connections.discard(self)

    def eof_received(self) -> None:
        self.cut()  # a client that sends no more has left

    def pause_writing(self) -> None:
        self._room = self._loop.create_future()
        self._watch_unread()
        if self._behind is not None:
            self._behind(True)

    def resume_writing(self) -> None:
        """There is room, or nothing to wait for any more."""
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)
        if self._behind is not None:
            self._behind(False)
        if self._state == _CALL:
            self._due = math.inf

    # What whoever answers does with it.

    @property
    def is_behind(self) -> bool:
        """Whether so much of the answer is not taken yet that one had better wait."""
        return self._room is not None

    def tell_behind(self, behind: Callable[[bool], None] | None) -> None:
        """Call ``behind`` whenever the client is slow to take its answer, and when it is no
        more."""
        self._behind = behind
        if behind is not None and self.is_behind:
            behind(True)

    async def drained(self) -> None:
        """Wait until a client that is slow has taken most of its answer."""
        if self._room is not None:
            await self._room

    def send(self, response: Response, *, has_length: bool = True) -> None:
        """The whole answer to the request, in one write. Raises ConnectionError."""
        body = response.body
        begin = self._head(response, len(body) if has_length else None)
        if self.request is not None and self.request.method == "HEAD":
            body = b""
        elif self._is_chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + _LAST_CHUNK
        self._write(begin + body)

    def begin(self, response: Response, length: int | None = None) -> None:
        """The head of an answer whose body follows. Raises ConnectionError."""
        self._write(self._head(response, length))
        self._requests.rest()

    def write(self, data: bytes) -> None:
        """A piece of that body, which is not empty. Raises ConnectionError."""
        self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)

    def finish(self) -> None:
        """That body is over. Raises ConnectionError."""
        if self._is_chunked:
            self._write(_LAST_CHUNK)

    def cut(self) -> None:
        """End it without the last chunk or the missing bytes of an answer that is not whole. One
        that ends with its connection would look whole (nginx speaks HTTP/1.0 unless told), so that
        it is reset; what was written of any other may drain first."""
        if self.task is not None and self._is_unbounded and not self.transport.is_closing():
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()
        self.close()

    def close(self) -> None:
        """End it when what was written is taken, if that happens in time."""
        if self._state != _CLOSED:
            self._state = _CLOSED
            self.transport.close()
            self._watch_unread()

    # How requests are answered.

    def _go_on(self) -> None:
        """Answer what is next, once nothing is being answered."""
        request, requests = self.request, self._requests
        if self.task is not None or self._state in (_LEAVING, _CLOSED):
            return
        if request is not None and not request.is_whole:  # it was answered before
            if requests.fault is not None:
                self._leave()
            return
        self.request = None
        is_last = not self._keeps or (request is not None and not request.keeps)
        if is_last or self._serving.is_closing or self.transport.is_closing():
            self.close()
        elif requests.ahead:
            self._state, self._due = _CALL, math.inf
            self.has_begun = self._is_unbounded = False
            request = self.request = requests.ahead.pop(0)
            self.task = self._loop.create_task(self._serve(request))
            if requests.tail and not request.is_whole:
                self._read_on()
        elif requests.fault is not None:
            self._leave(requests.fault)
        elif requests.tail:
            self._read_on()
        elif requests.is_in_head and self._state != _HEAD:
            self._wait(_HEAD, self._serving.settings.header_timeout_seconds or math.inf)
        elif self._state not in (_HEAD, _IDLE):
            self._wait(_IDLE, self._serving.settings.keepalive_timeout_seconds)

    def _read_on(self) -> None:
        self.transport.resume_reading()
        self.data_received(b"")

    async def _serve(self, request: Request) -> None:
        try:
            response = await self._serving.answer(request, self)
            if not self.has_begun:
                self.send(response)
            await self.drained()
        except ConnectionError:
            self.close()
        except asyncio.CancelledError:
            self.close()
            raise
        except Exception as error:
            refusal = refusals.of_head("overloaded")
            if not isinstance(error, MemoryError):
                refusal = refusals.internal()
                _log.exception("Unhandled error in a handler")
            self.close() if self.has_begun else self._leave(refusal)
        finally:
            self.task = None
            request.drop()
        if self._state == _CALL and len(self._requests.tail) <= _AHEAD_BYTES:
            self.transport.resume_reading()  # a body that nobody reads has paused it
        if not request.is_whole and self._state == _CALL:
            self._wait(_DRAIN, LINGERING_SECONDS)
        self._go_on()

    def _head(self, response: Response, length: int | None) -> bytes:
        request, status = self.request, response.status
        assert request is not None  # noqa: S101 - there is nothing else to answer
        is_new = request.version == HTTP_1_1
        self._is_chunked = length is None and is_new
        self._is_unbounded = length is None and not is_new
        self._keeps = request.keeps and not response.must_close and (is_new or length is not None)
        has_length = length is not None and status not in (204, 304)
        fields: str = self._serving.dress(request, response)
        if self._is_chunked:
            fields += "Transfer-Encoding: chunked\r\n"
        elif has_length and (length or request.method != "HEAD"):
            fields += f"Content-Length: {length}\r\n"
        if self._keeps != is_new:
            fields += f"Connection: {'keep-alive' if self._keeps else 'close'}\r\n"
        return head(request.version, status, Lines(fields))

    def _write(self, data: bytes) -> None:
        if self.transport.is_closing():
            raise ConnectionResetError("the client left")
        self.has_begun = True
        self.transport.write(data)

    def _leave(self, refusal: Refusal | None = None) -> None:
        """Answer what is no request, if it is to be answered. What comes is dropped for a while:
        closing over unread bytes would take the answer back."""
        if refusal is not None:
            self._say(refusal)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._wait(_LEAVING, LINGERING_SECONDS)

    def _say(self, refusal: Refusal) -> None:
        self._serving.refused(refusal.code)
        said = refusals.alone(refusal, self._serving.floods, "head refused", app=None)
        framing = {"Content-Length": str(len(said.body)), "Connection": "close"}
        fields = lines([*said.headers.items(), *framing.items()])
        self.transport.write(head(HTTP_1_1, said.status, fields) + said.body)

    # How long each state lasts: one timer, which stays set from one request to the next.

    def _wait(self, state: int, seconds: float) -> None:
        self._state, self._due = state, self._loop.time() + seconds
        if self._alarm is not None and self._alarm.when() > self._due:
            self._alarm.cancel()
            self._alarm = None
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is None and self._due < math.inf:
            self._alarm = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._alarm = None
        if self._loop.time() < self._due:
            self._set_alarm()
        elif self._state == _HEAD:
            self._leave(refusals.of_head("head_timeout"))
        elif self._state in (_IDLE, _DRAIN, _LEAVING):
            self.close()
        elif self.transport.get_write_buffer_size() < self._unread:
            self._watch_unread()
        else:
            self.cut()
            self.transport.abort()

    def _watch_unread(self) -> None:
        """Cut the connection once nothing was taken of what is written for the timeout."""
        self._unread = self.transport.get_write_buffer_size()
        seconds = self._serving.settings.idle_timeout_seconds
        self._wait(self._state, seconds if self._unread else math.inf)

    def _watch_paused(self, seen: asyncio.Task[None] | None = None) -> None:
        """Calls queue behind the one under way, and while reading pauses for them its client's
        departure cannot be seen: when the same call holds them up for long, cut."""
        seconds = self._serving.settings.header_timeout_seconds
        self._watch = self._loop.call_later(seconds, self._look_paused, seen)

    def _look_paused(self, seen: asyncio.Task[None] | None) -> None:
        self._watch = None
        if len(self._requests.tail) > _AHEAD_BYTES:
            if self.task is not None and self.task is seen:
                self.transport.abort()
            else:
                self._watch_paused(self.task)
