"""Numbers, words, header texts, model globs, endpoint names, budgets and the ledger's place."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from keyproxy.call import UNREAD
from keyproxy.dataclass import dataclass
from keyproxy.settings.grammar import Unfit, each, matching, or_off, shown

# Bodies are held in memory; all of them together may take twice as much.
LARGEST_BODY = 128 << 20
MOST_USD = Decimal(1_000_000)
USUAL_MAX_TOKENS = 4096  # a long answer; about three thousand words
DEFAULT_LEDGER = Path()
"""Stands for the file in the user's state folder."""
Unit = Literal["hour", "day", "month"]
UNITS: tuple[Unit, ...] = get_args(Unit)
LONGEST_SECONDS: dict[Unit, int] = {"hour": 3600, "day": 86_400, "month": 31 * 86_400}
_BUDGET = re.compile(rf"(\d{{1,7}}(?:\.\d{{1,9}})?) ?/ ?({'|'.join(UNITS)})", re.ASCII)
_MODEL = re.compile(r"[A-Za-z0-9._~/:-]{1,200}")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?(ms|s|m|h|)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_LENGTHS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))
_RATE = re.compile(r" *([0-9]{1,12}) */ *(second|minute|hour|day|month|year)s? *")
_RATE_SECONDS = {**dict(_LENGTHS), "month": 30 * 86400, "year": 360 * 86400}  # as limits has them
_SIZE = re.compile(r"(\d{1,12}) ?(|b|kib|mib|gib|kb|mb|gb)", re.ASCII | re.IGNORECASE)
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_BYTES |= {"kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True, slots=True)
class Rate:
    """So many calls in so many seconds."""

    amount: int
    seconds: int

    def __str__(self) -> str:
        """As the settings write it: ``20/minute``, ``5/90second``."""
        unit, length = next(each for each in _LENGTHS if self.seconds % each[1] == 0)
        number = self.seconds // length
        return f"{self.amount}/{'' if number == 1 else number}{unit}"


def expression(glob: str) -> str:
    """A regular expression for a glob, in which ``*`` is anything on one line.

    What each ``*`` but the last took is not tried again: the first place where the text behind it
    fits is as good as any, and several such places to the power of the stars would take seconds.
    """
    first, *rest = (re.escape(part) for part in re.split(r"\*+", glob))
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>.*?{part})" for part in middle) + f".*{last}"


def pause(text: str) -> float:
    """Seconds, zero allowed; ``off`` is zero."""
    if text == "off":
        return 0.0
    match = _DURATION.fullmatch(text)
    if not match:
        raise Unfit("a duration such as 30, 30s, 5m or 500ms")
    return float(match[1]) * _SECONDS[match[2]]


def timeout(text: str) -> float:
    """Seconds, more than zero."""
    seconds = pause(text)
    if seconds <= 0:
        raise Unfit("a duration above zero such as 30, 30s, 5m or 500ms")
    return seconds


def size(text: str) -> int:
    """Bytes, more than zero."""
    match = _SIZE.fullmatch(text)
    count = int(match[1]) * _BYTES[match[2].lower()] if match else 0
    if not 1 <= count <= LARGEST_BODY:
        raise Unfit("a size such as 20MiB, 512KiB or a number of bytes, 128MiB at most")
    return count


def count(least: int, most: int) -> Callable[[str], int]:
    """A parser of whole numbers from ``least`` to ``most``."""

    def parse(text: str) -> int:
        number = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else -1
        if not least <= number <= most:
            raise Unfit(f"a whole number from {least} to {most}")
        return number

    return parse


def rates(text: str) -> tuple[Rate, ...]:
    """Rates in the notation of ``limits``, joined by ``;``. ``off`` is none at all.

    One for each length of time: of two, only the smaller can be reached.
    """
    if text == "off":
        return ()
    expected = "rates such as 60/minute or 20/minute;300/day, or off"
    parsed = usual_rates(text)
    if parsed is None:
        from limits import parse_many  # 100 ms and 5 MB, for notations that few use

        try:
            parsed = [Rate(rate.amount, rate.get_expiry()) for rate in parse_many(text)]
        except ValueError as error:
            raise Unfit(expected) from error
    if any(rate.amount < 1 or rate.seconds < 1 for rate in parsed):
        raise Unfit(f"{expected}; every number at least 1")
    least: dict[int, int] = {}
    for rate in parsed:
        least[rate.seconds] = min(rate.amount, least.get(rate.seconds, rate.amount))
    return tuple(Rate(amount, seconds) for seconds, amount in least.items())


def usual_rates(text: str) -> list[Rate] | None:
    """Rates as ``20/minute;300/days``, read as ``limits`` reads them; None for other notations."""
    found = [_RATE.fullmatch(each) for each in text.split(";")]
    rates = [Rate(int(each[1]), _RATE_SECONDS[each[2]]) for each in found if each]
    return rates if len(rates) == len(found) else None


def word(*known: str) -> Callable[[str], str]:
    """A parser of one of the known words."""

    def parse(text: str) -> str:
        if text not in known:
            near = difflib.get_close_matches(text[:80].lower(), known, n=1)
            raise Unfit(f"one of {', '.join(known)}", value=near[0] if near else None)
        return text

    return parse


def loop(text: str) -> str:
    """``asyncio``, or ``uvloop`` where that is installed."""
    if (name := word("asyncio", "uvloop")(text)) == "uvloop" and find_spec(name) is None:
        raise Unfit(
            "asyncio; or uvloop, once it is installed beside keyproxy (not on Windows)",
            found="uvloop, which is not installed",
            value="asyncio",
        )
    return name


def switch(text: str) -> bool:
    """``on`` or ``off``."""
    return word("on", "off")(text) == "on"


file_path = or_off(Path)
"""A path, relative ones being the reader's to place; ``off`` is none."""

header_text = matching(r"[ -~]{1,256}", "at most 256 printable ASCII characters on one line")
"""A text fit for a header."""


def header_name(text: str) -> str:
    """The name of a header that holds one address."""
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", text):
        raise Unfit("the name of one header such as CF-Connecting-IP")
    if text.lower() in {"x-forwarded-for", "forwarded"}:
        raise Unfit("a header that holds one address; X-Forwarded-For is read without this")
    if text.lower() in UNREAD:
        raise Unfit("a header of its own for one address; of this one no value is kept")
    return text


def categories(text: str) -> str:
    """At most two lower-case names, as the ranking header wants them (app attribution)."""
    expected = "at most two lower-case names such as creative-writing,roleplay"
    names = each(matching(r"[a-z0-9-]{1,30}", expected))(text)
    if len(names) > 2:
        raise Unfit(expected)
    return ",".join(names)


def models(text: str) -> tuple[str, ...]:
    """Globs over model ids; ``!`` in front excludes."""
    expected = "comma-separated ids or globs such as openai/gpt-4o-mini,anthropic/*,!*:online"
    patterns = each(matching(r"!?[A-Za-z0-9._~/:*@-]{1,200}", expected))(text)
    if all(pattern.startswith("!") for pattern in patterns):
        raise Unfit(
            "something that is allowed; excluding alone allows nothing",
            value=",".join(["*", *patterns]),
        )
    return patterns


def _alias(text: str) -> tuple[str, str]:
    name, mark, model = (part.strip() for part in text.partition("="))
    if not (mark and _MODEL.fullmatch(name) and _MODEL.fullmatch(model)):
        raise Unfit("comma-separated name=id such as fast=openai/gpt-4o-mini")
    return name, model


def aliases(text: str) -> tuple[tuple[str, str], ...]:
    """Pairs of a name of one's own and the model id that it stands for."""
    pairs = each(_alias, none="off")(text)
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise Unfit("each name once")
    if chained := [model for _, model in pairs if model in names]:
        raise Unfit(f"ids of models; {shown(chained[0])} is a name of this list itself")
    return pairs


def endpoints(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """A parser of lists of ``METHOD /path``, each one of ``known``."""
    parse = word(*known)
    return each(lambda text: parse(" ".join(text.split())))


@dataclass(frozen=True, slots=True)
class Budget:
    """So many USD in each hour, day or month of the calendar, in UTC."""

    usd: Decimal
    unit: Unit

    def __str__(self) -> str:
        return f"{self.usd} USD a{'n' if self.unit == 'hour' else ''} {self.unit}"


def _budget(text: str) -> Budget:
    match = _BUDGET.fullmatch(text)
    if match is None or not 0 < Decimal(match[1]) <= MOST_USD:
        raise Unfit("USD in a time such as 0.50/day or 0.10/hour;5/month, or off")
    return Budget(Decimal(match[1]), next(unit for unit in UNITS if unit == match[2]))


def budgets(text: str) -> tuple[Budget, ...]:
    """Budgets in USD, ``;`` joins several; ``off`` is none."""
    parsed = each(_budget, ";", none="off")(text)
    if len({budget.unit for budget in parsed}) < len(parsed):
        raise Unfit(f"one budget for each of {', '.join(UNITS)}")
    return parsed


def ledger(text: str) -> Path | None:
    """A path; ``off`` is none, ``default`` the file in the user's state folder."""
    return DEFAULT_LEDGER if text == "default" else file_path(text)


def unpriced(text: str) -> bool:
    """Whether calls without a known price are refused where there is a budget."""
    return word("refuse", "allow")(text) == "refuse"


def days(text: str) -> int:
    """A number of days."""
    return count(1, 36_500)(text.removesuffix("d").strip())
