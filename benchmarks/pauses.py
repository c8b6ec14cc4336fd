"""For how long garbage collections stop everything, with and without what `server/process.py` does.

    python benchmarks/pauses.py [--seconds 60] [--streams 300] [--reloads 200]

keyproxy runs in this process, upstream and clients in another: each stream has twenty events, one
in 300 ms, then its client calls again. Both ways take turns, twice each. An event's time is from
the upstream's write to its client's read. Then the settings are reloaded while the streams go on.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from keyproxy import logs
from keyproxy.server.process import HEAP_PAUSE_SECONDS, Heap
from keyproxy.server.service import Service, running
from keyproxy.settings import Settings

KEY = "sk-or-v1-benchmark-" + "0123456789abcdef" * 4
EVENTS, GAP_SECONDS = 20, 0.3
FORCED = 3  # full collections after each turn, since few come by themselves
CALL = b'{"model":"openai/gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"x"}]}'
HEAD = (
    b"POST /api/v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(CALL)
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while head := await reader.readuntil(b"\r\n\r\n"):
        if head.startswith(b"GET"):
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            continue
        await reader.readexactly(len(CALL))
        writer.write(ANSWER)
        for _ in range(EVENTS):
            await asyncio.sleep(GAP_SECONDS)
            now = time.perf_counter()
            text = b'data: {"t":%.6f,"choices":[{"delta":{"content":"word "}}]}\n\n' % now
            writer.write(b"%x\r\n%s\r\n" % (len(text), text))
        writer.write(b"0\r\n\r\n")


async def client(port: int, delay: float, seen: list[float]) -> None:
    await asyncio.sleep(delay)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        writer.write(HEAD + CALL)
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        while line := await reader.readline():
            if line.startswith(b'data: {"t":'):
                seen.append(time.perf_counter() - float(line[11:].partition(b",")[0]))
            if line == b"0\r\n":
                await reader.readline()
                break


async def other(streams: int) -> None:
    """The process of upstream and clients; a line on its standard input asks for the figures."""
    gc.disable()
    server = await asyncio.start_server(upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    port = int(await asyncio.to_thread(sys.stdin.readline))
    seen: list[float] = []
    length = EVENTS * GAP_SECONDS
    tasks = [asyncio.create_task(client(port, length * n / streams, seen)) for n in range(streams)]
    while tasks and await asyncio.to_thread(sys.stdin.readline):
        each = sorted(seen)
        seen.clear()
        gc.collect()
        at = [each[int(len(each) * share)] * 1000 for share in (0.5, 0.99, 0.999)] if each else []
        print(len(each), *at, *(1000 * longest for longest in each[-1:]), flush=True)
    os._exit(0)  # the streams go on


class Pauses:
    """How long full collections took, in CPU time of their thread: others may use the machine."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._begun = 0.0
        gc.callbacks.append(self._look)

    def _look(self, phase: str, about: dict[str, int]) -> None:
        if about["generation"] == 2:
            if phase == "start":
                self._begun = time.thread_time()
            else:
                self.seconds.append(time.thread_time() - self._begun)


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


async def reload(service: Service, environ: dict[str, str], count: int) -> None:
    """Settings that differ each time; the heap is looked at after each, as if minutes passed."""
    minutes = iter(range(10**6))
    heap = Heap(lambda: next(minutes) * HEAP_PAUSE_SECONDS)
    for number in range(count + 1):
        if number % (count // 4) == 0:
            print(f"after {number:3} reloads  {resident_mib():6.1f} MiB resident", flush=True)
        service.apply(
            Settings.from_environ("dev", {**environ, "KEYPROXY_MAX_TOKENS": f"{number + 1}"})
        )
        heap.reloaded()
        await asyncio.sleep(0.1)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--streams", type=int, default=300)
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument("--other", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.other:
        await other(given.streams)
        return
    logs.configure("json", "error")
    program = [sys.executable, __file__, "--other", "--streams", str(given.streams)]
    pipe: Any = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    port = (await process.stdout.readline()).decode().strip()
    environ = {
        "OPENROUTER_API_KEY": KEY,
        "KEYPROXY_UPSTREAM": f"http://127.0.0.1:{port}/api/v1",
        "KEYPROXY_LISTEN": "127.0.0.1:0",
        "KEYPROXY_LEDGER": str(Path(tempfile.mkdtemp()) / "ledger.sqlite3"),
        "KEYPROXY_RATE_LIMIT": "off",
        "KEYPROXY_MAX_IN_FLIGHT": "1000",
    }
    async with running(Settings.from_environ("dev", environ)) as service:
        process.stdin.write(service.addresses[0].rpartition(":")[2].encode() + b"\n")
        pauses, usual = Pauses(), gc.get_threshold()
        await asyncio.sleep(5)
        for is_set_apart in (False, True) * 2:
            gc.unfreeze()
            gc.collect()
            if is_set_apart:
                Heap()
            else:
                gc.set_threshold(*usual)
            await asyncio.sleep(1)  # what that held up is no part of the turn
            process.stdin.write(b"\n")
            await process.stdout.readline()
            pauses.seconds.clear()
            await asyncio.sleep(given.seconds)
            process.stdin.write(b"\n")
            count, *times = (await process.stdout.readline()).split()
            own = len(pauses.seconds)
            for _ in range(FORCED):
                gc.collect()
            longest = max(pauses.seconds, default=0) * 1000
            p50, p99, p999, most = map(float, times)
            print(
                f"{'set apart' if is_set_apart else 'as it was'}  {own:3} full collections by"
                f" themselves; one takes {longest:5.1f} ms   {int(count)} events: p50 {p50:.1f},"
                f" p99 {p99:.1f}, p99.9 {p999:.1f}, longest {most:.1f} ms",
                flush=True,
            )
        await reload(service, environ, given.reloads)
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    asyncio.run(main())
