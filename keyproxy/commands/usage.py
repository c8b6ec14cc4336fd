"""``keyproxy usage``: what was spent, on what, by whom, out of the ledger.

Only reads, beside a running keyproxy or not. Needs no key and no other setting than the place
of the ledger. Days are UTC, as the windows of budgets are.
"""

from __future__ import annotations

import io
import math
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from keyproxy.commands import line
from keyproxy.console import printable
from keyproxy.ledger.file import LedgerFault, LedgerMissing, ask, default_path, dev_path
from keyproxy.ledger.queries import BY, summary

LEDGER = "KEYPROXY_LEDGER"
_DEFAULT_SINCE = "30d"
_SPANS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_SWITCH_ON = (
    "keyproxy dev and serve book calls unless KEYPROXY_LEDGER=off; --ledger FILE reads another file"
)
_WHEN = "a span such as 7d, 12h or 2w, a day such as 2026-11-01, today, yesterday"


def main(arguments: Sequence[str]) -> int:
    parser = _parser()
    given = line.parse(parser, arguments)
    flags = given.flags
    now = datetime.now(UTC)
    since, until = _within(flags.since, now), _within(flags.until, now, is_end=True)
    if since is None and flags.since != "all":
        parser.error(f"--since: expected {_WHEN}, all")
    if until is None and flags.until is not None:
        parser.error(f"--until: expected {_WHEN}")
    if not 1 <= flags.top <= 1_000_000:
        parser.error("--top: expected a number of at least 1")
    path, how = _place(given, is_serve=flags.serve)
    if path is None:
        return _fail(how)
    try:
        begin = -math.inf if since is None else since.timestamp()
        end = math.inf if until is None else until.timestamp()
        found = ask(path, partial(summary, by=flags.by, since=begin, until=end, top=flags.top))
    except LedgerMissing:
        return _fail(f"there is no ledger at {printable(path)} ({how}); {_SWITCH_ON}")
    except LedgerFault as fault:
        return _fail(str(fault))
    except sqlite3.Error as error:
        return _fail(f"{printable(path)} cannot be read: {error}")
    from keyproxy.commands import usage_text  # rich, which --help need not load

    write = usage_text.print_csv if flags.csv else usage_text.print_table
    if flags.json:
        write = usage_text.print_json
    return _written(partial(write, found, usage_text.Asked(path, flags.by, since, until)))


def _parser() -> line.Parser:
    parser = line.parser("usage", "Exit code 0: shown, 1: no ledger that can be read, 2: options.")
    parser.add_argument("--by", choices=BY, default="day", help="what makes a row; default: day")
    parser.add_argument(
        "--since",
        metavar="WHEN",
        default=_DEFAULT_SINCE,
        help=f"{_WHEN}, all; 7d is today and the six days before (UTC); default: 30d",
    )
    parser.add_argument("--until", metavar="WHEN", help="the same; a day is included")
    parser.add_argument(
        "--top", metavar="N", type=int, default=1_000_000, help="only the N rows that cost most"
    )
    formats = parser.add_mutually_exclusive_group()
    meaning = "an object with rows and totals, money as exact decimal texts"
    formats.add_argument("--json", action="store_true", help=meaning)
    formats.add_argument("--csv", action="store_true", help="rows for a spreadsheet, money exact")
    parser.add_argument(
        "--ledger",
        dest=LEDGER,
        metavar="FILE",
        help=f"the ledger to read [{LEDGER}; default: that of keyproxy dev in this folder, or,"
        " where there is none, that of keyproxy serve]",
    )
    parser.add_argument(
        "--serve", action="store_true", help="read the ledger of keyproxy serve by default"
    )
    line.add_files(parser)
    return parser


def _place(given: line.Given, *, is_serve: bool) -> tuple[Path | None, str]:
    """Where the ledger is, and who says so; without a place, why there is none."""
    found = given.sources("dev").look()
    text, place = found.said(LEDGER)
    if found.unread:
        return None, str(found.unread[0])
    text = "" if text == "default" else text
    if text == "off":
        where = f" {place}" if place else ""
        return None, f"the ledger is off ({LEDGER}=off{where}); unset it to have calls booked"
    if text:
        return Path(text), f"{LEDGER} {place}".rstrip()
    own = None if is_serve else dev_path(Path.cwd())
    if own is not None and own.exists():
        return own, "the default place of keyproxy dev in this folder"
    path = default_path()
    if path is None:
        return None, f"this user has no home folder, so {LEDGER} must name the ledger's file"
    also = "" if own is None else f"), nor at {printable(own)} (that of keyproxy dev in this folder"
    return path, f"the default place of keyproxy serve{also}"


def _within(text: str | None, now: datetime, *, is_end: bool = False) -> datetime | None:
    """As ``_moment``; the last moment that there is stands for an end beyond it."""
    try:
        return _moment(text, now, is_end=is_end)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if is_end else None


def _moment(text: str | None, now: datetime, *, is_end: bool = False) -> datetime | None:
    """The moment that ``text`` names; of a day its begin, or the next one's with ``is_end``."""
    text = text or ""
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if match := re.fullmatch(r"([1-9]\d{0,4})([hdw])", text, re.ASCII):
        span = int(match[1]) * _SPANS[match[2]]
        return now - span if match[2] == "h" else today - span + timedelta(days=1)
    day = {"today": today, "yesterday": today - timedelta(days=1)}.get(text)
    if day is None:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        day = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        if len(text) > len("2026-11-01"):  # with a time of the day
            return day
    return day + timedelta(days=1) if is_end else day


def _written(write: Callable[[], None]) -> int:
    """Have it written to stdout; the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a client's name in no letters of the terminal's
    try:
        write()
        sys.stdout.flush()
    except SystemExit:
        pass  # `keyproxy usage | head`, as rich says it
    except OSError as error:  # the interpreter would flush once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # `keyproxy usage | head`
            return _fail(f"the output cannot be written: {error.strerror}")
    return 0


def _fail(text: str) -> int:
    print(f"keyproxy usage: {text}", file=sys.stderr)
    return 1
