"""Looks for a request that the server reads otherwise than a slow, obvious reader does.

    python tests/fuzz/requests.py --seconds 20

The same bytes are sent in any split; each way has to end as the reader says: with the same whole
requests before the handler, the same answers, and a connection that is kept or is not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from keyproxy.errors import Refusal
from keyproxy.floods import Floods, Refused
from keyproxy.settings import Settings
from keyproxy.transport import intake
from keyproxy.transport.connection import Serving
from keyproxy.transport.messages import NO_LINES, Request, Response
from keyproxy.transport.server import Server
from tests.fuzz.request_reader import MAX_BODY_BYTES, UNREAD, Call, Outcome, obvious

LINES = (
    b"GET / HTTP/1.1\r\n", b"POST /a HTTP/1.1\r\n", b"GET /b?c=d HTTP/1.0\r\n",
    b"POST /%00#e HTTP/1.0\r\n", b"HEAD //a/b HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n",
    b"POST /unread HTTP/1.1\r\n",
    b"GET * HTTP/1.1\r\n", b"QUERY / HTTP/1.1\r\n", b"M-SEARCH / HTTP/1.1\r\n",
    b"XYZZY / HTTP/1.1\r\n", b"get / HTTP/1.1\r\n", b"G\xc3\x89T / HTTP/1.1\r\n",
    b"A" * 9_000 + b" / HTTP/1.1\r\n", b"CONNECT a:80 HTTP/1.1\r\n", b"TRACE / HTTP/1.1\r\n",
    b"GET / HTTP/0.9\r\n", b"GET / HTTP/2.0\r\n", b"GET / HTTP/1.10\r\n", b"GET / HTTP/1.2\r\n",
    b"GET / http/1.1\r\n", b"GET /\r\n", b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1 \r\n",
    b"GET  / HTTP/1.1\r\n", b"GET /  HTTP/1.1\r\n", b" GET / HTTP/1.1\r\n",
    b"GET\t/ HTTP/1.1\r\n", b"GET / HTTP/1.1\n", b"GET / HTTP/1.1\r",
    b"GET http://a/?b#c HTTP/1.1\r\n", b"GET http://a HTTP/1.1\r\n", b"GET http:// HTTP/1.1\r\n",
    b"GET a:b HTTP/1.1\r\n", b"GET a HTTP/1.1\r\n", b"GET /a b HTTP/1.1\r\n",
    b"GET /\x00 HTTP/1.1\r\n", b"GET /\t HTTP/1.1\r\n", b"GET /\xc3\xa9 HTTP/1.1\r\n",
    b"GET /\x7f HTTP/1.1\r\n",
    b"GET /" + b"a" * 8_189 + b" HTTP/1.1\r\n", b"GET /" + b"a" * 8_190 + b" HTTP/1.1\r\n",
)  # fmt: skip
FIELDS = (
    b"Host: a\r\n", b"host:\tb c/@ \t\r\n", b"Host:\r\n",
    b"Content-Length: 5\r\n", b"content-length: 0\r\n", b"Content-Length: 05\r\n",
    b"Content-Length: +5\r\n", b"Content-Length: -5\r\n", b"Content-Length: 5, 5\r\n",
    b"Content-Length: 0x5\r\n", b"Content-Length: 5x\r\n", b"Content-Length:\r\n",
    b"Content-Length : 5\r\n", b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: 18446744073709551615\r\n", b"Content-Length: 9223372036854775808\r\n",
    b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:CHUNKED \r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: chunked, identity\r\n",
    b"Transfer-Encoding: chunked, chunked\r\n", b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: chunked,\r\n",
    b"Transfer-Encoding:\r\n", b"Transfer-Encoding:\x0bchunked\r\n",
    b"Content-Type: a\r\n", b"User-Agent: a\r\n", b"Cookie: a\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: a, CLOSE \t\r\n",
    b"Connection: upgrade\r\n", b"Connection: close x\r\n", b"Connection:\r\n",
    b"Expect: 100-continue\r\n", b"Expect: 200-maybe\r\n",
    b"Upgrade: h2c\r\n", b"Upgrade: websocket\r\n", b"Upgrade: h2c, websocket\r\n",
    b"X-A: b:\xc3\xa9\xff\r\n", b"X-B:  a\tb \t\r\n", b"X-C:\r\n", b" folded\r\n", b"\tfolded\r\n",
    b"X-D: a\x00b\r\n", b"X-E: a\rb\r\n", b"X-F: a\nb\r\n", b"X-G: \x7f\r\n", b": nameless\r\n",
    b"X H: a\r\n", b"X\x00I: a\r\n", b"\xc3\xa9: a\r\n", b"no colon\r\n", b"X-J: a\n",
    b"X-K: a\r", b"X-L: " + b"a" * 9_000 + b"\r\n", b"X-M: " + b"a" * 32_760 + b"\r\n",
    b"X-N: " + b"a" * 32_769 + b"\r\n", b"X" * 32_769 + b": a\r\n",
    b"Authorization: " + b"a" * 8_177 + b"\r\n", b"X-Api-Key: " + b"a" * 8_182 + b"\r\n",
    b"X: a\r\n" * 126, b"X: a\r\n" * 127, b"X: a\r\n" * 128,
)  # fmt: skip
CHUNKS = (
    b"5\r\nhello\r\n", b"A\r\n0123456789\r\n", b"00000000000000005\r\nhello\r\n",
    b"5;a\r\nhello\r\n", b"5;a=b;c=\"d;e\"\r\nhello\r\n", b"5;a=;;=b\r\nhello\r\n",
    b"5;\r\nhello\r\n", b"5 \r\nhello\r\n", b" 5\r\nhello\r\n", b"5;a\x00\r\nhello\r\n",
    b"5;a\nb\r\nhello\r\n", b"5;\xff\r\nhello\r\n", b"5\r\nhello", b"5\nhello\n",
    b"5\r\nhelloXX", b"5\r\nhel", b"0x5\r\nhello\r\n", b"+5\r\nhello\r\n", b"-1\r\n", b"XX\r\n",
    b"fffffffffffffffff\r\n", b"0\r\n", b"0\r\n\r\n", b"00\r\n\r\n", b"0;a\r\n\r\n", b"0;\r\n\r\n",
    b"0\r\nX-T: u\r\n\r\n", b"0\r\nHost: evil\r\nX-T:\r\n\r\n", b"0\r\nX-T : u\r\n\r\n",
    b"0\r\nX-T: u\r\n folded\r\n\r\n", b"0\r\nX-T: a\x00b\r\n\r\n", b"0\r\nbroken\r\n\r\n",
    b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"0\r\nExpect: 200-maybe\r\n\r\n", b"0\r\nContent-Type: a\r\nContent-Type: b\r\n\r\n",
    b"0\r\nX-T: " + b"u" * 32_769 + b"\r\n\r\n", b"0\r\n" + b"X: a\r\n" * 129 + b"\r\n",
    b"0\r\nConnection: close\r\n\r\n", b"0\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"0\n\n", b"0\r\n\n",
)  # fmt: skip
PIECES = (*LINES, *FIELDS, *CHUNKS, b"\r\n", b"\n", b"\r", b"hello", b"x", b"\x00", b"GET")
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEADS = (
    b"", GET, b"POST / HTTP/1.1\r\nHost: a\r\n", b"POST / HTTP/1.0\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
)  # fmt: skip


def _joined(pieces: Iterable[bytes], most: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(tuple(pieces)), max_size=most).map(b"".join)


GOOD_LINES = (*LINES[:7], b"POST /c HTTP/1.1\r\n")
GOOD_FIELDS = tuple(
    piece for piece in FIELDS if piece.startswith((b"Connection", b"Cookie", b"X-A", b"X-B"))
)  # fmt: skip
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_UPGRADE = b"Upgrade: h2c\r\nConnection: upgrade\r\n"
FRAMED = (
    b"\r\n", b"Content-Length: 5\r\n\r\nhello", b"Content-Length: 5\r\n\r\nhel",
    b"Content-Length: 100000\r\n\r\n" + b"a" * 100_000,
    b"Content-Length: 200000\r\n\r\n" + b"a" * 200_000,
    _CHUNKED, _CHUNKED + b"0\r\n\r\n", _CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
    _CHUNKED + b"5\r\nhello\r\n5\r\nworld\r\n0\r\nX: y\r\n\r\n",
    _CHUNKED + b"0\r\nConnection: close\r\n\r\n",
    _CHUNKED + b"186A0\r\n" + b"a" * 100_000 + b"\r\n0\r\n\r\n",
    b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    _UPGRADE + b"\r\n", _UPGRADE + b"Content-Length: 5\r\n\r\nhello",
    _UPGRADE + _CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
)  # fmt: skip
_GOOD = st.tuples(
    st.sampled_from(GOOD_LINES),
    _joined(GOOD_FIELDS, 2),
    st.just(b"Host: a\r\n"),
    st.sampled_from(FRAMED),
).map(b"".join)
_ODD = st.tuples(
    st.sampled_from(LINES), _joined(FIELDS, 4), st.just(b"\r\n"), _joined((*CHUNKS, b"hello"), 2)
).map(b"".join)
_PARTS = st.tuples(st.sampled_from(HEADS), _joined(PIECES, 5)).map(b"".join)
REQUESTS = st.lists(_GOOD | _ODD | _PARTS, min_size=1, max_size=4).map(b"".join)
CUTS = st.lists(st.integers(0, 400), max_size=6)
HASTE = st.integers(0, 4)

CLOSES_BEHIND_CHUNKS = False
"""aiohttp's parser gives the last trailer to the next request, so there must be none."""
LOSES_BEFORE_A_FAULT = False
"""aiohttp forgets what came in one packet with a fault, or with bytes behind a last request."""


class Silent(Floods):
    """Writes no lines."""

    def absorbs(self, refused: Refused) -> bool:
        return True


class Driven:
    """The server, and what reached its handler on the one connection that it has at a time."""

    def __init__(self) -> None:
        settings = Settings.from_environ("dev", {"OPENROUTER_API_KEY": "sk-or-v1-" + "0" * 64})
        self.server = Server(Serving(self._answer, lambda *_: NO_LINES, settings, 9, Silent()))
        self.calls: list[Call] = []
        self.turns = 0  # of the loop, that the handler waits
        self.crashes: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: self.crashes.append(context))

    async def _answer(self, request: Request, connection: object) -> Response:
        await _turn(self.turns)
        try:
            intake.check_head(request)
            with intake.Hold(intake.Room(MAX_BODY_BYTES)) as hold:
                body = b""
                if request.target != UNREAD.decode():
                    body = await intake.read_body(
                        request, hold, max_bytes=MAX_BODY_BYTES, timeout_seconds=60
                    )
        except Refusal as refusal:
            return Response(refusal.status, must_close=True)
        fields = tuple((_raw(name), _raw(value)) for name, value in request.headers.items())
        self.calls.append((request.method, request.target, request.version, fields, body))
        return Response(200)


def _raw(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


@dataclass
class Found:
    """What became of the bytes: whole requests, answers, and whether the connection is closed."""

    calls: list[Call]
    statuses: list[int]
    is_closed: bool


_TURNS = 3
"""So many turns of the loop read a piece and wake who waits for it."""
_TURNS_OF_REST = 10
_TURNS_TO_LEAVE = 1_000


class Client:
    """The other end of a connection to the server."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.received = b""
        self._is_over = False

    async def send(self, data: bytes) -> None:
        """Give up where nothing is taken."""
        patience = _TURNS_OF_REST
        with contextlib.suppress(ConnectionError):
            while data and patience:
                try:
                    data = data[self._end.send(data) :]
                    patience = _TURNS_OF_REST
                except BlockingIOError:
                    patience -= 1
                    await _turn(1)

    def take(self) -> bool:
        """Whether something came."""
        before = len(self.received), self._is_over
        try:
            while not self._is_over:
                data = self._end.recv(1 << 20)
                self.received += data
                self._is_over = not data
        except BlockingIOError:
            pass
        except ConnectionError:
            self._is_over = True
        return before != (len(self.received), self._is_over)

    @property
    def is_closed(self) -> bool:
        """By the server, or soon: it may read on for a while, so that its answer arrives."""
        last = self.received.rpartition(b"HTTP/1.")[2].partition(b"\r\n\r\n")[0].lower()
        is_kept = b"\r\nconnection: keep-alive" in last or not last.startswith(b"0 ")
        return self._is_over or not is_kept or b"\r\nconnection: close" in last


async def drive(driven: Driven, data: bytes, cuts: Iterable[int]) -> Found:
    """What the server makes of it, split at ``cuts``."""
    driven.calls = []
    others = len(driven.server.connections)  # that were left over
    here, there = socket.socketpair()
    with here:
        here.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(driven.server, there)
        client = Client(here)
        start = 0
        for end in sorted({*(cut for cut in cuts if 0 < cut < len(data)), len(data)}):
            await client.send(data[start:end])
            start = end
            await _turn(_TURNS)
        rest = 0
        while rest < _TURNS_OF_REST:
            rest = 0 if client.take() else rest + 1
            await _turn(1)
        found = Found(driven.calls, _statuses(client.received), client.is_closed)
    for _ in range(_TURNS_TO_LEAVE):
        if len(driven.server.connections) <= others:
            break
        await _turn(1)
    else:
        raise AssertionError((data, "nobody sees that the client left"))
    assert not driven.crashes, (data, driven.crashes)
    return found


async def _turn(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def _statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received)]


def agree(expected: Outcome, found: Found) -> bool:
    """Whether it ended in a way that the reader allows."""
    if found.calls != expected.calls:
        return False
    count = len(expected.statuses)
    is_refused = (
        found.is_closed
        and found.statuses[:count] == expected.statuses
        and len(found.statuses) == count + 1
        and found.statuses[-1] in expected.refusals
    )
    is_open = found.statuses == expected.statuses and not found.is_closed
    is_closed = found.statuses == expected.statuses and found.is_closed
    return {
        "open": is_open,
        "closed": is_closed,
        "refused": is_refused,
        "doomed": is_open or is_refused,
        "fading": is_open or is_closed,
    }[expected.end]


def is_lost(expected: Outcome, found: Found) -> bool:
    """Whether it ended with a refusal, as is expected, and just forgot what came before."""
    return (
        expected.end != "open"
        and found.is_closed
        and found.calls == expected.calls[: len(found.calls)]
        and found.statuses[:-1] == expected.statuses[: len(found.statuses) - 1]
        and found.statuses[-1:] in ([400], [414], [431])
    )


def readings(data: bytes) -> list[Outcome]:
    """What the reader allows; the borders are those of the first."""
    return [
        obvious(data, closes_behind_chunks=CLOSES_BEHIND_CHUNKS, odd_trailers=odd)
        for odd in ("dropped", "refused", "last")
    ]


async def examine(driven: Driven, data: bytes, cuts: Iterable[int], turns: int = 0) -> None:
    """Raises AssertionError for a finding."""
    allowed = readings(data)
    driven.turns = 0
    found = await drive(driven, data, allowed[0].borders)
    assert any(agree(each, found) for each in allowed), (data, "borders", allowed[0], found)
    driven.turns = turns
    found = await drive(driven, data, cuts)
    if not any(LOSES_BEFORE_A_FAULT and is_lost(each, found) for each in allowed):
        assert any(agree(each, found) for each in allowed), (data, cuts, allowed[0], found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20, help="how long to look")
    end, count = time.monotonic() + parser.parse_args().seconds, 0

    @settings(
        max_examples=200,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(REQUESTS, CUTS, HASTE)
    def check(data: bytes, cuts: list[int], turns: int) -> None:
        nonlocal count
        if time.monotonic() < end:
            count += 1
            runner.run(examine(driven, data, cuts, turns))

    async def begun() -> Driven:
        return Driven()

    with asyncio.Runner() as runner:
        driven = runner.run(begun())
        while time.monotonic() < end:
            check()
    print(f"{count} sequences of requests, no finding")


if __name__ == "__main__":
    main()
