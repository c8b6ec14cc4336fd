"""Each time limit is as long as it says: not before, and not by the sum of others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import BODY, CHAT, Proxy, Start, refused
from tests.fake_upstream import FakeUpstream, begun, raw, read_call, replying, silent

SECONDS = 0.4
SAID = "400ms"
SLACK_SECONDS = 4.0
"""For a busy machine; the default of every other limit is longer."""
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def taking_as_long_as_it_says(seconds: float = SECONDS) -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert seconds - 0.01 <= time.monotonic() - begun < seconds + SLACK_SECONDS


@contextmanager
def full_listener() -> Iterator[tuple[socket.socket, list[socket.socket]]]:
    """A listener whose backlog is full, and who fills it: the kernel leaves a connect pending."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        full.setblocking(False)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield full, fillers
        for filler in fillers:
            filler.close()


def base_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1"


async def test_connecting(start: Start) -> None:
    with full_listener() as (full, _):
        proxy = await start(UPSTREAM=base_of(full), CONNECT_TIMEOUT=SAID)
        with taking_as_long_as_it_says():
            async with proxy.post() as answer:
                await refused(answer, 504, "upstream_timeout")


async def test_the_first_byte(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = silent
    proxy = await start(FIRST_BYTE_TIMEOUT=SAID)
    for _ in range(2):
        with taking_as_long_as_it_says():
            async with proxy.post() as answer:
                await refused(answer, 504, "upstream_timeout")


async def test_the_first_byte_on_a_connection_that_is_used_again(start: Start) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_call(reader, writer)
        writer.write(OK)
        await reader.read()

    async with raw(once) as base:
        proxy = await start(UPSTREAM=base, FIRST_BYTE_TIMEOUT=SAID)
        async with proxy.post() as answer:
            assert answer.status == 200
        with taking_as_long_as_it_says():
            async with proxy.post() as answer:
                await refused(answer, 504, "upstream_timeout")


async def test_connecting_is_no_part_of_the_first_bytes_time(start: Start) -> None:
    """The kernel asks again after a second, which is longer than the first byte may take."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError):
            await replying(OK)(reader, writer)
        writer.close()

    with full_listener() as (full, fillers):
        proxy = await start(UPSTREAM=base_of(full), FIRST_BYTE_TIMEOUT=SAID)
        call = asyncio.create_task(status_of(proxy))
        counters = proxy.service.kit.default.admission.counters
        while not counters.in_flight:
            await asyncio.sleep(0.01)
        await asyncio.wait([call], timeout=2 * SECONDS)
        assert not call.done()
        for filler in fillers:
            filler.close()
        async with await asyncio.start_server(script, sock=full.dup()):
            assert await call == 200


async def status_of(proxy: Proxy) -> int:
    async with proxy.post() as answer:
        return int(answer.status)


async def test_a_stream_that_stands_still(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = begun
    proxy = await start(IDLE_TIMEOUT=SAID)
    with taking_as_long_as_it_says():
        async with proxy.post(BODY | {"stream": True}) as answer:
            await answer.content.readany()
            await upstream.left.wait()


@pytest.mark.parametrize(
    ("limit", "data"),
    [
        ("HEADER_TIMEOUT", b"GET /hea"),
        (
            "BODY_TIMEOUT",
            f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            "Content-Length: 9\r\n\r\n{".encode(),
        ),
        ("KEEPALIVE_TIMEOUT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ],
)
async def test_what_a_client_may_take(start: Start, limit: str, data: bytes) -> None:
    proxy = await start(**{limit: SAID})
    with taking_as_long_as_it_says():
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(data)
        async with asyncio.timeout(SECONDS + SLACK_SECONDS):
            if limit == "KEEPALIVE_TIMEOUT":
                await reader.read()
            else:
                assert b" 408 " in await reader.readline()
    writer.close()


@pytest.mark.parametrize("limit", ["SHUTDOWN_DELAY", "SHUTDOWN_GRACE"])
async def test_a_stop(start: Start, upstream: FakeUpstream, limit: str) -> None:
    upstream.answer = begun
    proxy = await start(**{"SHUTDOWN_GRACE": "0s", limit: SAID})
    async with proxy.post(BODY | {"stream": True}) as answer:
        await answer.content.readany()
        with taking_as_long_as_it_says():
            await proxy.service.drain()
