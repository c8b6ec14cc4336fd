"""One call's booking: what an answer, a cut or a hang-up leaves in the book and in the budget."""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Any

import pytest

from keyproxy.call import Ask, Call, Client, Endpoint, Style
from keyproxy.limits.storage import Counters
from keyproxy.money.booking import Booking, Bookings
from keyproxy.money.budget import Budgets
from keyproxy.money.memory import MemoryBook
from keyproxy.values import Budget

ID = "gen-1790981416-AbCdEfGh"
CLIENT = Client("203.0.113.9", "203.0.113.9")
CHAT = Endpoint("POST", "/api/v1/chat/completions", Style.CHAT)
CALL = Call(CHAT, CHAT.path, b"{}", ids=("openai/gpt-4o-mini",), ask=Ask(10, 10))
RUNNING = b'data: {"id":"%b","choices":[{"delta":{"content":"x"}}],"usage":{"cost":0.001}}\n\n'


class Desk:
    """Bookings on a book in memory; ``settle`` waits for what follows the calls."""

    def __init__(self, book: MemoryBook | None = None) -> None:
        self.book = MemoryBook() if book is None else book
        self.counters = Counters()
        budgets = Budgets(self.counters, app="default", of_client=[Budget(Decimal(1), "day")])
        self._works: list[Coroutine[Any, Any, None]] = []
        self.bookings = Bookings(
            budgets,
            self.book,
            None,
            key="sk-or-v1-tes...def",
            refuses_unpriced=False,
            run=self._works.append,
        )

    def book_call(self) -> AbstractAsyncContextManager[Booking]:
        return self.bookings.book("req_1", CLIENT, CALL)

    async def settle(self) -> None:
        while self._works:
            await self._works.pop()


@pytest.fixture
def desk() -> Desk:
    return Desk()


def answered(booking: Booking, *chunks: bytes, id: str | None = ID) -> None:
    booking.answered(200, "text/event-stream", id, key="sk-or-v1-tes...def")
    for chunk in chunks:
        booking.watch(chunk)


@pytest.mark.parametrize("ended", ["upstream_cut", "client_left", "complete"])
async def test_usage_of_a_stream_without_its_end_is_not_its_cost(desk: Desk, ended: str) -> None:
    """Some tell the usage so far with every event; a provider may bill on after a hang-up."""
    async with desk.book_call() as booking:
        answered(booking, RUNNING % ID.encode())
        booking.end(ended)
    assert booking.cost is None
    assert [row.cost_source for row in await desk.book.unsettled(9)] == ["estimated"]
    await desk.settle()


async def test_usage_before_an_error_is_not_the_cost(desk: Desk) -> None:
    async with desk.book_call() as booking:
        answered(booking, RUNNING % ID.encode(), b'data: {"error":{"code":502}}\n\n')
        booking.watch(b"data: [DONE]\n\n")
        booking.end("complete")
    assert booking.cost is None
    assert [row.generation_id for row in await desk.book.unsettled(9)] == [ID]
    await desk.settle()


async def test_a_client_that_leaves_after_the_end_has_the_whole_cost(desk: Desk) -> None:
    async with desk.book_call() as booking:
        answered(booking, RUNNING % ID.encode(), b"data: [DONE]\n\n")
        booking.end("client_left")
    assert booking.cost is not None
    assert (booking.cost.usd, booking.cost.source) == (Decimal("0.001"), "exact")
    assert await desk.book.unsettled(9) == []
    await desk.settle()


async def test_a_generation_id_in_the_body_is_noted_when_it_comes() -> None:
    """The process may be killed before the answer ends."""
    noted: list[str | None] = []

    class Watched(MemoryBook):
        def note(self, id: str, generation_id: str | None, key: str | None = None) -> None:
            noted.append(generation_id)
            super().note(id, generation_id, key)

    desk = Desk(Watched())
    async with desk.book_call() as booking:
        answered(booking, id=None)
        assert noted == [None]
        for _ in range(2):
            booking.watch(RUNNING % ID.encode())
            assert noted == [None, ID]
        booking.end("upstream_cut")
    assert [row.generation_id for row in await desk.book.unsettled(9)] == [ID]
    await desk.settle()
