"""Bytes from the client: the head's demands, and the body, bounded in size, time and sum.

Credentials have the length of the request line; other fields may be larger. Of the body nothing is
read before the caller was admitted, and nothing larger than allowed is kept.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Self

from multidict import CIMultiDict, CIMultiDictProxy, istr

from keyproxy.call import CREDENTIAL_FIELDS, UNREAD
from keyproxy.errors import Refusal, overloaded
from keyproxy.settings.grammar.plain import LARGEST_BODY
from keyproxy.transport import refusals
from keyproxy.transport.messages import HTTP_1_0, HTTP_1_1, BrokenBody, Request

MAX_LINE_BYTES = 8190  # aiohttp's and Apache's default: the request line, a credential
MAX_FIELD_BYTES = 32 * 1024  # cookies of sites that keep sessions in them (supabase/ssr#78)
MAX_FIELDS = 128  # aiohttp's default
MAX_HEAD_BYTES = 64 * 1024
_CREDENTIALS = frozenset(map(str.lower, CREDENTIAL_FIELDS))
_ONCE = (
    "content-length", "content-location", "content-range", "content-type", "etag", "host",
    "max-forwards", "server", "transfer-encoding", "user-agent",
)  # fmt: skip
_JUDGED = frozenset({"transfer-encoding", "sec-websocket-key1"})
_TWICE = "A header that may stand once, such as Content-Type, is there twice; send it once."
_AUTHORITY = re.compile(r"[^:]*://[^/?#]")
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

    __slots__ = ("_room", "count")

    def __init__(self, room: Room) -> None:
        self._room = room
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def add(self, count: int) -> None:
        self._room.take(count, self.count)
        self.count += count

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """The body has gone up; a stream that follows needs it no more."""
        if self.count:
            self._room.give(self.count)
            self.count = 0


def headers_of(
    method: str,
    target: str,
    version: str,
    fields: Sequence[tuple[bytes, bytes]],
    *,
    is_small: bool,
) -> CIMultiDict[str]:
    """The fields of a head that every reader understands alike, and finds the same end of its body
    by, but for those that are ``UNREAD``. ``is_small``: all of it is no longer than a line may be.

    The parser bounds nothing, takes any list of codings that ends in "chunked", and one in
    HTTP/1.0, where it is a fault (RFC 9112 6.1), and frames other versions in no way. Raises
    ``bad_request``, ``head_too_large``.
    """
    if version not in (HTTP_1_0, HTTP_1_1):
        raise refusals.of_head("bad_request")
    if len(fields) > MAX_FIELDS:
        raise refusals.of_head("head_too_large")
    read = _known if is_small else _read
    said, kept, is_usual = read(tuple([name for name, _ in fields]))
    # llhttp leaves the spaces behind a value; and a dict takes a list faster.
    headers = CIMultiDict(
        [
            (name, fields[at][1].rstrip(b" \t").decode("utf-8", "surrogateescape"))
            for at, name in kept
        ]
    )
    if not (is_small or _fits(target, said, fields)):
        raise refusals.of_head("head_too_large")
    if not is_usual:
        _check_framing(version, said, headers)
    is_plain = target.startswith("/") or method == "CONNECT" or _AUTHORITY.match(target)
    if not (is_plain or (target == "*" and method == "OPTIONS")):
        raise refusals.of_head("bad_request")
    return headers


def _check_framing(version: str, names: Sequence[str], headers: CIMultiDict[str]) -> None:
    if any(names.count(name) > 1 for name in _ONCE):
        raise Refusal("bad_request", _TWICE)
    if "Transfer-Encoding" in headers:
        is_chunked = headers["Transfer-Encoding"].lower() == "chunked"
        if not is_chunked or version != HTTP_1_1 or "Content-Length" in headers:
            raise refusals.of_head("bad_request")
    if "Sec-WebSocket-Key1" in headers or (version == HTTP_1_1 and "Host" not in headers):
        raise refusals.of_head("bad_request")


def _fits(target: str, names: Sequence[str], fields: Sequence[tuple[bytes, bytes]]) -> bool:
    sizes = [len(name) + len(value) for name, value in fields]
    most = [MAX_LINE_BYTES if name in _CREDENTIALS else MAX_FIELD_BYTES for name in names]
    is_each = all(size <= limit for size, limit in zip(sizes, most, strict=True))
    return is_each and len(target) + sum(sizes) + len(": \r\n") * len(sizes) <= MAX_HEAD_BYTES


def _read(raw: tuple[bytes, ...]) -> tuple[tuple[str, ...], tuple[tuple[int, istr], ...], bool]:
    """The names of a head; those that somebody looks at, with their places; whether nothing is to
    be judged of its framing: a Host, none twice, none that is about more than a length."""
    said = tuple([istr(name.decode().lower()) for name in raw])
    kept = tuple([(at, name) for at, name in enumerate(said) if name not in UNREAD])
    different = frozenset(said)
    is_usual = len(different) == len(said) and "host" in different
    return said, kept, is_usual and different.isdisjoint(_JUDGED)


_known = lru_cache(maxsize=64)(_read)  # a front end's clients all send the same names


def check_head(request: Request) -> None:
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


def refuse_body(request: Request) -> None:
    """Raises ``bad_request`` when a call that has no use for a body brings one."""
    if request.has_body:
        raise Refusal("bad_request", "This call takes no body.")


async def read_body(
    request: Request,
    hold: Hold,
    *,
    max_bytes: int,
    timeout_seconds: float,
    is_setting: bool = True,
) -> bytes:
    """The whole body. Raises ``body_too_large``, ``body_timeout``, ``overloaded``,
    ``bad_request`` (framing). ``is_setting``: whether the operator can raise ``max_bytes``."""
    if request.length > max_bytes:
        raise too_large(max_bytes, request.length if is_setting else None)
    is_asked = "Expect" in request.headers and request.version == HTTP_1_1
    if is_asked and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def take_room() -> None:
        """For what has come. Raises ``body_too_large``, ``overloaded``."""
        size = len(request.body)
        if size > max_bytes:
            raise too_large(max_bytes, size if is_setting else None)
        if size > hold.count:  # a last chunk that comes alone needs no room
            hold.add(size - hold.count)

    take_room()
    if not request.is_whole:  # a small one comes with its head
        try:
            async with asyncio.timeout(timeout_seconds):
                while not request.is_whole:
                    await request.more()
                    take_room()
        except TimeoutError as error:
            raise Refusal("body_timeout", "The body did not arrive in time.") from error
        except BrokenBody as error:
            raise Refusal("bad_request", "The body's framing is broken.") from error
    return bytes(request.body)


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
