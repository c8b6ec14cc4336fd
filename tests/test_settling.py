"""Settling: whom the upstream is asked about, how often, and what follows from its answer."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from keyproxy.call import Client, Told, Usage
from keyproxy.ledger.entry import Unsettled
from keyproxy.ledger.ledger import Ledger, opened
from keyproxy.ledger.memory import MOST_UNSETTLED, MemoryBook
from keyproxy.limits.counters import Counters
from keyproxy.limits.shared import open_shared
from keyproxy.limits.windows import Change
from keyproxy.money.budget import MOST_NANO, Budgets, restore
from keyproxy.money.settling import AT_ONCE, Ask, Settler
from keyproxy.record import Record
from keyproxy.settings.grammar.network import storage
from keyproxy.settings.grammar.plain import Budget
from tests import servers
from tests.counting import standings
from tests.records import entry, over

CUT = over(200, "upstream_cut")
FAILED = over(503, "complete", Decimal(0), "computed")
CLIENT = Client("192.0.2.1", "192.0.2.1")
FOUND = Told(Usage(cost=Decimal("0.002")), None)


async def cut_calls(
    count: int, record: Record = CUT, clock: Callable[[], float] = time.time
) -> MemoryBook:
    """A book with so many calls whose cost is not known."""
    book = MemoryBook(clock)
    for number in range(count):
        id = f"req_{number}"
        book.begin(entry(id, generation_id=f"gen-1790981416-{number:08}"))
        book.complete(id, record, 0.1)
    return book


async def test_a_rush_of_cut_calls_is_settled_without_pauses() -> None:
    book, is_empty = await cut_calls(10 * AT_ONCE), asyncio.Event()

    async def ask(row: Unsettled) -> Told:
        if len(book._unsettled) <= AT_ONCE:
            is_empty.set()
        return FOUND

    running = asyncio.create_task(Settler(book, ask, {}, look_seconds=3600).run())
    async with asyncio.timeout(5):
        await is_empty.wait()
    running.cancel()


async def test_a_book_in_memory_has_an_end() -> None:
    """The oldest calls stay as they were estimated."""
    book = await cut_calls(MOST_UNSETTLED + 1)
    assert (len(book._unsettled), next(iter(book._unsettled))) == (MOST_UNSETTLED, ("req_1", 1))


async def test_a_question_that_hangs_keeps_no_other_waiting() -> None:
    book = await cut_calls(AT_ONCE + 1)

    async def ask(row: Unsettled) -> Told:
        if row.id == "req_0":
            await asyncio.Event().wait()
        return FOUND

    settler = Settler(book, ask, {}, ask_seconds=0.01)
    async with asyncio.timeout(5):
        assert [await settler.settle_due() for _ in range(3)] == [AT_ONCE, 1, 0]
    assert list(book._unsettled) == [("req_0", 1)]


async def test_an_odd_row_keeps_no_other_waiting_and_is_not_asked_about_for_ever() -> None:
    book, asked = await cut_calls(2), Counter[str]()

    async def ask(row: Unsettled) -> Told:
        asked[row.id] += 1
        if row.id == "req_0":
            raise ValueError
        return FOUND

    settler = Settler(book, ask, {}, pauses_seconds=(0.0, 0.0))
    for _ in range(5):
        await settler.settle_due()
    assert asked == {"req_0": 3, "req_1": 1}


async def test_the_upstream_is_seldom_asked_about_errors() -> None:
    asked = Counter[str]()

    async def ask(row: Unsettled) -> None:
        asked[row.attempt.ended or ""] += 1

    with capture_logs() as logs:
        for record in (CUT, FAILED):
            book = await cut_calls(1, record, clock=lambda: 1e9)  # every pause is over
            settler = Settler(book, ask, {}, clock=lambda: 0.0)
            while await settler.settle_due():
                pass
    assert asked == {"upstream_cut": 12, "complete": 4}
    assert [log["event"] for log in logs] == ["the upstream never told what a call has cost"]


@pytest.mark.parametrize("record", [CUT, FAILED])
@pytest.mark.parametrize("found", [FOUND, None])
@pytest.mark.parametrize("apps", [[], ["default"]])
async def test_whether_a_call_is_counted_is_asked_once_however_it_ends(
    record: Record, found: Told | None, apps: list[str]
) -> None:
    """Who is asked forgets the call then: else the ids of all that failed would gather."""
    book, asked = await cut_calls(3, record, clock=lambda: 1e9), Counter[str]()

    async def ask(row: Unsettled) -> Told | None:
        return found

    def counts(row: Unsettled) -> bool:
        asked[row.id] += 1
        return True

    budgets = {app: Budgets(Counters(), app=app) for app in apps}
    settler = Settler(book, ask, budgets, counts, clock=lambda: 0.0)
    while await settler.settle_due():
        pass
    assert asked == {"req_0": 1, "req_1": 1, "req_2": 1}


async def test_no_row_is_settled_while_the_ledger_is_read_for_a_budget() -> None:
    book, asked, lock = await cut_calls(1), asyncio.Event(), asyncio.Lock()

    async def ask(row: Unsettled) -> Told:
        asked.set()
        return FOUND

    settler = Settler(book, ask, {}, lock=lock)
    async with lock:
        settling = asyncio.create_task(settler.settle_due())
        await asked.wait()
        assert len(await book.unsettled(9)) == 1
    assert await settling == 1
    assert await book.unsettled(9) == []


async def test_settling_a_killed_process_ends_no_reservation_of_ours() -> None:
    """Else a budget that our calls have reserved would be told as spent."""
    counters = Counters()
    budgets = Budgets(counters, app="default", of_client=[Budget(Decimal(1), "day")])
    client = Client("192.0.2.1", "192.0.2.1")
    reservation = await budgets.reserve(client, 10_000_000, time.time())
    await budgets.release(client.id, time.time(), Decimal("0.01"))
    found = await standings(counters, reservation.windows)
    assert MOST_NANO - found[1].remaining == 10_000_000


async def test_a_call_that_another_process_took_over_is_given_back_by_one_of_them(
    tmp_path: Path,
) -> None:
    """A process that stands still for a minute while it asks is taken for gone."""
    path, now = tmp_path / "ledger.sqlite3", time.time()
    counters = Counters()
    budgets = Budgets(counters, app="default", of_client=[Budget(Decimal(1), "day")])
    client = Client("192.0.2.1", "192.0.2.1")
    reservation = await budgets.reserve(client, 10_000_000, now)
    later = lambda: now + 100.0  # noqa: E731
    async with opened(path) as still, opened(path, clock=later) as awake:
        still.begin(entry("req_0", now, reserved=Decimal("0.01"), generation_id="gen-1"))
        still.complete("req_0", CUT, 0.1)
        await budgets.settle(reservation, Decimal("0.01"))
        of_awake = Settler(awake, answered(FOUND), {"default": budgets})

        async def ask(row: Unsettled) -> Told:
            assert await of_awake.settle_due() == 1
            return FOUND

        assert await Settler(still, ask, {"default": budgets}).settle_due() == 1
    spent = (await standings(counters, reservation.windows))[0]
    assert spent.window.amount - spent.remaining == 2_000_000


async def test_what_a_killed_attempt_had_set_aside_is_free_however_late_its_turn_comes(
    tmp_path: Path,
) -> None:
    """Of the last of many calls the first attempt is asked about before the one that was killed."""

    class Shared(Counters):
        is_shared = True

    async def silent(row: Unsettled) -> None:
        return None

    path, now = tmp_path / "ledger.sqlite3", time.time()
    budgets = Budgets(Shared(), app="default", of_client=[Budget(Decimal(1), "day")])
    async with opened(path) as killed:
        killed.begin(entry("req_0", now, generation_id="gen-0"))
        for number in range(1, 1 + AT_ONCE // 2):
            call = entry(f"req_{number}", now + number / 100, generation_id=f"gen-{number}")
            call.attempts[0].end(None, None, "upstream_cut", 0.1)
            call.attempts += entry(at=now + 1, reserved=Decimal("0.01")).attempts
            killed.begin(call)
        assert await killed.flush()
    amount = 30_000_000 + AT_ONCE // 2 * 10_000_000
    reservation = await budgets.reserve(CLIENT, amount, now)
    clock = [now]
    async with opened(path, clock=lambda: clock[0]) as ledger:
        settler = Settler(ledger, silent, {"default": budgets}, clock=lambda: clock[0])
        for _ in range(3):
            await settler.settle_due()
            clock[0] += 3
    opened_still = (await standings(budgets._counters, reservation.windows))[1]
    assert MOST_NANO - opened_still.remaining == 0


async def test_what_killed_calls_had_set_aside_is_given_back_at_once_for_all_of_them(
    tmp_path: Path,
) -> None:
    """A storage whose answers take long is waited for once."""
    path, now, together = tmp_path / "ledger.sqlite3", time.time(), asyncio.Barrier(AT_ONCE)

    class Slow(Counters):
        is_shared = True

        async def adjust(self, changes: Sequence[Change]) -> None:
            await together.wait()

    budgets = Budgets(Slow(), app="default", of_client=[Budget(Decimal(1), "day")])
    async with opened(path) as killed:
        for number in range(AT_ONCE):
            killed.begin(entry(f"req_{number}", now))
        assert await killed.flush()
    async with opened(path) as ledger, asyncio.timeout(10):
        settler = Settler(ledger, answered(FOUND), {"default": budgets})
        assert await settler.settle_due() == AT_ONCE


@pytest.mark.parametrize("kind", servers.KINDS)
async def test_what_one_process_settled_is_not_taken_back_by_another_that_began_with_it(
    kind: str, tmp_path: Path
) -> None:
    """Both began with 16 killed calls, for each of which 0.01 USD was set aside."""
    if servers.binary(kind) is None:
        pytest.skip(f"no {kind}-server on this machine")
    path, now = tmp_path / "ledger.sqlite3", time.time()
    async with opened(path) as killed:
        for number in range(AT_ONCE):
            call = entry(f"req_{number}", now, generation_id="gen-1", reserved=Decimal("0.01"))
            killed.begin(call)
        assert await killed.flush()
    async with servers.running(kind) as server, AsyncExitStack() as stack:
        place = storage(server.url)
        assert place is not None
        processes: list[tuple[Ledger, Budgets]] = []
        for _ in range(2):
            counters = await stack.enter_async_context(
                open_shared(place, "closed", answer_seconds=5.0)
            )
            budgets = Budgets(counters, app="default", of_client=[Budget(Decimal(1), "day")])
            ledger = await stack.enter_async_context(opened(path))
            least = partial(ledger.spent, is_least=True)
            await restore(
                counters, {"default": budgets}, least, now, dict.fromkeys(budgets.kinds, 0.0)
            )
            processes.append((ledger, budgets))
        (ledger, budgets), (_, of_other) = processes
        settler = Settler(ledger, answered(FOUND), {"default": budgets})
        assert await settler.settle_due() == AT_ONCE
        reservation = await of_other.reserve(CLIENT, 5_000_000, now)
        [spent, _] = await standings(counters, reservation.windows)
        assert spent.window.amount - spent.remaining == AT_ONCE * 2_000_000 + 5_000_000


def answered(found: Told) -> Ask:
    async def ask(row: Unsettled) -> Told:
        return found

    return ask
