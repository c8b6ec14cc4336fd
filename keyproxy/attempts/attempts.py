"""A call at one home after the other, until one answers it; the only part of routing that waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager

from keyproxy.attempts.course import Course, RoutingKit, off_loop
from keyproxy.call import Call, Client, End
from keyproxy.record import Record
from keyproxy.routing.homes import Place, parted
from keyproxy.routing.speed import Pace
from keyproxy.upstream.send import Answer


class Attempts(RoutingKit):
    """Calls of one app, and what is learned from them."""

    @asynccontextmanager
    async def answer(
        self, call: Call, client: Client, record: Record, fields: MutableMapping[str, str]
    ) -> AsyncIterator[Answer]:
        """The answer to ``call``; ``fields`` come to hold what its head says of the way.

        Raises ``no_provider_qualifies``, ``overloaded``; what ``Bookings.reserve`` and
        ``Upstream.send`` raise; ``upstream_unavailable`` where several failed differently.
        """
        plan = await off_loop(self.router.plan, call, client, at=call)
        self.memory.retries.called()
        course = Course(self, plan, client, record, fields)
        tokens, thread = plan.asked.input_tokens, plan.conversation
        is_long = call.ask is not None and call.ask.has_long_cache
        is_streaming = call.is_streaming
        del call, plan  # a stream may last for minutes; its request body need not
        stack, answer, place, asked_at = await course.run()
        del course
        waited_before = record.client_seconds
        answer.outlives_client = place is not None and place.provider.name in self.drained
        async with stack:
            try:
                yield answer
            except asyncio.CancelledError:
                self._read_on(stack, answer, record)
                raise
            if record.ended is End.CLIENT_LEFT:
                self._read_on(stack, answer, record)
        if place is not None and record.ended is End.COMPLETE:
            self.memory.stays.served(thread, place.home, for_long=is_long)
            told = record, tokens, asked_at
            self.learn(place, *told, is_streaming=is_streaming, waited_before=waited_before)

    def _read_on(self, stack: AsyncExitStack, answer: Answer, record: Record) -> None:
        """The client has left; what the answer costs is worth to know, if it goes on anyway."""
        if answer.outlives_client and not record.is_cutting():
            self.drains.take(stack, answer.reply, answer.search, tuple(record.watchers))

    def learn(
        self,
        place: Place,
        record: Record,
        tokens: int,
        asked_at: float,
        *,
        is_streaming: bool,
        waited_before: float,
    ) -> None:
        """How fast a home was, and how much its model wrote. ``waited_before``: seconds for which
        the client was waited for until then; what it takes to read is no news of the home."""
        written = None if record.usage is None else record.usage.output_tokens
        if not written or record.first_byte_at is None:
            return
        now = self.clock() - (record.client_seconds - waited_before)
        first_at = record.first_byte_at
        home = place.home
        self.memory.outputs.saw(self.router.app, parted(place.model)[0], written)
        if is_streaming:
            pace = Pace(first_at - asked_at, (now - first_at) / written)
            self.memory.speeds.saw_stream(home, tokens, pace)
        else:
            self.memory.speeds.saw_whole(home, tokens, now - asked_at, written)
