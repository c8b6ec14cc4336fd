"""Many calls over three providers that fail in every way: attempts in the ledger against books."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp

from tests.conftest import Proxy
from tests.fakes import server
from tests.fakes.books import Plan, Seen
from tests.fakes.server import Fakes
from tests.fakes.vendor import Json
from tests.fakes.vendors import VENDORS
from tests.routed import HI, proxy_before

CALLS = 300
AT_ONCE = 8
OSS = "openai/gpt-oss-120b"
THREE = ("groq", "deepinfra", "openrouter")
TROUBLES = "rate 503 500 invalid reset error_first error_inside cut silent"
PICO = Decimal("1e-12")
NANO = Decimal("1e-9")


class Weather:
    """How calls go, drawn from a seed: three in five are well."""

    def __init__(self, provider: str, seed: int) -> None:
        self._draw = random.Random(f"{provider} {seed}")
        self._known = VENDORS[provider].troubles

    def __call__(self, seen: Seen, body: Json) -> Plan:
        tokens = self._draw.randint(1, 30)
        if self._draw.random() < 0.6:
            return Plan(tokens=tokens)
        ends = self._draw.choice(TROUBLES.split())
        if ends.isdigit() and ends not in self._known:
            ends = "503"
        return Plan(ends, tokens=tokens, after=tokens // 2)


async def one(proxy: Proxy, number: int, draw: random.Random) -> None:
    said: dict[str, Any] = {"model": OSS, "max_tokens": 64, **HI, "stream": draw.random() < 0.5}
    said["messages"] = [{"role": "user", "content": f"call number {number}"}]
    leaves = draw.random() < 0.05
    try:
        async with proxy.post(said) as answer:
            if leaves:
                answer.close()
            else:
                await answer.read()
    except (TimeoutError, aiohttp.ClientError):
        pass  # cut, as it was at its provider


async def run(proxy: Proxy, seed: int) -> None:
    numbers, draw = iter(range(CALLS)), random.Random(seed)

    async def work() -> None:
        for number in numbers:
            await one(proxy, number, draw)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def rows(ledger: Path) -> Iterator[dict[str, Any]]:
    with sqlite3.connect(ledger) as connection:
        connection.row_factory = sqlite3.Row
        for row in connection.execute("SELECT * FROM attempts ORDER BY call_id, n"):
            yield dict(row)


def of_calls(ledger: Path) -> tuple[int, int]:
    with sqlite3.connect(ledger) as connection:
        [found] = connection.execute("SELECT count(*), sum(counted) FROM calls")
        return int(found[0]), int(found[1])


async def test_the_sum_of_attempts_is_never_below_the_books_and_exact_where_it_can_be(
    tmp_path: Path,
) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    async with server.serving(*THREE) as fakes:
        for name in THREE:
            fakes[name].plan = Weather(name, 1)
        limit = 'first_output_timeout = "300ms"'
        more = {"LEDGER": str(ledger), "RATE_LIMIT": "off", "MAX_IN_FLIGHT": "100"}
        async with proxy_before(fakes, of_each=limit, IDLE_TIMEOUT="2s", **more) as proxy:
            await run(proxy, 1)
        check(fakes, ledger)


def check(fakes: Fakes, ledger: Path) -> None:
    attempts = list(rows(ledger))
    for name, fake in fakes.items():
        own = [row for row in attempts if row["provider"] == name]
        counted = PICO * sum(row["counted"] for row in own)
        assert counted >= fake.billed
        # What is told, or computed of tokens and rounded up, is a bill to the nano-dollar.
        bills = sorted(bill.cost for bill in fake.bills if bill.cost)
        for row in own:
            if row["cost_source"] != "estimated" and row["cost"]:
                cost = PICO * row["cost"]
                near = [bill for bill in bills if 0 <= cost - bill <= NANO]
                assert near, row
                bills.remove(near[0])
        assert len(own) == len(fake.calls)
    calls, counted_by_calls = of_calls(ledger)
    assert calls == len({row["call_id"] for row in attempts}) <= CALLS
    assert counted_by_calls == sum(row["counted"] for row in attempts)
    assert max(row["n"] for row in attempts) <= 3
    # The caller's faults never move, and a second attempt follows a failure.
    by_call: dict[str, list[dict[str, Any]]] = {}
    for row in attempts:
        by_call.setdefault(row["call_id"], []).append(row)
    for tried in by_call.values():
        assert all(row["class"] not in (None, "caller") for row in tried[:-1])
        assert len({row["provider"] for row in tried}) == len(tried)
    assert sum(len(tried) > 1 for tried in by_call.values()) >= 20
    assert fakes.strays() == []
