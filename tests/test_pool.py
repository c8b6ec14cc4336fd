"""Connections to an upstream: which are used again, which are not, and that none is left."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from keyproxy.transport import http1, pool
from keyproxy.transport.client import trust
from keyproxy.transport.http1 import Connection, Malformed
from keyproxy.transport.messages import lines
from keyproxy.transport.pool import ConnectFailed, ConnectLate, Origin, Pool
from keyproxy.transport.reply import BrokenOff, Reply
from tests.fake_upstream import RawScript, raw, read_request
from tests.fuzz.answers import Transport

pytestmark = pytest.mark.usefixtures("no_loose_ends")
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
LARGE = b"x" * (8 << 20)


class Upstream:
    """Answers request by request, each connection from the first of ``answers`` on; None: closes
    instead. ``requests`` holds those of each connection."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = answers
        self.requests: list[list[bytes]] = []
        self.answered = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen: list[bytes] = []
        self.requests.append(seen)
        try:
            for answer in self.answers:
                seen.append(await read_request(reader))
                if answer is None:
                    return
                writer.write(answer)
                await writer.drain()
                self.answered.set()
            await reader.read()
        finally:
            self.left.set()


@asynccontextmanager
async def pool_of(script: RawScript) -> AsyncIterator[Pool]:
    async with raw(script) as base:
        connections = Pool(base, trust=ssl.create_default_context(), connect_seconds=5.0)
        try:
            yield connections
        finally:
            await connections.close()
            assert connections.in_use == 0


async def asked(connections: Pool, body: bytes = b"{}") -> Reply:
    return await connections.ask("POST", "/chat", lines([("A", "b")]), body, timeout_seconds=5)


async def answered(connections: Pool) -> bytes | None:
    return await (await asked(connections)).read_whole(1_000)


async def passed_on(reply: Reply) -> tuple[list[bytes], BrokenOff | None]:
    """The pieces of its body, and what broke it off."""
    pieces: list[bytes] = []
    over = asyncio.get_running_loop().create_future()
    reply.pass_on(pieces.append, over.set_result)
    return pieces, await over


async def test_a_request_is_written_as_http_1_1() -> None:
    upstream = Upstream(WHOLE)
    async with pool_of(upstream) as connections:
        assert await answered(connections) == b"hi"
    host = connections.origin.authority
    head = f"POST /api/v1/chat HTTP/1.1\r\nHost: {host}\r\nA: b\r\nContent-Length: 2\r\n\r\n"
    assert upstream.requests == [[head.encode() + b"{}"]]


async def test_a_connection_is_used_again_when_its_answer_was_read() -> None:
    upstream = Upstream(*[WHOLE] * 3)
    async with pool_of(upstream) as connections:
        for _ in range(3):
            assert await answered(connections) == b"hi"
            assert connections.in_use == 0
    assert [len(seen) for seen in upstream.requests] == [3]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            WHOLE + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", id="another answer"
        ),
        pytest.param(WHOLE + b"evil", id="junk behind it"),
        pytest.param(WHOLE.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), id="told to close"),
        pytest.param(WHOLE.replace(b"1.1", b"1.0"), id="HTTP/1.0"),
    ],
)
async def test_a_connection_is_not_used_again(answer: bytes) -> None:
    upstream = Upstream(answer, answer)
    async with pool_of(upstream) as connections:
        for _ in range(2):
            assert await answered(connections) == b"hi"
    assert [len(seen) for seen in upstream.requests] == [1, 1]


async def test_a_connection_on_which_something_arrives_unasked_is_closed() -> None:
    told = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(WHOLE)
        await told.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        assert await reader.read() == b""  # nobody sends a request over it
        closed.set()

    closed = asyncio.Event()
    async with pool_of(script) as connections:
        assert await answered(connections) == b"hi"
        told.set()
        async with asyncio.timeout(5):
            await closed.wait()


async def test_a_request_that_was_sent_is_not_sent_again() -> None:
    """The upstream may have worked on it already, at a price."""
    upstream = Upstream(WHOLE, None)
    async with pool_of(upstream) as connections:
        assert await answered(connections) == b"hi"
        with pytest.raises(BrokenOff):
            await answered(connections)
    assert [len(seen) for seen in upstream.requests] == [2]


async def test_a_connection_that_the_upstream_closed_is_not_chosen() -> None:
    closed = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(WHOLE)
        writer.close()
        await writer.wait_closed()
        closed.set()

    async with pool_of(script) as connections:
        for _ in range(3):
            closed.clear()
            assert await answered(connections) == b"hi"
            await closed.wait()
            while connections.kept:
                await asyncio.sleep(0)


async def test_an_idle_connection_is_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "IDLE_SECONDS", 0.05)
    upstream = Upstream(WHOLE, WHOLE)
    async with pool_of(upstream) as connections:
        assert await answered(connections) == b"hi"
        async with asyncio.timeout(5):
            await upstream.left.wait()
        assert connections.kept == 0


async def test_an_early_answer_ends_a_long_upload() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refusal)
        await asyncio.Event().wait()  # it reads no further, and keeps the connection

    async with pool_of(script) as connections:
        async with asyncio.timeout(5):
            reply = await asked(connections, LARGE)
            assert (reply.status, await reply.read_whole(10)) == (413, b"no")
        assert connections.kept == 0


async def test_a_long_body_goes_up_whole_before_a_slow_reader() -> None:
    sizes: list[int] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0)
        sizes.append(len(await reader.readexactly(len(LARGE))))
        assert b"Content-Length: %d\r\n" % len(LARGE) in head
        writer.write(WHOLE)
        await reader.read()

    async with pool_of(script) as connections:
        reply = await asked(connections, LARGE)
        assert await reply.read_whole(10) == b"hi"
        assert (sizes, connections.kept) == ([len(LARGE)], 1)


async def test_what_is_not_read_holds_the_upstream_back() -> None:
    blocked = asyncio.Event()
    total = 64 << 20
    written = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while written < total:
            writer.write(bytes(1 << 20))
            written += 1 << 20
            if writer.transport.get_write_buffer_size() > 16 << 20:
                blocked.set()
            await writer.drain()
        await reader.read()

    async with pool_of(script) as connections:
        reply = await asked(connections)
        pending = asyncio.ensure_future(blocked.wait())
        await asyncio.wait([pending], timeout=1.0)
        assert written < total
        pieces, error = await passed_on(reply)
        assert max(map(len, pieces)) < 1 << 20
        assert (sum(map(len, pieces)), error, connections.kept) == (total, None, 1)
        pending.cancel()


@pytest.mark.parametrize("moment", range(12))
async def test_an_asker_that_is_cancelled_leaves_no_connection(moment: int) -> None:
    upstream = Upstream(WHOLE)
    async with pool_of(upstream) as connections:
        asking = asyncio.ensure_future(asked(connections, LARGE))
        for _ in range(moment):
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        async with asyncio.timeout(5):
            while connections.in_use:
                await asyncio.sleep(0)
        assert await answered(connections) == b"hi"


async def test_an_asker_that_leaves_before_it_wakes_does_not_cut_the_next_ones_request() -> None:
    """Its answer is whole, and the connection released, before it knows."""
    connection = Connection(lambda _: None, lambda _: None)
    transport, go = Transport(), asyncio.Event()
    connection.connection_made(transport)

    async def next_one() -> Reply:
        await go.wait()
        return await connection.ask(b"GET /b HTTP/1.1\r\n\r\n", b"", 5)

    first = asyncio.ensure_future(connection.ask(b"GET /a HTTP/1.1\r\n\r\n", b"", 5))
    second = asyncio.ensure_future(next_one())
    await asyncio.sleep(0)
    go.set()  # all in one turn of the loop: the next one wakes first
    connection.data_received(WHOLE)
    first.cancel()
    await asyncio.wait([first])
    assert not transport.is_closing()
    connection.data_received(WHOLE)
    assert await (await second).read_whole(10) == b"hi"


@pytest.mark.parametrize("is_lost", [False, True])
@pytest.mark.parametrize("received", [WHOLE, WHOLE[:-1]])
async def test_an_answer_that_comes_before_a_cancelled_asker_wakes_has_come(
    received: bytes, is_lost: bool
) -> None:
    connection = Connection(lambda _: None, lambda _: None)
    connection.connection_made(Transport())
    answered = connection.ask(b"GET /a HTTP/1.1\r\n\r\n", b"", 5)
    answered.cancel()
    connection.data_received(received)
    if is_lost:
        connection.connection_lost(None)
    reply = await connection.wait_on(answered)
    assert (reply.status, reply.is_whole) == (200, received == WHOLE)


async def test_a_connection_that_is_lost_needs_no_collection() -> None:
    connection = Connection(lambda _: None, lambda _: None)
    connection.connection_made(Transport())
    connection.connection_lost(None)
    assert sys.getrefcount(connection) == 2  # ours, and that of this very question


async def test_a_connection_that_is_closed_by_a_trailer_is_not_used_again() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"
    upstream = Upstream(*[head + b"Connection: close\r\n\r\n"] * 2)
    async with pool_of(upstream) as connections:
        for _ in range(2):
            assert await answered(connections) == b"hi"
    assert [len(seen) for seen in upstream.requests] == [1, 1]


async def test_an_error_that_may_be_early_ends_the_connection() -> None:
    early = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
    async with pool_of(Upstream(early, early)) as connections:
        for size, kept in ((100_000, 0), (100, 1)):
            reply = await asked(connections, b"x" * size)
            assert await reply.read_whole(10) == b"no"
            assert connections.kept == kept


async def test_silence_is_a_timeout() -> None:
    upstream = Upstream()
    async with pool_of(upstream) as connections:
        with pytest.raises(TimeoutError):
            await connections.ask("GET", "/key", lines([]), b"", timeout_seconds=0.05)
        async with asyncio.timeout(5):
            await upstream.left.wait()


async def test_an_answer_that_breaks_off_gives_what_came_and_then_says_so() -> None:
    cut = Upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(cut.answers[0] or b"")

    async with pool_of(script) as connections:
        reply = await asked(connections)
        pieces, error = await passed_on(reply)
        assert pieces == [b"hi"]
        assert isinstance(error, BrokenOff)


async def test_a_reply_that_is_closed_cuts_the_connection() -> None:
    upstream = Upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")
    async with pool_of(upstream) as connections:
        reply = await asked(connections)
        reply.close()
        async with asyncio.timeout(5):
            await upstream.left.wait()


@pytest.mark.parametrize(
    "answer",
    [
        b"junk\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * (http1.MAX_INTERIM + 1),
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * (http1.MAX_FIELDS + 1) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * (http1.MAX_FIELD_BYTES + 1) + b"\r\n\r\n",
        b"HTTP/1.1 200 " + b"a" * (http1.MAX_HEAD_BYTES + 1),
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_malformed(answer: bytes) -> None:
    async with pool_of(Upstream(answer)) as connections:
        with pytest.raises(Malformed):
            await asked(connections)


async def test_a_field_with_a_line_break_is_never_sent() -> None:
    upstream = Upstream(WHOLE)
    async with pool_of(upstream) as connections:
        for value in ("a\r\nB: c", "a\nb", "a\0"):
            with pytest.raises(ValueError, match="line break"):
                lines([("A", "b"), ("C", value)])
            with pytest.raises(ValueError, match="line break"):
                await connections.ask("GET", f"/{value}", lines([]), b"", timeout_seconds=5)
    assert upstream.requests == []


async def test_a_connection_that_fails_says_that_nothing_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    trust = ssl.create_default_context()
    for base in (f"http://127.0.0.1:{port}", "http://a..b.example"):
        connections = Pool(base, trust=trust, connect_seconds=5.0)
        with pytest.raises(ConnectFailed):
            await asked(connections)
        await connections.close()


async def test_a_connection_that_is_late_says_so() -> None:
    """TLS that nobody answers: the connection is there, but not what is asked of it."""
    upstream = Upstream()
    async with raw(upstream) as base:
        secure = base.replace("http:", "https:")
        connections = Pool(secure, trust=ssl.create_default_context(), connect_seconds=0.05)
        with pytest.raises(ConnectLate) as late:
            await asked(connections)
        assert isinstance(late.value, TimeoutError)  # for whom lateness is all that matters
        await connections.close()


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="their stores are no files")
def test_the_systems_store_is_read_once_and_not_for_each_connection(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A store of a hundred CAs takes 15 ms and more, in which nothing else goes on."""
    system, extra = trustme.CA(organization_name="system"), trustme.CA(organization_name="extra")
    for name, ca in (("system.pem", system), ("extra.pem", extra)):
        ca.cert_pem.write_to_path(tmp_path / name)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    context = trust(tmp_path / "extra.pem")
    (tmp_path / "system.pem").unlink()
    context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="api.example")
    believed = str(context.get_ca_certs())
    assert ("system" in believed, "extra" in believed) == (True, True)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert type(context) is ssl.SSLContext  # truststore's reads the store whenever one connects


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://api.example/v1", "api.example"),
        ("https://api.example:8443/v1", "api.example:8443"),
        ("http://[::1]:9000/v1", "[::1]:9000"),
        ("http://[::1]/v1", "[::1]"),
        ("http://api.example:443", "api.example:443"),
    ],
)
def test_an_origin_is_named_as_the_host_field_names_it(url: str, authority: str) -> None:
    assert Origin.of(url).authority == authority
