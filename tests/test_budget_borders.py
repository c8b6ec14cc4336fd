"""Budgets where a day or a month ends, in UTC: in this process, and over real servers.

The clock is passed in. A server has its own, by which all of this is long past: it keeps what
was counted in a window that is over for a minute more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from keyproxy.call import Client
from keyproxy.errors import Refusal
from keyproxy.ledger.ledger import opened
from keyproxy.limits.counters import Counters, Table
from keyproxy.limits.shared import open_shared
from keyproxy.limits.windows import Window
from keyproxy.money.budget import MOST_NANO, Budgets, Reservation, restore, span
from keyproxy.settings.grammar.network import storage
from keyproxy.settings.grammar.plain import Budget, Unit
from tests import servers
from tests.conftest import Clock
from tests.counting import standings
from tests.records import entry, over

CLIENT = Client("203.0.113.9", "203.0.113.9")
USD = 10**9  # nano-dollars
# The last seconds of days, and of months of every length, leap years and a year's end among them.
DAYS = ("2026-03-14", "2026-10-25", "2024-02-28", "2025-12-31")
MONTHS = (
    *("2026-01-31", "2026-02-28", "2024-02-29", "2000-02-29", "2100-02-28"),
    *("2026-04-30", "2025-12-31"),
)
ENDS: tuple[tuple[Unit, str], ...] = (
    *(("day", day) for day in DAYS),
    *(("month", day) for day in MONTHS),
)


def border(day: str) -> float:
    """The midnight (UTC) that ``day`` ends with."""
    return datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp() + 86_400


@asynccontextmanager
async def counting(where: str, clock: Clock) -> AsyncIterator[Counters]:
    if where == "memory":
        yield Counters(Table(clock), wall=clock)
        return
    if servers.binary(where) is None:
        pytest.skip(f"no {where}-server on this machine")
    async with servers.running(where) as server:
        place = storage(server.url)
        assert place is not None
        async with open_shared(place, "closed", answer_seconds=5.0) as counters:
            yield counters


@pytest.fixture(params=("memory", *servers.KINDS))
async def counters(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Counters]:
    async with counting(request.param, clock) as counters:
        yield counters


def of_one_usd(counters: Counters, unit: Unit) -> Budgets:
    return Budgets(counters, app="default", of_client=[Budget(Decimal(1), unit)])


async def spent(counters: Counters, windows: Sequence[Window]) -> list[int]:
    """What the windows count: spent or set aside, and set aside."""
    return [each.window.amount - each.remaining for each in await standings(counters, windows)]


@pytest.mark.parametrize("unit", ["day", "month"])
async def test_a_call_that_ends_after_the_border_is_booked_before_it(
    counters: Counters, clock: Clock, unit: Unit
) -> None:
    """Midnight of the last of February of a leap year ends a day and a month."""
    budgets, end = of_one_usd(counters, unit), border("2024-02-29")
    clock.now = end - 1
    call = await budgets.reserve(CLIENT, 9 * USD // 10, clock.now)
    with pytest.raises(Refusal):
        await budgets.reserve(CLIENT, 2 * USD // 10, clock.now)

    clock.now = end + 1
    other = await budgets.reserve(CLIENT, USD // 2, clock.now)
    await budgets.settle(call, Decimal("0.3"))
    assert await spent(counters, other.windows) == [USD // 2] * 2
    if counters.is_shared:  # ours forget a window that is over
        assert await spent(counters, call.windows) == [3 * USD // 10, 0]
    await budgets.settle(other, Decimal("0.4"))
    assert await spent(counters, other.windows) == [4 * USD // 10, 0]

    # What the upstream tells of the first call still later is not the new window's matter.
    await budgets.correct(CLIENT.id, end - 1, Decimal("0.2"))
    assert await spent(counters, other.windows) == [4 * USD // 10, 0]
    if counters.is_shared:
        assert await spent(counters, call.windows) == [5 * USD // 10, 0]


@pytest.mark.parametrize(("unit", "day"), ENDS)
async def test_a_budget_begins_anew_at_the_border_and_no_second_before(
    clock: Clock, unit: Unit, day: str
) -> None:
    async with counting("memory", clock) as counters:
        await _begins_anew(counters, clock, unit, day)


async def test_a_storage_begins_anew_at_the_same_borders(counters: Counters, clock: Clock) -> None:
    for unit, day in sorted(ENDS, key=lambda end: border(end[1])):
        await _begins_anew(counters, clock, unit, day)


async def _begins_anew(counters: Counters, clock: Clock, unit: Unit, day: str) -> None:
    budgets, end = of_one_usd(counters, unit), border(day)
    first = end - 86_400 if unit == "day" else border(f"{day[:8]}01") - 86_400
    taken: list[Reservation] = []
    for clock.now in (first, end - 0.5):
        taken.append(await budgets.reserve(CLIENT, USD // 2, clock.now))
    assert taken[0].windows == taken[1].windows
    with pytest.raises(Refusal) as refused:
        await budgets.reserve(CLIENT, USD // 2, clock.now)
    assert refused.value.code == "budget_busy"
    for call in taken:
        await budgets.settle(call, Decimal("0.5"))
    with pytest.raises(Refusal) as refused:
        await budgets.reserve(CLIENT, USD // 2, clock.now)
    assert refused.value.code == "budget_exhausted"
    assert f"anew at {datetime.fromtimestamp(end, UTC):%d %b} 00:00 UTC" in refused.value.message
    if not counters.is_shared:
        assert refused.value.retry_after_seconds == 0.5
    clock.now = end
    anew = await budgets.reserve(CLIENT, USD, clock.now)
    assert await spent(counters, anew.windows) == [USD] * 2
    await budgets.settle(anew, Decimal(0))


@pytest.mark.parametrize("day", MONTHS)
def test_months_have_the_days_of_the_calendar(day: str) -> None:
    end, days = border(day), int(day[8:])
    assert span("month", end - 1) == span("month", end - days * 86_400)
    assert (span("month", end - 1).begins, span("month", end - 1).ends) == (
        end - days * 86_400,
        end,
    )
    assert span("month", end).begins == end


@pytest.mark.parametrize(("unit", "day"), ENDS)
async def test_a_start_reads_back_nothing_from_before_the_border(
    clock: Clock, tmp_path: Path, unit: Unit, day: str
) -> None:
    end = border(day)
    clock.now = end + 60
    async with counting("memory", clock) as counters, opened(tmp_path / "l", clock=clock) as ledger:
        for at, usd in ((end - 1, "0.7"), (end, "0.02"), (end + 59, "0.001")):
            id = f"req_{at}"
            ledger.begin(entry(id, at, client=CLIENT.id, reserved=Decimal(1)))
            ledger.complete(id, over(200, "complete", Decimal(usd), "exact"), 1)
        budgets = of_one_usd(counters, unit)
        missing = dict.fromkeys(budgets.kinds, 0.0)
        await restore(counters, {"default": budgets}, ledger.spent, clock.now, missing)
        call = await budgets.reserve(CLIENT, 1, clock.now)
        assert await spent(counters, call.windows) == [21 * USD // 1000 + 1, 1]
        [window] = call.windows
        assert window.opened is not None
        assert window.opened.amount == MOST_NANO
