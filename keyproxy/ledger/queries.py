"""Questions to the ledger: what was spent, by whom, on what. Only reads.

Days are UTC, as the windows of budgets are. Money is summed in integers, in two halves, since
SQLite ends a sum past 64 bits with an error.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Literal, get_args

from keyproxy.call import CostSource
from keyproxy.dataclass import dataclass
from keyproxy.ledger.entry import from_pico

By = Literal["day", "app", "client", "model", "provider", "status"]

_NAMES: Mapping[By, str] = {
    "day": "strftime('%Y-%m-%d', begun_at, 'unixepoch')",
    "app": "app",
    "client": "CASE app WHEN 'default' THEN client ELSE app || '/' || client END",
    # OpenRouter says which it chose, others call the one that was asked for by names of their own.
    "model": "CASE WHEN provider = 'openrouter' OR models LIKE '%,%' THEN coalesce(served, models)"
    " ELSE models END",
    "provider": "provider",
    "status": "coalesce(http_status, ended, 'under way')",
}
BY: tuple[By, ...] = tuple(_NAMES)
_HALF = 1_000_000
# Money is where each attempt was made; tokens are of the last one, whose answer was passed on.
_TRIES = """(
    SELECT provider, begun_at, cost, counted, cost_source, input_tokens, output_tokens
    FROM calls WHERE attempts = 1
    UNION ALL
    SELECT a.provider, c.begun_at, a.cost, a.counted, a.cost_source,
      CASE n WHEN c.attempts THEN input_tokens END, CASE n WHEN c.attempts THEN output_tokens END
    FROM calls AS c JOIN several_attempts AS a ON call_id = id)"""


@dataclass(frozen=True, slots=True)
class Total:
    """Sums over some calls; ``spend`` is ``exact``, ``computed`` and ``estimated`` together.

    ``unknown``: how many of the calls have no part in it, since nobody knows what they cost.
    ``counted`` is what budgets count: with keys of one's own at a provider, its bill on top.
    """

    name: str
    calls: int = 0
    unknown: int = 0
    exact: Decimal = Decimal(0)
    computed: Decimal = Decimal(0)
    estimated: Decimal = Decimal(0)
    counted: Decimal = Decimal(0)
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def spend(self) -> Decimal:
        return self.exact + self.computed + self.estimated


@dataclass(frozen=True, slots=True)
class Summary:
    """``rows``: the largest, days in their order, the rest by spend. ``total``: of all rows."""

    rows: tuple[Total, ...]
    total: Total
    left_out: int


def summary(
    connection: sqlite3.Connection,
    by: By,
    since: float = -math.inf,
    until: float = math.inf,
    top: int | None = None,
) -> Summary:
    """Calls that began at ``since`` or later and before ``until``, grouped; by provider, tries."""
    rows_of = _TRIES if by == "provider" else "calls"
    found = connection.execute(
        f"""SELECT {_NAMES[by]}, count(*), count(*) - count(cost),
              {", ".join(map(_halves, _MONEY))}, total(input_tokens), total(output_tokens)
            FROM {rows_of} WHERE begun_at >= ? AND begun_at < ? GROUP BY 1""",  # noqa: S608  # our own words
        (since, until),
    )
    sums = {}
    for name, calls, unknown, *halves, inputs, outputs in found:
        money = [high * _HALF + low for high, low in zip(halves[::2], halves[1::2], strict=True)]
        sums[str(name)] = [calls, unknown, *money, int(inputs), int(outputs)]
    ranked = [_total(name, figures) for name, figures in sums.items()]
    ranked.sort(key=lambda total: (-total.spend, -total.calls, total.name))
    rows = ranked[:top]
    if by == "day":
        rows.sort(key=lambda total: total.name)
    total = _total("total", map(sum, zip(*sums.values(), strict=True))) if sums else Total("total")
    return Summary(tuple(rows), total, len(ranked) - len(rows))


_MONEY = (
    *(f"CASE cost_source WHEN '{source}' THEN cost END" for source in get_args(CostSource)),
    "counted",
)


def _halves(amount: str) -> str:
    return f"ifnull(sum(({amount}) / {_HALF}), 0), ifnull(sum(({amount}) % {_HALF}), 0)"


def _total(name: str, sums: Iterable[int]) -> Total:
    calls, unknown, *money, inputs, outputs = sums
    exact, computed, estimated, counted = map(from_pico, money)
    return Total(name, calls, unknown, exact, computed, estimated, counted, inputs, outputs)


def settled_spend(connection: sqlite3.Connection, since: float, but: str) -> Decimal:
    """What calls that began at ``since`` or later have cost, where that is final, in USD; without
    those of the writer ``but``."""
    found = connection.execute(
        f"SELECT {_halves('cost')} FROM calls"  # noqa: S608  # a number
        " WHERE begun_at >= ? AND is_settled AND booked_by != ?",
        (since, but),
    )
    [(high, low)] = found
    return from_pico(high * _HALF + low)


def spent(
    connection: sqlite3.Connection, since: float, until: float, gone: float = math.inf
) -> dict[tuple[str, str], Decimal]:
    """What budgets count by (app, client), in USD, of calls that began at ``since`` or later and
    before ``until``, reservations included.

    Left out are reservations of processes that were seen after ``gone``: they will end them.
    """
    found = connection.execute(
        f"""SELECT app, client, {_halves("counted")} FROM calls
            WHERE begun_at >= ? AND begun_at < ? AND NOT (is_settled = 0
                AND booked_by IN (SELECT id FROM writers WHERE seen_at > ?))
            GROUP BY app, client""",  # noqa: S608  # a number
        (since, until, gone),
    )
    return {(app, client): from_pico(high * _HALF + low) for app, client, high, low in found}
