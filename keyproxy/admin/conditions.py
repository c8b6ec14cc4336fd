"""What is out of its range just now: fixed borders, no guesses at what is usual. Only looks.

A condition has a stable name, which the log and whoever is told know it by, and says in one
sentence what is so. Texts hold no word of a caller's: names are the operator's, keys are labels.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple, get_args

import structlog

from keyproxy.admin.totals import FAILING_SECONDS, Failures, Totals
from keyproxy.admin.watched import Watched
from keyproxy.dataclass import dataclass, field
from keyproxy.ledger.file import LedgerFault
from keyproxy.limits.windows import Span
from keyproxy.money.budget import Level, shown, span
from keyproxy.price import ZERO
from keyproxy.settings import Secret
from keyproxy.settings.grammar.plain import Budget, Unit
from keyproxy.upstream.keyring import KeyState

FAILING_SHARE = 0.2
FAILING_CALLS = 20
"""So many calls must there be before a share of them says anything."""
BUDGET_SHARE = Decimal("0.8")
CREDIT_LEFT = Decimal("0.1")
"""Of a key's credit limit."""
EXPIRES_DAYS = 7
_DAY_SECONDS = 86_400.0
_log = structlog.get_logger("keyproxy.alerts")


class Condition(NamedTuple):
    """Something that is out of its range. ``about`` tells it from others of its name."""

    alert: str
    text: str
    value: float
    limit: float
    app: str | None = None
    about: str = ""


@dataclass(slots=True)
class Spend:
    """What calls have cost in windows of the calendar, once that is final.

    What this process has spent it has in memory, also what the ledger does not hold yet; what
    others had in the window in which it began is read back from there.
    """

    watched: Watched
    totals: Totals
    _begun: dict[Unit, tuple[Span, Decimal]] = field(default_factory=dict, init=False)
    _before: dict[Unit, Decimal] = field(default_factory=dict, init=False)
    _is_unread: bool = field(default=False, init=False)

    async def usd(self, units: Sequence[Unit], at: float) -> list[Decimal]:
        """In those windows that run."""
        total = self.totals.spent
        for unit in get_args(Unit):  # of all, since a reload may ask for any
            running, known = span(unit, at), self._begun.get(unit)
            if known is None:
                self._begun[unit] = running, ZERO
            elif known[0] != running:
                self._begun[unit], self._before[unit] = (running, total), ZERO
        spent = [total - self._begun[unit][1] for unit in units]
        return [own + await self._others(unit) for own, unit in zip(spent, units, strict=True)]

    async def _others(self, unit: Unit) -> Decimal:
        """Asked for until it is known, and then remembered."""
        if unit not in self._before and (ledger := self.watched.ledger) is not None:
            begun = self._begun[unit][0]
            try:
                usd = await ledger.settled_by_others(begun.begins)
            except (LedgerFault, sqlite3.Error) as error:
                if not self._is_unread:
                    _log.warning("alerts lack what was spent before the start", why=str(error))
                self._is_unread = True
                return ZERO
            if begun == self._begun[unit][0]:
                self._before[unit] = usd
        return self._before.get(unit, ZERO)


@dataclass(slots=True)
class Conditions:
    """All that may be out of its range."""

    watched: Watched
    failures: Failures
    totals: Totals
    _spend: Spend = field(init=False)
    _is_failing: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._spend = Spend(self.watched, self.totals)

    async def look(self, at: float) -> list[Condition]:
        """What is out of its range at the time ``at``."""
        levels = await self.watched.levels(at)
        limits = self.watched.kit().settings.alert_spend
        spent = await self._spend.usd([limit.unit for limit in limits], at)
        return [
            *_spent(limits, spent, at),
            *self._failing(),
            *(found for level in levels for found in _of_budget(level)),
            *self._keys(at),
            *self._stores(),
        ]

    def is_over(self, condition: Condition, seconds: float) -> bool:
        """Whether a process of so many seconds that has not found it knows that it is over."""
        if condition.alert == "calls_failing":
            return seconds >= FAILING_SECONDS or self.failures.counts()[0] >= FAILING_CALLS
        if not condition.alert.startswith("key_"):
            return True
        keys = self.watched.kit().settings.all_keys
        return all(
            state.report is not None
            or state.is_rejected
            or (state.is_unclear and condition.alert == "key_rejected")
            for state in self.watched.keys.states(keys)
            if state.key.label == condition.about
        )

    def _failing(self) -> Iterator[Condition]:
        """Fewer calls than say something change nothing, while any of them failed."""
        calls, failed = self.failures.counts()
        if calls >= FAILING_CALLS or not failed:
            self._is_failing = calls > 0 and failed >= FAILING_SHARE * calls
        if self._is_failing:
            share = failed / calls
            text = f"{failed} of {calls} calls of the last 5 minutes failed ({share:.0%})."
            yield Condition("calls_failing", text, round(share, 4), FAILING_SHARE)

    def _keys(self, at: float) -> Iterator[Condition]:
        providers: dict[Secret, str] = {}
        apps: dict[Secret, set[str]] = {}
        for app in self.watched.kit().settings.all_apps:
            for used in app.providers:
                for key in used.keys:
                    providers[key] = used.name
                    apps.setdefault(key, set()).add(app.name)
        for state in self.watched.keys.states(providers):
            users = apps[state.key]
            for found in _of_key(state, providers[state.key], at):
                app_name = next(iter(users)) if len(users) == 1 else None
                yield found._replace(app=app_name, about=state.key.label)

    def _stores(self) -> Iterator[Condition]:
        if self.watched.counters.is_down:
            how = self.watched.kit().settings.storage_failure
            text = "The storage of limits and budgets is down (KEYPROXY_STORAGE_FAILURE is {})."
            yield Condition("storage_down", text.format(how), 1, 0)
        ledger = self.watched.ledger
        if ledger is not None and ledger.is_down:
            text = "The ledger cannot be written; calls go on, and wait in memory to be booked."
            yield Condition("ledger_down", text, ledger.backlog, 0)


def _spent(limits: Iterable[Budget], spent: Sequence[Decimal], at: float) -> Iterator[Condition]:
    for limit, usd in zip(limits, spent, strict=True):
        if usd > limit.usd:
            text = f"{shown(usd)} USD were spent in this {limit.unit}, more than {limit.usd:f} USD."
            about = f"{limit.unit} {span(limit.unit, at).ends}"
            yield Condition("spend", text, float(usd), float(limit.usd), about=about)


def _of_budget(level: Level) -> Iterator[Condition]:
    (whose, name, unit), budget, usd, *_ = level
    of_whom = "of all apps together" if whose == "total" else f"of the app {name}"
    said = f"Of the budget {of_whom}, {budget}, {shown(usd)} USD are spent"
    figures = float(usd), float(budget.usd)
    whom, about = None if whose == "total" else name, f"{unit} {level.ends}"
    if usd < BUDGET_SHARE * budget.usd:
        return  # a dear call may find no room in a budget that is far from spent
    yield Condition("budget_80", f"{said}.", *figures, whom, about)
    if (is_over := usd >= budget.usd) or level.is_full:
        what = "calls" if is_over else "what is left was too little for a call; such"
        anew = datetime.fromtimestamp(level.ends, UTC)
        text = f"{said}: {what} are refused until {anew:%d %b %H:%M} UTC."
        yield Condition("budget_100", text, *figures, whom, about)


def _of_key(state: KeyState, provider: str, at: float) -> Iterator[Condition]:
    key = f"key {state.key.label} of {provider}"
    if state.is_rejected:
        yield Condition("key_rejected", f"The {key} is rejected there, and set aside.", 1, 0)
    if (report := state.report) is None:
        return
    limit, left = report.limit, report.limit_remaining
    if limit and left is not None and left <= limit * CREDIT_LEFT:
        text = f"Of the credit limit of the {key}, {limit:f} USD, {left:f} are left."
        yield Condition("key_credit", text, float(limit - left), float(limit))
    if (expires := _moment(report.expires_at)) is not None:
        days = (expires.timestamp() - at) / _DAY_SECONDS
        if days <= EXPIRES_DAYS:
            text = f"The {key} expires on {expires:%d %b %Y at %H:%M} UTC."
            yield Condition("key_expires", text, round(days, 2), EXPIRES_DAYS)


def _moment(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text or "")
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # a provider's word: what is no time in UTC is none
        return None
