"""CPU time per call and per event: keyproxy beside a naive aiohttp proxy, in turn, in one run.

    python benchmarks/calls.py [--rounds 3] [--calls 4000] [--streams 50] [--events 200]

Upstream and clients live in this process, each proxy in one of its own; only the proxy's CPU
time is counted (Linux: /proc). Loopback, plain HTTP. An event is sent when the one before has
arrived, so that none is merged with another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

HERE = Path(__file__).parent
KEY = "sk-or-v1-benchmark-" + "0123456789abcdef" * 4
CONNECTIONS = 32
DEADLINE_SECONDS = 240.0
WITH = (", logging", ", ledger", ", both")
TEXT = "Say something about Köln. " * 36
BODY = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": TEXT}]}
USAGE = {"prompt_tokens": 200, "completion_tokens": 100, "total_tokens": 300, "cost": 0.00009}
CHOICES = [{"message": {"content": "x" * 500}}]
GENERATION = "gen-1790981416-0123456789abcdefghij"
ANSWER_SECONDS, SLOWLY = 0.2, "Take your time."  # for its answer; the text that asks for it
ANSWER = json.dumps({"id": GENERATION, "choices": CHOICES, "usage": USAGE}).encode()
PRICING = {"prompt": "0.00000015", "completion": "0.0000006"}
MODELS = json.dumps({"data": [{"id": BODY["model"], "pricing": PRICING}]}).encode()
EVENT = b'data: {"id":"gen-%06d","choices":[{"delta":{"content":"' + b"x" * 240 + b'"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


class Upstream(asyncio.Protocol):
    """One connection: JSON at once; a stream's next event when ``step`` is called."""

    streams: dict[int, Upstream] = {}  # noqa: RUF012  (one table for all)
    events_per_stream = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, end, body = self.data.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if not end or len(body) < int(length or 0):
            return
        self.data = b""
        if head.startswith(b"GET "):  # the public list of models, without the key
            is_list = head.startswith(b"GET /api/v1/models?")
            found, said = (b"200 OK", MODELS) if is_list else (b"404 Not Found", b"")
            top = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n" % found
            self.transport.write(top + b"Content-Length: %d\r\n\r\n" % len(said) + said)
            return
        if KEY.encode() not in head:
            sys.exit("the proxy did not send the key")
        kind = b"text/event-stream" if b'"stream": true' in body else b"application/json"
        top = b"HTTP/1.1 200 OK\r\nX-Generation-Id: " + GENERATION.encode()
        top += b"\r\nContent-Type: " + kind
        if kind == b"application/json":
            answer = top + b"\r\nContent-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER
            wait = ANSWER_SECONDS if SLOWLY.encode() in body else 0
            asyncio.get_running_loop().call_later(wait, self.transport.write, answer)
            return
        self.number = len(self.streams)
        self.streams[self.number] = self
        self.left = self.events_per_stream
        self.transport.write(top + b"\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.step()

    def step(self) -> None:
        self.left -= 1
        event = EVENT % self.number if self.left >= 0 else DONE
        end = b"" if self.left >= 0 else b"0\r\n\r\n"
        self.transport.write(b"%x\r\n%b\r\n" % (len(event), event) + end)


def request(port: int, *, is_streaming: bool, is_slow: bool = False) -> bytes:
    more = {"stream": is_streaming, **({"user": SLOWLY} if is_slow else {})}
    body = json.dumps({**BODY, **more}).encode()
    head = (
        f"POST /api/v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Accept: application/json\r\nAccept-Language: de\r\nAuthorization: Bearer none\r\n"
        "Origin: https://app.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def make_calls(
    port: int, count: int, connections: int = CONNECTIONS, *, is_slow: bool = False
) -> list[float]:
    """``count`` calls over a few keep-alive connections, each waiting for its answer; the
    milliseconds that each took. Slow ones come at odd moments."""
    sent = request(port, is_streaming=False, is_slow=is_slow)
    waits: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(count // connections):
            if is_slow:
                await asyncio.sleep(random.uniform(0, ANSWER_SECONDS))  # noqa: S311 (no secret)
            began = time.perf_counter()
            writer.write(sent)
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.partition(b"\r\n")[0]:
                sys.exit(f"the proxy answered {head.decode()}")
            is_chunked = b"chunked" in head.lower()
            await reader.readuntil(b"\r\n0\r\n\r\n" if is_chunked else ANSWER[-20:])
            waits.append((time.perf_counter() - began) * 1000)
        writer.close()

    await asyncio.gather(*(client() for _ in range(connections)))
    return waits


async def make_streams(port: int, count: int) -> None:
    sent = request(port, is_streaming=True)

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        data = b""
        while DONE not in data:
            data += await reader.read(65_536)
            place = data.find(b'data: {"id":"gen-')
            if place >= 0 and (end := data.find(b"}\n\n", place)) >= 0:
                number = int(data[place + 17 : place + 23])
                data = data[end:]
                Upstream.streams[number].step()
        writer.close()

    Upstream.streams.clear()
    await asyncio.gather(*(client() for _ in range(count)))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def proxy(name: str, upstream: str, port: int, directory: str) -> AsyncIterator[int]:
    """A running proxy's pid."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(HERE.parent),
        "OPENROUTER_API_KEY": KEY,
        "KEYPROXY_UPSTREAM": f"{upstream}/api/v1",
        "KEYPROXY_LISTEN": f"127.0.0.1:{port}",
        "KEYPROXY_ALLOWED_HOSTS": "127.0.0.1",
        "KEYPROXY_ALLOWED_ORIGINS": "https://app.example",
        "KEYPROXY_ALLOWED_MODELS": "openai/*",
        "KEYPROXY_CLIENT_AUTH": "none",
        "KEYPROXY_TRUSTED_PROXIES": "none",
        "KEYPROXY_RATE_LIMIT": "1000000/minute;100000000/day",
        "KEYPROXY_MAX_IN_FLIGHT": "100000",
        "KEYPROXY_LOG_LEVEL": "warning",
        "KEYPROXY_TOTAL_BUDGET": "off",
        "KEYPROXY_LEDGER": "off",
    }
    ledger = str(Path(directory, f"{port}.sqlite3"))
    serve = ["-m", "keyproxy", "serve"]
    budgets = ["--budget", "1000/day", "--total-budget", "100000/day"]
    command = {
        "naive": [str(HERE / "naive.py"), str(port), upstream, KEY],
        "keyproxy": serve,
        "keyproxy, logging": [*serve, "--log-level", "info"],
        "keyproxy, ledger": [*serve, "--ledger", ledger],
        "keyproxy, both": [*serve, *budgets, "--ledger", ledger],
    }[name]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=directory, env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(15):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
        yield process.pid
    finally:
        process.kill()
        await process.wait()


async def measured(pid: int, count: int, load: Callable[[], Awaitable[object]]) -> float:
    """Microseconds of the proxy's CPU time for each of ``count`` things."""
    before = cpu_seconds(pid)
    await load()
    return (cpu_seconds(pid) - before) / count * 1e6


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def run(rounds: int, calls: int, streams: int, events: int) -> None:
    Upstream.events_per_stream = events
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    upstream = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    names = ("naive", *(f"keyproxy{what}" for what in ("", *WITH)))
    per_call: dict[str, list[float]] = {name: [] for name in names}
    per_event: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(rounds):
            for name in names:
                port = free_port()
                async with proxy(name, upstream, port, directory) as pid:
                    await make_calls(port, 500)
                    cost = await measured(pid, calls, lambda p=port: make_calls(p, calls))  # type: ignore[misc]
                    per_call[name].append(cost)
                    cost = await measured(
                        pid,
                        streams * events,
                        lambda p=port: make_streams(p, streams),  # type: ignore[misc]
                    )
                    per_event[name].append(cost)
    for what, costs in (("1-KB call", per_call), ("streamed event", per_event)):
        base = statistics.median(costs["naive"])
        for name in names:
            middle = statistics.median(costs[name])
            all_of_them = " ".join(f"{cost:.0f}" for cost in sorted(costs[name]))
            print(
                f"{what:15} {name:18} {middle:7.1f} us CPU  x{middle / base:.2f}  ({all_of_them})"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=4_000)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--events", type=int, default=200)
    asked = parser.parse_args()

    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await run(asked.rounds, asked.calls, asked.streams, asked.events)

    asyncio.run(bounded())
