"""A summary of the ledger as plain text, JSON or CSV, and its numbers as people read them.

Names of clients and models are other people's: nothing in them reaches a terminal as a command
or a spreadsheet as a formula.
"""

from __future__ import annotations

import csv
import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from keyproxy.ledger.queries import By, Summary, Total

WIDTH = 80
"""Of lines that go to no terminal."""
_GAP = "  "
_LEAST_DIGITS = 2
_MOST_DIGITS = 12  # the ledger's own
# What begins a formula, or hides one (OWASP, "CSV Injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of which ledger."""

    path: Path
    by: By
    since: datetime | None
    until: datetime | None


def print_json(found: Summary, asked: Asked) -> None:
    """One object; money as decimal texts, exact."""
    document = {
        "ledger": str(asked.path),
        "by": asked.by,
        "since": _iso(asked.since),
        "until": _iso(asked.until),
        "rows": [{str(asked.by): total.name, **_figures(total)} for total in found.rows],
        "rows_left_out": found.left_out,
        "total": _figures(found.total),
    }
    print(json.dumps(document, indent=2))


def print_csv(found: Summary, asked: Asked) -> None:
    """A line a row, without totals: a spreadsheet makes its own."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([asked.by, *_figures(found.total)])
    for total in found.rows:
        writer.writerow([cell(total.name), *_figures(total).values()])


def print_plain(found: Summary, asked: Asked, width: int = WIDTH) -> None:
    """Aligned columns without colours, or paragraphs where columns do not fit ``width``."""
    print(heading(found, asked, width))
    if not found.rows:
        return
    print()
    headers, table = [title(asked.by), *COLUMNS], cells(found)
    widths = [max(map(len, column)) for column in zip(headers, *table, strict=True)]
    left = width - sum(each + len(_GAP) for each in widths[1:])
    if left < min(widths[0], LEAST_NAME):
        for texts in table:
            print(_paragraph(texts, width))
    else:
        widths[0] = min(widths[0], left)
        for number, texts in enumerate([headers, *table]):
            if number == len(table):
                print(_GAP.join("-" * each for each in widths))
            print(_line(texts, widths, width))
    for note in notes(found):
        print(f"\n{textwrap.fill(note, width)}")


def _line(texts: Sequence[str], widths: Sequence[int], width: int) -> str:
    """A row; a name that is too long for its column has lines of its own before it."""
    name, *figures = texts
    before = ""
    if len(name) > widths[0]:
        before, name = f"{_folded(name, width)}\n", ""
    aligned = [f"{text:>{each}}" for text, each in zip(figures, widths[1:], strict=True)]
    return before + _GAP.join([f"{name:<{widths[0]}}", *aligned]).rstrip()


def _paragraph(texts: Sequence[str], width: int) -> str:
    name, *figures = texts
    said = [f"{text} {what}" for text, what in zip(figures, COLUMNS, strict=True) if text]
    whole = ", ".join(one.replace(" ", "\N{NO-BREAK SPACE}") for one in said)
    wrapped = textwrap.fill(whole, width, initial_indent=_GAP, subsequent_indent=_GAP)
    return _folded(name, width) + "\n" + wrapped.replace("\N{NO-BREAK SPACE}", " ")


def _folded(name: str, width: int) -> str:
    return "\n".join(name[at : at + width] for at in range(0, len(name), width))


LEAST_NAME = 10
COLUMNS = ("USD", "estimated", "calls", "tokens in", "tokens out")


def title(by: By) -> str:
    return "day (UTC)" if by == "day" else by


def heading(found: Summary, asked: Asked, width: int) -> str:
    """What the rows are about, in one line; in two where it is too long, with the path whole."""
    if asked.since is None and asked.until is None:
        span = "since the ledger began"
    else:
        since = "the beginning" if asked.since is None else _minute(asked.since)
        span = f"from {since} to {'now' if asked.until is None else _minute(asked.until)}, UTC"
    what = "No calls" if not found.rows else "Spend"
    path = printable(str(asked.path))
    line = f"{what} in {path} {span}"
    return line if len(line) <= width else f"{textwrap.fill(f'{what} {span}, in', width)}\n{path}"


def cells(found: Summary) -> list[list[str]]:
    """The texts of every row and, last, of the total; all money to the same digit."""
    totals = [*found.rows, found.total]
    money = usd([each for total in totals for each in (total.spend, total.estimated)])
    return [
        [
            printable(total.name),
            money[2 * number],
            money[2 * number + 1] if total.estimated else "",
            f"{total.calls:,}",
            f"{total.input_tokens:,}",
            f"{total.output_tokens:,}",
        ]
        for number, total in enumerate(totals)
    ]


def notes(found: Summary) -> Iterable[str]:
    """What else should be known of the figures, a line each."""
    if found.left_out:
        left = found.left_out
        yield f"{left} more row{'' if left == 1 else 's'}, which cost less; the total counts all."
    if found.total.estimated:
        known, estimated = usd([found.total.spend - found.total.estimated, found.total.estimated])
        yield (
            f"{known} USD are known, {estimated} USD are estimated: calls under way, and calls cut"
            " before their cost was told, at what they can have cost at most."
        )
    if found.total.unknown:
        yield (
            f"Calls of unknown cost, which are in no sum: {found.total.unknown:,}, by models"
            " without a price; under way, or cut before their cost was told."
        )
    if found.total.counted != found.total.spend:
        [counted] = usd([found.total.counted])
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


def printable(text: str) -> str:
    """``text`` with nothing a terminal obeys."""
    return "".join(char if char.isprintable() else "?" for char in text)


def exact(amount: Decimal) -> str:
    """All digits and no exponent: ``0.000088``, ``0``, ``12.5``."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


_FIGURES: Sequence[tuple[str, Callable[[Total], str | int]]] = (
    ("spend_usd", lambda total: exact(total.spend)),
    ("exact_usd", lambda total: exact(total.exact)),
    ("computed_usd", lambda total: exact(total.computed)),
    ("estimated_usd", lambda total: exact(total.estimated)),
    ("counted_usd", lambda total: exact(total.counted)),
    ("calls", lambda total: total.calls),
    ("unknown_calls", lambda total: total.unknown),
    ("input_tokens", lambda total: total.input_tokens),
    ("output_tokens", lambda total: total.output_tokens),
)


def _figures(total: Total) -> dict[str, str | int]:
    return {name: of(total) for name, of in _FIGURES}


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}" if moment.hour == moment.minute == 0 else f"{moment:%Y-%m-%d %H:%M}"
