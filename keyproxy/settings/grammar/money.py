"""Budgets, where the ledger lies, and what becomes of models without a price."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from keyproxy.errors import SettingsFault
from keyproxy.settings.grammar.base import Unfit, items
from keyproxy.settings.grammar.plain import count, word
from keyproxy.values import UNITS, Budget

MOST_USD = Decimal(1_000_000)
USUAL_MAX_TOKENS = 4096  # a long answer; about three thousand words
MONTH_DAYS = 31
DEFAULT_LEDGER = Path()
"""Stands for the file in the user's state folder."""
_BUDGET = re.compile(r"(\d{1,7}(?:\.\d{1,9})?) ?/ ?(hour|day|month)", re.ASCII)


def budgets(text: str) -> tuple[Budget, ...]:
    """Budgets in USD, ``;`` joins several; ``off`` is none."""
    if text == "off":
        return ()
    found = [_budget(item) for item in items(text, ";")]
    if not found:
        raise _unfit()
    if len({budget.unit for budget in found}) < len(found):
        raise Unfit("one budget for each of hour, day and month")
    return tuple(found)


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


def budget_faults(
    default: Mapping[str, Any], apps: Iterable[Mapping[str, Any]]
) -> list[SettingsFault]:
    """A fault for everything that would let a budget be spent twice. Values are by field name."""
    budgets = [
        budget
        for values in (default, *apps)
        for name in ("budget", "app_budget", "total_budget")
        for budget in values.get(name) or ()
    ]
    found = []
    if budgets and default.get("storage_failure") == "open" and default.get("storage"):
        found.append(
            SettingsFault(
                "KEYPROXY_STORAGE_FAILURE",
                found="'open', and there is a budget",
                expected="local or closed: while calls are let through uncounted, no budget holds",
                paste="KEYPROXY_STORAGE_FAILURE=local",
            )
        )
    days_kept = default.get("ledger_retention_days", MONTH_DAYS)
    is_read_back = default.get("ledger", DEFAULT_LEDGER) is not None
    is_for_month = any(budget.unit == "month" for budget in budgets)
    if is_read_back and is_for_month and days_kept < MONTH_DAYS:
        found.append(
            SettingsFault(
                "KEYPROXY_LEDGER_RETENTION",
                found=f"{days_kept}, and there is a budget for the month",
                expected=f"{MONTH_DAYS} days at least: a restart reads back from the ledger what"
                " the running month has spent",
                paste=f"KEYPROXY_LEDGER_RETENTION={MONTH_DAYS}",
            )
        )
    return found


def bound_answers(values: dict[str, Any], said: Mapping[str, str]) -> None:
    """Cap the length of answers where a budget was said and no cap: else an answer might cost
    more than what is set aside for it could be bounded by. ``values`` are by field name."""
    budgets = ("KEYPROXY_BUDGET", "KEYPROXY_APP_BUDGET", "KEYPROXY_TOTAL_BUDGET")
    has_budget = any(said.get(name, "").strip() not in ("", "off") for name in budgets)
    if has_budget and not said.get("KEYPROXY_MAX_TOKENS", "").strip():
        values["max_tokens"] = USUAL_MAX_TOKENS
