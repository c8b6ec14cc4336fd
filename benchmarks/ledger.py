"""What booking a call costs its loop, and how many calls a second the ledger's file takes.

    python benchmarks/ledger.py [--folder /where/the/disk/is] [--seconds 5]

A call is ``begin``, ``note`` and ``complete``; none of them waits for the disk. ``paced``: 100
calls a second, one after the other. ``most``: 64 at once, again as soon as the file has them.
"""

from __future__ import annotations

import argparse
import asyncio
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


def call(ledger: Ledger, number: int) -> float:
    """Book one call; the microseconds of CPU time that it took the loop."""
    at = time.time()
    attempt = Attempt("openai/gpt-4o-mini", "sk-or-v1-abc...def")
    attempt.begin(at, Decimal("0.0123"))
    entry = Entry(
        id=f"req_{number:024x}",
        at=at,
        app="default",
        client=f"192.0.2.{number % 250}",
        endpoint="POST /api/v1/chat/completions",
        models=("openai/gpt-4o-mini",),
        attempts=[attempt],
    )
    before = time.thread_time()
    ledger.begin(entry)
    ledger.note(entry.id, f"gen-1790981416-{number:020}")
    ledger.complete(entry.id, RECORD, 0.5)
    return (time.thread_time() - before) * 1e6


async def paced(ledger: Ledger, seconds: float) -> list[float]:
    took = []
    for number in range(int(seconds * 100)):
        took.append(call(ledger, number))
        await asyncio.sleep(0.01)
    return took


async def most(ledger: Ledger, seconds: float) -> list[float]:
    took: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        took += [call(ledger, len(took)) for _ in range(64)]
        assert await ledger.flush()
    return took


async def measure(
    name: str, folder: Path, run: Callable[[Ledger, float], Awaitable[list[float]]], seconds: float
) -> None:
    async with opened(folder / f"{name}.sqlite3") as ledger:
        before, cpu_before = time.perf_counter(), time.process_time()
        took = sorted(await run(ledger, seconds))
        assert await ledger.flush()
        lasted, cpu = time.perf_counter() - before, time.process_time() - cpu_before
    print(
        f"{name:6} {len(took):>7} calls  {len(took) / lasted:7.0f} a second  on the loop"
        f" p50 {took[len(took) // 2]:.0f} us, p99 {took[len(took) * 99 // 100]:.0f} us;"
        f"  {cpu / len(took) * 1e6:.0f} us of CPU each, all threads"
    )


async def main(folder: Path, seconds: float) -> None:
    await measure("paced", folder, paced, seconds)
    await measure("most", folder, most, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--seconds", type=float, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as made:
        asyncio.run(main(Path(made), asked.seconds))
