"""A summary of the ledger as a table, JSON or CSV, and its numbers as people read them.

Names of clients and models are other people's: nothing in them reaches a terminal as a command
or a spreadsheet as a formula.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from keyproxy.commands.reading import Between
from keyproxy.console import USUAL_COLUMNS, printable
from keyproxy.ledger.queries import By, Summary, Total

_COLUMNS = ("USD", "estimated", "calls", "tokens in", "tokens out")
_GAP = 2  # between columns
_LEAST_NAME = 10
_LEAST_BAR, _MOST_BAR = 8, 24
_EIGHTHS = "▏▎▍▌▋▊▉█"
_LEAST_DIGITS = 2
_MOST_DIGITS = 12  # the ledger's own
# What begins a formula, or hides one (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def print_json(found: Summary, path: Path, *, by: By, between: Between) -> None:
    """One object; money as decimal texts, exact."""
    document = {
        "ledger": str(path),
        "by": by,
        "since": _iso(between.since),
        "until": _iso(between.until),
        "rows": [{str(by): total.name, **_figures(total)} for total in found.rows],
        "rows_left_out": found.left_out,
        "total": _figures(found.total),
    }
    print(json.dumps(document, indent=2))


def print_csv(found: Summary, path: Path, *, by: By, between: Between) -> None:
    """A line a row, without totals: a spreadsheet makes its own."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([by, *_figures(found.total)])
    for total in found.rows:
        writer.writerow([cell(total.name), *_figures(total).values()])


def print_table(found: Summary, path: Path, *, by: By, between: Between) -> None:
    """Aligned columns, and what else should be known; colours and bars on a terminal only."""
    width = None if sys.stdout.isatty() else USUAL_COLUMNS
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    where, span = printable(str(path)), _span(between)
    what = "Spend" if found.rows else "No calls"
    if cell_len(heading := f"{what} in {where} {span}") <= console.width:
        console.print(heading)
    else:
        console.print(f"{what} {span}, in")
        console.print(where, soft_wrap=True)  # to be copied whole
    if found.rows:
        console.print()
        _print_rows(console, found, "day (UTC)" if by == "day" else by)
        for note in _notes(found):
            console.print()
            console.print(note)


def _print_rows(console: Console, found: Summary, title: str) -> None:
    """A table with the total, or paragraphs where its columns do not fit."""
    *rows, total = _cells(found)
    columns = zip([title, *_COLUMNS], *rows, total, strict=True)
    name_width, *widths = [max(map(cell_len, column)) for column in columns]
    room = console.width - sum(_GAP + width for width in widths)
    if room < min(name_width, _LEAST_NAME):  # half a number would be a wrong one
        for name, *figures in [*rows, total]:
            known = [(text, what) for text, what in zip(figures, _COLUMNS, strict=True) if text]
            console.print(name)
            console.print(Padding(", ".join(map(" ".join, known)), (0, 0, 0, _GAP)))
        return
    name_width = min(name_width, room)
    bar_width = min(room - name_width - _GAP, _MOST_BAR)
    has_bars = console.is_terminal and bar_width >= _LEAST_BAR
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(title, width=name_width, overflow="fold")
    for header in _COLUMNS:
        table.add_column(header, justify="right", no_wrap=True)
    if has_bars:
        table.add_column(width=bar_width, no_wrap=True)
    most = max(row.spend for row in found.rows)
    for (name, usd, estimated, *others), row in zip(rows, found.rows, strict=True):
        share = row.spend / most if most else Decimal(0)
        bars = [Text(bar(share, bar_width, console.encoding), "cyan")] * has_bars
        table.add_row(name, usd, Text(estimated, "yellow"), *others, *bars)
    table.add_row(*[Rule(characters="-", style="none") for _ in total])
    table.add_row(*total, style="bold")
    console.print(table)


def bar(share: Decimal, width: int, encoding: str) -> str:
    """A bar of ``share`` of ``width``; no bar only for nothing."""
    if not share:
        return ""
    if not encoding.lower().startswith("utf"):
        return "#" * max(1, round(share * width))
    whole, rest = divmod(max(1, round(share * width * 8)), 8)
    return _EIGHTHS[-1] * whole + (_EIGHTHS[rest - 1] if rest else "")


def _cells(found: Summary) -> list[list[str]]:
    """The texts of every row and, last, of the total; all money to the same digit."""
    totals = [*found.rows, found.total]
    money = iter(usd([amount for total in totals for amount in (total.spend, total.estimated)]))
    return [
        [
            printable(total.name),
            spend,
            estimated if total.estimated else "",
            *(f"{count:,}" for count in (total.calls, total.input_tokens, total.output_tokens)),
        ]
        for total, spend, estimated in zip(totals, money, money, strict=True)
    ]


def _notes(found: Summary) -> Iterable[str]:
    """What else should be known of the figures."""
    total = found.total
    if found.left_out:
        rows = "row" if found.left_out == 1 else "rows"
        yield f"{found.left_out} more {rows}, which cost less; the total counts all."
    if total.estimated:
        known, estimated = usd([total.spend - total.estimated, total.estimated])
        yield (
            f"{known} USD are known, {estimated} USD are estimated: calls under way, and calls cut"
            " before their cost was told, at what they can have cost at most."
        )
    if total.unknown:
        yield (
            f"Calls of unknown cost, which are in no sum: {total.unknown:,}, by models"
            " without a price; under way, or cut before their cost was told."
        )
    if total.counted != total.spend:
        [counted] = usd([total.counted])
        yield f"Budgets count {counted} USD: the bills of providers that have your own keys, too."


def usd(amounts: Sequence[Decimal]) -> list[str]:
    """Amounts to one digit after the point: two at least, two that say something of the least."""
    digits = max((_digits(amount) for amount in amounts), default=_LEAST_DIGITS)
    return [f"{amount:,.{digits}f}" for amount in amounts]


def _digits(amount: Decimal) -> int:
    if not amount:
        return _LEAST_DIGITS
    exact = -int(amount.normalize().as_tuple().exponent)
    return min(max(_LEAST_DIGITS, min(exact, 1 - amount.adjusted())), _MOST_DIGITS)


def cell(text: str) -> str:
    """``text`` for a spreadsheet, which is told to take it as text."""
    return f"'{printable(text)}" if text.startswith(_FORMULA) else printable(text)


def exact(amount: Decimal) -> str:
    """All digits and no exponent: ``0.000088``, ``0``, ``12.5``."""
    return f"{amount.normalize():f}"


def _figures(total: Total) -> dict[str, str | int]:
    return {
        "spend_usd": exact(total.spend),
        "exact_usd": exact(total.exact),
        "computed_usd": exact(total.computed),
        "estimated_usd": exact(total.estimated),
        "counted_usd": exact(total.counted),
        "calls": total.calls,
        "unknown_calls": total.unknown,
        "input_tokens": total.input_tokens,
        "output_tokens": total.output_tokens,
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def _span(between: Between) -> str:
    if between.since is None and between.until is None:
        return "since the ledger began"
    since = "the beginning" if between.since is None else _minute(between.since)
    return f"from {since} to {'now' if between.until is None else _minute(between.until)}, UTC"


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}".removesuffix(" 00:00")
