"""Money set aside before a call and settled after it: budgets of a client, an app, and all.

Budgets are counted as rates are, by ``limits``: in nano-dollars, in windows of the calendar in
UTC, and all of them in one step, so that parallel calls cannot overshoot. Each has two windows:
what is spent or set aside, and what of it is only set aside. So a refusal can tell a budget that
is spent from one that calls under way have reserved. (A counter that refuses to record an overrun
would lose money: settling adds to a window whatever is left in it.)
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache, partial
from types import MappingProxyType
from typing import NamedTuple, assert_never

from keyproxy.call import Client
from keyproxy.dataclass import dataclass, field
from keyproxy.errors import Refusal
from keyproxy.limits.counters import Counters
from keyproxy.limits.windows import Change, Span, Standing, Window
from keyproxy.price import nano
from keyproxy.settings.grammar.plain import LONGEST_SECONDS, MOST_USD, Budget, Unit

LEAST_NANO = 1
"""Set aside where nobody knows how much: a budget that is spent has no room for it."""
MOST_NANO = 2**53
"""What the windows of open reservations hold: no bound at all."""
BUSY_RETRY_SECONDS = 1.0
_NANO = Decimal("1e-9")
_MOST_KNOWN = 256  # clients whose windows are at hand: those of a moment
_SHARED = {"app": "this app", "total": "this server"}
_VARIABLES = {
    "client": "KEYPROXY_BUDGET",
    "app": "KEYPROXY_APP_BUDGET",
    "total": "KEYPROXY_TOTAL_BUDGET",
}


Advice = tuple[str, str]
"""Where a call says what it asks for, and what it may ask for instead."""
Fit = Callable[[Decimal], Advice | None]
Kind = tuple[str, str, Unit]
"""A sort of windows: whose money (client, app, total), the name of the app or "all", the unit."""


@dataclass(slots=True)
class Pot:
    """One budget: ``whose`` is client (each of the app has it), app or total; ``name`` that of the
    app, or "all"."""

    whose: str
    name: str
    budget: Budget
    spent_until: float = field(init=False, default=0.0)
    """Till when it is known to have no room even for a short answer; unix time."""

    @property
    def kind(self) -> Kind:
        """Of its windows."""
        return self.whose, self.name, self.budget.unit

    def windows(self, client_id: str, at: float) -> tuple[Window, Window]:
        """In which a call of ``at`` counts: what is spent or set aside, and what is only set
        aside."""
        whose, name, unit = self.kind
        is_kept = whose != "client"
        name, key = f"{whose}-usd-{unit}", name if is_kept else f"{name}:{client_id}"
        length, when = LONGEST_SECONDS[unit], span(unit, at)
        opened = Window(name, key, MOST_NANO, length, when, is_kept, is_open=True)
        most = nano(self.budget.usd)
        return Window(name, key, most, length, when, is_kept, opened=opened), opened


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """What is set aside for one call: in which windows, and how much, in nano-dollars."""

    windows: Sequence[Window]
    amount: int


NOTHING = Reservation((), 0)


class Budgets:
    """The budgets of one app over counters that outlive it."""

    def __init__(
        self,
        counters: Counters,
        *,
        app: str,
        of_client: Sequence[Budget] = (),
        of_app: Sequence[Budget] = (),
        of_all: Sequence[Budget] = (),
        unread: Mapping[Kind, float] = MappingProxyType({}),
    ) -> None:
        """``unread``: windows that do not hold yet what calls before a time have cost.

        ``is_empty``: money is no reason to refuse anything. ``may_wait``: to count takes a moment,
        in which a caller may leave.
        """
        self._own = [Pot("client", app, budget) for budget in of_client]
        self.pots = (
            *self._own,
            *(Pot("app", app, budget) for budget in of_app),
            *(Pot("total", "all", budget) for budget in of_all),
        )
        self._counters = counters
        self._unread = unread
        self.is_empty = not self.pots
        self.may_wait = counters.is_shared and not self.is_empty
        self._windows = lru_cache(_MOST_KNOWN)(self._windows_in)
        self._shared = lru_cache(1)(partial(_windows, self.pots[len(of_client) :], ""))

    def _windows_in(self, client_id: str, hour: int) -> list[Window]:
        """Of all its budgets, a client's first; each begins and ends with an hour."""
        return [*_windows(self._own, client_id, hour), *self._shared(hour)]

    @property
    def kinds(self) -> frozenset[Kind]:
        """Of all windows that its calls count in."""
        return frozenset(pot.kind for pot in self.pots)

    async def reserve(
        self, client: Client, amount: int, at: float, fit: Fit | None = None
    ) -> Reservation:
        """Set ``amount`` nano-dollars aside in every budget that runs at ``at``, or in none.

        ``fit`` says which length of an answer some USD would pay for. Raises
        ``budget_exhausted``, ``call_too_costly``, ``budget_busy``.
        """
        if self.is_empty:
            return NOTHING
        # What costs nothing fits into any budget, and has a window for a cost that is told later.
        windows = self._windows(client.id, int(at) // 3600)
        verdict = await self._counters.take(windows, cost=amount)
        if verdict.is_admitted:
            return Reservation(windows, amount)
        spent = verdict.standings
        lefts = [each.remaining + held for each, held in zip(spent, verdict.opened, strict=True)]
        advice = _advice(fit, min(lefts))  # what was advised must fit into each of them
        needs = [each.units + amount if each.remaining < amount else 0 for each in spent]
        refusals = [
            _refusal(pot, each, left, amount, at, advice, _line(pot.whose, self.pots, needs))
            for pot, each, left in zip(self.pots, spent, lefts, strict=True)
            if each.remaining < amount
        ]
        for pot, left in zip(self.pots, lefts, strict=True):
            if left < amount and _advice(fit, left) is None:
                pot.spent_until = span(pot.budget.unit, at).ends
        raise max(refusals, key=_gravity)

    async def settle(
        self, reservation: Reservation, cost: Decimal | None, *, ends: bool = True
    ) -> None:
        """Book ``cost`` in place of what was set aside, in the windows it was set aside in; None:
        as it is. The reservation ``ends``, or has been ended, or will be."""
        if changes := _changes(reservation, cost, ends=ends):
            await self._counters.adjust(changes)

    def settle_here(self, reservation: Reservation, cost: Decimal) -> None:
        """As ``settle``, where that does not wait."""
        self._counters.adjust_here(_changes(reservation, cost))

    async def correct(self, client_id: str, at: float, delta: Decimal) -> None:
        """Add ``delta`` USD to what a call of ``at`` was booked with, where that is held."""
        if units := nano(delta):
            held = [pot for pot in self.pots if at >= self._unread.get(pot.kind, at)]
            await self._counters.adjust([(pot.windows(client_id, at)[0], units) for pot in held])

    async def release(self, client_id: str, at: float, reserved: Decimal | None) -> None:
        """End the reservation of a call of ``at`` whose process is gone; it counts as spent.

        Counters of our own know only reservations of ours.
        """
        units = LEAST_NANO if reserved is None else nano(reserved)
        if self._counters.is_shared and units:
            opened = [pot.windows(client_id, at)[1] for pot in self.pots]
            await self._counters.adjust([(window, -units) for window in opened])


class Level(NamedTuple):
    """Where a budget of an app, or of all, stands, in USD. ``ends``: when it begins anew, in unix
    seconds; ``is_full``: it had no room even for a short answer."""

    kind: Kind
    budget: Budget
    spent: Decimal
    reserved: Decimal
    ends: float
    is_full: bool

    @property
    def name(self) -> str:
        """``total:day``, ``app:web:month``."""
        whose, name, unit = self.kind
        return f"{whose}:{unit}" if whose == "total" else f"{whose}:{name}:{unit}"


async def levels(counters: Counters, budgets: Iterable[Budgets], at: float) -> list[Level]:
    """Those of apps and of all together, each once; clients have too many."""
    every = [pot for each in budgets for pot in each.pots if pot.whose != "client"]
    pots = {pot.kind: pot for pot in every}
    full = {pot.kind for pot in every if pot.spent_until > at}
    units = await counters.look([window for pot in pots.values() for window in pot.windows("", at)])
    found = []
    for (kind, pot), used, held in zip(pots.items(), units[::2], units[1::2], strict=True):
        spent, ends = max(0, used - held) * _NANO, span(pot.budget.unit, at).ends
        found.append(Level(kind, pot.budget, spent, held * _NANO, ends, kind in full))
    return found


async def restore(
    counters: Counters,
    budgets: Mapping[str, Budgets],
    spent: Callable[[float, float], Awaitable[Mapping[tuple[str, str], Decimal]]],
    at: float,
    missing: Mapping[Kind, float],
    until: float = math.inf,
) -> None:
    """Count what was spent before ``until`` in the windows that run at the time ``at``.

    ``budgets`` by app. ``spent`` gives USD by app and client from one time to another.
    ``missing``: the windows that are to count it, and since when they have not.
    """
    begins: dict[float, set[Kind]] = {}
    for kind, since in missing.items():
        begins.setdefault(max(span(kind[2], at).begins, since), set()).add(kind)
    pots = {app: known.pots for app, known in budgets.items()}
    totals = tuple(pot for pot in next(iter(pots.values())) if pot.whose == "total")
    counted: list[Change] = []
    for begin, kinds in begins.items():
        for (app, client), usd in (await spent(begin, until)).items():
            # Of an app that there is no more, only the total counts it.
            counting = [pot for pot in pots.get(app, totals) if pot.kind in kinds]
            counted += [(pot.windows(client, at)[0], nano(usd)) for pot in counting]
    # After the last question: what fails before it can be done again.
    await counters.recall(counted)


def _advice(fit: Fit | None, left: int) -> Advice | None:
    return fit(left * _NANO) if fit is not None and left > 0 else None


def _changes(reservation: Reservation, cost: Decimal | None, *, ends: bool = True) -> list[Change]:
    """What a cost changes in the windows of a reservation: what is spent, what is set aside."""
    amount = reservation.amount
    more, less = 0 if cost is None else nano(cost) - amount, -amount if ends else 0
    changes = []
    for window in reservation.windows:
        if more:
            changes.append((window, more))
        if less and window.opened is not None:
            changes.append((window.opened, less))
    return changes


def _windows(pots: Iterable[Pot], client_id: str, hour: int) -> list[Window]:
    return [pot.windows(client_id, hour * 3600)[0] for pot in pots]


def span(unit: Unit, at: float) -> Span:
    """The hour, day or month in UTC that ``at`` (seconds since 1970) lies in."""
    return _span(unit, int(at) // 3600)


@lru_cache(maxsize=64)
def _span(unit: Unit, hour: int) -> Span:
    match unit:
        case "hour" | "day":
            length = LONGEST_SECONDS[unit]
            begins = hour * 3600 // length * length
            return Span(begins, begins + length)
        case "month":
            day = datetime.fromtimestamp(hour * 3600, UTC)
            first = datetime(day.year, day.month, 1, tzinfo=UTC)
            following = (first + timedelta(days=32)).replace(day=1)
            return Span(int(first.timestamp()), int(following.timestamp()))
        case _:
            assert_never(unit)


def _line(whose: str, pots: Sequence[Pot], needs: Sequence[int]) -> str:
    """The setting to paste: its budgets, doubled until each holds the nano-dollars it needs."""
    budgets = []
    for pot, least in zip(pots, needs, strict=True):
        usd, unit = pot.budget.usd, pot.budget.unit
        while nano(usd) < least and usd <= MOST_USD:
            usd *= 2
        if pot.whose == whose:
            budgets.append(f"{usd:f}/{unit}")
    return f"{_VARIABLES[whose]}={';'.join(budgets)}"


def _refusal(
    pot: Pot, spent: Standing, left: int, amount: int, at: float, advice: Advice | None, line: str
) -> Refusal:
    """``left``: open reservations are not spent. ``advice``: what fits into all budgets.

    Strangers are told the figures of their own budget only; the operator, by the hint, of each.
    """
    budget, is_own = pot.budget, pot.whose == "client"
    about = f"budget of {budget} for each user"
    if not is_own:
        about = f"budget of {_SHARED[pot.whose]} for the {budget.unit}"
    if amount <= left:
        return Refusal(
            "budget_busy",
            f"The {about} is set aside for calls that are under way; try again in a moment.",
            retry_after_seconds=BUSY_RETRY_SECONDS,
            hint=line,
        )
    anew = datetime.fromtimestamp(span(budget.unit, at).ends, UTC).strftime("%d %b %H:%M UTC")
    if advice or amount > nano(budget.usd):
        costs, rest = f"could cost up to {shown(amount * _NANO)} USD", f"{shown(left * _NANO)} USD"
        param, text = advice or (None, "")
        instead = f"; {text}" if advice else ""
        message = f"This call {costs}, and {rest} of the {about} is left{instead}."
        hint = f"lower KEYPROXY_MAX_TOKENS, or: {line}"
        if not is_own:
            message = f"This call {costs}, more than is left of the {about}{instead}. The"
            message += f" budget begins anew at {anew}."
            hint = f"{rest} of it is left; {hint}"
        return Refusal("call_too_costly", message, param=param, hint=hint)
    return Refusal(
        "budget_exhausted",
        f"The {about} is spent; it begins anew at {anew}.",
        retry_after_seconds=spent.resets_in_seconds,
        hint=line,
    )


def _gravity(refusal: Refusal) -> tuple[int, float]:
    """The refusal that says most of several: what waiting cures last, longest."""
    order = ("budget_busy", "call_too_costly", "budget_exhausted")
    return order.index(refusal.code), refusal.retry_after_seconds or 0.0


def shown(usd: Decimal) -> str:
    """An amount with the digits that matter: 0.96, 0.000088, 12.00."""
    if usd == 0 or usd >= 1:
        return f"{usd:.2f}"
    places = max(2, 1 - usd.adjusted())
    return f"{usd:.{places}f}"
