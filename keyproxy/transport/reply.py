"""An answer whose head has come: what waits of its body, and how the rest is handed on.

Bytes are pushed: the connection hands each piece to whoever wants the body, as it comes. Until
somebody does, and while he pauses it, the upstream is made to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from keyproxy.dataclass import dataclass, field

Fields = dict[bytes, list[bytes]]
"""Of a head: the values of each by its name in small letters, without blanks around them."""
_UNREAD_BYTES = 64 * 1024
"""With so much waiting for somebody, the upstream is made to wait (aiohttp's figure)."""


class BrokenOff(Exception):
    """The connection ended before the answer was whole."""


@dataclass(slots=True, eq=False)
class Reply:
    """``length`` is the Content-Length, if it has one; ``transport``: what it comes over, until the
    body is over, by an ``error`` where it broke off; ``abort`` ends that at once."""

    status: int
    headers: Fields
    length: int | None
    _transport: asyncio.Transport | None
    _abort: Callable[[], None] = lambda: None
    error: BrokenOff | None = None
    _waiting: list[bytes] = field(default_factory=list)
    _size: int = 0
    _take: Callable[[bytes], None] | None = None
    _ended: Callable[[BrokenOff | None], None] | None = None
    _show: Callable[[bytes | None], None] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the last byte has come."""
        return self._transport is None and self.error is None

    @property
    def is_open(self) -> bool:
        """Whether more of it may come."""
        return self._transport is not None

    def waiting(self) -> bytes:
        """What of the body has come and was not asked for yet."""
        pieces, self._waiting = self._waiting, []
        return b"".join(pieces)

    def show(self, look: Callable[[bytes | None], None]) -> None:
        """Let ``look`` see what has come of the body, and each piece that comes until somebody
        takes them: they stay. None: it is over, or so much waits that no more comes."""
        data, self._show = b"".join(self._waiting), look
        if data:
            look(data)
        if self._transport is None or self._size > _UNREAD_BYTES:
            self._tell_end()

    def _tell_end(self) -> None:
        look, self._show = self._show, None
        if look is not None:
            look(None)

    def pass_on(
        self, take: Callable[[bytes], None], ended: Callable[[BrokenOff | None], None]
    ) -> None:
        """Hand ``take`` what has come of the body, and from now on each piece as it comes; tell
        ``ended`` when it is over, with an error where it broke off. Neither may raise."""
        self._take, self._ended, self._show = take, ended, None
        self.resume()
        if data := self.waiting():
            take(data)
        if self._transport is None:
            self.end(self.error)

    async def read_whole(self, max_bytes: int) -> bytes | None:
        """The whole body; None, and the connection is cut, where it is larger than ``max_bytes``.

        Raises ``BrokenOff``.
        """
        body, over = bytearray(), asyncio.get_running_loop().create_future()

        def take(data: bytes) -> None:
            body.extend(data)
            if len(body) > max_bytes:
                self.close()

        def ended(error: BrokenOff | None) -> None:
            if not over.done():
                over.set_result(error)

        self.pass_on(take, ended)
        error = await over
        if len(body) > max_bytes:
            return None
        if error is not None:
            raise error
        return bytes(body)

    def pause(self) -> None:
        """Take no more from the upstream until ``resume``."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """Cut the connection unless the body is over: nobody wants the rest."""
        if self._transport is not None:
            self._abort()

    def feed(self, data: bytes) -> None:
        """A piece of the body comes. Said by the connection, as ``end`` is."""
        if self._take is not None:
            self._take(data)
            return
        self._waiting.append(data)
        self._size += len(data)
        if self._show is not None:
            self._show(data)
        if self._size > _UNREAD_BYTES:
            self.pause()
            self._tell_end()

    def end(self, error: BrokenOff | None = None) -> None:
        """The body is over, or was cut."""
        ended = self._ended
        self._transport, self.error, self._take, self._ended = None, error, None, None
        if self._show is not None:
            self._tell_end()
        if ended is not None:
            ended(error)


def known(status: int, body: bytes, headers: Fields) -> Reply:
    """A reply whose body stands in place of one that came."""
    reply = Reply(status, headers, len(body), None)
    reply.feed(body)
    return reply
