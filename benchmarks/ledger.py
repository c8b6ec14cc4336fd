"""How long a call waits for its row in the ledger, and how many rows a second fit.

    python benchmarks/ledger.py [--folder /where/the/disk/is] [--seconds 5]

Wall time, since it is about a disk. A call is ``begin``, ``note`` and ``complete``; only the
first is waited for. ``parallel`` is as fast as it goes: its waits are those of a full line.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path

from keyproxy.call import Cost, Head, Usage
from keyproxy.ledger.entry import Entry
from keyproxy.ledger.ledger import Ledger, opened
from keyproxy.record import Attempt, Record

RECORD = Record(
    "POST",
    "/x",
    answer=Head(200, "application/json", None, ""),
    usage=Usage(1200, 300, 0, reasoning_tokens=0),
    cost=Cost(Decimal("0.000088"), Decimal("0.000088"), "exact"),
)


async def call(ledger: Ledger, number: int) -> float:
    """Book one call; the milliseconds it waited."""
    at = time.time()
    attempt = Attempt(
        native_model="openai/gpt-4o-mini",
        key="sk-or-v1-abc...def",
        begun_at=at,
        reserved=Decimal("0.0123"),
    )
    entry = Entry(
        id=f"req_{number:024x}",
        at=at,
        app="default",
        client=f"192.0.2.{number % 250}",
        endpoint="POST /api/v1/chat/completions",
        models=("openai/gpt-4o-mini",),
        attempts=[attempt],
    )
    before = time.perf_counter()
    assert await ledger.begin(entry)
    waited = (time.perf_counter() - before) * 1000
    ledger.note(entry.id, f"gen-1790981416-{number:020}")
    ledger.complete(entry.id, RECORD, 0.5)
    return waited


async def paced(ledger: Ledger, seconds: float) -> list[float]:
    """100 calls a second, one after the other."""
    waits = []
    for number in range(int(seconds * 100)):
        waits.append(await call(ledger, number))
        await asyncio.sleep(0.01)
    return waits


async def together(ledger: Ledger, seconds: float) -> list[float]:
    """64 calls at the same moment, ten times a second."""
    waits: list[float] = []
    for turn in range(int(seconds * 10)):
        first = 500_000 + turn * 64
        waits += await asyncio.gather(*(call(ledger, first + more) for more in range(64)))
        await asyncio.sleep(0.1)
    return waits


async def parallel(ledger: Ledger, seconds: float) -> list[float]:
    """64 callers, each at once with its next call."""
    waits: list[float] = []
    end = time.perf_counter() + seconds

    async def caller(first: int) -> None:
        number = first
        while time.perf_counter() < end:
            waits.append(await call(ledger, number))
            number += 64

    await asyncio.gather(*(caller(1_000_000 + first) for first in range(64)))
    return waits


async def measure(
    name: str, folder: Path, run: Callable[[Ledger, float], Awaitable[list[float]]], seconds: float
) -> None:
    async with opened(folder / f"{name}.sqlite3") as ledger:
        before = time.perf_counter()
        waits = await run(ledger, seconds)
        assert await ledger.flush()
        took = time.perf_counter() - before
    cuts = statistics.quantiles(waits, n=100)
    print(
        f"{name:9} {len(waits):>7} calls  p50 {cuts[49]:6.2f} ms  p99 {cuts[98]:6.2f} ms"
        f"  most {max(waits):6.1f} ms  {len(waits) / took:7.0f} calls/s"
    )


async def main(folder: Path, seconds: float) -> None:
    await measure("paced", folder, paced, seconds)
    await measure("together", folder, together, seconds)
    await measure("parallel", folder, parallel, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--seconds", type=float, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as made:
        asyncio.run(main(Path(made), asked.seconds))
