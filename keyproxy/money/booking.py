"""One call's money, from what is set aside before it to what is booked after it.

Joins prices, budgets, the usage in the answer and the ledger. The call itself never waits for
more than the reservation; what follows the answer is booked behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from decimal import Decimal
from functools import partial
from typing import Any

import structlog

from keyproxy.call import Ask, Call, Client, Cost, End, Head
from keyproxy.dataclass import dataclass, field
from keyproxy.dialects import Dialect
from keyproxy.errors import Refusal
from keyproxy.ledger.entry import Entry
from keyproxy.ledger.ledger import Book
from keyproxy.money.budget import Budgets, Reservation
from keyproxy.money.pricebook import PriceBook
from keyproxy.money.reserving import Prices, fit, known_prices, to_reserve
from keyproxy.money.usage import UsageReader
from keyproxy.price import ZERO, Price, cost_of_answer, cost_of_error, dearest, nano
from keyproxy.record import Attempt, ClientLeft, Record
from keyproxy.upstream import faults
from keyproxy.upstream.faults import Fault

FREE = Cost(ZERO, ZERO, "computed")  # of what was not sent
_NOT_SENT = str(Fault.NOT_SENT)
_log = structlog.get_logger("keyproxy.money")


@dataclass(slots=True)
class Booking:
    """What becomes known of an attempt's money while it runs; ``record`` is told. Entered, its
    worst case is set aside and it is booked; left, it is settled, however ``record`` says that it
    ended. A call with several attempts has a booking for each, one after the other, and costs the
    sum of theirs.

    ``prices``: by the models that may answer: several, of which one does, where the home is told a
    list. None: the desk's own list tells, which has them as ``listed``.
    """

    desk: Bookings
    record: Record
    client: Client
    _call: Call
    dialect: Dialect
    ask: Ask | None
    attempt: Attempt
    prices: Prices | None
    listed: tuple[str, ...]
    entry: Entry = field(init=False)
    _reservation: Reservation = field(init=False)
    _price: Price | None = None
    _reader: UsageReader | None = None

    async def __aenter__(self) -> Booking:
        desk, client, ask = self.desk, self.client, self.ask
        call, record, attempt, prices = self._call, self.record, self.attempt, self.prices
        del self._call  # its body is not kept for as long as the answer streams
        if prices is None:
            attempt.price_source = None if desk.prices is None else "provider"
            is_counted, must_know = not desk.budgets.is_empty, desk.refuses_unpriced
            prices = await known_prices(
                desk.prices, self.listed, is_counted=is_counted, must_know=must_know
            )
        if len(prices) == 1:
            [self._price] = prices.values()
        at = desk.clock()  # after what may wait: it says which day's budget pays
        worst = None if ask is None else dearest(prices.values(), ask)
        self._reservation = await desk.set_aside(client, worst, at, prices, ask)
        attempt.begin(at, worst)
        attempts = record.booked = [*record.unsent, *record.booked, attempt]
        record.unsent = ()
        begun_at, name = attempts[0].begun_at, call.endpoint.name
        self.entry = Entry(
            *(record.request_id, begun_at, client.app, client.id, name, call.ids), attempts
        )
        del call
        desk.book.begin(self.entry)
        record.reserved = worst
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.end(error)
        finally:
            self._reader = None  # it tells us of ids: a circle, which only a collection would free
            self.desk.close(self, self._reservation)

    def answered(self, head: Head, fault: Fault | None = None) -> None:
        """The head has come; from now on the record's bytes are looked at. ``fault``: whose an
        error is."""
        self.record.answer, self.record.generation_id = head, head.generation_id
        self.attempt.fault = None if fault is None else str(fault)
        self.desk.book.note(self.entry.id, head.generation_id, head.key)
        if head.status < 400:
            is_event_stream = head.kind.startswith("text/event-stream")
            self._reader = UsageReader(
                self.dialect,
                is_event_stream,
                head.generation_id,
                head.told_cost,
                self._found_id,
                head.holds_key,
            )
            self.record.watchers.append(self._reader.watch)

    def watch(self, chunk: bytes) -> None:
        """Look at bytes of an answer that nobody records any more."""
        if self._reader is not None:
            self._reader.watch(chunk)

    def _found_id(self, generation_id: str) -> None:
        """Not at the end: should this process be killed, the next one can ask for the cost."""
        self.record.generation_id = generation_id
        self.desk.book.note(self.entry.id, generation_id)

    def failed(self, fault: Fault) -> None:
        """It brought nothing for the client, and another provider may be asked. It costs nothing if
        it was not sent, or refused; else its worst case stands until more is known."""
        record, head, cost = self.record, self.record.answer, None
        if self._reader is not None:
            self._reader.finish()
            record.watchers.remove(self._reader.watch)
        if fault is Fault.NOT_SENT:
            cost = FREE
        elif fault is not Fault.UNCERTAIN:
            cost = FREE if head is None or head.status < 400 else self._cost()
        self.attempt.fault = str(fault)
        self._end(cost, End.REFUSED if head is None else End.COMPLETE)
        record.answer, record.generation_id = None, None

    def end(self, error: BaseException | None = None) -> None:
        """The call is over, or broken off by ``error``; its cost is known now, or asked for
        later."""
        record, reader, attempt = self.record, self._reader, self.attempt
        if attempt.ended is not None:
            return  # it has failed
        if error is not None:
            record.end_by(error)
        if reader is not None:
            reader.finish()
            record.usage, record.answer_error = reader.usage, reader.error
            if reader.error is not None and record.ended is End.COMPLETE:
                record.ended = End.UPSTREAM_ERROR
        if isinstance(error, Refusal):
            attempt.fault = _NOT_SENT if error.is_free else str(Fault.UNCERTAIN)
        elif isinstance(error, ClientLeft) and error.head is not None:
            head = error.head  # of an error its body is not read: its status says whose it is
            self.answered(head, None if head.status < 400 else faults.classify(head.status, None))
        elif isinstance(error, ClientLeft):
            attempt.fault = _NOT_SENT
        record.cost = FREE if attempt.fault == _NOT_SENT else self._cost()
        self._end(record.cost, record.ended)

    def _cost(self) -> Cost | None:
        """Of the answer; None where only asking the upstream can tell."""
        record, reader = self.record, self._reader
        if (head := record.answer) is None:
            return None
        if head.status >= 400:
            return cost_of_error(head.status, self.ask, is_own=head.is_own)
        # A client may leave once it has read the end: the cost is no less true for it.
        is_whole = reader is not None and reader.is_finished and reader.error is None
        return cost_of_answer(record.usage, is_whole, self._price, self.ask)

    def _end(self, cost: Cost | None, ended: End) -> None:
        attempt, record = self.attempt, self.record
        if not attempt.is_told and self._reader is not None:
            attempt.answer_id = self._reader.answer_id
        attempt.end(cost, record.upstream_status, ended, self.desk.clock() - attempt.begun_at)
        if record.connect_seconds is not None:
            attempt.connect_seconds = record.connect_seconds
            for before in record.booked[:-1]:
                attempt.connect_seconds -= before.connect_seconds or 0.0
        if record.first_byte_at is not None:
            attempt.first_output_seconds = record.first_byte_at - record.asked_at
        if self._price is not None:
            tokens = 0 if record.usage is None else record.usage.input_tokens or 0
            attempt.rates = self._price.at(tokens).text


@dataclass(slots=True)
class Bookings:
    """Books the calls of one app.

    ``prices`` None: nobody asks what a call costs. ``key``: the label of the key that is tried
    first. ``run`` starts what outlives the call; ``unsettled`` receives the attempts whose cost is
    not final, by their call's id and number, where the book knows those of other processes, too.
    """

    budgets: Budgets
    book: Book
    prices: PriceBook | None
    run: Callable[[Coroutine[Any, Any, None]], object]
    key: str = ""
    refuses_unpriced: bool = False
    unsettled: set[tuple[str, int]] | None = None
    clock: Callable[[], float] = time.time

    def reserve(
        self,
        record: Record,
        client: Client,
        call: Call,
        attempt: Attempt | None = None,
        prices: Prices | None = None,
        listed: tuple[str, ...] = (),
    ) -> Booking:
        """A booking for an attempt of ``call``, to be entered; by default at the one upstream.

        That raises ``budget_exhausted``, ``call_too_costly``, ``budget_busy``, ``overloaded``.
        """
        return Booking(
            *(self, record, client, call, call.endpoint.dialect, call.ask),
            attempt=attempt or Attempt(",".join(call.ids), self.key),
            prices=prices,
            listed=listed or call.ids,
        )

    def set_aside(
        self, client: Client, worst: Decimal | None, at: float, prices: Prices, ask: Ask | None
    ) -> Coroutine[Any, Any, Reservation]:
        """As ``Budgets.reserve``; a caller who leaves meanwhile leaves nothing set aside."""
        must_know = self.refuses_unpriced and not self.budgets.is_empty
        amount = to_reserve(worst, prices, ask, must_know=must_know)
        reserving = self.budgets.reserve(client, amount, at, partial(fit, prices, ask))
        return self._until_told(reserving) if self.budgets.may_wait else reserving

    async def _until_told(self, told: Coroutine[Any, Any, Reservation]) -> Reservation:
        reserving = asyncio.create_task(told)
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            self.run(self._give_back(reserving))
            raise

    async def _give_back(self, reserving: asyncio.Task[Reservation]) -> None:
        with contextlib.suppress(Refusal):
            await self.budgets.settle(await reserving, ZERO)

    def close(self, booking: Booking, reservation: Reservation) -> None:
        """Book how it ended; nothing here waits, and a client that has left cannot stop it."""
        entry, record, attempt = booking.entry, booking.record, booking.attempt
        counted = attempt.counted
        is_unsent = attempt.fault == _NOT_SENT
        if is_unsent and all(each.fault == _NOT_SENT for each in entry.attempts):
            self.book.withdraw(entry.id)
            record.unsent, record.booked, record.cost = entry.attempts, (), None
        else:
            if self.unsettled is not None and not attempt.is_final:
                self.unsettled.add((entry.id, len(entry.attempts)))
            self.book.complete(entry.id, record, max(0.0, self.clock() - entry.at))
            if len(entry.attempts) > 1:
                record.cost = entry.cost
        if self.budgets.may_wait:
            self.run(self._settle(entry, reservation, counted))
        else:
            self.budgets.settle_here(reservation, counted)

    async def _settle(self, entry: Entry, reservation: Reservation, counted: Decimal) -> None:
        gives_back, n = nano(counted) < reservation.amount, len(entry.attempts)
        if self.book.is_surely_ours(entry.at):
            await self.budgets.settle(reservation, counted)
            return
        # While this process stood still, one that shares the counters may have settled the call,
        # and given back what was set aside for it. What exceeds that must count at once.
        if not gives_back:
            await self.budgets.settle(reservation, counted, ends=False)
        has_row, has_reservation = await self.book.left(entry.id, n)
        cost = counted if gives_back and has_row else None
        await self.budgets.settle(reservation, cost, ends=has_reservation)
