"""Budgets, where the ledger lies, and what becomes of models without a price."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal

from keyproxy.settings.grammar.base import Unfit, items
from keyproxy.settings.grammar.plain import count, word

MOST_USD = Decimal(1_000_000)
USUAL_MAX_TOKENS = 4096  # a long answer; about three thousand words
MONTH_DAYS = 31
DEFAULT_LEDGER = Path()
"""Stands for the file in the user's state folder."""
_BUDGET = re.compile(r"(\d{1,7}(?:\.\d{1,9})?) ?/ ?(hour|day|month)", re.ASCII)
Unit = Literal["hour", "day", "month"]
UNITS: tuple[Unit, ...] = ("hour", "day", "month")


@dataclass(frozen=True, slots=True)
class Budget:
    """So many USD in each hour, day or month of the calendar, in UTC."""

    usd: Decimal
    unit: Unit

    def __str__(self) -> str:
        return f"{self.usd} USD a{'n' if self.unit == 'hour' else ''} {self.unit}"


def budgets(text: str) -> tuple[Budget, ...]:
    """Budgets in USD, ``;`` joins several; ``off`` is none."""
    if text == "off":
        return ()
    parsed = [_budget(item) for item in items(text, ";")]
    if not parsed:
        raise _unfit()
    if len({budget.unit for budget in parsed}) < len(parsed):
        raise Unfit("one budget for each of hour, day and month")
    return tuple(parsed)


def _budget(text: str) -> Budget:
    match = _BUDGET.fullmatch(text)
    if match is None or not 0 < Decimal(match[1]) <= MOST_USD:
        raise _unfit()
    return Budget(Decimal(match[1]), next(unit for unit in UNITS if unit == match[2]))


def _unfit() -> Unfit:
    return Unfit("USD in a time such as 0.50/day or 0.10/hour;5/month, or off")


def ledger(text: str) -> Path | None:
    """A path; ``off`` is none, ``default`` the file in the user's state folder."""
    if text == "off":
        return None
    return DEFAULT_LEDGER if text == "default" else Path(text)


def unpriced(text: str) -> bool:
    """Whether calls without a known price are refused where there is a budget."""
    return word("refuse", "allow")(text) == "refuse"


def days(text: str) -> int:
    """A number of days."""
    return count(1, 36_500)(text.removesuffix("d").strip())
