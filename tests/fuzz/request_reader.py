"""A slow, obvious reader of what clients send: RFC 9112, strict, and the bounds of our own.

Written apart from what it judges. Where several answers are as good, it allows them all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_BODY_BYTES = 1 << 20
UNREAD = b"/unread"
"""The target that is answered without a look at the body."""
# Those that llhttp knows, but for those of other protocols.
METHODS = (
    b"DELETE GET HEAD POST PUT CONNECT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH "
    b"SEARCH UNLOCK BIND REBIND UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY "
    b"SUBSCRIBE UNSUBSCRIBE PATCH PURGE MKCALENDAR LINK UNLINK SOURCE QUERY"
).split()
ONCE = frozenset(
    b"content-length content-location content-range content-type etag host max-forwards server "
    b"transfer-encoding user-agent".split()
)
UNKEPT = frozenset(b"connection user-agent".split())
"""Fields that nobody looks at behind the head."""
CREDENTIALS = (b"authorization", b"x-api-key")
_LINE = re.compile(rb"([A-Z-]+) +([\x21-\x7e]+) +HTTP/(1\.[01])")  # of spaces: RFC 9112, 3
_ABSOLUTE = re.compile(rb"[A-Za-z]+://[A-Za-z0-9.-]+(?:[/?].*)?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[\t\x20-\x7e\x80-\xff])*?)[ \t]*")
_CHUNK = re.compile(rb'([0-9a-fA-F]+)(?:;(?!\Z)[0-9A-Za-z]*(?:=(?:[0-9A-Za-z]*|"[^"\0\r\n]*"))?)*')

Fields = tuple[tuple[bytes, bytes], ...]
Call = tuple[str, str, str, Fields, bytes]
"""Method, target, version, fields with their names lowered, and a whole body."""


@dataclass
class Outcome:
    """The whole requests in their order, the statuses of the answers, and how it ends.

    ``end``: ``open``; ``closed``; ``refused``: with one more answer, of ``refusals``, and closed;
    ``doomed``: open still, or refused; ``fading``: open still, or closed. ``borders``: where heads
    and bodies end. Where servers may differ: ``odd_trailers``, which a head may not have so large,
    so many, or twice, and those about the connection, are ``dropped`` as others are, ``refused``,
    or ``last``: the connection ends behind them; it may end behind chunks at all.
    """

    calls: list[Call] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    end: str = "open"
    refusals: frozenset[int] = frozenset()
    borders: list[int] = field(default_factory=list, compare=False)
    closes_behind_chunks: bool = False
    odd_trailers: str = "dropped"


class Ended(Exception):
    """How the reading ends, and with which status it may be refused."""

    def __init__(self, end: str, *refusals: int) -> None:
        super().__init__(end)
        self.end, self.refusals = end, frozenset(refusals)


def _unfinished(is_good: bool, *refusals: int) -> Ended:
    return Ended("open") if is_good else Ended("doomed", *refusals)


def obvious(
    data: bytes, *, closes_behind_chunks: bool = False, odd_trailers: str = "dropped"
) -> Outcome:
    """What is to become of these bytes."""
    outcome = Outcome(closes_behind_chunks=closes_behind_chunks, odd_trailers=odd_trailers)
    rest = data
    try:
        while rest := rest.lstrip(b"\r\n"):
            rest = _read_one(rest, outcome, len(data))
    except Ended as ended:
        outcome.end, outcome.refusals = ended.end, ended.refusals
    return outcome


def _read_one(data: bytes, outcome: Outcome, size: int) -> bytes:
    """What stands behind the first request. Raises Ended."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        raise _unfinished(_may_become_whole(data), 400, 414, 431)
    outcome.borders.append(size - len(rest))
    if head.startswith(b"PRI * HTTP/2.0"):
        raise Ended("doomed", 400)  # the beginning of HTTP/2, behind which another head stands
    method, target, version, fields = _head(head)
    expected, offered = _values(fields, b"expect"), _values(fields, b"upgrade")
    if method in (b"CONNECT", b"TRACE"):
        raise Ended("refused", 405)
    if expected not in ([], [b"100-continue"]):
        raise Ended("refused", 417)
    if offered not in ([], [b"h2c"]):
        raise Ended("refused", 400)
    is_read = target != UNREAD
    length = int((_values(fields, b"content-length") or [b"0"])[0])
    if length > MAX_BODY_BYTES and is_read:
        raise Ended("refused", 413)
    if expected and version == b"1.1" and is_read:
        outcome.statuses.append(100)
    body, ended = b"", None
    is_last = False
    try:
        if _values(fields, b"transfer-encoding"):
            is_last = outcome.closes_behind_chunks
            body, rest = _chunked(rest)
            rest, is_odd = _behind_trailers(rest)
            if is_odd and outcome.odd_trailers == "refused":
                raise Ended("refused", 400, 431)
            is_last = is_last or (is_odd and outcome.odd_trailers == "last")
        elif len(rest) < length:
            raise Ended("open")
        else:
            body, rest = rest[:length], rest[length:]
        outcome.borders.append(size - len(rest))
    except Ended as error:
        if is_read:
            raise
        ended = {"open": "open", "refused": "closed", "doomed": "fading"}[error.end]
    kept = tuple(each for each in fields if each[0] not in UNKEPT)
    said = method.decode(), target.decode(), version.decode(), kept, body if is_read else b""
    outcome.calls.append(said)
    outcome.statuses.append(200)
    words = {word.strip() for value in _values(fields, b"connection") for word in value.split(b",")}
    is_kept = b"close" not in words if version == b"1.1" else b"keep-alive" in words
    if not is_kept or offered or is_last:
        raise Ended("closed")
    if ended is not None:
        raise Ended(ended)
    return rest


def _values(fields: Fields, wanted: bytes) -> list[bytes]:
    return [value.lower() for name, value in fields if name == wanted]


def _head(head: bytes) -> tuple[bytes, bytes, bytes, Fields]:
    """Method, target, version and fields. Raises Ended."""
    first, *lines = head.split(b"\r\n")
    faults = set()
    line, matches = _LINE.fullmatch(first), [_FIELD.fullmatch(each) for each in lines]
    if line is None or None in matches:
        # Which of its faults comes first is not the reader's to say.
        raise Ended("refused", 400, 414, 431)
    method, target, version = line.groups()
    fields = tuple((match[1].lower(), match[2]) for match in matches if match is not None)
    names = [name for name, _ in fields]
    if method not in METHODS or not _is_target(method, target):
        faults.add(400)
    if len(target) > 8190:
        faults.add(414)
    if version == b"1.1" and b"host" not in names:
        faults.add(400)
    if any(names.count(name) > 1 for name in ONCE):
        faults.add(400)
    lengths, codings = _values(fields, b"content-length"), _values(fields, b"transfer-encoding")
    if lengths and codings:
        faults.add(400)
    if not all(re.fullmatch(rb"\d+", value) and int(value) < 1 << 64 for value in lengths):
        faults.add(400)
    if codings not in ([], [b"chunked"]) or (codings and version == b"1.0"):
        faults.add(400)
    sizes = [(name, len(name) + len(value)) for name, value in fields]
    if any(size > 8190 for name, size in sizes if name in CREDENTIALS):
        faults.add(431)
    if len(fields) > 128 or any(max(len(name), len(value)) > 32_768 for name, value in fields):
        faults.add(431)
    if len(head) > 65_536:
        faults.add(431)
    if faults:
        raise Ended("refused", *faults)
    return method, target, version, fields


def _is_target(method: bytes, target: bytes) -> bool:
    if target.startswith(b"/") or (target, method) == (b"*", b"OPTIONS"):
        return True
    return method == b"CONNECT" or bool(_ABSOLUTE.fullmatch(target))


def _may_become_whole(data: bytes) -> bool:
    """Whether more bytes would surely make a good head of the beginning of one.

    No is a guess: of a name or number nobody knows how it goes on.
    """
    *_, last = data.split(b"\r\n")
    starts = [m + b" / HTTP/1.1\r\n" for m in (b"GET", b"POST", b"HEAD")] if last == data else []
    ends = [start.removeprefix(last) for start in starts if start.startswith(last)]
    for end in (*ends, b"\r\n", b"\n"):
        for fields in (b"", b"Host: a\r\n", b"\r\nHost: a\r\n"):
            whole = data + end + fields + b"\r\n"
            try:
                _head(whole.partition(b"\r\n\r\n")[0])
            except Ended:
                continue
            return True
    return False


def _chunked(data: bytes) -> tuple[bytes, bytes]:
    """The body, and what stands behind it. Raises Ended."""
    body = b""
    while True:
        line, data = _chunk_line(data)
        if (chunk := _CHUNK.fullmatch(line)) is None or (size := int(chunk[1], 16)) >= 1 << 64:
            raise Ended("refused", 400)
        if size == 0:
            return body, data
        body += data[:size]
        if len(data) < size + 2 and b"\r\n".startswith(data[size:]):
            raise Ended("open")
        if data[size : size + 2] != b"\r\n":
            raise Ended("refused", 400)
        data = data[size + 2 :]


def _chunk_line(data: bytes) -> tuple[bytes, bytes]:
    line, end, rest = data.partition(b"\r\n")
    if not end:
        is_good = not line or _CHUNK.fullmatch(line.removesuffix(b"\r"))
        raise _unfinished(bool(is_good), 400)
    return line, rest


def _behind_trailers(data: bytes) -> tuple[bytes, bool]:
    """What stands behind them, and whether one is odd. Raises Ended."""
    names, is_odd = [], False
    while not data.startswith(b"\r\n"):
        line, end, data = data.partition(b"\r\n")
        trailer = _FIELD.fullmatch(line.removesuffix(b"" if end else b"\r"))
        if not end:
            raise _unfinished(bool(trailer) or line in (b"", b"\r"), 400, 431)
        if trailer is None or trailer[1].lower() in (b"content-length", b"transfer-encoding"):
            raise Ended("refused", 400)
        names.append(trailer[1].lower())
        is_odd = is_odd or names[-1] in (*ONCE, b"connection", b"upgrade")
        is_odd = is_odd or len(names) > 128 or len(trailer[2]) > 32_768
    return data[2:], is_odd
