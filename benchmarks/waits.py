"""How long a call takes with a ledger and with budgets, beside one without, in one run.

    python benchmarks/waits.py [--rounds 7] [--calls 1500] [--folder /where/the/disk/is]

Wall time, since a call waits for its row. Upstream, clients and each keyproxy are processes of
their own; the keyproxies run all the time and are called in turn: one call at a time; 32 at once
to an upstream that takes 0.2 s, at odd moments; and 32 at once, each as fast as the one before
was answered. The last is a full load: its p50 is 32 divided by the throughput, so that booking
adds 32 times its own CPU time. Figures are medians of the rounds, differences and ratios those
within a round.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from calls import CONNECTIONS, Upstream, cpu_seconds, free_port, make_calls, proxy

NAMES = ("keyproxy", "keyproxy, ledger", "keyproxy, both")
DEADLINE_SECONDS = 600.0


class Figures(NamedTuple):
    """Of one round: milliseconds, calls a second, and microseconds of CPU time for a call."""

    p50: float
    p99: float
    rate: float
    cpu: float


class Load(NamedTuple):
    """``part``: such a part of all calls is made in a round."""

    name: str
    at_once: int
    part: int
    is_slow: bool = False


LOADS = (
    Load("1 at once", 1, 4),
    Load(f"{CONNECTIONS}, each 0.2 s", CONNECTIONS, 4, is_slow=True),
    Load(f"{CONNECTIONS}, full load", CONNECTIONS, 1),
)


async def serve_upstream(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


@asynccontextmanager
async def upstream() -> AsyncIterator[str]:
    """The address of an upstream in a process of its own."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--upstream", str(port)
    )
    try:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                break
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


async def measure(pid: int, port: int, calls: int, load: Load) -> Figures:
    cpu, began = cpu_seconds(pid), time.perf_counter()
    waits = await make_calls(port, calls // load.part, load.at_once, is_slow=load.is_slow)
    took, cpu = time.perf_counter() - began, cpu_seconds(pid) - cpu
    cuts = statistics.quantiles(waits, n=100)
    return Figures(cuts[49], cuts[98], len(waits) / took, cpu / len(waits) * 1e6)


def show(load: Load, rounds: Sequence[dict[str, Figures]]) -> None:
    columns = f"{'p50':>9} {'more':>10} {'p99':>6} {'calls/s':>13} {'CPU':>15}"
    print(f"{load.name:18} {columns}")
    for name in NAMES:
        own = [(each[name], each[NAMES[0]]) for each in rounds]

        def middle(values: list[float]) -> float:
            return statistics.median(values)

        print(
            f"{name:18} {middle([f.p50 for f, _ in own]):6.2f} ms"
            f" {middle([f.p50 - base.p50 for f, base in own]):+7.2f} ms"
            f" {middle([f.p99 for f, _ in own]):6.1f}"
            f" {middle([f.rate for f, _ in own]):7.0f}"
            f" x{middle([f.rate / base.rate for f, base in own]):.2f}"
            f" {middle([f.cpu for f, _ in own]):6.0f} us"
            f" x{middle([f.cpu / base.cpu for f, base in own]):.2f}"
        )


async def run(rounds: int, calls: int, folder: Path | None) -> None:
    found: dict[Load, list[dict[str, Figures]]] = {load: [] for load in LOADS}
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(dir=folder))
        address = await stack.enter_async_context(upstream())
        running = {}
        for name in NAMES:
            port = free_port()
            pid = await stack.enter_async_context(proxy(name, address, port, directory))
            running[name] = pid, port
            await make_calls(port, 320)
        for number in range(rounds):
            for load in LOADS:
                turn = NAMES if number % 2 else NAMES[::-1]
                found[load].append(
                    {name: await measure(*running[name], calls, load) for name in turn}
                )
    for load, each in found.items():
        show(load, each)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=1_500)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()

    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await run(asked.rounds, asked.calls, asked.folder)

    asyncio.run(bounded() if asked.upstream is None else serve_upstream(asked.upstream))
