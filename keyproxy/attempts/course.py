"""One call's way from home to home, until one of them answers it.

Once a byte has gone to the client there is no other home. Until then each home's answer is held
only while there is a further one to go to.
"""

#   PLANNED --- set aside, a row is booked ---> SENT --- output, or all that is held ---> ANSWERED
#      ^  \--- no room, no money: the next home   |
#      |                                          | an error, no connection, silence, broken off
#      +--- another home may take it: at most 3 --+--- else ---> ALL FAILED

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import structlog

from keyproxy.attempts.drains import MOST_BYTES, Drains, read
from keyproxy.attempts.failed import OF_CALLER, Failed, last_word, of_refusal, route_headers
from keyproxy.attempts.held import trouble_before_output
from keyproxy.call import ROUTER, Call, Client
from keyproxy.dataclass import dataclass, field, replace
from keyproxy.errors import Refusal
from keyproxy.money.booking import Booking, Bookings
from keyproxy.money.reserving import Prices
from keyproxy.policy.models import Models, Served
from keyproxy.record import Attempt, Record
from keyproxy.routing.breaker import OF_CALL
from keyproxy.routing.homes import Home, Place
from keyproxy.routing.memory import Memory
from keyproxy.routing.router import Option, Plan, Router
from keyproxy.strict_json.body import is_large
from keyproxy.upstream.faults import Fault
from keyproxy.upstream.send import Answer, Upstream

MOST = 3
_LEVELS = {Fault.ACCOUNT: logging.ERROR, Fault.CONFIG: logging.ERROR, Fault.FIELD: logging.WARNING}
T = TypeVar("T")
_log = structlog.get_logger("keyproxy.routing")


@dataclass(frozen=True)
class RoutingKit:
    """What the calls of one app find their homes with, where more than OpenRouter is used.

    ``most_in_flight`` and ``first_output_seconds`` by provider, where they are bounded. One call's
    attempts begin within ``first_byte_seconds``, and no home is silent for ``idle_seconds``.
    ``drained``: providers whose answers ``drains`` reads on when the client leaves.
    """

    router: Router
    upstreams: Mapping[str, Upstream]
    bookings: Bookings
    models: Models
    most_in_flight: Mapping[str, int] = field(default_factory=dict)
    first_output_seconds: Mapping[str, float] = field(default_factory=dict)
    first_byte_seconds: float = 600.0
    idle_seconds: float = 120.0
    shows_route: bool = True
    drained: frozenset[str] = frozenset()
    drains: Drains = field(default_factory=Drains)
    clock: Callable[[], float] = time.monotonic

    @property
    def memory(self) -> Memory:
        return self.router.memory


class Open(NamedTuple):
    """What is passed on; ``stack`` is closed behind it. ``place``: whose answer it is, asked for at
    ``asked_at``; None where it is an error."""

    stack: AsyncExitStack
    answer: Answer
    place: Place | None = None
    asked_at: float = 0.0


class Course:
    """One call's attempts."""

    def __init__(
        self,
        kit: RoutingKit,
        plan: Plan,
        client: Client,
        record: Record,
        fields: MutableMapping[str, str],
    ) -> None:
        self._kit, self._plan, self._client = kit, plan, client
        self._record, self._fields = record, fields
        self._failed: list[Failed] = []
        self._made = 0
        self._lacking: Refusal | None = None
        self._until = kit.clock() + kit.first_byte_seconds

    async def run(self) -> Open:
        """The first answer that is one, or what is said where there is none."""
        left = list(self._plan.options)
        while left:
            option, *left = left
            if not self._has_room(option.place.home.provider):
                continue
            before = len(self._failed)
            if (found := await self._try(option, left)) is not None:
                return found
            if len(self._failed) > before:
                last = self._failed[-1]
                left = self._further(last.option, left, last.fault)
                is_free = last.fault in OF_CALL  # whoever calls would use them up for others
                if left and not is_free and not self._kit.memory.retries.take():
                    _log.warning("too many calls needed a second attempt; one gets none")
                    left = []
        return self._end()

    def _has_room(self, provider: str) -> bool:
        most = self._kit.most_in_flight.get(provider)
        if most is None:
            return True
        counts = self._kit.memory.in_flight.items()
        return sum(count for home, count in counts if home.provider == provider) < most

    async def _try(self, option: Option, left: Sequence[Option]) -> Open | None:
        """None: it failed, or was not made for want of money."""
        kit, record, home = self._kit, self._record, option.place.home
        async with AsyncExitStack() as stack:
            stack.enter_context(_in_flight(kit.memory, home))
            call = await self._call(option)
            attempt, prices, listed = self._attempt(option, call)
            reserving = kit.bookings.reserve(record, self._client, call, attempt, prices, listed)
            try:
                money = await stack.enter_async_context(reserving)
            except Refusal as refusal:
                self._lacking = self._lacking or refusal
                return None
            kit.memory.rests.tries(home)
            self._made += 1
            asked_at, can_go_on = kit.clock(), bool(self._further(option, left))
            inner = await stack.enter_async_context(AsyncExitStack())  # it may outlast this one
            asking = self._ask(inner, option, call, money, can_go_on)
            if home.provider in kit.drained and len(call.body) <= MOST_BYTES:
                asking = kit.drains.outlast(stack, asking, record, partial(self._late, money))
            found = await asking
            if isinstance(found, Answer):
                kit.memory.rests.answered(home)
                self._tell(option, str(found.head.status))
                return Open(stack.pop_all(), found, option.place, asked_at)
            self._failed.append(found)
            self._note(found)
            if self._made > 1 or self._further(option, left, found.fault):
                money.failed(found.fault)
                return None
            # The only home: its error, and what it costs, are as they are without others.
            self._tell(option)
            if found.refusal is not None:
                raise found.refusal
            answer = found.answer or found.held
            assert answer is not None  # noqa: S101 - as there is no refusal
            return Open(stack.pop_all(), answer)

    async def _late(self, money: Booking, found: Answer | Failed) -> None:
        """What came of an attempt when the client had left already."""
        if isinstance(found, Answer):
            await read(found.reply, found.search, (money.watch,))
        else:
            self._note(found)
            money.failed(found.fault)

    def _attempt(
        self, option: Option, call: Call
    ) -> tuple[Attempt, Prices | None, tuple[str, ...]]:
        """An attempt at a home, and the prices there; None: OpenRouter's list tells those of the
        models that it has by these names."""
        (name, native_id), provider, model, _ = option.place
        key = next(iter(self._kit.upstreams[name].keys), None)
        attempt = Attempt(
            native_id,
            "" if key is None else key.label,
            provider=name,
            is_told=provider.call_path is not None,
            price_source=option.facts.source,
        )
        prices = None if name == ROUTER else {model: option.facts.price}
        return attempt, prices, tuple(native_id if id == model else id for id in call.ids)

    def _further(
        self, option: Option, left: Sequence[Option], fault: Fault | None = None
    ) -> list[Option]:
        """Where the call may go on to from a home: after it failed so there, or at best."""
        is_late = self._kit.clock() > self._until
        if option.fallback == "none" or self._made >= MOST or is_late:
            return []
        if option.fallback == "provider":
            left = [each for each in left if each.place.model == option.place.model]
        uncertain = [each for each in self._failed if each.fault is Fault.UNCERTAIN]
        if fault is Fault.CALLER or (fault is Fault.UNCERTAIN and len(uncertain) > 1):
            return []
        if fault is Fault.CONTEXT:
            most = option.facts.context_tokens or math.inf
            return [each for each in left if (each.facts.context_tokens or 0) > most]
        if fault is Fault.ACCOUNT:
            own = option.place.home.provider
            return [each for each in left if each.place.home.provider != own]
        return list(left)

    async def _call(self, option: Option) -> Call:
        """The call as it goes to a home; what is priced is its one model, where that is known, and
        those that work for it."""
        plan, call, said = self._plan, self._plan.asked.call, self._plan.asked.said
        body = await off_loop(option.edits.body, said, at=call)
        others = (id for id in call.ids if id not in said.answering)
        ids = call.ids if plan.is_whole else (option.place.model, *others)
        return replace(call, body=body, ids=ids, said=None, conversation=plan.conversation)

    async def _ask(
        self, stack: AsyncExitStack, option: Option, call: Call, money: Booking, can_go_on: bool
    ) -> Answer | Failed:
        kit, home = self._kit, option.place.home
        deadline = kit.first_output_seconds.get(home.provider) if can_go_on else None
        asked_at = kit.clock()
        self._record.native_model = home.native_id
        sending = kit.upstreams[home.provider].send(call, self._record, deadline)
        try:
            answer = await stack.enter_async_context(sending)
        except Refusal as refusal:
            return Failed(option, *of_refusal(refusal), refusal=refusal)
        money.answered(answer.head, answer.fault)
        if answer.fault is not None:
            word = "failed" if answer.fault is Fault.ACCOUNT else str(answer.head.status)
            return Failed(option, answer.fault, word, answer)
        if can_go_on:
            seconds = None if deadline is None else asked_at + deadline - kit.clock()
            trouble = await trouble_before_output(answer, call, option, seconds, kit.idle_seconds)
            if trouble is not None:
                return Failed(option, *trouble, held=answer)
        models = (home.native_id, *call.ids)
        self._record.watchers.append(Served(self._record, models, kit.models).watch)
        return answer

    def _note(self, failed: Failed) -> None:
        """Remember how a home failed."""
        memory, home, fault = self._kit.memory, failed.option.place.home, failed.fault
        seconds = None if failed.answer is None else failed.answer.rest_seconds
        memory.rests.failed(home, fault, seconds)
        if fault in OF_CALLER:
            return
        memory.stays.failed(self._plan.conversation, home)
        place = failed.option.place
        # Who calls may name to OpenRouter what it does not have.
        is_theirs = fault is Fault.CONFIG and home.provider == ROUTER and not place.is_named
        _log.log(
            logging.INFO if is_theirs else _LEVELS.get(fault, logging.INFO),
            "an attempt failed",
            request_id=self._record.request_id,
            provider=home.provider,
            native_model=home.native_id,
            fault=fault,
            http_status=failed.status,
        )

    def _tell(self, option: Option, word: str = "") -> None:
        if self._kit.shows_route:
            self._fields.update(route_headers(self._failed, option, word))

    def _end(self) -> Open:
        """All that could be tried has failed."""
        if not self._failed:
            raise self._lacking or Refusal(
                "overloaded",
                "All providers of this model are busy; try again in a second.",
                retry_after_seconds=1.0,
                hint="max_in_flight of each provider that can take the call is reached",
            )
        answer, option = last_word(self._failed, self._kit.memory.rests)
        self._tell(option)
        if isinstance(answer, Refusal):
            raise answer
        self._record.answer = answer.head
        return Open(AsyncExitStack(), answer)


async def off_loop(work: Callable[..., T], *arguments: Any, at: Call) -> T:
    """What ``work`` returns; in a thread where the body of ``at`` is large."""
    if is_large(at.body):
        return await asyncio.to_thread(work, *arguments)
    return work(*arguments)


@contextmanager
def _in_flight(memory: Memory, home: Home) -> Iterator[None]:
    memory.in_flight[home] += 1
    try:
        yield
    finally:
        memory.in_flight[home] -= 1
        if not memory.in_flight[home]:
            del memory.in_flight[home]
