"""A call's attempts in the books: whatever becomes of them, all sums are the same sum."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from keyproxy import dialects
from keyproxy.call import Ask, Call, Client, Endpoint, Head, Told, Usage
from keyproxy.errors import Refusal
from keyproxy.ledger.entry import Unsettled, to_pico
from keyproxy.ledger.ledger import Book, Ledger, opened
from keyproxy.limits.counters import Counters, Table
from keyproxy.money.booking import Booking, Bookings
from keyproxy.money.budget import Budgets, restore
from keyproxy.money.reserving import Prices
from keyproxy.money.settling import Settler
from keyproxy.price import Price, Rates
from keyproxy.record import Attempt, ClientLeft, Record
from keyproxy.settings.grammar.plain import Budget
from keyproxy.upstream.faults import Fault
from tests.conftest import Clock
from tests.counting import standings

NOW = 1_790_900_000.0  # 2026-10-02, a quarter past midnight (UTC)
MODEL = "openai/gpt-oss-120b"
CLIENT = Client("203.0.113.9", "203.0.113.9")
CHAT = Endpoint("POST", "/api/v1/chat/completions", dialects.CHAT)
CALL = Call(CHAT, CHAT.path, b"{}", ids=(MODEL,), ask=Ask(10, 10))


HOMES = {"groq": "0.001", "cerebras": "0.002", "openrouter": "0.004"}
"""What each of at most 20 tokens costs there."""


def attempt(home: str) -> tuple[Attempt, Prices]:
    usd, is_told = Decimal(HOMES[home]), home == "openrouter"
    price = Price(Rates(prompt=usd, completion=usd), context_length=1000)
    more: dict[str, Any] = {"provider": home, "is_told": is_told, "price_source": "shipped"}
    return Attempt(f"{home}-id", "k…y", **more), {MODEL: price}


WORST = {home: 20 * Decimal(usd) for home, usd in HOMES.items()}
TRUE = Decimal("0.0123")
"""What the provider takes for an attempt that was answered or cut: less than any worst case."""


class Step(NamedTuple):
    """One attempt: where, and what becomes of it."""

    home: str
    end: str


FAILING = ("not_sent", "load", "reset", "error_first")
LAST = (*FAILING, "answered", "counted", "cut", "left", "left_unsent", "error", "killed")
ANSWER = {
    "answered": b'"usage":{"prompt_tokens":10,"completion_tokens":5,"cost":0.0123}',
    "counted": b'"usage":{"prompt_tokens":10,"completion_tokens":5}',
}


@dataclass
class Process:
    """What one process knows; ``ledger`` outlives it."""

    ledger: Book
    clock: Clock
    works: list[Coroutine[Any, Any, None]] = field(default_factory=list)
    own: set[tuple[str, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.counters = Counters(Table(self.clock), self.clock)
        usd = [Budget(Decimal(1000), "day")]
        self.budgets = Budgets(self.counters, app="default", of_client=usd)
        self.began_at = self.clock.now
        self.bookings = Bookings(
            self.budgets,
            self.ledger,
            None,
            self.works.append,
            unsettled=self.own,
            clock=self.clock,
        )

    async def restore(self) -> None:
        if isinstance(self.ledger, Ledger):
            missing = dict.fromkeys(self.budgets.kinds, 0.0)
            spent = self.ledger.spent
            await restore(self.counters, {"default": self.budgets}, spent, self.clock.now, missing)

    def counts(self, row: Unsettled) -> bool:
        return (row.id, row.n) in self.own or row.attempt.begun_at < self.began_at

    async def counted(self) -> list[int]:
        """Nano-dollars that the budget counts: spent or set aside, and set aside."""
        [pot] = self.budgets.pots
        found = await standings(self.counters, pot.windows(CLIENT.id, self.clock.now))
        return [each.window.amount - each.remaining for each in found]

    async def settle(self, told: Sequence[bool]) -> None:
        """Ask about what is not final; the provider answers each time as ``told`` says."""
        answers = iter(told)

        async def ask(row: Unsettled) -> Told | None:
            assert row.attempt.provider == "openrouter"
            usage = Usage(cost=Decimal(0) if (row.attempt.http_status or 0) >= 400 else TRUE)
            return Told(usage, None) if next(answers, False) else None

        settler = Settler(
            *(self.ledger, ask, {"default": self.budgets}, self.counts),
            clock=self.clock,
            pauses_seconds=(),
        )
        for _ in range(5):  # errors are asked about three times
            while await settler.settle_due():
                pass
            self.clock.now += 601.0

    async def call(self, id: str, steps: Sequence[Step]) -> bool:
        """Make a call; False where the process is killed in it."""
        record = Record("POST", "/x", request_id=id)
        for step in steps:
            self.clock.now += 0.5
            booking = self.bookings.reserve(record, CLIENT, CALL, *attempt(step.home))
            if step.end == "killed":
                await booking.__aenter__()
                if step.home == "openrouter":
                    booking.answered(head(step, 200))
                return False
            with contextlib.suppress(Refusal, ClientLeft, ConnectionError):
                async with booking as money:
                    self.clock.now += 0.5
                    act(money, step)
            while self.works:
                await self.works.pop()
        return True


def head(step: Step, status: int) -> Head:
    id = f"gen-{step.home}-1" if step.home == "openrouter" else None
    return Head(status, "application/json", id, "k…y")


def act(money: Booking, step: Step) -> None:
    match step.end:
        case "not_sent":
            money.failed(Fault.NOT_SENT)
        case "load":
            money.answered(head(step, 429), Fault.LOAD)
            money.failed(Fault.LOAD)
        case "reset":
            money.failed(Fault.UNCERTAIN)
        case "error_first":
            money.answered(head(step, 200))
            money.failed(Fault.UNCERTAIN)
        case "left":
            raise ConnectionError
        case "left_unsent":
            raise ClientLeft(None)
        case "error":
            money.answered(head(step, 400), Fault.CALLER)
        case _:
            money.answered(head(step, 200))
            money.record.watch(b'{"choices":[],' + ANSWER.get(step.end, b'"x":1'))
            if step.end in ANSWER:
                money.record.watch(b"}")


def rows(path: Path, question: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(question).fetchall()


STEPS = st.tuples(
    st.lists(st.builds(Step, st.sampled_from(sorted(HOMES)), st.sampled_from(FAILING)), max_size=2),
    st.builds(Step, st.sampled_from(sorted(HOMES)), st.sampled_from(LAST)),
).map(lambda steps: [*steps[0], steps[1]])


async def play(path: Path, calls: Sequence[list[Step]], told: Sequence[bool]) -> None:
    clock = Clock()
    clock.now = NOW
    async with AsyncExitStack() as stack:
        process = Process(await stack.enter_async_context(opened(path, clock=clock)), clock)
        for number, steps in enumerate(calls):
            if not await process.call(f"req_{number}", steps):
                assert isinstance(process.ledger, Ledger)
                await process.ledger.flush()
                clock.now += 100.0  # whoever was killed is taken for gone by then
                heir = await stack.enter_async_context(opened(path, clock=clock))
                process = Process(heir, clock)
                await process.restore()
            elif number % 3 == 0:
                await process.settle(told[number:])
        await process.settle(told)
        assert isinstance(process.ledger, Ledger)
        await process.ledger.flush()
        check(path, calls)
        [[counted]] = rows(path, "SELECT ifnull(sum(counted), 0) FROM calls")
        spent, reserved = await process.counted()
        assert reserved == 0
        # Each settlement is rounded up to a whole nano-dollar.
        assert 0 <= spent - counted / 1000 <= 6 * len(calls)


def check(path: Path, calls: Sequence[list[Step]]) -> None:
    sums = "id, calls.cost, calls.counted, calls.is_settled, calls.attempts"
    whole = rows(path, f"SELECT {sums} FROM calls ORDER BY id")  # noqa: S608  # our own words
    parts = rows(
        path,
        "SELECT call_id, sum(cost), sum(counted), min(is_settled), count(*) FROM attempts"
        " GROUP BY call_id ORDER BY call_id",
    )
    assert parts == whole
    assert all(is_settled for *_, is_settled, _ in whole)
    booked = {id for id, *_ in whole}
    for number, steps in enumerate(calls):
        unsent = ("not_sent", "left_unsent")
        was_sent = any(step.end not in unsent for step in steps)
        assert (f"req_{number}" in booked) == was_sent
        if was_sent:
            check_attempts(path, f"req_{number}", steps)


def check_attempts(path: Path, id: str, steps: Sequence[Step]) -> None:
    question = "SELECT provider, cost, cost_source, class, rates IS NULL, ended FROM attempts"
    found = rows(path, f"{question} WHERE call_id = '{id}' ORDER BY n")  # as above
    assert [provider for provider, *_ in found] == [step.home for step in steps]
    for step, (_, cost, source, fault, lacks_rates, ended) in zip(steps, found, strict=True):
        worst = to_pico(WORST[step.home])
        is_told = step.home == "openrouter"
        match step.end:
            case "not_sent" | "left_unsent":
                assert (cost, source, fault) == (0, "computed", "not_sent")
            case "load":
                assert (cost, fault) == (0, "load")
            case "error":
                assert (cost, fault) == (0, "caller")
            case "answered" if is_told:
                assert (cost, source) == (to_pico(TRUE), "exact")
            case "counted" if not is_told:
                assert (cost, source) == (worst * 3 // 4, "computed")
            case "reset" | "left":
                assert (cost, source) == (worst, "estimated")
                assert fault == ("uncertain" if step.end == "reset" else None)
            case "error_first" | "cut" | "killed" if not is_told:
                assert (cost, source) == (worst, "estimated")
            case _:
                assert source in ("exact", "estimated", "computed")
        assert lacks_rates == (step.end == "killed")
        assert ended is not None


@settings(max_examples=40, deadline=None)
@given(calls=st.lists(STEPS, min_size=1, max_size=5), told=st.lists(st.booleans(), max_size=12))
def test_a_call_costs_what_its_attempts_cost_and_budgets_count(
    calls: list[list[Step]], told: list[bool]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder, "ledger.sqlite3"), calls, told))
