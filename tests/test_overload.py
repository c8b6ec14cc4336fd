"""What is refused when this process holds as much as it can: bodies, connections."""

from __future__ import annotations

import asyncio
import json

import pytest

from keyproxy.server import service
from keyproxy.transport.intake import SMALL_BYTES, Hold, Room
from tests import raw
from tests.conftest import BODY, CHAT, Proxy, Start, refused


def holding(proxy: Proxy, max_bytes: int) -> Room:
    """The proxy's room for bodies, made small."""
    room = proxy.service.kit.life.room
    room._free = max_bytes
    return room


async def test_more_bodies_than_fit_are_refused_and_the_room_is_given_back(proxy: Proxy) -> None:
    room = holding(proxy, 1_000)
    large = BODY | {"user": "x" * SMALL_BYTES}
    origin = {"Origin": "http://localhost:3000"}
    async with proxy.post(large, headers=origin) as answer:
        await refused(answer, 503, "overloaded")
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["Access-Control-Allow-Origin"] == origin["Origin"]
    assert proxy.upstream.calls == []
    assert room._free == 1_000
    async with proxy.post() as answer:
        assert answer.status == 200
    assert room._free == 1_000


async def test_small_bodies_fit_however_much_is_held(proxy: Proxy) -> None:
    room = holding(proxy, 0)
    async with proxy.post(BODY | {"user": "x" * 10_000}) as answer:
        assert answer.status == 200
    assert room._free == 0


async def test_a_body_that_has_come_needs_no_more_room_for_its_last_chunk(proxy: Proxy) -> None:
    large = json.dumps(BODY | {"user": "x" * SMALL_BYTES}).encode()
    room = holding(proxy, len(large))
    chunk = b"%x\r\n%b\r\n" % (len(large), large)
    async with await raw.Connection.open(proxy) as client:
        client.writer.write(raw.request("POST", CHAT, "Transfer-Encoding: chunked", body=chunk))
        async with asyncio.timeout(5):
            while room._free:
                await asyncio.sleep(0)
        with Hold(room) as small:
            small.add(1)
            client.writer.write(b"0\r\n\r\n")
            assert (await client.answer()).status == 200
    assert room._free == len(large)


async def test_a_body_that_stops_coming_gives_its_room_back(start: Start) -> None:
    proxy = await start(BODY_TIMEOUT="100ms")
    room = holding(proxy, 1_000)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    answer = await proxy.raw(head.encode() + b"Content-Length: 900\r\n\r\n" + b" " * 800)
    assert b"X-Keyproxy-Code: body_timeout" in answer
    assert room._free == 1_000


async def test_more_connections_than_fit_are_told_and_closed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "connection_limit", lambda: 2)
    proxy = await start()
    held = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(2)]
    answer = await proxy.raw(b"")
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"X-Keyproxy-Code: overloaded\r\n" in answer
    for _, writer in held:
        writer.close()
        await writer.wait_closed()
    async with asyncio.timeout(5):
        while (await proxy.raw(HEALTH)).startswith(b"HTTP/1.1 503"):
            pass
    assert proxy.upstream.calls == []


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
