"""A thousand calls over homes that fail in every way, and the ledger against their books.

In three dialects: chat has three homes, so have messages, responses two of these.

Which way a call goes at a home follows from its number and the home alone. What is waited for is
the state of the ledger, as the next process finds it.
"""

from __future__ import annotations

import asyncio
import random
import re
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from keyproxy.ledger.entry import from_pico
from tests.conftest import SERVE
from tests.examples import TIMES
from tests.fakes.books import Bill, Plan, Seen
from tests.fakes.configured import environment, toml
from tests.fakes.server import Fakes, serving
from tests.fakes.vendor import Json, Vendor
from tests.program import started
from tests.test_money_simulation import PER_CALL, address, all_settled, killed_under, rows

CALLS = 1000 * TIMES
AT_ONCE = 40
KILLED_AT = (CALLS // 3, CALLS * 2 // 3)
HOMES = ("groq", "anthropic", "deepinfra", "openrouter")
MOST_TOKENS = 40
OPEN, CLOSED = "openai/gpt-oss-120b", "anthropic/claude-haiku-4.5"
DIALECTS: dict[str, dict[str, Any]] = {  # what is called where, and how often out of ten
    "chat/completions": {"model": OPEN, "max_tokens": MOST_TOKENS, "share": 5},
    "messages": {"model": CLOSED, "max_tokens": MOST_TOKENS, "share": 3},
    "responses": {"model": OPEN, "max_output_tokens": MOST_TOKENS, "share": 2},
}
_NUMBER = re.compile(rb"call number (\d+)")
_SHARES = {  # how calls go at a home, out of a hundred
    "whole": 54,
    "load": 14,
    "uncertain": 5,
    "caller": 4,
    "reset": 5,
    "error_first": 5,
    "error_inside": 3,
    "cut": 5,
    "silent": 3,
    "hang": 2,
}


def plan_of(vendor: Vendor, number: int) -> Plan:
    dice = random.Random(f"{vendor.name} {number}")
    ends = dice.choices(list(_SHARES), list(_SHARES.values()))[0]
    troubles = [name for name, each in vendor.troubles.items() if each.kind == ends]
    if ends == "load":  # a 402 of OpenRouter's is one, too, and asks about the key
        troubles = [name for name in ("rate", "503", "529") if name in vendor.troubles]
    if ends == "caller":
        troubles = ["invalid"]
    tokens = dice.randint(3, 12)
    return Plan(
        ends=dice.choice(troubles) if troubles else ends,
        tokens=tokens,
        after=dice.randint(0, tokens - 1),
        pause_seconds=dice.choice([0, 0.001, 0.005, 0.01, 0.03]),
        bills=dice.random() < 0.5,
    )


@dataclass
class World:
    """The homes, and the clients of the calls: one address each, some of which hang up.

    ``arrivals``: homes that each call reached, in turn. ``begun``: calls of whose home's answer the
    client has seen a byte.
    """

    fakes: Fakes
    session: aiohttp.ClientSession
    arrivals: dict[int, list[str]] = field(default_factory=dict)
    begun: set[int] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    url: asyncio.Future[str] = field(default_factory=lambda: asyncio.Future())
    statuses: Counter[int] = field(default_factory=Counter)
    _last: int = 0

    def __post_init__(self) -> None:
        for fake in self.fakes.values():
            fake.plan = self._plan

    def _plan(self, seen: Seen, body: Json) -> Plan:
        number = number_of(seen)
        plan = plan_of(self.fakes[seen.vendor].vendor, number)
        before = self.arrivals.setdefault(number, [])
        if number in self.begun:
            self.faults.append(f"call {number} went on to {seen.vendor} behind its first byte")
        if any(self._ends(name, number) == "invalid" for name in before):
            self.faults.append(f"the caller's fault of call {number} was taken to {seen.vendor}")
        if seen.vendor in before or len(before) == 3:
            self.faults.append(f"call {number} was made again: {before} and {seen.vendor}")
        before.append(seen.vendor)
        return plan

    def _ends(self, name: str, number: int) -> str:
        return plan_of(self.fakes[name].vendor, number).ends

    async def until(self, calls: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.arrivals) >= calls)

    async def call_all(self, count: int) -> None:
        """Call until so many calls have reached a home."""

        async def work() -> None:
            while len(self.arrivals) < count:
                self._last = number = self._last + 1
                await self.call(number)
                async with self.changed:
                    self.changed.notify_all()

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    async def call(self, number: int) -> None:
        url = await self.url
        try:
            await self._call_once(url, number)
        except aiohttp.ClientConnectorError:
            await asyncio.sleep(0.01)
        except (aiohttp.ClientError, ConnectionError):
            return

    async def _call_once(self, url: str, number: int) -> None:
        dice = random.Random(f"client {number}")
        leaves = dice.choices(["never", "before the head", "in the middle"], [8, 1, 1])[0]
        patience = dice.choice([0.002, 0.01, 0.03]) if leaves == "before the head" else 60
        said = [{"role": "user", "content": f"This is call number {number}. Greet."}]
        path = dice.choices([*DIALECTS], [each["share"] for each in DIALECTS.values()])[0]
        body = {"input" if path == "responses" else "messages": said, **DIALECTS[path]}
        del body["share"]
        body["stream"] = dice.random() < 0.7
        path, headers = f"/api/v1/{path}", {"X-Forwarded-For": address(number)}
        try:
            async with asyncio.timeout(patience) as timer:
                async with self.session.post(url + path, json=body, headers=headers) as answer:
                    self.statuses[answer.status] += 1
                    timer.reschedule(None)
                    pieces = dice.randint(0, 4) if leaves == "in the middle" else 10**6
                    while pieces and await answer.content.readany():
                        if answer.status == 200:  # a home may read later what timed out here
                            self.begun.add(number)
                        pieces -= 1
        except TimeoutError:
            assert leaves == "before the head"

    def bills(self) -> dict[tuple[int, str], Bill]:
        return {
            (number_of(bill.seen), name): bill
            for name, fake in self.fakes.items()
            for bill in fake.bills
        }


def number_of(seen: Seen) -> int:
    found = _NUMBER.search(seen.body)
    assert found is not None
    return int(found[1])


@pytest.fixture
async def world() -> AsyncIterator[World]:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        serving(*HOMES) as fakes,
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
    ):
        yield World(fakes, session)


def variables(fakes: Fakes, directory: Path, **more: str) -> dict[str, str]:
    (directory / "keyproxy.toml").write_text(toml(fakes))
    said = SERVE | {
        "ALLOWED_MODELS": "openai/*,anthropic/*",
        "LEDGER": str(directory / "ledger.sqlite3"),
        "TRUSTED_PROXIES": "loopback",
        "RATE_LIMIT": "off",
        "MAX_IN_FLIGHT": "1000",
        "FIRST_BYTE_TIMEOUT": "500ms",
        "IDLE_TIMEOUT": "500ms",
    }
    ours = {f"KEYPROXY_{name}": value for name, value in (said | more).items()}
    return ours | environment(fakes)


def attempts(ledger: Path) -> list[dict[str, Any]]:
    """Every attempt, with the client of its call."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        found = connection.execute(
            "SELECT attempts.*, calls.client FROM attempts JOIN calls ON calls.id = call_id"
        )
        return [dict(row) for row in found]


def faults(world: World, ledger: Path) -> Iterator[str]:
    """Whatever the ledger says that the books do not."""
    yield from world.faults
    yield from world.fakes.strays()
    booked = attempts(ledger)
    told = {(row["client"], row["provider"]): row for row in booked}
    if len(told) != len(booked):
        yield "an attempt stands in the ledger twice"
    for (number, name), bill in world.bills().items():
        row = told.pop((address(number), name), None)
        if row is None:
            yield f"missing: {number} {bill}"
        else:
            yield from faults_of_attempt(number, bill, row)
    for row in told.values():
        if row["cost"] and row["cost_source"] != "estimated":
            yield f"it never reached the home: {row}"
    of_call: dict[int, list[dict[str, Any]]] = {}
    for row in booked:
        of_call.setdefault(row["call_id"], []).append(row)
    for row in rows(ledger):
        own = of_call.get(row["id"], [])
        if len(own) != row["attempts"] or sum(each["cost"] for each in own) != row["cost"]:
            yield f"a call is not the sum of its attempts: {row} {own}"


def faults_of_attempt(number: int, bill: Bill, row: dict[str, Any]) -> Iterator[str]:
    cost = from_pico(row["cost"])
    if bill.cost is None or cost < bill.cost:
        yield f"below the truth: {number} {bill} {row}"
    elif row["cost_source"] != "estimated" and cost - bill.cost > PER_CALL:
        yield f"not {row['cost_source']}: {number} {bill} {row}"
    elif row["cost_source"] == "estimated" and row["cost"] > row["reserved"]:
        yield f"more than was set aside: {number} {bill} {row}"


@pytest.mark.timeout(300)
async def test_the_ledger_is_the_books_of_all_homes(world: World, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    said = variables(world.fakes, tmp_path, TOTAL_BUDGET="100/month")
    load = asyncio.create_task(world.call_all(CALLS))
    await killed_under(load, world, world.until, KILLED_AT, tmp_path, **said)
    assert list(faults(world, ledger)) == []
    dialects = Counter(row["endpoint"] for row in rows(ledger))
    assert len(dialects) == len(DIALECTS), dialects
    assert min(dialects.values()) > CALLS / 10, dialects
    moved = Counter(len(homes) for homes in world.arrivals.values())
    booked = attempts(ledger)  # as wild as it was meant to be
    assert min(moved[2], *Counter(row["cost_source"] for row in booked).values()) > CALLS / 30
    ended = Counter(row["ended"] for row in booked)
    assert min(ended[each] for each in ("killed", "client_left", "upstream_cut")) > 20, ended
    assert world.statuses[200] > CALLS / 2


@pytest.mark.timeout(120)
async def test_no_budget_is_passed_by_going_on_to_another_home(
    world: World, tmp_path: Path
) -> None:
    """Each attempt is set aside before it is made, and what is billed stays within it."""
    budget, ledger = Decimal("0.004"), tmp_path / "ledger.sqlite3"
    said = variables(world.fakes, tmp_path, TOTAL_BUDGET=f"{budget}/day")
    async with started("serve", tmp_path, **said) as program:
        world.url.set_result(program.url)
        for first in range(1, 200, 10):
            await asyncio.gather(*(world.call(first + more) for more in range(10)))
        await all_settled(ledger)
        await program.stop()
    assert list(faults(world, ledger)) == []
    booked = sum(from_pico(row["cost"]) for row in rows(ledger))
    billed = sum(fake.billed for fake in world.fakes.values())
    assert 0 < billed <= booked <= budget
    assert world.statuses[402] + world.statuses[429] > 100
    assert max(len(homes) for homes in world.arrivals.values()) > 1
