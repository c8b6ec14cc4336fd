"""Whose wait it was: what the line of a slow call says of ours, the upstream's and the client's.

Each test makes one of them wait for ``WAIT`` at least, and looks where that stands.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web

from keyproxy import logs
from tests.conftest import BODY, CHAT, KEY, Proxy, Start
from tests.fake_upstream import FakeUpstream, begun, completion, event_stream, raw, read_call

WAIT = 0.08
WAIT_MS = WAIT * 1000 - 1  # the loop's clock may ring early by its resolution


@pytest.fixture
def lines() -> Iterator[Any]:
    """Reads the lines of calls so far."""
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    yield lambda: [
        line for text in stream.getvalue().splitlines() if "total_ms" in (line := json.loads(text))
    ]
    structlog.reset_defaults()


async def test_a_pause_in_the_answer_is_the_upstreams(
    lines: Any, proxy: Proxy, upstream: FakeUpstream
) -> None:
    has_come = asyncio.Event()

    async def halting(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        await response.write(b"data: {}\n\n")
        await has_come.wait()
        await asyncio.sleep(WAIT)
        await response.write(b"data: [DONE]\n\n")
        return response

    upstream.answer = halting
    async with proxy.post(BODY | {"stream": True}) as answer:
        await answer.content.readany()
        has_come.set()
        await answer.read()
    [line] = lines()
    assert line["longest_gap_ms"] >= WAIT_MS
    rest = line["queue_ms"] + line["connect_ms"] + line["client_ms"]
    assert rest <= line["total_ms"] - line["longest_gap_ms"] + 0.4


async def test_a_stream_that_stalls_says_for_how_long_the_upstream_was_silent(
    lines: Any, start: Start, upstream: FakeUpstream
) -> None:
    upstream.answer = begun
    proxy = await start(IDLE_TIMEOUT="200ms")
    with pytest.raises(aiohttp.ClientPayloadError):
        async with proxy.post(BODY | {"stream": True}) as answer:
            await answer.read()
    [line] = lines()
    assert line["ended"] == "stalled"
    assert line["longest_gap_ms"] >= 199


async def test_a_slow_upload_is_the_clients(lines: Any, proxy: Proxy) -> None:
    async def dripping() -> AsyncIterator[bytes]:
        text = json.dumps(BODY).encode()
        yield text[:10]
        while not any(record.endpoint for record in proxy.service._open_records()):
            await asyncio.sleep(0.001)
        await asyncio.sleep(WAIT)  # while the body is waited for
        yield text[10:]

    headers = {"Content-Type": "application/json"}
    async with proxy.session.post(proxy.url + CHAT, data=dripping(), headers=headers) as answer:
        assert answer.status == 200
    [line] = lines()
    assert line["client_ms"] >= WAIT_MS
    assert line["queue_ms"] <= line["first_byte_ms"] - line["client_ms"] + 0.2


async def test_a_body_that_does_not_come_is_the_clients(
    lines: Any, start: Start, upstream: FakeUpstream
) -> None:
    proxy = await start(BODY_TIMEOUT="80ms")
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert b"408" in await proxy.raw(f"{head}Content-Length: 9\r\n\r\n".encode())
    [line] = lines()
    assert (line["code"], line.get("queue_ms")) == ("body_timeout", None)
    assert line["client_ms"] >= WAIT_MS
    assert not upstream.calls


async def test_a_client_that_takes_its_answer_slowly_is_waited_for(
    lines: Any, start: Start
) -> None:
    """The upstream has written it all long before."""
    size = 24 << 20  # more than all buffers on the way hold

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_call(reader, writer)
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {size}\r\n\r\n"
        )
        writer.write(head.encode() + b":" * size)
        await writer.drain()

    async with raw(script) as base_url:
        proxy = await start(UPSTREAM=base_url)
        async with proxy.post(BODY | {"stream": True}) as answer:
            await answer.content.readany()
            [connection], before = proxy.service._server.busy(), -1
            [record] = proxy.service._open_records()
            while not connection.is_behind or record.bytes_down != before:  # buffers fill
                before = record.bytes_down
                await asyncio.sleep(WAIT)
            while await answer.content.readany():
                pass
    [line] = lines()
    assert line["bytes"] == size
    assert line["client_ms"] >= WAIT_MS
    assert line["client_ms"] <= line["total_ms"]


async def test_each_key_that_is_tried_is_an_attempt(
    lines: Any, start: Start, upstream: FakeUpstream
) -> None:
    async def broke_once(request: web.Request) -> web.Response:
        if len(upstream.calls) == 1:
            return web.json_response({"error": {"code": 402, "message": "no"}}, status=402)
        return completion()

    upstream.answer = broke_once
    proxy = await start(OPENROUTER_API_KEY=f"{KEY},{KEY}2")
    async with proxy.post() as answer:
        assert answer.status == 200
    [line] = lines()
    assert (line["attempts"], line["provider"]) == (2, "openrouter")


async def test_what_never_went_up_has_no_attempt(
    lines: Any, start: Start, upstream: FakeUpstream
) -> None:
    proxy = await start("serve")
    async with proxy.post(BODY | {"model": "x/y"}) as answer:
        assert answer.status == 403
    [line] = lines()
    assert not {"attempts", "provider", "queue_ms", "connect_ms", "generation_id"} & set(line)
    assert not upstream.calls


async def test_without_a_connection_there_is_an_attempt_and_no_time_to_connect(
    lines: Any, start: Start
) -> None:
    proxy = await start(UPSTREAM="http://127.0.0.1:9/api/v1")
    async with proxy.post() as answer:
        assert answer.status == 502
    [line] = lines()
    assert line["attempts"] == 1
    assert "queue_ms" in line
    assert "connect_ms" not in line


async def test_an_id_in_the_stream_alone_is_in_the_line(
    lines: Any, proxy: Proxy, upstream: FakeUpstream
) -> None:
    async def streaming(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"id":"gen-1790981416-AbCdEfGhIjKlMnOpQrSt"}\n\n')
        return response

    upstream.answer = streaming
    async with proxy.post(BODY | {"stream": True}) as answer:
        await answer.read()
    [line] = lines()
    assert line["generation_id"] == "gen-1790981416-AbCdEfGhIjKlMnOpQrSt"
