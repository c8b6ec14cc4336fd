"""One call's booking: what an answer, a cut or a hang-up leaves in the book and in the budget."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from keyproxy import dialects
from keyproxy.call import Ask, Call, Client, End, Endpoint, Head, Told, Usage
from keyproxy.errors import Refusal
from keyproxy.ledger.entry import Unsettled
from keyproxy.ledger.ledger import Book, opened
from keyproxy.ledger.memory import MemoryBook
from keyproxy.limits.counters import Counters, Table
from keyproxy.limits.windows import Place, Verdict, Window
from keyproxy.money.booking import Booking, Bookings
from keyproxy.money.budget import Budgets
from keyproxy.money.pricebook import PriceBook
from keyproxy.money.settling import Settler
from keyproxy.price import nano
from keyproxy.record import Record
from keyproxy.settings.grammar.plain import Budget
from keyproxy.upstream import answers
from keyproxy.upstream.faults import Fault
from keyproxy.upstream.headers import KeySearch
from keyproxy.upstream.openrouter import LISTING, OPENROUTER, read_call
from keyproxy.upstream.provider import Fetched
from tests.counting import standings
from tests.records import entry, over

ID = "gen-1790981416-AbCdEfGh"
CLIENT = Client("203.0.113.9", "203.0.113.9")
CHAT = Endpoint("POST", "/api/v1/chat/completions", dialects.CHAT)
CALL = Call(CHAT, CHAT.path, b"{}", ids=("openai/gpt-4o-mini",), ask=Ask(10, 10))
MODELS = (*CALL.ids, "some/other")
RUNNING = b'data: {"id":"%b","choices":[{"delta":{"content":"x"}}],"usage":{"cost":0.001}}\n\n'


def told(path: str) -> Fetched:
    """A price list by which each call of here could cost 0.01 USD and what it reads; of providers,
    nothing."""
    pricing = {"prompt": "0.000001", "completion": "0.001"}
    rows = [{"id": id, "context_length": 1000, "pricing": pricing} for id in MODELS]
    data = rows if path == LISTING.path else {"id": MODELS[0], "endpoints": []}
    fetched = Fetched(200, json.dumps({"data": data}).encode())
    return answers.read(OPENROUTER, path, fetched, KeySearch([]))


async def priced() -> PriceBook:
    async def fetch(path: str) -> Fetched:
        return told(path)

    book = PriceBook(fetch)
    assert await book.refresh()
    for model in MODELS:
        await book.refresh_providers(model)
    return book


class Desk:
    """Bookings on a book in memory; ``settle`` waits for what follows the calls."""

    def __init__(
        self,
        prices: PriceBook,
        book: Book | None = None,
        counters: Counters | None = None,
    ) -> None:
        self.book: Book = MemoryBook() if book is None else book
        self.counters = Counters() if counters is None else counters
        budgets = Budgets(self.counters, app="default", of_client=[Budget(Decimal(1), "day")])
        self.works: list[Coroutine[Any, Any, None]] = []
        self.bookings = Bookings(
            budgets,
            self.book,
            prices,
            key="sk-or-v1-tes...def",
            refuses_unpriced=False,
            run=self.works.append,
            unsettled=set(),
        )

    async def counted(self) -> list[int]:
        """Nano-dollars that the client's budget counts: spent or set aside, and set aside."""
        [pot] = self.bookings.budgets.pots
        windows = pot.windows(CLIENT.id, time.time())
        found = await standings(self.counters, windows)
        return [each.window.amount - each.remaining for each in found]

    def book_call(self) -> AbstractAsyncContextManager[Booking]:
        return self.bookings.reserve(Record("POST", "/x"), CLIENT, CALL)

    async def settle(self) -> None:
        while self.works:
            await self.works.pop()


@pytest.fixture
async def desk() -> Desk:
    return Desk(await priced())


def answered(booking: Booking, *chunks: bytes, id: str | None = ID) -> None:
    booking.answered(Head(200, "text/event-stream", id, "sk-or-v1-tes...def"))
    for chunk in chunks:
        booking.record.watch(chunk)


@pytest.mark.parametrize("ended", ["upstream_cut", "client_left", "complete"])
async def test_usage_of_a_stream_without_its_end_is_not_its_cost(desk: Desk, ended: str) -> None:
    """Some tell the usage so far with every event; a provider may bill on after a hang-up."""
    async with desk.book_call() as booking:
        answered(booking, RUNNING % ID.encode())
        booking.record.ended = End(ended)
    assert booking.record.cost is None
    assert [row.attempt.cost_source for row in await desk.book.unsettled(9)] == ["estimated"]
    await desk.settle()


async def test_without_a_budget_nothing_is_left_to_do_after_a_call(desk: Desk) -> None:
    desk.bookings.budgets = Budgets(desk.counters, app="default")
    async with desk.book_call() as booking:
        answered(booking, RUNNING % ID.encode(), b"data: [DONE]\n\n")
    with pytest.raises(Refusal):
        async with desk.book_call():
            raise Refusal("overloaded", "", is_free=True)
    assert desk.works == []


async def test_usage_before_an_error_is_not_the_cost(desk: Desk) -> None:
    async with desk.book_call() as booking:
        answered(booking, RUNNING % ID.encode(), b'data: {"error":{"code":502}}\n\n')
        booking.record.watch(b"data: [DONE]\n\n")
    assert booking.record.cost is None
    assert [row.attempt.generation_id for row in await desk.book.unsettled(9)] == [ID]
    await desk.settle()


async def test_a_client_that_leaves_after_the_end_has_the_whole_cost(desk: Desk) -> None:
    async with desk.book_call() as booking:
        answered(booking, RUNNING % ID.encode(), b"data: [DONE]\n\n")
        booking.record.ended = End.CLIENT_LEFT
    assert booking.record.cost is not None
    assert (booking.record.cost.usd, booking.record.cost.source) == (Decimal("0.001"), "exact")
    assert await desk.book.unsettled(9) == []
    await desk.settle()


@pytest.mark.parametrize(("bill", "counted"), [("0.5", "0.501"), ("null", "0.00701")])
async def test_a_providers_bill_that_is_not_told_is_computed(
    desk: Desk, bill: str, counted: str
) -> None:
    """With the operator's own key there, budgets count it on top of the fee."""
    usage = (
        '{"prompt_tokens":10,"completion_tokens":6,"cost":0.001,"is_byok":true,'
        f'"cost_details":{{"upstream_inference_cost":{bill}}}}}'
    )
    async with desk.book_call() as booking:
        answered(booking, f'data: {{"choices":[],"usage":{usage}}}\n\n'.encode())
        booking.record.watch(b"data: [DONE]\n\n")
    assert booking.record.cost is not None
    assert (booking.record.cost.usd, booking.record.cost.source) == (Decimal("0.001"), "exact")
    assert booking.record.cost.counted == Decimal(counted)
    await desk.settle()


async def test_a_bill_that_is_neither_told_nor_can_be_computed_is_asked_about(desk: Desk) -> None:
    """The fee alone says little: what is set aside counts until the upstream tells the rest."""
    usage = '{"prompt_tokens":10,"completion_tokens":6,"cost":0.0005,"is_byok":true}'
    call = replace(CALL, ids=(*CALL.ids, "some/other"))  # whichever answers: no one price
    async with desk.bookings.reserve(Record("POST", "/x"), CLIENT, call) as booking:
        answered(booking, f'data: {{"choices":[],"usage":{usage}}}\n\n'.encode())
        booking.record.watch(b"data: [DONE]\n\n")
    await desk.settle()
    assert booking.record.cost is None
    [row] = await desk.book.unsettled(9)
    assert (row.attempt.cost, row.attempt.cost_source) == (row.attempt.reserved, "estimated")
    assert await desk.counted() == [nano(row.attempt.counted), 0]
    assert row.attempt.counted > Decimal("0.01")


async def test_a_generation_id_in_the_body_is_noted_when_it_comes() -> None:
    """The process may be killed before the answer ends."""
    noted: list[str | None] = []

    class Watched(MemoryBook):
        def note(self, id: str, generation_id: str | None, key: str | None = None) -> None:
            noted.append(generation_id)
            super().note(id, generation_id, key)

    desk = Desk(await priced(), Watched())
    async with desk.book_call() as booking:
        answered(booking, id=None)
        assert noted == [None]
        for _ in range(2):
            booking.record.watch(RUNNING % ID.encode())
            assert noted == [None, ID]
        booking.record.ended = End.UPSTREAM_CUT
    assert [row.attempt.generation_id for row in await desk.book.unsettled(9)] == [ID]
    await desk.settle()


@pytest.mark.parametrize(
    ("is_told", "usd", "spent"),
    [(True, b"0.001", 506_000_000), (False, b"0.001", 506_000_000), (False, b"0.05", 555_000_000)],
)
async def test_a_call_that_another_process_settled_is_not_given_back_again(
    tmp_path: Path, is_told: bool, usd: bytes, spent: int
) -> None:
    """A process that stands still for a minute is taken for gone; its calls are not. What one costs
    beyond what was set aside counts at once."""

    class Shared(Counters):
        is_shared = True

    async def ask(row: Unsettled) -> Told | None:
        return Told(Usage(cost=Decimal("0.001")), None) if is_told else None

    path, later = tmp_path / "ledger.sqlite3", lambda: time.time() + 100.0
    async with opened(path) as still, opened(path, clock=later) as awake:
        desk = Desk(await priced(), still, Shared())
        budgets = desk.bookings.budgets
        await budgets.settle(await budgets.reserve(CLIENT, 1, time.time()), Decimal("0.5"))
        await budgets.reserve(CLIENT, 5_000_000, time.time())  # of another call
        async with desk.book_call() as booking:
            answered(booking, (RUNNING % ID.encode()).replace(b"0.001", usd))
            assert await still.flush()
            settler = Settler(awake, ask, {"default": budgets}, clock=later)
            assert await settler.settle_due() == 1
            still.clock = later
            booking.record.watch(b"data: [DONE]\n\n")
        await desk.settle()
        assert await desk.counted() == [spent, 5_000_000]


async def test_each_attempt_gives_back_once_what_was_set_aside_for_it(tmp_path: Path) -> None:
    """Of the first another process has done it; the second ends as it should, or is cut."""

    class Shared(Counters):
        is_shared = True

    async def ask(row: Unsettled) -> Told | None:
        return None

    path, later = tmp_path / "ledger.sqlite3", lambda: time.time() + 100.0
    async with opened(path) as still, opened(path, clock=later) as awake:
        desk, record = Desk(await priced(), still, Shared()), Record("POST", "/x")
        budgets = desk.bookings.budgets
        await budgets.reserve(CLIENT, 5_000_000, time.time())  # of another call
        async with desk.bookings.reserve(record, CLIENT, CALL) as booking:
            booking.answered(Head(200, "text/event-stream", ID, "sk-or-v1-tes...def"))
            assert await still.flush()
            await Settler(awake, ask, {"default": budgets}, clock=later).settle_due()
            still.clock = later
            booking.failed(Fault.UNCERTAIN)
        async with desk.bookings.reserve(record, CLIENT, CALL) as booking:
            answered(booking, RUNNING % ID.encode())
        await desk.settle()
        assert (await desk.counted())[1] == 5_000_000


@pytest.mark.parametrize(
    ("ask", "is_known"),
    [
        (Ask(10, 10), True),
        (Ask(10, 10, rounds=5, searches=4), False),
        (Ask(10, 10, has_files=True, has_media=True), False),
        (Ask(10, is_unbounded=True), False),
    ],
)
async def test_an_error_is_free_where_nothing_but_the_answer_could_cost(
    desk: Desk, ask: Ask, is_known: bool
) -> None:
    """Searches and files are billed by the piece, whatever becomes of the answer."""
    call = replace(CALL, ask=ask)
    async with desk.bookings.reserve(Record("POST", "/x"), CLIENT, call) as booking:
        booking.answered(Head(503, "application/json", ID, "sk-or-v1-tes...def"))
    [row] = await desk.book.unsettled(9)
    assert row.attempt.generation_id == ID
    if is_known:
        assert (row.attempt.cost, row.attempt.counted, row.attempt.cost_source) == (
            Decimal(0),
            Decimal(0),
            "computed",
        )
    else:
        assert (row.attempt.cost, row.attempt.cost_source) == (row.attempt.reserved, "estimated")
    await desk.settle()


async def cancelled_at(desk: Desk, arrived: asyncio.Event) -> None:
    """A call whose client hangs up when ``arrived`` is set: its money is set aside by then."""

    async def call() -> None:
        async with desk.book_call():
            raise AssertionError("it went out")

    calling = asyncio.create_task(call())
    await arrived.wait()
    assert min(await desk.counted()) > 10_000_000
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling


async def test_a_call_that_left_while_the_storage_counted_it_leaves_nothing_set_aside() -> None:
    class Slow(Counters):
        is_shared = True
        arrived, may_answer = asyncio.Event(), asyncio.Event()

        async def take(
            self, windows: Sequence[Window], place: Place | None = None, cost: int = 1
        ) -> Verdict:
            verdict = await super().take(windows, place, cost)
            if verdict.is_admitted:
                self.arrived.set()
                await self.may_answer.wait()
            return verdict

    counters = Slow()
    desk = Desk(await priced(), counters=counters)
    await cancelled_at(desk, counters.arrived)
    assert min(await desk.counted()) > 10_000_000
    counters.may_answer.set()
    await desk.settle()
    assert await desk.counted() == [0, 0]


@pytest.mark.parametrize("cost", ["1e-999999", "-1", "1e7", "NaN", '"1"', "null"])
def test_a_told_cost_that_no_sum_may_hold_is_none(cost: str) -> None:
    assert read_call(b'{"data":{"total_cost":%b}}' % cost.encode()) is None


async def test_a_row_of_another_process_changes_no_budget_of_ours() -> None:
    """Counters of our own never held what it was booked with."""
    counters, book = Counters(), MemoryBook()
    budgets = Budgets(counters, app="default", of_client=[Budget(Decimal(1), "day")])
    at = time.time()
    reservation = await budgets.reserve(CLIENT, 900_000_000, at)
    await budgets.settle(reservation, Decimal("0.9"))
    book.begin(entry("req_other", at, client=CLIENT.id, reserved=Decimal("0.9")))
    book.note("req_other", "gen-1790981416-AbCdEfGh")
    book.complete("req_other", over(200, "client_left"), 1.0)

    async def told(row: Unsettled) -> Told | None:
        return read_call(b'{"data":{"total_cost":0.0001}}')

    await Settler(book, told, {"default": budgets}, lambda row: False).settle_due()
    with pytest.raises(Refusal):
        await budgets.reserve(CLIENT, 200_000_000, at)
    assert await book.unsettled(1) == []


async def test_a_call_that_waits_for_prices_over_midnight_is_paid_by_the_new_day() -> None:
    """Counted in the day that is over, it and all that wait with it would count nowhere."""
    wall, ticks = [86_400.0 * 20_000 - 1.5], [100.0]

    async def fetch(path: str) -> Fetched:
        wall[0], ticks[0] = wall[0] + 1, ticks[0] + 1
        return told(path)

    prices = PriceBook(fetch)
    await prices.refresh_providers(CALL.ids[0])
    desk = Desk(prices, counters=Counters(Table(lambda: ticks[0]), lambda: wall[0]))
    desk.bookings.clock = lambda: wall[0]
    refreshing = asyncio.ensure_future(prices.refresh())  # goes on while the call waits for it
    async with desk.book_call():
        await refreshing
        [pot] = desk.bookings.budgets.pots
        spent, _ = await standings(desk.counters, pot.windows(CLIENT.id, wall[0]))
        assert spent.remaining < spent.window.amount


@pytest.mark.parametrize("model", ["a\u2028b", "a\x1b[2J", ["a/b"], 3, None])
def test_a_model_that_is_no_plain_text_is_not_told(model: object) -> None:
    """It is shown on the dashboard, and in a terminal."""
    told = read_call(json.dumps({"data": {"total_cost": 0.1, "model": model}}).encode())
    assert told is not None
    assert told.model is None
