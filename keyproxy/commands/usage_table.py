"""A summary of the ledger as a table on a terminal, with bars: the only user of rich."""

from __future__ import annotations

from decimal import Decimal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keyproxy.commands.usage_text import (
    COLUMNS,
    LEAST_NAME,
    Asked,
    cells,
    heading,
    notes,
    print_plain,
    title,
)
from keyproxy.ledger.queries import Summary

_LEAST_BAR, _MOST_BAR = 8, 24
_GAP = 2  # between columns
_EIGHTHS = "▏▎▍▌▋▊▉█"


def print_table(found: Summary, asked: Asked) -> None:
    """The rows, the total, and a bar for each row's share of the largest."""
    console = Console(highlight=False, markup=False, emoji=False)
    *rows, total = cells(found)
    headers = [title(asked.by), *COLUMNS]
    widths = [max(map(len, column)) for column in zip(headers, *rows, total, strict=True)]
    left = console.width - sum(widths) - _GAP * (len(widths) + 1)
    bar_width = min(left, _MOST_BAR) if left >= _LEAST_BAR else 0
    # Names give way to numbers: half a number is a wrong one.
    name_width = widths[0] + min(0, left + _GAP)
    if name_width < min(widths[0], LEAST_NAME):
        print_plain(found, asked, console.width)
        return
    widths[0] = name_width
    table = Table(
        box=box.SIMPLE_HEAD,
        show_footer=True,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),
        header_style="bold",
    )
    for number, (header, width) in enumerate(zip(headers, widths, strict=True)):
        table.add_column(
            header,
            Text(total[number], "bold"),
            justify="right" if number else "left",
            width=width,
            overflow="fold",
        )
    if bar_width:
        table.add_column("", width=bar_width, no_wrap=True)
    most = max(row.spend for row in found.rows)
    for texts, row in zip(rows, found.rows, strict=True):
        shown = [Text(text, "yellow" if at == _ESTIMATED else "") for at, text in enumerate(texts)]
        if bar_width:
            share = row.spend / most if most else Decimal(0)
            shown.append(Text(bar(share, bar_width, console.encoding), "cyan"))
        table.add_row(*shown)
    console.print(Text(heading(found, asked, console.width)))
    console.print(table)
    for note in notes(found):
        console.print(Text(note))


_ESTIMATED = 1 + COLUMNS.index("estimated")


def bar(share: Decimal, width: int, encoding: str) -> str:
    """A bar of ``share`` of ``width``; no bar only for nothing."""
    if not share:
        return ""
    if not encoding.lower().startswith("utf"):
        return "#" * max(1, round(share * width))
    whole, rest = divmod(max(1, round(share * width * 8)), 8)
    return _EIGHTHS[-1] * whole + (_EIGHTHS[rest - 1] if rest else "")
