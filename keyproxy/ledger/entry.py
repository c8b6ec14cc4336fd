"""What the ledger is told of one call and what it tells back. Plain values, no I/O.

Money is kept in whole pico-USD (1e-12): prices such as 0.0375 USD for a million tokens stay
exact, and sums are sums of integers. Prompts and completions have no place here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any, Self

from keyproxy.call import Cost, CostSource, Usage

if TYPE_CHECKING:  # it writes log lines, which `keyproxy usage --help` need not load
    from keyproxy.record import Record

_PICO_DIGITS = 12
_MOST_USD = 1_000_000  # no call costs more; a million of them still fit an SQLite integer twice
_MOST_COUNT = 1 << 53


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A booked call whose final cost is not known. ``cost`` is what stands until then, None where
    nobody knows what it may be, and ``counted`` what budgets count."""

    id: str
    at: float
    app: str
    client: str
    endpoint: str
    models: tuple[str, ...]
    served: str | None
    key: str
    generation_id: str | None
    reserved: Decimal | None
    cost: Decimal | None
    counted: Decimal
    cost_source: CostSource
    http_status: int | None
    ended: str
    tries: int

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Self:
        """From the columns of ``UNSETTLED_COLUMNS``."""
        said = dict(zip(UNSETTLED_COLUMNS, row, strict=True))
        said["at"] = said.pop("begun_at")
        said["models"] = tuple(filter(None, said["models"].split(",")))
        for name in ("reserved", "cost", "counted"):
            said[name] = None if said[name] is None else from_pico(said[name])
        return cls(**said)


UNSETTLED_COLUMNS = (
    *("id", "begun_at", "app", "client", "endpoint", "models", "served", "key"),
    *("generation_id", "reserved", "cost", "counted", "cost_source", "http_status", "ended"),
    "tries",
)


def to_pico(amount: Decimal) -> int:
    """Whole pico-USD, rounded up: the ledger is never below the truth.

    Raises ``ValueError`` for what is no amount of money: negative, NaN, infinite.
    """
    if not amount.is_finite() or amount < 0:
        raise ValueError("not an amount of money")
    if amount >= _MOST_USD:  # also keeps 1E+999999 from becoming a million digits
        return int(_MOST_USD * 10**_PICO_DIGITS)
    return int(amount.scaleb(_PICO_DIGITS).to_integral_value(ROUND_CEILING))


def pico_or_none(amount: Decimal | None) -> int | None:
    return None if amount is None else to_pico(amount)


def from_pico(amount: int) -> Decimal:
    """USD, exact."""
    return Decimal(amount).scaleb(-_PICO_DIGITS)


COLUMNS = (
    *("id", "writer", "begun_at", "app", "client", "endpoint", "models", "key"),
    *("generation_id", "reserved", "cost", "counted", "cost_source", "is_settled"),
    *("http_status", "ended", "duration_seconds", "served", "is_byok"),
    *("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens"),
)


def row_of(
    entry: Entry, writer: str, record: Record | None = None, seconds: float = 0.0
) -> tuple[object, ...]:
    """The row of a call, in the order of ``COLUMNS``; without a record, of one under way.

    It is settled when its cost is exact, or when the upstream gave nothing to ask it by. Without a
    cost the reservation stands.
    """
    cost = None if record is None else record.cost
    reserved = pico_or_none(entry.reserved)
    source: CostSource = "estimated" if cost is None else cost.source
    head = (
        storable(entry.id),
        writer,
        entry.at,
        storable(entry.app),
        storable(entry.client),
        storable(entry.endpoint),
        storable(",".join(entry.models)),
        storable(entry.key),
        storable(entry.generation_id),
        reserved,
        reserved if cost is None else to_pico(cost.usd),
        (reserved or 0) if cost is None else to_pico(cost.counted),
        source,
    )
    if record is None:
        return (*head, False, *(None,) * 9)
    usage = record.usage
    return (
        *head,
        source == "exact" or entry.generation_id is None,
        record.upstream_status,
        storable(record.ended),
        seconds,
        storable(record.served),
        usage and usage.is_byok,
        *tokens_columns(usage or Usage()).values(),
    )


def tokens_columns(usage: Usage) -> dict[str, int | None]:
    """Token counts as columns, within what SQLite can hold."""
    return {
        "input_tokens": _count(usage.input_tokens),
        "output_tokens": _count(usage.output_tokens),
        "cached_tokens": _count(usage.cached_tokens),
        "reasoning_tokens": _count(usage.reasoning_tokens),
    }


def settled_columns(
    cost: Cost | None, usage: Usage | None, served: str | None
) -> dict[str, object]:
    """What changes in the row of a call that is settled; None of each: what is there stays."""
    columns: dict[str, object] = {"is_settled": True}
    if cost is not None:
        columns |= {"cost": to_pico(cost.usd), "counted": to_pico(cost.counted)}
        columns["cost_source"] = cost.source
    if usage is not None:
        columns |= {name: n for name, n in tokens_columns(usage).items() if n is not None}
    if served is not None:
        columns["served"] = storable(served)
    return columns


def _count(number: int | None) -> int | None:
    return None if number is None else min(max(number, 0), _MOST_COUNT)


def storable(text: str | None) -> str | None:
    """``text`` as SQLite can hold it: a lone surrogate or NUL of somebody's becomes ``?``."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "?")
