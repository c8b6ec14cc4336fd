"""Money set aside before a call and settled after it: budgets of a client, an app, and all.

Budgets are counted as rates are, by ``limits``: in nano-dollars, in windows of the calendar in
UTC, and all of them in one step, so that parallel calls cannot overshoot. Each has two windows:
what is spent or set aside, and what of it is only set aside. So a refusal can tell a budget that
is spent from one that calls under way have reserved. (A counter that refuses to record an overrun
would lose money: settling adds to a window whatever is left in it.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple, Self

from keyproxy.call import Client
from keyproxy.errors import Refusal
from keyproxy.limits.counters import Counters
from keyproxy.limits.windows import Span, Standing, Window
from keyproxy.price import nano
from keyproxy.settings.grammar.plain import MOST_USD, Budget, Unit

LEAST_NANO = 1
"""Set aside where nobody knows how much: a budget that is spent has no room for it."""
MOST_NANO = 2**53
"""What the windows of open reservations hold: no bound at all."""
BUSY_RETRY_SECONDS = 1.0
_NANO = Decimal("1e-9")
_LONGEST: dict[Unit, int] = {"hour": 3600, "day": 86_400, "month": 31 * 86_400}
_SHARED = {"app": "this app", "total": "this server"}
_VARIABLES = {
    "client": "KEYPROXY_BUDGET",
    "app": "KEYPROXY_APP_BUDGET",
    "total": "KEYPROXY_TOTAL_BUDGET",
}


class Room(NamedTuple):
    """What a call may ask for instead: so many ``tokens`` of an answer, said in ``fields``."""

    fields: tuple[str, ...]
    tokens: int
    has_less_reasoning: bool = False

    def __str__(self) -> str:
        reasoning = " and less reasoning" if self.has_less_reasoning else ""
        return f"ask for {' and '.join(self.fields)} ≤ {self.tokens}{reasoning}"


Fit = Callable[[Decimal], Room | None]
Kind = tuple[str, str, Unit]
"""A sort of windows: whose money (client, app, total), the name of the app or "all", the unit."""


class Pot(NamedTuple):
    """One budget of somebody: ``whose`` is client, app or total; ``key`` says which one;
    ``most`` is the budget in nano-dollars."""

    whose: str
    key: str
    budget: Budget
    most: int

    @classmethod
    def of(cls, whose: str, key: str, budget: Budget) -> Self:
        return cls(whose, key, budget, nano(budget.usd))


@dataclass(frozen=True, slots=True)
class Reservation:
    """What is set aside for one call: in which windows, and how much, in nano-dollars."""

    windows: tuple[Window, ...]
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
        """``unread``: windows that do not hold yet what calls before a time have cost."""
        self._counters = counters
        self._app = app
        self._unread = unread
        self._of_client = tuple(Pot.of("client", "", budget) for budget in of_client)
        self._shared = (
            *(Pot.of("app", app, budget) for budget in of_app),
            *(Pot.of("total", "all", budget) for budget in of_all),
        )

    @property
    def may_wait(self) -> bool:
        """Whether to count takes a moment, in which a caller may leave."""
        return self._counters.is_shared

    @property
    def is_empty(self) -> bool:
        """Whether money is no reason to refuse anything."""
        return not (self._of_client or self._shared)

    def pots(self, client_id: str) -> tuple[Pot, ...]:
        """Every budget that a call of this client counts in."""
        key = f"{self._app}:{client_id}"
        return (*(pot._replace(key=key) for pot in self._of_client), *self._shared)

    async def reserve(
        self, client: Client, amount: int, at: float, fit: Fit | None = None
    ) -> Reservation:
        """Set ``amount`` nano-dollars aside in every budget that runs at ``at``, or in none.

        ``fit`` says which length of an answer some USD would pay for. Raises
        ``budget_exhausted``, ``call_too_costly``, ``budget_busy``.
        """
        if self.is_empty or not amount:  # what costs nothing fits into any budget
            return NOTHING
        pots = self.pots(client.id)
        windows = [window for pot in pots for window in _windows(pot, at, amount)]
        verdict = await self._counters.take(windows)
        standings = verdict.standings
        if verdict.is_admitted:
            return Reservation(tuple(standing.window for standing in standings), amount)
        lefts = [
            spent.remaining + MOST_NANO - opened.remaining
            for spent, opened in zip(standings[::2], standings[1::2], strict=True)
        ]
        least = min(lefts) * _NANO  # what was advised must fit into each of them
        room = fit(least) if fit is not None and least > 0 else None
        said = [
            (pot, spent.excess + pot.most - spent.remaining + amount)
            if spent.is_in_the_way
            else (pot, 0)
            for pot, spent in zip(pots, standings[::2], strict=True)
        ]
        refusals = [
            _refusal(pot, spent, left, amount, at, room, _line(pot.whose, said))
            for pot, spent, left in zip(pots, standings[::2], lefts, strict=True)
            if spent.is_in_the_way
        ]
        raise max(refusals, key=_gravity)

    async def settle(self, reservation: Reservation, cost: Decimal) -> None:
        """Book ``cost`` in place of what was set aside, in the windows it was set aside in."""
        if not reservation.windows:
            return
        costs = itertools.cycle((nano(cost) - reservation.amount, -reservation.amount))
        each = zip(reservation.windows, costs, strict=False)  # what is spent, what is set aside
        changed = [window._replace(cost=units) for window, units in each if units]
        await self._counters.adjust(changed)

    async def correct(self, client_id: str, at: float, delta: Decimal) -> None:
        """Add ``delta`` USD to what a call of ``at`` was booked with, where that is held."""
        if units := nano(delta):
            pots = self.pots(client_id)
            held = [pot for pot in pots if at >= self._unread.get(self._kind(pot), at)]
            await self._counters.adjust([_windows(pot, at, units)[0] for pot in held])

    async def release(self, client_id: str, at: float, reserved: Decimal | None) -> None:
        """End the reservation of a call of ``at`` whose process is gone; it counts as spent.

        Counters of our own know only reservations of ours.
        """
        units = LEAST_NANO if reserved is None else nano(reserved)
        if self._counters.is_shared and units:
            opened = [_windows(pot, at, -units)[1] for pot in self.pots(client_id)]
            await self._counters.adjust(opened)

    @property
    def kinds(self) -> frozenset[Kind]:
        """Of all windows that its calls count in."""
        return frozenset(self._kind(pot) for pot in self.pots(""))

    def _kind(self, pot: Pot) -> Kind:
        return pot.whose, self._app if pot.whose == "client" else pot.key, pot.budget.unit

    def windows(
        self, client_id: str | None, kinds: Collection[Kind], spent: Decimal, at: float
    ) -> list[Window]:
        """Those of ``kinds`` that run at the time ``at``, with ``spent`` as their cost.

        ``client_id`` None: of an app that there is no more, so that only the total counts it.
        """
        if client_id is None:
            pots = tuple(pot for pot in self._shared if pot.whose == "total")
        else:
            pots = self.pots(client_id)
        amount = nano(spent)
        return [_windows(pot, at, amount)[0] for pot in pots if self._kind(pot) in kinds]

    async def load(self, windows: Sequence[Window]) -> None:
        """Count what the windows, of this app or another, cost before this process began."""
        await self._counters.recall(windows)


async def restore(
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
    anyone = next(iter(budgets.values()))
    windows: list[Window] = []
    for begin, kinds in begins.items():
        for (app, client), usd in (await spent(begin, until)).items():
            if (known := budgets.get(app)) is not None:
                windows += known.windows(client, kinds, usd, at)
            else:
                windows += anyone.windows(None, kinds, usd, at)
    await anyone.load(windows)  # after the last question: what fails before it can be done again


def span(unit: Unit, at: float) -> Span:
    """The hour, day or month in UTC that ``at`` (seconds since 1970) lies in."""
    if unit != "month":
        length = _LONGEST[unit]
        begins = int(at) // length * length
        return Span(begins, begins + length)
    first = datetime.fromtimestamp(at, UTC).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    following = (first + timedelta(days=32)).replace(day=1)
    return Span(int(first.timestamp()), int(following.timestamp()))


def _windows(pot: Pot, at: float, amount: int) -> tuple[Window, Window]:
    """What is spent or set aside, and what is only set aside."""
    unit = pot.budget.unit
    when, length = span(unit, at), _LONGEST[unit]
    name = f"{pot.whose}-usd-{unit}"
    is_kept = pot.whose != "client"
    return (
        Window(name, pot.key, pot.most, length, amount, span=when, is_kept=is_kept),
        Window(f"{name}-open", pot.key, MOST_NANO, length, amount, span=when, is_kept=is_kept),
    )


def _line(whose: str, said: Sequence[tuple[Pot, int]]) -> str:
    """The setting to paste: its budgets, doubled until each holds the nano-dollars asked of it."""
    budgets = []
    for pot, least in said:
        usd, unit = pot.budget.usd, pot.budget.unit
        while nano(usd) < least and usd <= MOST_USD:
            usd *= 2
        if pot.whose == whose:
            budgets.append(f"{usd:f}/{unit}")
    return f"{_VARIABLES[whose]}={';'.join(budgets)}"


def _refusal(
    pot: Pot, spent: Standing, left: int, amount: int, at: float, room: Room | None, line: str
) -> Refusal:
    """``left``: open reservations are not spent. ``room``: what all budgets have.

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
    if room or amount > nano(budget.usd):
        costs, rest = f"could cost up to {shown(amount * _NANO)} USD", f"{shown(left * _NANO)} USD"
        advice = f"; {room}" if room else ""
        message = f"This call {costs}, and {rest} of the {about} is left{advice}."
        hint = f"lower KEYPROXY_MAX_TOKENS, or: {line}"
        if not is_own:
            message = f"This call {costs}, more than is left of the {about}{advice}. The"
            message += f" budget begins anew at {anew}."
            hint = f"{rest} of it is left; {hint}"
        return Refusal(
            "call_too_costly",
            message,
            param=room.fields[0] if room else None,
            hint=hint,
        )
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
