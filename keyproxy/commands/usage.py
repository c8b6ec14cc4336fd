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
    if not 1 <= flags.top <= reading.MOST_ROWS:
        parser.error("--top: expected a number of at least 1")
    question = partial(summary, by=flags.by, since=between.begin, until=between.end, top=flags.top)
    try:
        path, found = reading.asked(given, question)
    except reading.Unread as unread:
        return reading.fail("usage", str(unread))
    from keyproxy.commands import usage_text  # rich, which --help need not load

    write = usage_text.print_csv if flags.csv else usage_text.print_table
    if flags.json:
        write = usage_text.print_json
    wanted = usage_text.Asked(path, flags.by, between.since, between.until)
    return reading.written("usage", partial(write, found, wanted))


def _parser() -> line.Parser:
    parser = line.parser("usage", reading.EXIT_CODES)
    parser.add_argument("--by", choices=BY, default="day", help="what makes a row; default: day")
    reading.add_times(parser)
    parser.add_argument(
        "--top",
        metavar="N",
        type=int,
        default=reading.MOST_ROWS,
        help="only the N rows that cost most",
    )
    formats = parser.add_mutually_exclusive_group()
    meaning = "an object with rows and totals, money as exact decimal texts"
    formats.add_argument("--json", action="store_true", help=meaning)
    formats.add_argument("--csv", action="store_true", help="rows for a spreadsheet, money exact")
    reading.add_place(parser)
    return parser
