"""A request as it came, an answer as it goes out, and how heads are written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NewType

from multidict import CIMultiDict, CIMultiDictProxy

from keyproxy.dataclass import dataclass, field

HTTP_1_0, HTTP_1_1 = "1.0", "1.1"
_UNSEEN_BYTES = 128 * 1024
_NO_HEADERS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
_REASONS = {status.value: status.phrase for status in HTTPStatus}
Lines = NewType("Lines", str)
"""Fields of a head, as they are written."""
NO_LINES = Lines("")


@dataclass(slots=True)
class Response:
    """``must_close``: the connection ends behind it."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    must_close: bool = False


class Request:
    """``target`` as it was sent; ``keeps``: its client wants the connection to stay; ``exchange``
    is for whoever answers it.

    ``body``: what has come of it; ``is_whole``: that is all, or there is none; ``length``: what was
    said of it, or 0.
    """

    __slots__ = (
        "_is_wanted", "_lack", "_more", "_most", "body", "exchange", "has_body", "headers",
        "is_whole", "keeps", "length", "method", "remote", "target", "transport", "version",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        target: str,
        headers: CIMultiDictProxy[str],
        version: str = HTTP_1_1,
        remote: str | None = None,
        keeps: bool = True,
        transport: asyncio.Transport | None = None,
    ) -> None:
        """One without a ``transport`` has come from no socket."""
        self.method, self.target, self.headers = method, target, headers
        self.version, self.remote, self.keeps = version, remote, keeps
        self.transport = transport
        self.exchange: Any = None
        self.length = int(headers.get("Content-Length", 0))
        self.has_body = self.length > 0 or "Transfer-Encoding" in headers
        self.body, self._is_wanted = bytearray(), True
        self._most = _UNSEEN_BYTES  # of it, before somebody looks at what has come
        self.is_whole = False
        self._lack: type[Exception] | None = None
        self._more: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        """A piece of the body comes. While nobody waits for more, the client is made to wait."""
        if self._is_wanted:
            self.body += data
            if len(self.body) > self._most and self.transport is not None:
                self.transport.pause_reading()
            self._wake()

    def end(self, lack: type[Exception] | None = None) -> None:
        """No more of it comes. ``lack``: why it is not whole."""
        self.is_whole, self._lack = lack is None, lack
        if len(self.body) > self._most and self.transport is not None:
            self.transport.resume_reading()  # or nobody would see the client leave
        self._wake()

    async def more(self) -> None:
        """Return when more of the body has come, or all. Raises ``BrokenBody``, MemoryError."""
        if self._lack is None:
            self._most = len(self.body) + _UNSEEN_BYTES
            if self.transport is not None:
                self.transport.resume_reading()
            self._more = asyncio.get_running_loop().create_future()
            await self._more
        if self._lack is not None:
            raise self._lack

    def drop(self) -> None:
        """Nobody wants its head any more, what has come of its body, or comes yet."""
        self._is_wanted, self.headers = False, _NO_HEADERS
        self.body.clear()

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)


class BrokenBody(Exception):
    """What came behind a head breaks the rules of HTTP/1.1."""


def lines(fields: Iterable[tuple[str, str]]) -> Lines:
    """Raises ValueError for one that would be more than a field."""
    written = [f"{name}: {value}\r\n" for name, value in fields]
    text, ends = "".join(written), len(written)
    if text.count("\r") != ends or text.count("\n") != ends or "\0" in text:
        raise ValueError("a field holds a line break")
    return Lines(text)


def head(version: str, status: int, fields: Lines) -> bytes:
    """Of an answer that is made now (RFC 9110, 6.6.1)."""
    text = f"{_beginning(version, status, int(time.time()))}{fields}\r\n"
    return text.encode(errors="ignore")  # what was no UTF-8 is left out


@lru_cache(maxsize=16)
def _beginning(version: str, status: int, now: int) -> str:
    date = formatdate(now, usegmt=True)
    return f"HTTP/{version} {status} {_REASONS.get(status, '')}\r\nDate: {date}\r\n"
