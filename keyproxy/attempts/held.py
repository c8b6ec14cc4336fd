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
    answer: Answer, call: Call, option: Option, seconds: float | None
) -> tuple[Fault, str] | None:
    """Whose fault it is that ``answer``, of a good status, will not do, and a word for it; None
    once it says something, or has been held for long enough.

    ``seconds``: so long its home may take from here on. Nothing of the answer is taken.
    """
    is_event_stream = answer.head.kind.startswith("text/event-stream")
    reader = FirstOutput(call.endpoint.dialect, is_event_stream=is_event_stream)
    known: asyncio.Future[Seen] = asyncio.get_running_loop().create_future()

    def look(data: bytes | None) -> None:
        seen = None if known.done() else reader.watch(data)
        if seen is not None:
            known.set_result(seen)

    answer.reply.show(look)
    is_bound = seconds is not None and seconds < HOLD_SECONDS
    try:
        async with asyncio.timeout(seconds if is_bound else HOLD_SECONDS):
            seen = await known
    except TimeoutError:
        return (Fault.UNCERTAIN, "timeout") if is_bound else None
    if answer.reply.error is not None:
        return Fault.UNCERTAIN, "cut"
    if seen.what == "output":
        return None
    fault = option.place.provider.classify(answer.head.status, seen.error)
    # What was said with a good status may be billed; whoever else is asked would say the same of
    # a fault of the caller's.
    return None if fault in OF_CALLER else (Fault.UNCERTAIN, "failed")
