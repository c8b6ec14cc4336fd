"""A small real upstream for tests: it records what reached it and answers as it is told.

``answer`` is an aiohttp handler that a test may replace; ``raw`` serves byte scripts for
answers that no HTTP library would write.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from tests.loopback import listening

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
WIRE_HEADERS = {
    "cf-ray": "9exampleexample-FRA",
    "X-Generation-Id": "gen-1790981416-AbCdEfGhIjKlMnOpQrSt",
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "X-Generation-Id",
    "Set-Cookie": "__cf_bm=EXAMPLE-not-a-real-cookie; HttpOnly",
    "Server": "cloudflare",
    "X-Accel-Redirect": "/internal",
}
COMPLETION = {
    "id": "gen-1",
    "object": "chat.completion",
    "model": "openai/gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Grüße"}}],
    "usage": {"prompt_tokens": 14, "completion_tokens": 6, "cost": 0.000088},
}
MODELS = {
    "data": [
        {"id": "openai/gpt-4o-mini", "name": "Mini", "pricing": {"prompt": "0.00000015"}},
        {"id": "openai/gpt-4o", "name": "4o", "pricing": {"prompt": "0.0000025"}},
        {"id": "anthropic/claude-sonnet-4", "name": "Sonnet", "pricing": {"prompt": "0.000003"}},
    ],
    "total_count": 3,
    "links": {"next": None},
}


@dataclass(frozen=True)
class Seen:
    method: str
    target: str
    headers: Any
    body: bytes


@dataclass
class FakeUpstream:
    """What reached the upstream, and what it answers next."""

    base_url: str = ""
    calls: list[Seen] = field(default_factory=list)
    catalogue: list[Seen] = field(default_factory=list)
    inspected: list[Seen] = field(default_factory=list)
    answer: Handler | None = None
    key_report: dict[str, Any] = field(default_factory=lambda: {"label": "sk-or-v1-tes...est"})
    key_status: int = 200
    key_answer: Handler | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = request._read_bytes = await request.content.read()  # request.read() has a limit
        seen = Seen(request.method, request.raw_path, request.headers.copy(), body)
        if request.path == "/api/v1/key":
            self.inspected.append(seen)
            if self.key_answer is not None:
                return await self.key_answer(request)
            return web.json_response({"data": self.key_report}, status=self.key_status)
        if request.method == "GET":
            self.catalogue.append(seen)
        else:
            self.calls.append(seen)
        self.arrived.set()
        try:
            if self.answer is not None:
                return await self.answer(request)
            return self.catalogue_answer(request) if request.method == "GET" else completion()
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise

    def catalogue_answer(self, request: web.Request) -> web.Response:
        if request.path == "/api/v1/models":
            return web.json_response(MODELS)
        return web.json_response({"data": {"id": "openai/gpt-4o-mini", "endpoints": []}})


def completion() -> web.Response:
    return web.Response(
        body=json.dumps(COMPLETION).encode(),
        headers={**WIRE_HEADERS, "Content-Type": "application/json"},
    )


async def event_stream(request: web.Request, **headers: str) -> web.StreamResponse:
    """An open event stream; the caller writes to it."""
    response = web.StreamResponse(
        headers={**WIRE_HEADERS, "Content-Type": "text/event-stream", **headers}
    )
    await response.prepare(request)
    return response


def streaming(until: asyncio.Event, *more: bytes) -> Handler:
    """Answers with an event, and with ``more`` when the time has come."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        await response.write(b"data: 1\n\n")
        await until.wait()
        for piece in more:
            await response.write(piece)
        return response

    return answer


async def begun(request: web.Request) -> web.StreamResponse:
    """Answers with an event, and then with nothing."""
    return await streaming(asyncio.Event())(request)


async def silent(request: web.Request) -> web.StreamResponse:
    """Never answers."""
    await asyncio.Event().wait()
    raise AssertionError


Fake = TypeVar("Fake", bound=FakeUpstream)


@asynccontextmanager
async def serving(
    fake: Fake, trust: ssl.SSLContext | None = None, at: socket.socket | None = None
) -> AsyncIterator[Fake]:
    """``fake`` on loopback, over TLS when given what to serve it with. ``at``: a socket of a
    loopback elsewhere."""
    async with listening(fake.handle, at, ssl_context=trust) as port:
        scheme = "http" if trust is None else "https"
        fake.base_url = f"{scheme}://127.0.0.1:{port}/api/v1"
        yield fake


RawScript = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw(script: RawScript) -> AsyncIterator[str]:
    """The base URL of an upstream that runs ``script`` on every connection, byte by byte."""
    tasks: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(reader, writer)
        except (ConnectionError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One whole request with a Content-Length, or the head of one without."""
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + await reader.readexactly(int(line.partition(b":")[2]))
    return head


async def read_call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The next call for a byte script; the background question about the key is refused first."""
    while True:
        request = await read_request(reader)
        if not request.startswith(b"GET /api/v1/key "):
            return request
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def replying(*pieces: bytes, then_close: bool = True) -> RawScript:
    """A script that answers every call with ``pieces``, each written on its own."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_call(reader, writer)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if then_close:
                return

    return script
