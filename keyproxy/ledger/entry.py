"""What the ledger is told of one call and what it tells back. Plain values, no I/O.

Money is kept in whole pico-USD (1e-12): prices such as 0.0375 USD for a million tokens stay
exact, and sums are sums of integers. Prompts and completions have no place here.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from keyproxy.call import Cost, CostSource

_PICO_DIGITS = 12
_MOST_USD = 1_000_000  # no call costs more; a million of them still fit an SQLite integer twice


@dataclass(slots=True)
class Entry:
    """A call that is about to go out. ``at`` is unix time, ``key`` the label of the key.

    ``reserved`` None: nobody knows what it may cost.
    """

    id: str
    at: float
    app: str
    client: str
    endpoint: str
    models: tuple[str, ...]
    key: str
    reserved: Decimal | None
    generation_id: str | None = None


@dataclass(slots=True, kw_only=True)
class Unsettled(Entry):
    """A booked call whose final cost is not known. ``cost`` is what stands until then, None where
    nobody knows what it may be, and ``counted`` what budgets count."""

    served: str | None
    cost: Decimal | None
    counted: Decimal
    cost_source: CostSource
    http_status: int | None
    ended: str
    tries: int = 0


def standing(entry: Entry, cost: Cost | None) -> tuple[Decimal | None, Decimal, CostSource]:
    """``cost``, ``counted`` and ``cost_source`` of a call, as in ``Unsettled``: without a cost
    its reservation stands."""
    if cost is None:
        return entry.reserved, entry.reserved or Decimal(0), "estimated"
    return cost.usd, cost.counted, cost.source


def is_final(cost: Cost | None, generation_id: str | None) -> bool:
    """Whether the cost of an ended call is exact, or the upstream gave nothing to ask it by."""
    return generation_id is None or (cost is not None and cost.source == "exact")


def to_pico(amount: Decimal) -> int:
    """Whole pico-USD, rounded up: the ledger is never below the truth.

    Raises ``ValueError`` for what is no amount of money: negative, NaN, infinite.
    """
    if not amount.is_finite() or amount < 0:
        raise ValueError("not an amount of money")
    if amount >= _MOST_USD:  # also keeps 1E+999999 from becoming a million digits
        return int(_MOST_USD * 10**_PICO_DIGITS)
    return int(amount.scaleb(_PICO_DIGITS).to_integral_value(ROUND_CEILING))


def from_pico(amount: int) -> Decimal:
    """USD, exact."""
    return Decimal(amount).scaleb(-_PICO_DIGITS)
