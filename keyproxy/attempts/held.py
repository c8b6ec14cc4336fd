"""An answer that is held until it begins to say something: so long its call may go elsewhere."""

from __future__ import annotations

import asyncio

from keyproxy.attempts.failed import OF_CALLER
from keyproxy.call import Call
from keyproxy.routing.first_output import FirstOutput, Seen
from keyproxy.routing.router import Option
from keyproxy.upstream.faults import Fault
from keyproxy.upstream.send import Answer

HOLD_SECONDS = 20.0


async def trouble_before_output(
    answer: Answer, call: Call, option: Option, seconds: float | None, idle_seconds: float
) -> tuple[Fault, str] | None:
    """Whose fault it is that ``answer``, of a good status, will not do, and a word for it; None
    once it says something, or has been held for long enough.

    ``seconds``: so long its home may take from here on; ``idle_seconds``: without a byte. Nothing
    of the answer is taken.
    """
    is_event_stream = answer.head.kind.startswith("text/event-stream")
    reader = FirstOutput(call.endpoint.dialect, is_event_stream=is_event_stream)
    loop = asyncio.get_running_loop()
    known: asyncio.Future[Seen] = loop.create_future()
    held_until = loop.time() + HOLD_SECONDS
    until = held_until if seconds is None else min(held_until, loop.time() + seconds)

    def look(data: bytes | None) -> None:
        seen = None if known.done() else reader.watch(data)
        if seen is not None:
            known.set_result(seen)
        elif not known.done():
            timer.reschedule(min(until, loop.time() + idle_seconds))

    try:
        async with asyncio.timeout_at(min(until, loop.time() + idle_seconds)) as timer:
            answer.reply.show(look)
            seen = await known
    except TimeoutError:
        return None if timer.when() == held_until else (Fault.UNCERTAIN, "timeout")
    if answer.reply.error is not None:
        return Fault.UNCERTAIN, "cut"
    if seen.what == "output":
        return None
    fault = option.place.provider.classify(answer.head.status, seen.error)
    # What was said with a good status may be billed; whoever else is asked would say the same of
    # a fault of the caller's.
    return None if fault in OF_CALLER else (Fault.UNCERTAIN, "failed")
