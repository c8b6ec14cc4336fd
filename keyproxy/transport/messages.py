"""A request as it came, an answer as it goes out, and a head's bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Protocol

from multidict import CIMultiDictProxy

HTTP_1_0, HTTP_1_1 = (1, 0), (1, 1)
_REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(slots=True)
class Response:
    """``must_close``: the connection ends behind it."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    must_close: bool = False


class Channel(Protocol):
    """What a request came over and its answer goes to: ``connection.Connection``."""

    transport: asyncio.Transport
    has_begun: bool

    @property
    def is_behind(self) -> bool: ...
    def tell_behind(self, behind: Callable[[bool], None] | None) -> None: ...
    def send(self, response: Response, *, has_length: bool = True) -> None: ...
    def begin(self, response: Response, length: int | None = None) -> None: ...
    def write(self, data: bytes) -> None: ...
    def finish(self) -> None: ...
    async def drained(self) -> None: ...
    def cut(self) -> None: ...
    def close(self) -> None: ...


class Request:
    """``target`` as it was sent; ``keeps``: its client wants the connection to stay; ``exchange``
    is for whoever answers it.

    ``is_whole``: all of its ``body`` has come, or there is none; ``length``: what was said of it,
    or 0. BrokenBody is raised by reading one that breaks the rules of HTTP/1.1.
    """

    __slots__ = (
        "_channel", "body", "exchange", "has_body", "headers", "is_whole", "keeps", "length",
        "method", "remote", "target", "version",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        target: str,
        headers: CIMultiDictProxy[str],
        *,
        version: tuple[int, int] = HTTP_1_1,
        remote: str | None = None,
        keeps: bool = True,
        channel: Channel | None = None,
    ) -> None:
        """One without a ``channel`` has come from no socket."""
        self.method, self.target, self.headers = method, target, headers
        self.version, self.remote, self.keeps = version, remote, keeps
        self.exchange: Any = None
        self._channel = channel
        self.is_whole = False
        self.length = int(headers.get("Content-Length", 0))
        self.has_body = self.length > 0 or "Transfer-Encoding" in headers
        self.body = asyncio.StreamReader() if self.has_body else None

    @property
    def channel(self) -> Channel:
        assert self._channel is not None  # noqa: S101 - nobody answers those
        return self._channel

    def end(self) -> None:
        """No more of it comes."""
        self.is_whole = True
        if self.body is not None:
            self.body.feed_eof()


class BrokenBody(Exception):
    """What came behind a head breaks the rules of HTTP/1.1."""


def head(lines: Sequence[str]) -> bytes:
    """A head's bytes. Raises ValueError where a field holds a line break."""
    text = "\r\n".join(lines)
    ends = len(lines) - 1
    if text.count("\r") != ends or text.count("\n") != ends or "\0" in text:
        raise ValueError("a field holds a line break")
    return f"{text}\r\n\r\n".encode(errors="ignore")  # what was no UTF-8 is left out


def lines(version: tuple[int, int], status: int, fields: Mapping[str, str]) -> bytes:
    """An answer's head. Raises ValueError where a field holds a line break."""
    first = f"HTTP/1.{version[1]} {status} {_REASONS.get(status, '')}"
    return head([first, *[f"{name}: {value}" for name, value in fields.items()]])


def date() -> str:
    """Of an answer that is made now (RFC 9110, 6.6.1)."""
    return _written(int(time.time()))


@lru_cache(maxsize=1)
def _written(now: int) -> str:
    return formatdate(now, usegmt=True)
