"""CPU time to read usage off a stream: for each event, and beside what the relay spends on it.

    python benchmarks/usage.py [--rounds 9] [--events 3000]

The relay and the search for keys are keyproxy's own, between two sockets as in production, with
and without usage reading in turn; only the relay's thread is counted. An event is sent when the
one before has come through, so that none is merged with another. The ratio should stay below 1.1.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import socket
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable

from aiohttp import ClientResponse, ClientSession, web
from multidict import CIMultiDict

from keyproxy import dialects
from keyproxy.call import Head
from keyproxy.dialects import Dialect
from keyproxy.money.usage import UsageReader
from keyproxy.record import Record
from keyproxy.relay import relay
from keyproxy.settings import Secret
from keyproxy.upstream.headers import KeySearch
from keyproxy.upstream.send import Answer

TEXT = "x" * 240
USAGE = {"prompt_tokens": 14, "completion_tokens": 6, "total_tokens": 20, "cost": 8.8e-05}
CHUNK = {"id": "gen-1790981416-AbCdEfGhIjKlMnOpQrSt", "choices": [{"delta": {"content": TEXT}}]}
BLOCK = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}}
PART = {"type": "response.output_text.delta", "logprobs": [], "output_index": 0, "delta": TEXT}


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def stream(events: int) -> list[bytes]:
    """A chat answer as OpenRouter sends it: comments, text, a finish, usage, the end."""
    finish = {**CHUNK, "choices": [{"delta": {"content": ""}, "finish_reason": "stop"}]}
    end = [event(finish), event({**finish, "usage": USAGE}), b"data: [DONE]\n\n"]
    return [b": OPENROUTER PROCESSING\n\n"] * 2 + [event(CHUNK)] * (events - 5) + end


def unwatched(chunk: bytes) -> None:
    """Usage reading switched off."""


class Peers(threading.Thread):
    """Upstream and client in one: an event is sent when the one before has come out below."""

    def __init__(self, events: list[bytes], times: int) -> None:
        super().__init__()
        self.events, self.times = events, times
        self.upstream = socket.create_server(("127.0.0.1", 0))
        self.proxy_port = 0

    def run(self) -> None:
        for _ in range(self.times):
            with socket.create_connection(("127.0.0.1", self.proxy_port), 60) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                server, _ = self.upstream.accept()
                with server:
                    self.play(server, client)
        self.upstream.close()

    def play(self, server: socket.socket, client: socket.socket) -> None:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        server.recv(65_536)
        server.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        seen = b""
        for each in self.events:
            server.sendall(b"%x\r\n%b\r\n" % (len(each), each))
            while each not in seen:
                seen += client.recv(65_536)
            seen = b""
        server.sendall(b"0\r\n\r\n")
        while client.recv(65_536):
            pass


async def relayed(events: list[bytes], watches: list[Callable[[bytes], None]]) -> list[float]:
    """Microseconds of the proxy's thread for each event, one figure for each watcher."""
    costs: list[float] = []
    peers = Peers(events, len(watches))
    url = f"http://127.0.0.1:{peers.upstream.getsockname()[1]}/"

    async def chunks(reply: ClientResponse) -> AsyncIterator[bytes]:
        search = KeySearch([Secret("sk-or-v1-benchmark-" + "0123456789abcdef" * 4)])
        async for chunk in reply.content.iter_any():
            if out := search.feed(chunk):
                yield out

    async def handle(request: web.Request) -> web.StreamResponse:
        head = CIMultiDict({"Content-Type": "text/event-stream"})
        async with session.get(url) as reply:
            before = time.thread_time()
            answer = Answer(Head(200, "", None, "key"), head, None, chunks(reply))
            record = Record("GET", "/", watchers=[watches[len(costs)]])
            response = await relay(request, answer, record, idle_seconds=60)
            costs.append((time.thread_time() - before) / len(events) * 1e6)
            return response

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    peers.proxy_port = runner.addresses[0][1]
    async with ClientSession() as session:
        peers.start()
        await asyncio.to_thread(peers.join)
    await runner.cleanup()
    return costs


def per_event(style: Dialect, value: object, times: int) -> float:
    """Nanoseconds for each of many like events, each in a chunk of its own."""
    reader, chunk = UsageReader(style, is_event_stream=True), event(value)
    reader.watch(chunk)
    before = time.process_time()
    for _ in range(times):
        reader.watch(chunk)
    return (time.process_time() - before) / times * 1e9


def per_megabyte(body: bytes) -> float:
    """Milliseconds for each megabyte of a body that is no stream."""
    reader = UsageReader(dialects.IMAGES, is_event_stream=False)
    before = time.process_time()
    for at in range(0, len(body), 65_536):
        reader.watch(body[at : at + 65_536])
    assert reader.usage is not None
    return (time.process_time() - before) / len(body) * 1e9


def show_events(times: int) -> None:
    for name, style, value in (
        ("chat", dialects.CHAT, CHUNK),
        ("chat, usage: null", dialects.CHAT, {**CHUNK, "usage": None}),
        ("messages", dialects.MESSAGES, BLOCK),
        ("responses", dialects.RESPONSES, PART),
        ("chat, with usage", dialects.CHAT, {**CHUNK, "usage": USAGE}),
    ):
        cost = statistics.median(per_event(style, value, times) for _ in range(5))
        print(f"{name:20} {len(event(value)):>5} bytes  {cost:9.0f} ns CPU an event")


def show_bodies() -> None:
    image = base64.b64encode(random.Random(1).randbytes(8_000_000)).decode()  # noqa: S311
    vectors = [{"embedding": [0.0123456] * 1_536} for _ in range(300)]
    for name, data in (("10-MB image", [{"b64_json": image}]), ("5 MB of embeddings", vectors)):
        body = json.dumps({"data": data, "usage": USAGE}).encode()
        print(f"{name:20} {len(body):>9} bytes  {per_megabyte(body):5.2f} ms CPU a MB")


def show_relay(rounds: int, events: int) -> None:
    watches: list[Callable[[bytes], None]] = []
    for _ in range(rounds + 1):
        watches += [unwatched, UsageReader(dialects.CHAT, is_event_stream=True).watch]
    costs = asyncio.run(relayed(stream(events), watches))[2:]  # the first two warm up
    off, on = statistics.median(costs[::2]), statistics.median(costs[1::2])
    print(f"{'relay, unwatched':20} {off:9.2f} us CPU an event")
    print(f"{'relay, usage read':20} {on:9.2f} us CPU an event  x{on / off:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--events", type=int, default=3_000)
    asked = parser.parse_args()
    show_events(asked.events)
    show_bodies()
    show_relay(asked.rounds, asked.events)
