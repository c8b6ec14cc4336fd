"""What the ledger is told of one call and what it tells back. Plain values, no I/O.

Money is kept in whole pico-USD (1e-12): prices such as 0.0375 USD for a million tokens stay
exact, and sums are sums of integers. Prompts and completions have no place here.
"""

from __future__ import annotations

from decimal import Decimal
from math import ceil
from typing import TYPE_CHECKING

from keyproxy.call import Cost, CostSource, Usage
from keyproxy.dataclass import dataclass
from keyproxy.price import MAX_COST, ZERO

if TYPE_CHECKING:  # it writes log lines, which `keyproxy usage --help` need not load
    from keyproxy.record import Attempt, Record

_PICO = Decimal("1e12")
_LEAST_CERTAIN_FIRST: tuple[CostSource, ...] = ("estimated", "computed", "exact")


@dataclass(slots=True)
class Entry:
    """A call that is about to go out, with its ``attempts`` so far, the last of which may be under
    way. ``at`` is unix time. What it costs is the sum of what they cost."""

    id: str
    at: float
    app: str
    client: str
    endpoint: str
    models: tuple[str, ...]
    attempts: list[Attempt]

    def end(self, record: Record, seconds: float) -> None:
        """The call is over, and with it an attempt that is under way."""
        last = self.attempts[-1]
        if last.ended is None:
            lasted = self.at + seconds - last.begun_at
            last.end(record.cost, record.upstream_status, record.ended, lasted)

    @property
    def cost(self) -> Cost | None:
        """Of its attempts. It is as certain as the least certain part of it; one that was refused
        for nothing makes it no less so."""
        each = self.attempts
        known = [one.cost for one in each if one.cost is not None]
        parts = {one.cost_source for one in each if one.cost or one.cost_source != "computed"}
        least: CostSource = next(filter(parts.__contains__, _LEAST_CERTAIN_FIRST), "computed")
        counted = sum((one.counted for one in each), ZERO)
        return Cost(sum(known, ZERO), counted, least) if known else None

    def unsettled(self, served: str | None) -> Unsettled:
        """Its last attempt, once that has ended."""
        texts = self.app, self.client, self.endpoint, self.models
        return Unsettled(self.id, len(self.attempts), *texts, served, self.attempts[-1])


@dataclass(slots=True)
class Unsettled:
    """An attempt whose final cost is not known, of a call that has ended; until it is told.

    ``n``: the first is 1. ``usage``: where that was told with the cost. By an attempt without
    ``generation_id`` nobody can be asked.
    """

    id: str
    n: int
    app: str
    client: str
    endpoint: str
    models: tuple[str, ...]
    served: str | None
    attempt: Attempt
    tries: int = 0
    usage: Usage | None = None


def to_pico(amount: Decimal) -> int:
    """Whole pico-USD, rounded up: the ledger is never below the truth.

    Raises ``ValueError`` for what is no amount of money: negative, NaN, infinite.
    """
    if not amount.is_finite() or amount < ZERO:
        raise ValueError("not an amount of money")
    if amount > MAX_COST:  # a million of it still fit an SQLite integer twice
        amount = MAX_COST
    return ceil(amount * _PICO)


def from_pico(amount: int) -> Decimal:
    """USD, exact."""
    return Decimal(amount).scaleb(-12)
