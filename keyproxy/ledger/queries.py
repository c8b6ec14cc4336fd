"""Questions to the ledger: what was spent, by whom, on what. Only reads.

Days are UTC, as the windows of budgets are. Money is summed in integers, in two halves, since
SQLite ends a sum past 64 bits with an error.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from keyproxy.ledger.entry import from_pico

By = Literal["day", "app", "client", "model", "status"]

_NAMES: Mapping[By, str] = {
    "day": "strftime('%Y-%m-%d', begun_at, 'unixepoch')",
    "app": "app",
    "client": "CASE app WHEN 'default' THEN client ELSE app || '/' || client END",
    "model": "coalesce(served, models)",
    "status": "coalesce(http_status, ended, 'under way')",
}
BY: tuple[By, ...] = tuple(_NAMES)
_HALF = 1_000_000


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
    since: float | None = None,
    until: float | None = None,
    top: int | None = None,
) -> Summary:
    """Calls that began at ``since`` or later and before ``until``, grouped."""
    groups: dict[str, dict[str, int]] = {}
    asked = connection.execute(
        f"""SELECT {_NAMES[by]}, cost_source, count(*), count(*) - count(cost),
              ifnull(sum(cost / {_HALF}), 0), ifnull(sum(cost % {_HALF}), 0),
              sum(counted / {_HALF}), sum(counted % {_HALF}),
              total(input_tokens), total(output_tokens)
            FROM calls WHERE begun_at >= ? AND begun_at < ? GROUP BY 1, 2""",  # noqa: S608  # our own words
        (_LOWEST if since is None else since, _HIGHEST if until is None else until),
    )
    for name, source, calls, unknown, *money, inputs, outputs in asked:
        group = groups.setdefault(str(name), dict.fromkeys(_FIELDS, 0))
        group[source] += money[0] * _HALF + money[1]
        group["counted"] += money[2] * _HALF + money[3]
        group["calls"] += calls
        group["unknown"] += unknown
        group["input_tokens"] += int(inputs)
        group["output_tokens"] += int(outputs)
    totals = [_total(name, group) for name, group in groups.items()]
    ranked = sorted(totals, key=lambda each: (-each.spend, -each.calls, each.name))
    rows = ranked[:top]
    if by == "day":
        rows.sort(key=lambda each: each.name)
    sums = {name: sum(group[name] for group in groups.values()) for name in _FIELDS}
    return Summary(tuple(rows), _total("total", sums), len(ranked) - len(rows))


def spent(
    connection: sqlite3.Connection, since: float, until: float, gone: float = math.inf
) -> dict[tuple[str, str], Decimal]:
    """What budgets count by (app, client), in USD, of calls that began at ``since`` or later and
    before ``until``, reservations included.

    Left out are reservations of processes that were seen after ``gone``: they will end them.
    """
    asked = connection.execute(
        f"""SELECT app, client, sum(counted / {_HALF}), sum(counted % {_HALF}) FROM calls
            WHERE begun_at >= ? AND begun_at < ? AND NOT (is_settled = 0
                AND writer IN (SELECT id FROM writers WHERE seen_at > ?))
            GROUP BY app, client""",  # noqa: S608  # a number
        (since, until, gone),
    )
    return {(app, client): from_pico(high * _HALF + low) for app, client, high, low in asked}


_MONEY = ("exact", "computed", "estimated", "counted")
_FIELDS = ("calls", "unknown", *_MONEY, "input_tokens", "output_tokens")
_LOWEST, _HIGHEST = -1e18, 1e18


def _total(name: str, sums: Mapping[str, int]) -> Total:
    return Total(
        name,
        sums["calls"],
        sums["unknown"],
        from_pico(sums["exact"]),
        from_pico(sums["computed"]),
        from_pico(sums["estimated"]),
        from_pico(sums["counted"]),
        sums["input_tokens"],
        sums["output_tokens"],
    )
