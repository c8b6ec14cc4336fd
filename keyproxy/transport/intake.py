"""Bytes from the client: the head's demands, and the body, bounded in size, time and sum.

Credentials have the length of the request line; other fields may be larger. Of the body nothing is
read before the caller was admitted, and nothing larger than allowed is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Self

from aiohttp import web
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage
from multidict import CIMultiDictProxy

from keyproxy.call import CREDENTIAL_FIELDS
from keyproxy.errors import Refusal, overloaded
from keyproxy.settings.grammar.plain import LARGEST_BODY

MAX_LINE_BYTES = 8190  # aiohttp's and Apache's default: the request line, a credential
MAX_FIELD_BYTES = 32 * 1024  # cookies of sites that keep sessions in them (supabase/ssr#78)
MAX_FIELDS = 128  # aiohttp's default
MAX_HEAD_BYTES = 64 * 1024
_VERSIONS = (HttpVersion10, HttpVersion11)
_CREDENTIALS = frozenset(name.lower().encode() for name in CREDENTIAL_FIELDS)
SMALL_BYTES = 64 << 10


class Room:
    """The memory that request bodies may take together: more is refused, so that uploads cannot
    exhaust it. As much again is for reading one of them."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._free = max_bytes
        self._lock = Lock()  # large bodies are read in a thread

    def take(self, count: int, held: int) -> None:
        """``count`` more for a call that holds ``held``. Raises ``overloaded``.

        Small bodies always fit, so that large ones of a few cannot lock everybody out.
        """
        with self._lock:
            if count > self._free and held + count > SMALL_BYTES:
                raise overloaded()
            self._free -= count

    @contextmanager
    def reading(self, count: int) -> Iterator[None]:
        """While one body is read, which takes ``count`` bytes besides itself.

        What it takes beyond its half is room for no other body. Raises ``overloaded``.
        """
        more = max(0, count - self.max_bytes)
        self.take(more, SMALL_BYTES)
        try:
            yield
        finally:
            self.give(more)

    def give(self, count: int) -> None:
        with self._lock:
            self._free += count


class Hold:
    """What one call holds of the room, until the context ends or it is released."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def add(self, count: int) -> None:
        self._room.take(count, self._count)
        self._count += count

    def release(self) -> None:
        """The body has gone up; a stream that follows needs it no more."""
        if self._count:
            self._room.give(self._count)
            self._count = 0


def fault_in(message: RawRequestMessage) -> str | None:
    """The code of the refusal, if there must be one. The parser bounds each field, not the sum."""
    if not _is_plain(message):
        return "bad_request"
    fields = message.raw_headers
    size = len(message.path) + len(": \r\n") * len(fields)
    size += sum([len(name) + len(value) for name, value in fields])
    if size <= MAX_LINE_BYTES:  # so is each of its parts
        return None
    has_long_credential = any(
        len(name) + len(value) > MAX_LINE_BYTES and name.lower() in _CREDENTIALS
        for name, value in fields
    )
    return "head_too_large" if has_long_credential or size > MAX_HEAD_BYTES else None


def _is_plain(message: RawRequestMessage) -> bool:
    """Whether every reader finds the end of this request at the same place.

    The parser does not enforce the framing of HTTP/0.9 and 2.0, takes any list of codings that
    ends in "chunked", and takes one in HTTP/1.0, where it is a fault (RFC 9112 6.1).
    """
    if message.version not in _VERSIONS:
        return False
    if "Transfer-Encoding" not in message.headers:
        return True
    codings = message.headers.getall("Transfer-Encoding")
    is_chunked = [coding.strip().lower() for coding in codings] == ["chunked"]
    return is_chunked and message.version == HttpVersion11


def check_head(request: web.BaseRequest) -> None:
    """Refuse what a head may ask of a server and this one does not do.

    Raises ``expectation_failed``, ``bad_request``, ``method_not_allowed``.
    """
    method, headers = request.method, request.headers
    if method in ("CONNECT", "TRACE"):
        raise Refusal(
            "method_not_allowed",
            "This method is not served.",
            headers={"Allow": "GET, POST, OPTIONS"},
        )
    if "Expect" in headers and _lowered(headers, "Expect") != ["100-continue"]:
        raise Refusal("expectation_failed", "Only Expect: 100-continue is met.")
    # An offer of h2c, which JDK's client and curl make, is passed over.
    if "Upgrade" in headers and _lowered(headers, "Upgrade") != ["h2c"]:
        raise Refusal("bad_request", "Other protocols are not spoken here.")


def _lowered(headers: CIMultiDictProxy[str], name: str) -> list[str]:
    return [value.lower() for value in headers.getall(name)]


def refuse_body(request: web.BaseRequest) -> None:
    """Raises ``bad_request`` when a call that has no use for a body brings one."""
    if request.body_exists:
        raise Refusal("bad_request", "This call takes no body.")


async def read_body(
    request: web.BaseRequest,
    hold: Hold,
    *,
    max_bytes: int,
    timeout_seconds: float,
    is_setting: bool = True,
) -> bytes:
    """The whole body. Raises ``body_too_large``, ``body_timeout``, ``overloaded``,
    ``bad_request`` (framing). ``is_setting``: whether the operator can raise ``max_bytes``."""
    announced = request.content_length or 0
    if announced > max_bytes:
        raise too_large(max_bytes, announced if is_setting else None)
    if "Expect" in request.headers and request.version == HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # it is no part of the answer

    def counted(chunk: bytes, before: int) -> bytes:
        size = before + len(chunk)
        if size > max_bytes:
            raise too_large(max_bytes, size if is_setting else None)
        hold.add(len(chunk))
        return chunk

    try:
        if request.content.is_eof():  # a small one has come with its head
            return counted(request.content.read_nowait(), 0)
        # One block that grows. A list of pieces would leave as much again in holes between others'.
        found = bytearray()
        async with asyncio.timeout(timeout_seconds):
            async for chunk in request.content.iter_any():
                found += counted(chunk, len(found))
    except TimeoutError as error:
        raise Refusal("body_timeout", "The body did not arrive in time.") from error
    except (web.RequestPayloadError, web.PayloadAccessError) as error:
        raise Refusal("bad_request", "The body's framing is broken.") from error
    return bytes(found)


def too_large(max_bytes: int, size: int | None) -> Refusal:
    """The refusal of a body of ``size`` bytes or more, with a setting that takes it, if any does.

    None: no setting does.
    """
    enough = max(max_bytes * 2, 1 << ((size or 1) - 1).bit_length())
    enough = min(enough, LARGEST_BODY)
    has_line = size is not None and max_bytes < LARGEST_BODY and size <= LARGEST_BODY
    return Refusal(
        "body_too_large",
        f"The body is larger than {max_bytes} bytes.",
        hint=f"KEYPROXY_MAX_BODY={enough}" if has_line else None,
    )
