"""What a call is booked with when it has ended, and what is known of it. Pure.

``exact`` is the upstream's own figure, ``computed`` its tokens by the catalogue or 0 by its word
on errors, ``estimated`` what was set aside. Who is not billed: openrouter.ai/docs, "Errors",
"Zero completion insurance".
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from keyproxy.call import Ask, Cost, Usage
from keyproxy.money.prices import computed
from keyproxy.price import Price

ZERO = Decimal(0)
_GIVEN_UP = frozenset({502, 504, 520, 524})
"""What an edge says when the server behind it, which had the call, broke off or took too long."""


def told(usage: Usage) -> Cost | None:
    """What the upstream itself says of the cost."""
    if usage.cost is None:
        return None
    bill = usage.upstream_cost if usage.is_byok and usage.upstream_cost is not None else ZERO
    return Cost(usage.cost, usage.cost + bill, "exact")


def of_error(status: int, ask: Ask | None, *, is_own: bool) -> Cost | None:
    """What a call cost whose answer has an error's status; None where that may be something.

    An error comes before any token of an answer, and such a call is not billed; searches, files
    and tools that run upstream may be. ``is_own``: the upstream itself wrote the error.
    """
    if not is_own and status in _GIVEN_UP:
        return None
    if ask is not None and (ask.rounds > 1 or ask.has_files or ask.is_unbounded):
        return None
    return Cost(ZERO, ZERO, "computed")


def of_answer(
    usage: Usage | None, is_whole: bool, price: Price | None, ask: Ask | None
) -> Cost | None:
    """What an answer cost; None where only asking the upstream can tell.

    ``is_whole``: it came to its end, said so, and told of no error. Of another the usage may be
    that of a moment, after which the upstream went on.
    """
    if usage is None or not is_whole:
        return None
    cost = told(usage)
    lacks_bill = usage.is_byok and usage.upstream_cost is None
    if cost is not None and not lacks_bill:
        return cost
    usd = None if price is None else computed(price, usage, ask)
    if usd is None:
        return None
    return Cost(usd, usd, "computed") if cost is None else replace(cost, counted=cost.usd + usd)
