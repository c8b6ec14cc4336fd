"""What commands share that read the ledger: where it is, from when to when, how it is written out.

They only read, beside a running keyproxy or not, and need no key and no other setting than the
place of the ledger. Days are UTC, as the windows of budgets are.
"""

from __future__ import annotations

import io
import math
import os
import re
import sqlite3
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from keyproxy.commands import line
from keyproxy.console import printable
from keyproxy.dataclass import dataclass
from keyproxy.ledger.file import LedgerFault, LedgerMissing, ask, default_path, dev_path

LEDGER = "KEYPROXY_LEDGER"
EXIT_CODES = "Exit code 0: shown, 1: no ledger that can be read, 2: options."
MOST_ROWS = 1_000_000
_DEFAULT_SINCE = "30d"
_SPANS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_SWITCH_ON = (
    "keyproxy dev and serve book calls unless KEYPROXY_LEDGER=off, demo books none; --ledger FILE"
    " reads another file"
)
_WHEN = "a span such as 7d, 12h or 2w, a day such as 2026-11-01, today, yesterday"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Between:
    """From when to when; None: no border."""

    since: datetime | None
    until: datetime | None

    @property
    def begin(self) -> float:
        return -math.inf if self.since is None else self.since.timestamp()

    @property
    def end(self) -> float:
        return math.inf if self.until is None else self.until.timestamp()


def add_times(parser: line.Parser, of_one: str = "") -> None:
    """Options that say from when to when; ``of_one``: what names one thing, of any time."""
    since = f"{_WHEN}, all; 7d is today and the six days before (UTC); default: {_DEFAULT_SINCE}"
    parser.option("--since", "WHEN", since + (f", with {of_one} all" if of_one else ""))
    parser.option("--until", "WHEN", "the same; a day is included")


def add_place(parser: line.Parser) -> None:
    """Options that say which ledger is read."""
    usual = "that of keyproxy dev in this folder, or, where there is none, that of keyproxy serve"
    ledger = f"the ledger to read [{LEDGER}; default: {usual}]"
    parser.option("--ledger", "FILE", ledger, dest=LEDGER)
    parser.flag("--serve", "read the ledger of keyproxy serve by default")
    line.add_files(parser)


def times(
    parser: line.Parser, since: str | None, until: str | None, usual: str = _DEFAULT_SINCE
) -> Between:
    """What the options say, ``usual`` without any; a wrong one ends the process, exit code 2."""
    since, now = usual if since is None else since, datetime.now(UTC)
    between = Between(_moment(since, now), _moment(until or "", now, is_end=True))
    if between.since is None and since != "all":
        parser.error(f"--since: expected {_WHEN}, all")
    if between.until is None and until is not None:
        parser.error(f"--until: expected {_WHEN}")
    return between


def add_top(parser: line.Parser, usual: int, meaning: str) -> None:
    parser.option("--top", "N", meaning, type=_number, default=usual)


def _number(text: str) -> int:
    number = int(text) if re.fullmatch(r"\d{1,7}", text, re.ASCII) else 0
    if not 1 <= number <= MOST_ROWS:
        raise ArgumentTypeError("expected a number of at least 1")
    return number


def answer(
    command: str,
    given: line.Given,
    question: Callable[[sqlite3.Connection], _T],
    write: Callable[[_T, Path], None],
) -> int:
    """Have ``write`` print what ``question`` returns about the ledger; the exit code."""
    path, how = _place(given, is_serve=given.flags.serve)
    if path is None:
        return line.fail(command, how)
    from keyproxy.ledger.recovery import take_over  # log lines, which --help need not load

    take_over(path)
    try:
        found = ask(path, question)
    except LedgerMissing:
        return line.fail(command, f"there is no ledger at {printable(path)} ({how}); {_SWITCH_ON}")
    except LedgerFault as fault:
        return line.fail(command, str(fault))
    except sqlite3.Error as error:
        return line.fail(command, f"{printable(path)} cannot be read: {error}")
    return _written(command, partial(write, found, path))


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


def _moment(text: str, now: datetime, *, is_end: bool = False) -> datetime | None:
    """The moment that ``text`` names; of a day its begin, or the next one's with ``is_end``.

    The last moment that there is stands for an end beyond it.
    """
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        if match := re.fullmatch(r"([1-9]\d{0,4})([hdw])", text, re.ASCII):
            span = int(match[1]) * _SPANS[match[2]]
            return now - span if match[2] == "h" else today - span + timedelta(days=1)
        day = {"today": today, "yesterday": today - timedelta(days=1)}.get(text)
        if day is None:
            moment = datetime.fromisoformat(text)
            day = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
            if len(text) > len("2026-11-01"):  # with a time of the day
                return day
        return day + timedelta(days=1) if is_end else day
    except ValueError:
        return None
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if is_end else None


def _written(command: str, write: Callable[[], None]) -> int:
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
            return line.fail(command, f"the output cannot be written: {error.strerror}")
    return 0
