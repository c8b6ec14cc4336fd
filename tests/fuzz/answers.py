"""Looks for an answer that the client reads otherwise than a slow, obvious reader does.

    python tests/fuzz/answers.py --seconds 20

The same bytes are fed in any split; each way has to end as the reader says: refused, broken off,
or whole, with the same status, fields and body, and a connection that is kept or is not.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from keyproxy.transport.http1 import Connection, Malformed
from keyproxy.transport.reply import BrokenOff, Fields, Reply

PIECES = (
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200\r\n", b"HTTP/1.1 404 No\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n",
    b"HTTP/1.1 204 Empty\r\n", b"HTTP/2.0 200 OK\r\n", b"HTTP/1.1  200 OK\r\n",
    b"http/1.1 200 OK\r\n",
    b"Content-Length: 5\r\n", b"content-length: 0\r\n", b"Content-Length: +5\r\n",
    b"Content-Length: 5, 5\r\n", b"Content-Length: 5x\r\n", b"Content-Length:\r\n",
    b"Content-Length : 5\r\n", b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: CHUNKED\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: chunked, identity\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"X-A: b\r\n",
    b"X-B: \xc3\xa9\xff\r\n",
    b"X-C:   spaced \t\r\n", b"X-D:\r\n", b" folded\r\n", b"X-E: a\x00b\r\n", b"X-F: a\rb\r\n",
    b": nameless\r\n", b"X G: h\r\n", b"X-H: i\n", b"X-I: " + b"j" * 9_000 + b"\r\n",
    b"\r\n", b"\n", b"\r", b"hello", b"5\r\nhello\r\n", b"A\r\n0123456789\r\n",
    b"5;a=b\r\nhello\r\n",
    b"5\r\nhello", b"5\nhello\n", b"0x5\r\nhello\r\n", b"-1\r\n", b"0\r\n\r\n",
    b"0\r\nX-T: u\r\n\r\n",
    b"00\r\n\r\n", b"fffffffffffffffff\r\n", b"0;\r\n\r\n", b"x", b"\x00",
)  # fmt: skip
HEADS = st.sampled_from([
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"",
])  # fmt: skip
ANSWERS = st.tuples(HEADS, st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join)).map(
    b"".join
)
CUTS = st.lists(st.integers(0, 400), max_size=6)

_STATUS = re.compile(rb"HTTP/(\d\.\d) ([1-9]\d\d)(?: [\t\x20-\x7e\x80-\xff]*)?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[\t\x20-\x7e\x80-\xff])*?)[ \t]*")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,16})(?:;[0-9A-Za-z]+(?:=[0-9A-Za-z]+)?)*")


@dataclass
class Outcome:
    """``how``: refused (no head), broken (cut in the body) or whole."""

    how: str
    status: int = 0
    fields: Fields = field(default_factory=dict)
    body: bytes = b""
    is_kept: bool = False


def obvious(data: bytes) -> Outcome:
    """What is to become of an answer of these bytes, behind which the upstream closes."""
    refused = Outcome("refused")
    while True:
        # Of empty lines between messages RFC 9112, 2.2, speaks for requests, llhttp for both.
        head, end, data = data.lstrip(b"\r\n").partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        status = _STATUS.fullmatch(first)
        if not end or status is None:
            return refused
        fields = [_FIELD.fullmatch(line) for line in lines]
        if None in fields:
            return refused
        named = [(f[1].decode().lower(), f[2]) for f in fields if f is not None]
        code = int(status[2])
        if not 100 <= code < 200:
            break
        if any(name in ("content-length", "transfer-encoding") for name, _ in named):
            return Outcome("either")  # nobody says so in an interim answer
    lengths = [value for name, value in named if name == "content-length"]
    codings = [value.lower() for name, value in named if name == "transfer-encoding"]
    version = status[1]
    is_framed = len(lengths) + len(codings) <= 1
    if any(not re.fullmatch(rb"\d{1,19}", value) for value in lengths):
        return refused
    if not is_framed or codings not in ([], [b"chunked"]) or (codings and version == b"1.0"):
        return refused
    if version not in (b"1.0", b"1.1") or any(len(value) > 8190 for _, value in named):
        return refused
    words = {value.lower() for name, value in named if name == "connection"}
    wants_more = version == b"1.1" or b"keep-alive" in words
    outcome = Outcome("broken", code)
    for name, value in named:
        outcome.fields.setdefault(name.encode(), []).append(value)
    if code in (204, 304):
        outcome.how = "whole"
    elif codings:
        outcome.body, rest = _chunked(data)
        outcome.how = "broken" if rest is None else "whole"
    elif lengths:
        size = int(lengths[0])
        outcome.body, rest = data[:size], data[size:]
        outcome.how = "whole" if len(data) >= size else "broken"
    else:
        outcome.how, outcome.body, rest = "whole", data, b"closed"
    outcome.is_kept = (
        outcome.how == "whole"
        and not (rest or b"").strip(b"\r\n")
        and wants_more
        and b"close" not in words
    )
    return outcome


def _chunked(data: bytes) -> tuple[bytes, bytes | None]:
    """The body, and what stands behind it; None where it does not end."""
    body = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        chunk = _CHUNK.fullmatch(line)
        if not end or chunk is None:
            return body, None
        size = int(chunk[1], 16)
        if size == 0:
            break
        body += data[:size]
        if data[size : size + 2] != b"\r\n":
            return body, None
        data = data[size + 2 :]
    while not data.startswith(b"\r\n"):
        line, end, data = data.partition(b"\r\n")
        if not end or not _FIELD.fullmatch(line):
            return body, None
    return body, data[2:]


class Transport(asyncio.Transport):
    """Takes what is written, and says whether it was closed."""

    is_closed = False

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def write(self, data: Any) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading


async def read(data: bytes, cuts: list[int]) -> Outcome:
    """What the client makes of it, split at ``cuts``."""
    kept: list[Connection] = []
    connection = Connection(kept.append, lambda connection: None)
    transport = Transport()
    connection.connection_made(transport)
    asking = asyncio.ensure_future(connection.ask(b"GET / HTTP/1.1\r\n\r\n", b"", 5))
    await asyncio.sleep(0)
    ends = sorted({*(cut for cut in cuts if cut < len(data)), len(data)})
    start = 0
    for end in ends:
        if not transport.is_closed and start < end:
            connection.data_received(data[start:end])
        start = end
    is_kept = bool(kept) and connection.is_usable
    if not transport.is_closed:
        connection.eof_received()
    connection.connection_lost(None)
    try:
        reply: Reply = await asking
    except (Malformed, BrokenOff):
        return Outcome("refused")
    outcome = Outcome("whole", reply.status, reply.headers)
    pieces: list[bytes] = []
    errors: list[BrokenOff | None] = []
    reply.pass_on(pieces.append, errors.append)
    if errors != [None]:
        outcome.how = "broken"
    outcome.body, outcome.is_kept = b"".join(pieces), is_kept
    return outcome


def examine(data: bytes, cuts: list[int], runner: asyncio.Runner) -> None:
    """Raises AssertionError for a finding."""
    expected, found = obvious(data), runner.run(read(data, cuts))
    if expected.how != "either":
        assert found == expected, (data, cuts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20, help="how long to look")
    end, count = time.monotonic() + parser.parse_args().seconds, 0

    @settings(
        max_examples=5_000,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(ANSWERS, CUTS)
    def check(data: bytes, cuts: list[int]) -> None:
        nonlocal count
        if time.monotonic() < end:
            count += 1
            examine(data, cuts, runner)

    with asyncio.Runner() as runner:
        while time.monotonic() < end:
            check()
    print(f"{count} answers, no finding")


if __name__ == "__main__":
    main()
