"""Hundreds of calls that go wrong in every way, and the ledger against the upstream's books.

What is waited for is the state of the ledger, as the next process finds it.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import pytest

from keyproxy.ledger import queries
from keyproxy.ledger.entry import from_pico
from keyproxy.ledger.file import open_reader
from tests import books
from tests.books import DEAR, Bill, Books, Script
from tests.conftest import SERVE
from tests.examples import TIMES
from tests.program import Program, started
from tests.servers import Server

CALLS = 800 * TIMES
AT_ONCE = 40
KILLED_AT = (CALLS // 4, CALLS // 2, CALLS * 3 // 4)
SETTLED_WITHIN_SECONDS = 60
PER_CALL = Decimal("1e-9")
IS_HELD = "generation_id IS NOT NULL AND ended IS NULL"


@pytest.fixture
async def upstream() -> AsyncIterator[Books]:
    async with books.keeping() as kept:
        yield kept


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session


def variables(upstream: Books, ledger: Path, **more: str) -> dict[str, str]:
    said = SERVE | {
        "UPSTREAM": upstream.base_url,
        "ALLOWED_MODELS": "openai/*,anthropic/*",
        "LEDGER": str(ledger),
        "TRUSTED_PROXIES": "loopback",
        "RATE_LIMIT": "off",
        "MAX_IN_FLIGHT": "1000",
    }
    return {f"KEYPROXY_{name}": value for name, value in (said | more).items()}


class Clients:
    """Calls of numbered clients, each from an address of its own, some of which hang up."""

    def __init__(self, session: aiohttp.ClientSession, upstream: Books) -> None:
        self.url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.statuses: dict[int, int] = {}
        self._session = session
        self._upstream = upstream
        self._number = 0

    async def call_all(self, count: int) -> None:
        """Call until so many calls have reached the upstream."""

        async def work() -> None:
            while len(self._upstream.bills) < count:
                await self.call()

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    async def call(self) -> None:
        """One call, made again as another when nobody listens."""
        for _ in range(4):
            self._number = number = self._number + 1
            url = await self.url
            try:
                await self.call_once(url, number)
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.01)
            except (aiohttp.ClientError, ConnectionError):
                return
            else:
                return

    async def call_once(self, url: str, number: int) -> None:
        path, body = books.call(number)
        dice = random.Random(f"client {number}")
        leaves = dice.choices(["never", "before the head", "in the middle"], [7, 1, 2])[0]
        patience = dice.choice([0.002, 0.01, 0.03]) if leaves == "before the head" else 60
        headers = {"X-Forwarded-For": address(number)}
        try:
            async with asyncio.timeout(patience) as timer:
                async with self._session.post(url + path, json=body, headers=headers) as answer:
                    self.statuses[number] = answer.status
                    timer.reschedule(None)
                    if leaves != "in the middle":
                        await answer.read()
                        return
                    for _ in range(dice.randint(0, 4)):
                        await answer.content.readany()
        except TimeoutError:
            assert leaves == "before the head"


def address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def rows(ledger: Path, where: str = "1") -> list[dict[str, Any]]:
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        found = connection.execute(f"SELECT * FROM calls WHERE {where}")  # noqa: S608  # our own words
        return [dict(row) for row in found]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(SETTLED_WITHIN_SECONDS):
        while not is_so():
            await asyncio.sleep(0.05)


async def all_settled(ledger: Path) -> None:
    await until(lambda: not rows(ledger, "is_settled = 0"))


class HasUrl(Protocol):
    """Clients that wait for where to call."""

    url: asyncio.Future[str]


async def killed_under(
    load: asyncio.Task[None],
    clients: HasUrl,
    until: Callable[[int], Awaitable[None]],
    moments: Iterable[int],
    directory: Path,
    **said: str,
) -> None:
    """Have ``clients`` make their calls while the server is killed at ``moments``, each so many
    calls that ``until`` waits for; then all are settled."""
    for moment in moments:
        async with started("serve", directory, **said) as program:
            clients.url.set_result(program.url)
            await until(moment)
            clients.url = asyncio.get_running_loop().create_future()
            program.signal(signal.SIGKILL)
            await program.ended()
    async with started("serve", directory, **said) as program:
        clients.url.set_result(program.url)
        await load
        await all_settled(directory / "ledger.sqlite3")
        await program.stop()


def faults(upstream: Books, ledger: Path) -> Iterator[str]:
    """Whatever the ledger says that the books do not."""
    booked = rows(ledger)
    told = {row["client"]: row for row in booked}
    if len(told) != len(booked):
        yield "a call stands in the ledger twice"
    for bill in upstream.bills.values():
        row = told.pop(address(bill.number), None)
        if row is None:
            yield f"missing: {bill}"
        else:
            yield from faults_of_row(bill, row)
    for row in told.values():
        if row["cost_source"] != "estimated" or row["generation_id"] is not None:
            yield f"it never reached the upstream: {row}"


def faults_of_row(bill: Bill, row: dict[str, Any]) -> Iterator[str]:
    cost = from_pico(row["cost"])
    if bill.cost is None or cost < bill.cost:
        yield f"below the truth: {bill} {row}"
    elif row["generation_id"] is not None:
        if row["generation_id"] != bill.generation_id:
            yield f"another generation: {bill} {row}"
        if row["cost_source"] != "exact" or cost - bill.cost > PER_CALL:
            yield f"not exact: {bill} {row}"
    elif row["cost_source"] == "exact" and cost - bill.cost > PER_CALL:
        yield f"said to be exact: {bill} {row}"
    elif row["cost_source"] == "estimated" and row["cost"] != row["reserved"]:
        yield f"not what was set aside: {bill} {row}"


def ends(ledger: Path) -> Counter[str]:
    return Counter(row["ended"] for row in rows(ledger))


@pytest.mark.timeout(180)
async def test_the_ledger_is_the_upstreams_books(
    upstream: Books, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    said = variables(upstream, ledger, BUDGET="1/day", TOTAL_BUDGET="100/month")
    clients = Clients(session, upstream)
    load = asyncio.create_task(clients.call_all(CALLS))
    await killed_under(load, clients, upstream.wait_for, KILLED_AT, tmp_path, **said)
    assert list(faults(upstream, ledger)) == []
    assert upstream.twice == []
    found = ends(ledger)  # as wild as it was meant to be
    assert min(found[each] for each in ("killed", "client_left", "upstream_cut")) > 20
    with closing(open_reader(ledger)) as connection:
        total = queries.summary(connection, "day").total
    assert total.estimated > 0
    assert upstream.spent <= total.spend <= upstream.spent + total.estimated + CALLS * PER_CALL


@pytest.mark.timeout(120)
async def test_a_stop_in_the_middle_of_calls_books_them_all(
    upstream: Books, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    more = {"BUDGET": "1/day", "TOTAL_BUDGET": "100/month", "SHUTDOWN_GRACE": "0.05"}
    said = variables(upstream, ledger, **more)
    clients = Clients(session, upstream)
    async with started("serve", tmp_path, **said) as program:
        clients.url.set_result(program.url)
        load = asyncio.create_task(clients.call_all(300))
        await upstream.wait_for(250)
        await program.stop()
        clients.url = asyncio.get_running_loop().create_future()
        assert rows(ledger, "ended IS NULL") == []
        async with started("serve", tmp_path, **said) as other:
            clients.url.set_result(other.url)
            await load
            await all_settled(ledger)
            await other.stop()
    assert list(faults(upstream, ledger)) == []
    assert "killed" not in ends(ledger)


# Budgets


@pytest.fixture
async def dear() -> AsyncIterator[Books]:
    """An upstream whose calls cost 0.03 USD; the third, and from the tenth on all, are held
    before their first token."""

    def script_of(number: int) -> Script:
        return replace(DEAR, ends="held") if number == 3 or number >= 10 else DEAR

    async with books.keeping(script_of) as kept:
        yield kept


class Caller:
    """Calls of one client."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def call(self, program: Program, number: int) -> tuple[int, str | None]:
        """The status and the code of a refusal."""
        path, body = books.dear_call(number)
        async with self._session.post(program.url + path, json=body) as answer:
            await answer.read()
            return answer.status, answer.headers.get("X-Keyproxy-Code")

    @asynccontextmanager
    async def held(self, program: Program, number: int) -> AsyncIterator[None]:
        """A call whose answer has begun and does not end."""
        path, body = books.dear_call(number)
        body |= {"stream": True}
        async with self._session.post(program.url + path, json=body) as answer:
            await answer.content.readany()
            yield


async def test_a_budget_of_a_dollar_is_never_overspent(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with books.keeping(lambda number: DEAR) as upstream:
        said = variables(upstream, tmp_path / "ledger.sqlite3", TOTAL_BUDGET="1.00/day")
        async with started("serve", tmp_path, **said) as program:
            caller = Caller(session)
            found = await asyncio.gather(*(caller.call(program, n) for n in range(200)))
            assert len(upstream.bills) == [status for status, _ in found].count(200) == 33
            assert Decimal("0.98") < upstream.spent <= 1
            assert {code for _, code in found} <= {None, "budget_busy", "budget_exhausted"}


async def test_two_replicas_never_overspend_a_dollar(
    server: Server, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Nor where their storage stands still: a call that is told to come again does."""
    async with books.keeping(lambda number: DEAR) as upstream:
        more = {"TOTAL_BUDGET": "1.00/month", "STORAGE": server.url, "STORAGE_FAILURE": "closed"}
        one = variables(upstream, tmp_path / "one.sqlite3", **more)
        other = variables(upstream, tmp_path / "other.sqlite3", **more)
        async with (
            started("serve", tmp_path, **one) as first,
            started("serve", tmp_path, **other) as second,
        ):
            caller, programs = Caller(session), (first, second)

            async def decided(number: int) -> int:
                while True:
                    status, code = await caller.call(programs[number % 2], number)
                    if code not in ("budget_busy", "overloaded"):
                        return status

            calls = asyncio.gather(*map(decided, range(200)))
            await upstream.wait_for(10)
            server.freeze()
            await asyncio.gather(*(each.said("limits storage down") for each in programs))
            server.thaw()
            found = Counter(await calls)
        assert found == {200: 33, 402: 167}
        assert len(upstream.bills) == 33
        assert Decimal("0.98") < upstream.spent <= 1


async def test_a_restarted_process_goes_on_with_what_was_spent(
    dear: Books, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Two calls of 0.03 are paid for, one was under way: 0.11 has no room for another."""
    ledger = tmp_path / "ledger.sqlite3"
    said = variables(dear, ledger, BUDGET="0.11/day")
    caller = Caller(session)
    async with started("serve", tmp_path, **said) as program:
        assert [await caller.call(program, n) for n in (1, 2)] == [(200, None)] * 2
        async with caller.held(program, 3):
            await until(lambda: bool(rows(ledger, IS_HELD)))
            program.signal(signal.SIGKILL)
            await program.ended()
    dear.is_silent = True
    async with started("serve", tmp_path, **said) as program:
        assert await caller.call(program, 4) == (402, "call_too_costly")
        assert len(dear.bills) == 3
        dear.is_silent = False
        await all_settled(ledger)  # the provider took nothing for the third
        assert await caller.call(program, 4) == (200, None)
        assert await caller.call(program, 5) == (402, "call_too_costly")
        assert len(dear.bills) == 4


@pytest.mark.parametrize("is_emptied", [False, True])
async def test_what_a_killed_replica_had_reserved_is_free_when_the_next_one_has_settled_it(
    dear: Books, server: Server, session: aiohttp.ClientSession, tmp_path: Path, is_emptied: bool
) -> None:
    """A storage that was emptied meanwhile is told of the reservations before their surplus."""
    ledger = tmp_path / "ledger.sqlite3"
    said = variables(dear, ledger, BUDGET="0.49/day", STORAGE=server.url)
    caller = Caller(session)
    async with started("serve", tmp_path, **said) as program, AsyncExitStack() as calls:
        for number in range(10, 26):
            await calls.enter_async_context(caller.held(program, number))
        assert await caller.call(program, 4) == (429, "budget_busy")
        await until(lambda: len(rows(ledger, IS_HELD)) == 16)
        program.signal(signal.SIGKILL)
        await program.ended()
    spent, opened = await counted(server)
    assert opened == spent > 16 * 29_000_000
    if is_emptied:
        await server.command("FLUSHALL")
    async with started("serve", tmp_path, **said) as program:
        await all_settled(ledger)
        await until_counted(server, (0, 0))
        assert await caller.call(program, 4) == (200, None)


async def counted(server: Server) -> tuple[int, int]:
    """What the storage counts of budgets, in nano-dollars: as spent, and of it as set aside only.
    Of all windows: a new one may begin meanwhile."""
    listed = (await server.command("KEYS", "*-usd-*")).decode()
    keys = [line for line in listed.split("\r\n") if line.startswith("keyproxy:")]
    assert keys
    sums = Counter[bool]()
    for key in keys:
        answer = (await server.command("GET", key)).decode()
        sums["-open:" in key] += int(answer.split("\r\n")[1])
    return sums[False], sums[True]


async def until_counted(server: Server, expected: tuple[int, int]) -> None:
    async with asyncio.timeout(SETTLED_WITHIN_SECONDS):
        while await counted(server) != expected:
            await asyncio.sleep(0.05)


@pytest.mark.timeout(120)
async def test_a_budget_counts_what_the_ledger_says(
    upstream: Books, server: Server, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """After hang-ups, cuts and errors, to the nano-dollars that rounding adds; nothing is left
    set aside."""
    ledger = tmp_path / "ledger.sqlite3"
    said = variables(upstream, ledger, TOTAL_BUDGET="100/month", STORAGE=server.url)
    clients = Clients(session, upstream)
    async with started("serve", tmp_path, **said) as program:
        clients.url.set_result(program.url)
        await clients.call_all(300)
        await all_settled(ledger)
        await program.stop()
    spent, opened = await counted(server)
    booked = sum(row["cost"] for row in rows(ledger)) / 1000
    assert opened == 0
    assert booked <= spent <= booked + 2 * len(rows(ledger))
