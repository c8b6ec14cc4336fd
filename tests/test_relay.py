"""The bytes of an answer on their way down: unchanged, at once, and never seemingly whole."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from keyproxy.call import End, Head
from keyproxy.record import Record
from keyproxy.relay import Passing, relay
from keyproxy.transport.reply import Reply
from keyproxy.upstream.headers import KeySearch
from keyproxy.upstream.send import Answer
from tests.conftest import BODY, CHAT, Proxy, Start
from tests.fake_upstream import FakeUpstream, begun, event_stream, raw, read_call, silent
from tests.fuzz.answers import Transport

pytestmark = pytest.mark.usefixtures("no_loose_ends")
WIRE = Path(__file__).parent / "wire"
SAMPLES = sorted(path.name for path in WIRE.glob("*.sse"))
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = STREAM + b"Transfer-Encoding: chunked\r\n\r\n"
CUT = (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
DEADLINE_SECONDS = 20.0  # of what takes a moment, unless the machine is busy


def streaming(pieces: list[bytes]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """An answer in these chunks, each in a packet of its own."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0)
        return response

    return answer


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection as a crashed peer does."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def connected(proxy: Proxy, version: str = "1.1") -> AsyncIterator[Any]:
    """A raw connection that has sent one call; with a small receive buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", proxy.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    body = b'{"model":"openai/gpt-4o-mini","messages":[]}'
    head = f"POST {CHAT} HTTP/{version}\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    writer.write(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        await event.wait()


async def test_the_first_chunk_arrives_before_the_last_is_made(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    """Each chunk is made only when the client has the one before."""
    has_it = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        for number in range(5):
            await response.write(b"data: %d\n\n" % number)
            await soon(has_it)
            has_it.clear()
        return response

    upstream.answer = answer
    async with proxy.post() as answer_down:
        for number in range(5):
            assert await answer_down.content.readany() == b"data: %d\n\n" % number
            has_it.set()
        assert await answer_down.content.readany() == b""


async def test_the_head_arrives_before_the_first_chunk_is_made(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    has_it = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        await soon(has_it)
        await response.write(b"data: 1\n\n")
        return response

    upstream.answer = answer
    async with proxy.post() as answer_down:
        assert answer_down.headers["Content-Type"] == "text/event-stream"
        assert answer_down.headers["Cache-Control"] == "no-cache, no-transform"
        assert answer_down.headers["X-Accel-Buffering"] == "no"
        has_it.set()
        assert await answer_down.read() == b"data: 1\n\n"


@pytest.mark.parametrize("name", SAMPLES)
async def test_a_streams_bytes_pass_unchanged(
    proxy: Proxy, upstream: FakeUpstream, name: str
) -> None:
    """Cut inside characters, field names and line ends."""
    sample = (WIRE / name).read_bytes()
    for step in (1, 3, 7, 997):
        upstream.answer = streaming([sample[i : i + step] for i in range(0, len(sample), step)])
        async with proxy.post() as answer:
            assert await answer.read() == sample


async def test_a_stream_cut_in_two_anywhere_passes_unchanged(
    start: Start, upstream: FakeUpstream
) -> None:
    proxy = await start(RATE_LIMIT="off")
    sample = "event: ü\r\ndata: 🙂\r\n\r\n: note\n\n".encode()
    for border in range(1, len(sample)):
        upstream.answer = streaming([sample[:border], sample[border:]])
        async with proxy.post() as answer:
            assert await answer.read() == sample


@pytest.mark.parametrize(
    "sample",
    [
        b": OPENROUTER PROCESSING\n\n" * 3,
        b"data: 1\r\n\r\ndata: 2\r\r\n\n\n\n",
        b"\n\n\n",
        b"no field at all",
        b"data: \xff\xfe not UTF-8\n\n",
        b"data: " + b"x" * 4_000_000 + b"\n\n",
        b"\x00" * 1000,
        b"",
    ],
    ids=["comments", "CRLF", "blank lines", "no SSE", "no UTF-8", "a line of 4 MB", "NUL", "empty"],
)
async def test_whatever_a_stream_holds_passes(
    proxy: Proxy, upstream: FakeUpstream, sample: bytes
) -> None:
    upstream.answer = streaming([sample])
    async with proxy.post() as answer:
        assert answer.status == 200
        assert await answer.read() == sample


async def test_a_json_answer_passes_with_its_length(proxy: Proxy, upstream: FakeUpstream) -> None:
    sample = (WIRE / "chat-nonstream.json").read_bytes()

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=sample, content_type="application/json")

    upstream.answer = answer
    async with proxy.post() as answer_down:
        assert answer_down.headers["Content-Length"] == str(len(sample))
        assert await answer_down.read() == sample


async def test_a_large_request_goes_up_whole(proxy: Proxy, upstream: FakeUpstream) -> None:
    content = "é" * 400_000
    body = json.dumps({**BODY, "messages": [{"role": "user", "content": content}]}).encode()
    async with proxy.post(io.BytesIO(body)) as answer:
        assert answer.status == 200
    [seen] = upstream.calls
    assert seen.body == body
    assert seen.headers["Content-Length"] == str(len(body))
    assert "Transfer-Encoding" not in seen.headers
    assert "Content-Disposition" not in seen.headers


async def test_a_slow_reader_slows_the_upstream(start: Start) -> None:
    """The upstream's write blocks while the client reads nothing, and goes on when it does."""
    blocked, written, rest = asyncio.Event(), 0, 20
    piece = b"%x\r\n%b\r\n" % (65_536, b"x" * 65_536)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written, rest
        await read_call(reader, writer)
        writer.write(CHUNKED)
        while rest and written < 400:  # the kernel's buffers hold a few megabytes
            try:
                async with asyncio.timeout(0.5):
                    writer.write(piece)
                    await writer.drain()
            except TimeoutError:
                blocked.set()
                await writer.drain()
            written += 1
            rest -= blocked.is_set()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async with raw(script) as base:
        proxy = await start(UPSTREAM=base)
        async with connected(proxy) as (reader, _):
            await soon(blocked)
            async with asyncio.timeout(DEADLINE_SECONDS):
                received, end = 0, b""
                while end != b"0\r\n\r\n":
                    part = await reader.read(65_536)
                    assert part
                    received, end = received + len(part), (end + part)[-5:]
            assert rest == 0
            assert received > written * 65_536


async def test_a_client_that_stops_reading_is_cut(start: Start, upstream: FakeUpstream) -> None:
    """Closing alone would wait for ever for it to take what is written."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        while True:
            await response.write(b"x" * 65_536)

    upstream.answer = endless
    proxy = await start(IDLE_TIMEOUT="200ms")
    async with connected(proxy):
        await soon(upstream.left)
        await no_connection_left(proxy)


async def test_a_client_that_never_takes_a_whole_answer_is_cut(
    start: Start, upstream: FakeUpstream
) -> None:
    async def large(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b" " * 30_000_000, content_type="application/json")

    upstream.answer = large
    proxy = await start(IDLE_TIMEOUT="200ms")
    async with connected(proxy):
        await soon(upstream.arrived)
        await no_connection_left(proxy)


async def no_connection_left(proxy: Proxy) -> None:
    """Waits until the server has let every client connection go."""
    server = proxy.service._server
    async with asyncio.timeout(DEADLINE_SECONDS):
        while server.connections:
            await asyncio.sleep(0.01)


async def test_an_idle_upstream_is_cut(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = begun
    proxy = await start(IDLE_TIMEOUT="200ms")
    async with proxy.post() as answer:
        assert await answer.content.readany() == b"data: 1\n\n"
        with pytest.raises(CUT):
            await answer.read()
    await soon(upstream.left)


class Client:
    """Its connection."""

    is_behind = False

    def tell_behind(self, told: Any) -> None: ...

    def finish(self) -> None: ...

    def cut(self) -> None: ...


async def test_an_answer_that_ends_as_its_time_is_up_is_whole() -> None:
    """The loop was held up: the answer's end and the timer come in one of its turns."""
    idle_seconds, loop = 0.01, asyncio.get_running_loop()

    class EndsLate:
        closed = 0

        def pass_on(self, take: Any, end: Any) -> None:
            loop.call_soon(end, None)
            time.sleep(idle_seconds)

        def close(self) -> None:
            self.closed += 1

    reply, record = EndsLate(), Record("POST", CHAT)
    answer: Any = SimpleNamespace(reply=reply, search=KeySearch([]), outlives_client=False)
    client: Any = Client()
    await Passing(client, answer, record, idle_seconds).over()
    assert (record.ended, reply.closed) == (End.COMPLETE, 0)


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("is_there", [True, False])
async def test_what_comes_is_looked_at_behind_the_client_and_without_it(
    is_whole: bool, is_there: bool
) -> None:
    """Usage that nobody has taken is no less paid for."""
    did: list[str] = []

    class Gone(Client):
        def send(self, *_: Any, **__: Any) -> None:
            did.append("written")
            if not is_there:
                raise ConnectionResetError

        write = send

        def begin(self, *_: Any) -> None: ...

    record, client = Record("POST", CHAT), cast(Any, Gone())
    record.watchers.append(lambda data: did.append(data.decode()))
    reply = Reply(200, {}, 2, None if is_whole else Transport())
    reply.feed(b"hi")
    asyncio.get_running_loop().call_soon(reply.end)
    answer = Answer(Head(200, "", None, ""), {}, reply, KeySearch([]))
    await relay(client, answer, record, idle_seconds=5)
    assert did == ["written", "hi"]
    assert record.ended is (End.COMPLETE if is_there else End.CLIENT_LEFT)


async def test_a_client_that_leaves_with_its_whole_answer_has_it() -> None:
    loop = asyncio.get_running_loop()

    class Leaving(Client):
        def send(self, *_: Any, **__: Any) -> None:
            loop.call_soon(passing.cancel)

    record, client = Record("POST", CHAT), cast(Any, Leaving())
    reply = Reply(200, {}, 2, None)
    reply.feed(b"hi")
    answer = Answer(Head(200, "", None, ""), {}, reply, KeySearch([]))
    passing = asyncio.create_task(relay(client, answer, record, idle_seconds=5))
    assert (await passing).status == 200
    assert record.ended is End.COMPLETE


async def test_a_client_that_leaves_behind_its_whole_answer_has_left() -> None:
    loop = asyncio.get_running_loop()

    class Leaving(Client):
        is_behind = True

        def send(self, *_: Any, **__: Any) -> None:
            loop.call_soon(passing.cancel)

        async def drained(self) -> None:
            await loop.create_future()

    reply = Reply(200, {}, 2, None)
    reply.feed(b"hi")
    answer = Answer(Head(200, "", None, ""), {}, reply, KeySearch([]))
    call = relay(cast(Any, Leaving()), answer, Record("POST", CHAT), idle_seconds=5)
    passing = asyncio.create_task(call)
    with pytest.raises(asyncio.CancelledError):
        await passing


async def test_a_stream_that_moves_is_never_too_long(start: Start, upstream: FakeUpstream) -> None:
    """There is an idle limit and no total one."""

    async def slow(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        for _ in range(10):
            await asyncio.sleep(0.06)
            await response.write(b": still here\n\n")
        return response

    upstream.answer = slow
    proxy = await start(IDLE_TIMEOUT="300ms")
    async with proxy.post() as answer:
        assert await answer.read() == b": still here\n\n" * 10


async def test_a_client_that_leaves_while_connecting_leaves_nothing(start: Start) -> None:
    """A backlog that is full: the kernel leaves our connect pending."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        full.setblocking(False)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        proxy = await start(UPSTREAM=f"http://127.0.0.1:{port}/api/v1")
        async with connected(proxy) as (_, writer):
            await in_flight(proxy, 1)
            writer.transport.abort()
            await in_flight(proxy, 0)
        await no_connection_left(proxy)
        for filler in fillers:
            filler.close()


async def in_flight(proxy: Proxy, count: int) -> None:
    """Waits until so many calls are open."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while proxy.service.kit.default.admission.counters.in_flight.total() != count:
            await asyncio.sleep(0.01)


async def test_a_client_that_leaves_before_the_first_byte_ends_the_call(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    upstream.answer = silent
    async with connected(proxy):
        await soon(upstream.arrived)
    await soon(upstream.left)
    await in_flight(proxy, 0)


@pytest.mark.parametrize("kind", ["text/event-stream", "application/json"])
async def test_a_client_that_leaves_midway_ends_the_call(
    proxy: Proxy, upstream: FakeUpstream, kind: str
) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": kind})
        if kind == "application/json":
            response.content_length = 1000
        await response.prepare(request)
        await response.write(b"{")
        await asyncio.Event().wait()
        return response

    upstream.answer = silent
    async with connected(proxy) as (reader, _):
        await reader.readuntil(b"{")
    await soon(upstream.left)
    await in_flight(proxy, 0)


async def test_a_half_closed_client_ends_the_call(proxy: Proxy, upstream: FakeUpstream) -> None:
    upstream.answer = silent
    async with connected(proxy) as (_, writer):
        await soon(upstream.arrived)
        writer.write_eof()
        await soon(upstream.left)


async def test_a_client_that_leaves_is_one_quiet_line(proxy: Proxy, upstream: FakeUpstream) -> None:
    upstream.answer = begun
    with capture_logs() as lines:
        async with connected(proxy) as (reader, _):
            await reader.readuntil(b"data: 1")
        await soon(upstream.left)
        await no_connection_left(proxy)
    [line] = [line for line in lines if "ended" in line]
    assert (line["ended"], line["log_level"]) == ("client_left", "info")


BREAKS = {
    "chunks without an end": CHUNKED + b"9\r\ndata: 1\n\n\r\n",
    "half a chunk": CHUNKED + b"ff\r\ndata: 1\n\n",
    "a short body": STREAM + b"Content-Length: 100\r\n\r\ndata: 1\n\n",
}


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize("answer", BREAKS.values(), ids=BREAKS)
async def test_an_upstream_that_breaks_off_cuts_the_client(
    start: Start, answer: bytes, is_reset: bool
) -> None:
    """No last chunk, and no second head is ever written into the stream."""
    has_begun = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_call(reader, writer)
        writer.write(answer)
        await has_begun.wait()
        if is_reset:
            reset(writer)

    async with raw(script) as base:
        proxy = await start(UPSTREAM=base)
        async with connected(proxy) as (reader, _):
            got = await reader.readuntil(b"data: 1\n\n")
            has_begun.set()
            async with asyncio.timeout(DEADLINE_SECONDS):
                got += await reader.read()
    assert got.count(b"HTTP/1.1") == 1
    assert not got.endswith(b"0\r\n\r\n")


async def test_a_reset_is_not_the_end_of_a_body_without_a_length(start: Start) -> None:
    has_begun = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_call(reader, writer)
        writer.write(STREAM + b"Connection: close\r\n\r\ndata: 1\n\n")
        await has_begun.wait()
        reset(writer)

    async with raw(script) as base:
        proxy = await start(UPSTREAM=base)
        async with proxy.post() as answer:
            assert await answer.content.readany() == b"data: 1\n\n"
            has_begun.set()
            with pytest.raises(CUT):
                await answer.read()


async def test_a_body_that_ends_with_the_connection_is_whole(start: Start) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_call(reader, writer)
        writer.write(STREAM + b"Connection: close\r\n\r\ndata: 1\n\n")

    async with raw(script) as base:
        proxy = await start(UPSTREAM=base)
        async with proxy.post() as answer:
            assert await answer.read() == b"data: 1\n\n"


async def test_an_old_client_gets_the_stream_without_chunks(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    upstream.answer = streaming([b"data: 1\n\n", b"data: 2\n\n"])
    async with connected(proxy, "1.0") as (reader, _):
        async with asyncio.timeout(DEADLINE_SECONDS):
            head, _, body = (await reader.read(65_536) + await reader.read()).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert body == b"data: 1\n\ndata: 2\n\n"


async def test_an_old_client_sees_a_break_as_a_reset(start: Start) -> None:
    """Without chunks the connection's end is the body's end: a plain close would look whole."""
    has_begun = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_call(reader, writer)
        writer.write(BREAKS["half a chunk"])
        await has_begun.wait()

    async with raw(script) as base:
        proxy = await start(UPSTREAM=base)
        async with connected(proxy, "1.0") as (reader, _):
            await reader.readuntil(b"data: 1\n\n")
            has_begun.set()
            with pytest.raises(ConnectionResetError):
                async with asyncio.timeout(DEADLINE_SECONDS):
                    await reader.read()


async def no_upstream_connection_held(proxy: Proxy) -> None:
    """Waits until every upstream connection is closed or back in the pool."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while proxy.service.assembly.pools.of(proxy.upstream.base_url).in_use:
            await asyncio.sleep(0.01)


async def test_a_client_that_leaves_at_any_moment_holds_no_connection(
    start: Start, upstream: FakeUpstream
) -> None:
    proxy = await start(RATE_LIMIT="off", MAX_IN_FLIGHT="1000")
    upstream.answer = streaming([b"data: %d\n\n" % number for number in range(5)])
    for steps in range(60):
        async with connected(proxy):
            for _ in range(steps):
                await asyncio.sleep(0)
    await in_flight(proxy, 0)
    await no_upstream_connection_held(proxy)
    async with proxy.post() as answer:
        assert (await answer.read()).startswith(b"data: 0")


async def test_a_client_that_leaves_behind_a_large_body_holds_no_connection(
    start: Start, upstream: FakeUpstream
) -> None:
    """Reading pauses for large bodies, so that its going could not be seen."""
    asked = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    upstream.answer = silent
    proxy = await start()
    body = json.dumps(BODY | {"messages": [{"role": "user", "content": "x" * 1_000_000}]}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for _ in range(5):
        asked.clear()
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await soon(asked)
        writer.transport.abort()
        await in_flight(proxy, 0)
    await no_upstream_connection_held(proxy)


async def test_a_client_that_leaves_while_a_second_key_is_tried_holds_no_connection(
    start: Start, upstream: FakeUpstream
) -> None:
    second_asked = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if "first" in request.headers["Authorization"]:
            return web.json_response({"error": {"message": "x" * 100_000}}, status=402)
        second_asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    upstream.answer = answer
    keys = ",".join(f"sk-or-v1-{name}-{'0123456789abcdef' * 3}" for name in ("first", "second"))
    proxy = await start(OPENROUTER_API_KEY=keys)
    async with connected(proxy):
        await soon(second_asked)
    await soon(upstream.left)
    await in_flight(proxy, 0)
    await no_upstream_connection_held(proxy)


async def test_a_client_that_leaves_behind_queued_calls_is_noticed(
    start: Start, upstream: FakeUpstream
) -> None:
    """Reading pauses for the queue, so that its going cannot be seen."""

    upstream.answer = silent
    proxy = await start(HEADER_TIMEOUT="200ms")
    body = json.dumps(BODY).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    call = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(call + b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
    await upstream.arrived.wait()
    writer.close()
    async with asyncio.timeout(5):
        await upstream.left.wait()
