"""``keyproxy usage``: what was spent, on what, by whom, out of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from keyproxy.commands import line, reading
from keyproxy.ledger.queries import BY, summary


def main(arguments: Sequence[str]) -> int:
    parser = _parser()
    given = line.parse(parser, arguments)
    flags = given.flags
    between = reading.times(parser, flags.since, flags.until)
    question = partial(summary, by=flags.by, since=between.begin, until=between.end, top=flags.top)
    from keyproxy.commands import usage_text  # rich, which --help need not load

    write = usage_text.print_csv if flags.csv else usage_text.print_table
    if flags.json:
        write = usage_text.print_json
    return reading.answer("usage", given, question, partial(write, by=flags.by, between=between))


def _parser() -> line.Parser:
    parser = line.parser("usage", reading.EXIT_CODES)
    parser.add_argument("--by", choices=BY, default="day", help="what makes a row; default: day")
    reading.add_times(parser)
    reading.add_top(parser, reading.MOST_ROWS, "only the N rows that cost most")
    formats = parser.add_mutually_exclusive_group()
    meaning = "an object with rows and totals, money as exact decimal texts"
    formats.add_argument("--json", action="store_true", help=meaning)
    formats.add_argument("--csv", action="store_true", help="rows for a spreadsheet, money exact")
    reading.add_place(parser)
    return parser
