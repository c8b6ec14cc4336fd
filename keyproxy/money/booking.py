"""One call's money, from what is set aside before it to what is booked after it.

Joins prices, budgets, the usage in the answer and the ledger. The call itself never waits for
more than the reservation and its durable row; what follows the answer is booked behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

import structlog

from keyproxy.call import Ask, Call, Client, End, Head
from keyproxy.dialects import Dialect
from keyproxy.errors import Refusal
from keyproxy.ledger.entry import Entry, is_final, standing, to_pico
from keyproxy.ledger.ledger import Book
from keyproxy.money.budget import LEAST_NANO, NOTHING, Advice, Budgets, Fit, Reservation
from keyproxy.money.pricebook import PriceBook
from keyproxy.money.usage import UsageReader
from keyproxy.price import (
    ZERO,
    Price,
    cost_of_answer,
    cost_of_error,
    dearest,
    fitting_max_tokens,
    nano,
)
from keyproxy.record import Booked, ClientLeft, Record
from keyproxy.upstream.faults import Fault

PRICES_PATIENCE_SECONDS = 5.0
PROVIDERS_PATIENCE_SECONDS = 2.0
_log = structlog.get_logger("keyproxy.money")


@dataclass(slots=True)
class Booking:
    """What becomes known of a call's money while it runs; ``record`` is told. Entered, its worst
    case is set aside and booked; left, it is settled, however ``record`` says that it ended.

    ``price``: of the one model that may answer, if there is only one. ``is_free``: nothing has
    been sent that could cost.
    """

    desk: Bookings
    record: Record
    client: Client
    _call: Call
    dialect: Dialect
    ask: Ask | None
    prices: Mapping[str, Price | None] | None = None
    price: Price | None = None
    is_free: bool = True
    entry: Entry = field(init=False)
    _reservation: Reservation = NOTHING
    _reader: UsageReader | None = None
    _has_failed: bool = False

    async def __aenter__(self) -> Booking:
        desk, client, ask = self.desk, self.client, self.ask
        call = self._call
        del self._call  # its body is not kept for as long as the answer streams
        models = call.ids
        prices = self.prices
        if prices is None:
            prices = await desk.prices_of(models)
        at = desk.clock()  # after what may wait: it says which day's budget pays
        worst = None if ask is None else dearest(prices.values(), ask)
        amount = desk.to_reserve(worst, prices, ask)
        self._reservation = await desk.set_aside(client, amount, at, partial(_fit, prices, ask))
        if len(prices) == 1:
            [self.price] = prices.values()
        self.entry = Entry(
            self.record.request_id,
            at,
            client.app,
            client.id,
            call.endpoint.name,
            models,
            desk.key,
            worst,
        )
        del call
        try:
            await desk.book.begin(self.entry)
        except BaseException as error:
            self._leave(error)
            raise
        self.is_free = False  # from now on it may have reached the upstream
        self.record.reserved = worst
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        try:
            self.end(error)
        finally:
            self.desk.close(self, self._reservation)

    def answered(self, head: Head) -> None:
        """The head has come; from now on the record's bytes are looked at."""
        self.record.answer, self.record.generation_id = head, head.generation_id
        self.desk.book.note(self.entry.id, head.generation_id, head.key)
        if head.status < 400:
            is_event_stream = head.kind.startswith("text/event-stream")
            self._reader = UsageReader(
                self.dialect,
                is_event_stream,
                head.generation_id,
                head.told_cost,
                self._found_id,
            )
            self.record.watchers.append(self._reader.watch)

    def _found_id(self, generation_id: str) -> None:
        """Not at the end: should this process be killed, the next one can ask for the cost."""
        self.record.generation_id = generation_id
        self.desk.book.note(self.entry.id, generation_id)

    def failed(self, fault: Fault) -> None:
        """It brought nothing for the client, and another provider is asked; unless it was taken
        perhaps, it is not billed."""
        self.is_free, self._has_failed = fault is not Fault.UNCERTAIN, True
        if self._reader is not None:
            self.record.watchers.remove(self._reader.watch)

    def end(self, error: BaseException | None = None) -> None:
        """The call is over, or broken off by ``error``; its cost is known now, or asked for
        later."""
        record, reader = self.record, self._reader
        if self._has_failed:
            record.answer, record.generation_id = None, None
            return
        if error is not None:
            record.end_by(error)
        if reader is not None:
            record.usage, record.answer_error = reader.usage, reader.error
            if reader.error is not None and record.ended is End.COMPLETE:
                record.ended = End.UPSTREAM_ERROR
        if isinstance(error, Refusal):
            self.is_free = error.is_free
        elif isinstance(error, ClientLeft):
            self.is_free = error.head is None
            if error.head is not None:
                self.answered(error.head)
        if (head := record.answer) is None:
            return
        if head.status >= 400:
            record.cost = cost_of_error(head.status, self.ask, is_own=head.is_own)
            return
        # A client may leave once it has read the end: the cost is no less true for it.
        is_whole = reader is not None and reader.is_finished and reader.error is None
        record.cost = cost_of_answer(record.usage, is_whole, self.price, self.ask)


@dataclass(slots=True)
class Bookings:
    """Books the calls of one app.

    ``prices`` None: nobody asks what a call costs. ``key``: the label of the key that is tried
    first. ``run`` starts what outlives the call; ``unsettled`` receives the ids of calls whose cost
    is not final, where the book knows those of other processes, too.
    """

    budgets: Budgets
    book: Book
    prices: PriceBook | None
    run: Callable[[Coroutine[Any, Any, None]], object]
    key: str = ""
    refuses_unpriced: bool = False
    unsettled: set[str] | None = None
    clock: Callable[[], float] = time.time

    def reserve(
        self,
        record: Record,
        client: Client,
        call: Call,
        prices: Mapping[str, Price | None] | None = None,
    ) -> Booking:
        """A booking for ``call``, to be entered. ``prices`` of its models, where they are not those
        of the desk's own list.

        That raises ``budget_exhausted``, ``call_too_costly``, ``budget_busy``, ``overloaded``.
        """
        return Booking(self, record, client, call, call.endpoint.dialect, call.ask, prices)

    async def set_aside(
        self, client: Client, amount: int, at: float, fit: Fit | None
    ) -> Reservation:
        """As ``Budgets.reserve``; a caller who leaves meanwhile leaves nothing set aside."""
        if not self.budgets.may_wait:
            return await self.budgets.reserve(client, amount, at, fit)
        reserving = asyncio.create_task(self.budgets.reserve(client, amount, at, fit))
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            self.run(self._give_back(reserving))
            raise

    async def _give_back(self, reserving: asyncio.Task[Reservation]) -> None:
        with contextlib.suppress(Refusal):
            await self.budgets.settle(await reserving, ZERO)

    def to_reserve(
        self, worst: Decimal | None, prices: Mapping[str, Price | None], ask: Ask | None
    ) -> int:
        """Nano-dollars. Raises ``call_too_costly`` where the worst is not known and must be."""
        if worst is not None:
            return nano(worst)
        if not self.refuses_unpriced or self.budgets.is_empty:
            return LEAST_NANO
        unpriced = next((model for model, price in prices.items() if price is None), None)
        what, instead = f"The price of {unpriced}", ""
        if unpriced is None:
            part = "" if ask is None else ask.part
            what = f"What {part or 'this call'} can cost at most"
            instead = " Send its text instead." if part == "the file" else ""
        raise Refusal(
            "call_too_costly",
            f"{what} is not known here, so that no budget could be kept.{instead}",
            param=None if unpriced is None else "model",
            hint="KEYPROXY_UNPRICED=allow",
        )

    async def prices_of(self, models: Sequence[str]) -> dict[str, Price | None]:
        """Raises ``overloaded`` where prices are not known yet, or what a model's providers take,
        and must be: one may take more than the list says."""
        prices = self.prices
        if prices is None:
            return dict.fromkeys(models)
        if not self.budgets.is_empty:
            must_know = self.refuses_unpriced
            if not prices.listed.priced:
                await prices.loaded(
                    PRICES_PATIENCE_SECONDS if must_know else PROVIDERS_PATIENCE_SECONDS
                )
            is_known = await prices.learn(models, PROVIDERS_PATIENCE_SECONDS)
            if must_know and not prices.listed.priced:
                raise Refusal(
                    "overloaded",
                    "The prices of models are not known here yet, so that no budget could be kept;"
                    " try again soon.",
                    retry_after_seconds=prices.asks_in_seconds,
                    hint="no list of models could be fetched; to let calls through"
                    " until a budget is spent: KEYPROXY_UNPRICED=allow",
                )
            if must_know and not is_known:
                raise Refusal(
                    "overloaded",
                    "What the providers of this model take is not known here yet, so that no"
                    " budget could be kept; try again in a second.",
                    retry_after_seconds=1.0,
                    hint="GET /models/{author}/{slug}/endpoints was not answered in time; to take"
                    " the price of the list of models: KEYPROXY_UNPRICED=allow",
                )
        return {model: prices.price_of(model) for model in models}

    def close(self, booking: Booking, reservation: Reservation) -> None:
        """Book how it ended; nothing here waits, and a client that has left cannot stop it."""
        entry, record, counted = booking.entry, booking.record, ZERO
        if booking.is_free:
            self.book.withdraw(entry.id)
        else:
            is_known = is_final(record.cost, record.generation_id)
            if self.unsettled is not None and not is_known:
                self.unsettled.add(entry.id)
            self.book.complete(entry.id, record, max(0.0, self.clock() - entry.at))
            usd, counted, source = standing(entry, record.cost)
            record.booked = Booked(None if usd is None else to_pico(usd), source, is_known)
        if not self.budgets.may_wait:
            self.budgets.settle_here(reservation, counted)
        elif reservation.windows and booking.is_free:
            self.run(self.budgets.settle(reservation, ZERO))
        elif reservation.windows:
            self.run(self._settle(entry.id, reservation, counted))

    async def _settle(self, id: str, reservation: Reservation, counted: Decimal) -> None:
        # While this process stood still, one that shares the counters may have settled the call
        # and given back what was left. (What exceeds a reservation must count at once.)
        gives_back = nano(counted) < reservation.amount
        if not gives_back or await self.book.is_ours(id):
            await self.budgets.settle(reservation, counted)


def _fit(prices: Mapping[str, Price | None], ask: Ask | None, usd: Decimal) -> Advice | None:
    """How many tokens of an answer ``usd`` pays for, with whichever of the models answers."""
    known = [price for price in prices.values() if price is not None]
    if ask is None or not known:
        return None
    each = [fitting_max_tokens(price, ask, usd) for price in known]
    tokens = min(filter(None, each), default=None)
    if tokens is None or None in each:
        return None
    fields = ask.length_fields
    reasoning = " and less reasoning" if ask.reasoning_tokens >= tokens else ""
    return Advice(fields[0], f"ask for {' and '.join(fields)} ≤ {tokens}{reasoning}")
