"""For how long keyproxy's event loop is held up while it serves, beside a loop that does nothing.

    python benchmarks/compare.py --only pauses --seconds 300

100 calls a second and 300 streams, with everything on. A timer on the loop is due each 2 ms; how
late it comes is what every call, stream and timer would have waited. The loop that does nothing is
a process of its own on the same core: what it sees is the machine and the others on it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from bisect import bisect_right
from contextlib import AsyncExitStack
from typing import Any

from load import Load
from peers import Peer, Place, environment, free_port

from keyproxy import logs
from keyproxy.server import memory
from keyproxy.server.memory import Heap
from keyproxy.server.service import running
from keyproxy.settings import Settings

TICK_SECONDS = 0.002
RATE, STREAMS, PACE, EVENTS = 100.0, 300, 0.3, 20
BOUNDS_MS = (1, 2, 5, 10, 20, 50)  # a timer is up to 1 ms late by itself: epoll's is rounded up


async def watch() -> None:
    """Look until a line comes in, then say how often it was how late; and so on."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), lambda: (os.read(0, 100) and asked.set()) or None)
    counts, longest = [0] * (len(BOUNDS_MS) + 1), 0.0
    while True:
        due = loop.time() + TICK_SECONDS
        await asyncio.sleep(TICK_SECONDS)
        late = (loop.time() - due) * 1000
        counts[bisect_right(BOUNDS_MS, late)] += 1
        longest = max(longest, late)
        if asked.is_set():
            asked.clear()
            print(json.dumps({"counts": counts, "longest_ms": longest}), flush=True)
            counts, longest = [0] * len(counts), 0.0


async def serve() -> None:
    """As ``keyproxy serve`` does, with one more timer."""
    logs.configure("json", "info")
    memory.give_back_large_blocks()
    async with running(Settings.from_environ("serve", os.environ)):
        Heap()
        await watch()


class Watched:
    """A process with a loop that is watched."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        said: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return said


async def measure(work: Load, place: Place, seconds: float) -> dict[str, Any]:
    base, port = work.base_tls or work.base, free_port()
    async with AsyncExitStack() as stack:
        watched: dict[str, Watched] = {}
        log = stack.enter_context((place.folder / "pauses.log").open("wb"))
        for name in ("idle", "keyproxy"):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, __file__, name),
                cwd=place.folder,
                env=environment(base, place, port),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
            stack.push_async_callback(process.wait)
            stack.callback(process.kill)
            if place.core is not None:
                os.sched_setaffinity(process.pid, {place.core})
            watched[name] = Watched(process)
            await watched[name].ask()
        peer = Peer(port, process.pid)
        async with work.streaming(port, STREAMS, PACE, EVENTS), work.calling_at(port, RATE):
            await asyncio.sleep(2)
            for each in watched.values():
                await each.ask()
            began = time.monotonic()
            seen = await work.window(peer.cpu, 0, seconds)
            found: dict[str, Any] = {name: await each.ask() for name, each in watched.items()}
        found |= {"seconds": time.monotonic() - began, "busy": seen.cpu / seconds}
    return {**found, "bounds_ms": BOUNDS_MS}


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1] == "keyproxy" else watch())
