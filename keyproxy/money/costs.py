"""What a call is booked with when it has ended, and what is known of it. Pure.

``exact`` is the upstream's own figure, ``computed`` its tokens by the catalogue, ``estimated``
what was set aside. Who is not billed: openrouter.ai/docs, "Errors", "Zero completion insurance".
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from keyproxy.call import Ask, Usage
from keyproxy.money.entry import CostSource
from keyproxy.money.prices import Price, computed

ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Cost:
    """``usd`` is what the upstream takes; ``counted`` what budgets count, which with keys of the
    operator's own at a provider (BYOK) is the provider's bill on top."""

    usd: Decimal
    counted: Decimal
    source: CostSource


def told(usage: Usage) -> Cost | None:
    """What the answer itself says of its cost."""
    if usage.cost is None:
        return None
    bill = usage.upstream_cost if usage.is_byok and usage.upstream_cost is not None else ZERO
    return Cost(usage.cost, usage.cost + bill, "exact")


def of_answer(
    status: int, usage: Usage | None, is_whole: bool, price: Price | None, ask: Ask | None
) -> Cost | None:
    """What an answer cost; None where only asking the upstream can tell.

    ``is_whole``: it came to its end, said so, and told of no error. Of another the usage may be
    that of a moment, after which the upstream went on.
    """
    if status >= 400:
        return Cost(ZERO, ZERO, "exact")
    if usage is None or not is_whole:
        return None
    if (cost := told(usage)) is not None:
        return cost
    if price is not None and (usd := computed(price, usage, ask)) is not None:
        return Cost(usd, usd, "computed")
    return None
