"""Counting calls: windows, calls in flight, and what a limited answer tells its caller."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from keyproxy.call import Client
from keyproxy.errors import Refusal
from keyproxy.limits.admit import Admission
from keyproxy.limits.counters import MAX_ROWS, Counters, Entry, Table
from keyproxy.limits.windows import Place, Span, Window
from keyproxy.money.budget import Budgets
from keyproxy.settings.grammar.plain import Budget, Rate
from keyproxy.transport import refusals
from tests.conftest import Clock, Proxy, Start, refused
from tests.counting import standings
from tests.fake_upstream import streaming


async def test_a_window_admits_its_amount_and_says_when_it_resets(clock: Clock) -> None:
    counters = Counters(Table(clock))
    window = Window("client", "a", 2, 60)
    verdicts = []
    for _ in range(3):
        verdicts.append(await counters.take([window]))
        clock.now += 10
    assert [v.is_admitted for v in verdicts] == [True, True, False]
    assert [v.standings[0].remaining for v in verdicts] == [1, 0, 0]
    assert [v.standings[0].resets_in_seconds for v in verdicts] == [60, 50, 40]


async def test_a_refused_call_is_counted_in_no_window(clock: Clock) -> None:
    """Two limits hit one after the other are not one decision."""
    counters = Counters(Table(clock))
    minute, day = Window("client", "a", 1, 60), Window("client", "a", 5, 86_400)
    for _ in range(4):
        verdict = await counters.take([minute, day])
    assert [s.remaining for s in verdict.standings] == [0, 4]


async def test_an_ended_window_starts_anew(clock: Clock) -> None:
    counters = Counters(Table(clock))
    window = Window("client", "a", 1, 60)
    assert (await counters.take([window])).is_admitted
    clock.now += 60
    assert (await counters.take([window])).is_admitted
    assert not (await counters.take([window])).is_admitted


async def test_a_verdict_names_the_windows_in_the_way(clock: Clock) -> None:
    counters = Counters(Table(clock))
    minute, day = Window("client", "a", 1, 60), Window("client", "a", 5, 86_400)
    assert (await counters.take([minute, day])).in_the_way == ()
    verdict = await counters.take([minute, day])
    assert [standing.window for standing in verdict.in_the_way] == [minute]


async def test_amounts_are_exact_to_the_last_unit(clock: Clock) -> None:
    """Money is counted in billionths of a dollar."""
    counters, most = Counters(Table(clock)), 2**53
    assert (await counters.take([Window("budget", "a", most, 60)], cost=most - 1)).is_admitted
    too_much = await counters.take([Window("budget", "a", most, 60)], cost=2)
    assert (too_much.is_admitted, too_much.standings[0].remaining) == (False, 1)
    assert (await counters.take([Window("budget", "a", most, 60)], cost=1)).is_admitted


async def test_a_late_settlement_finds_the_window_it_was_taken_from(clock: Clock) -> None:
    counters = Counters(Table(clock), wall=lambda: 7_200 + clock.now)
    before = Window("budget", "a", 100, 3_600, span=Span(7_200, 10_800))
    window = Window("budget", "a", 100, 3_600, span=Span(10_800, 14_400))
    await counters.take([before], cost=80)
    clock.now += 2_600
    await counters.take([window], cost=80)
    await counters.adjust([(before, -80)])
    assert (await standings(counters, [before]))[0].remaining == 100
    assert (await standings(counters, [window]))[0].remaining == 20


async def test_what_is_taken_is_set_aside_until_it_is_settled(clock: Clock) -> None:
    counters, opened = Counters(Table(clock)), Window("budget", "a", 2**53, 60, is_open=True)
    window = Window("budget", "a", 10, 60, opened=opened)
    for _ in range(2):
        assert (await counters.take([window], cost=4)).is_admitted
    assert [each.units for each in await standings(counters, [window])] == [8, 8]
    await counters.adjust([(window, -3), (opened, -4)])
    refused = await counters.take([window], cost=6)
    assert (refused.standings[0].remaining, refused.opened) == (5, [4])


async def test_what_was_counted_before_a_start_is_not_set_aside(clock: Clock) -> None:
    counters, opened = Counters(Table(clock)), Window("budget", "a", 2**53, 60, is_open=True)
    window = Window("budget", "a", 10, 60, opened=opened)
    await counters.recall([(window, 5)])
    assert (await counters.take([window], cost=4)).is_admitted
    assert [each.units for each in await standings(counters, [window])] == [9, 4]


async def test_what_was_set_aside_in_a_window_that_is_over_is_not_in_the_next(clock: Clock) -> None:
    counters, opened = Counters(Table(clock)), Window("budget", "a", 2**53, 60, is_open=True)
    window = Window("budget", "a", 10, 60, opened=opened)
    assert (await counters.take([window], cost=3)).is_admitted
    clock.now += 61
    await counters.recall([(window, 5)])
    assert (await counters.take([window], cost=4)).is_admitted
    assert [each.units for each in await standings(counters, [window])] == [9, 4]


async def test_an_adjustment_stays_above_zero_and_revives_nothing(clock: Clock) -> None:
    counters = Counters(Table(clock))
    window = Window("budget", "a", 10, 60)
    await counters.adjust([(window, 5)])
    assert (await standings(counters, [window]))[0].remaining == 10
    await counters.take([window], cost=4)
    await counters.adjust([(window, -9)])
    assert (await standings(counters, [window]))[0].remaining == 10
    await counters.adjust([(window, 12)])  # the true cost may be more than was asked for
    assert (await standings(counters, [window]))[0].remaining == 0


async def test_a_month_is_a_window_with_a_span_of_its_own(clock: Clock) -> None:
    counters = Counters(Table(clock), wall=clock)
    month = Window("budget", "a", 1, 31 * 86_400, span=Span(0, 31 * 86_400))
    taken = (await counters.take([month])).standings[0]
    assert taken.resets_in_seconds == 31 * 86_400 - clock.now
    assert not (await counters.take([month])).is_admitted


@pytest.mark.parametrize("back", [600, 1_500])
async def test_a_clock_that_is_set_back_ends_no_window_of_the_calendar(
    clock: Clock, back: float
) -> None:
    """A machine's clock was half an hour fast when the process began, and is put right."""
    wall, others = Clock(7_200 + 1_200), [Window("rate", f"c{n}", 1, 60) for n in range(50)]
    counters = Counters(Table(clock), wall=wall)
    hour = Window("budget", "a", 1, 3_600, span=Span(7_200, 10_800))
    assert (await counters.take([hour])).is_admitted
    wall.now -= back
    for _ in range(24):  # to the end that the window had, while others call
        clock.now, wall.now = clock.now + 100, wall.now + 100
        for other in others:
            await counters.take([other])
    verdict = await counters.take([hour])
    assert not verdict.is_admitted
    assert verdict.standings[0].resets_in_seconds == 10_800 - wall.now == back


async def test_a_clock_that_is_set_back_over_the_border_finds_what_was_counted(
    clock: Clock,
) -> None:
    wall = Clock(10_790)
    counters = Counters(Table(clock), wall=wall)
    before = Window("budget", "a", 1, 3_600, span=Span(7_200, 10_800))
    assert (await counters.take([before])).is_admitted
    clock.now, wall.now = clock.now + 60, wall.now + 60
    assert (await counters.take([replace(before, span=Span(10_800, 14_400))])).is_admitted
    wall.now -= 120
    assert not (await counters.take([before])).is_admitted


async def test_a_full_place_counts_in_no_window_and_a_full_window_takes_no_place() -> None:
    counters, place = Counters(), Place("a", 1)
    window = Window("client", "a", 1, 60)
    assert (await counters.take([], place)).is_admitted
    crowded = await counters.take([window], Place("a", 1))
    assert (crowded.is_admitted, crowded.is_crowded, crowded.in_the_way) == (False, True, ())
    counters.leave(place)
    assert (await counters.take([window], place)).is_admitted
    counters.leave(place)
    assert not (await counters.take([window], place)).is_admitted
    assert len(counters.in_flight) == 0


async def test_idle_clients_give_way_to_others(clock: Clock) -> None:
    table = Table(clock)
    counters = Counters(table)
    for minute in range(4):
        for number in range(1_000):
            await counters.take([Window("client", f"{minute}-{number}", 5, 60)])
            assert len(table) <= 1_000
        clock.now += 61


@pytest.mark.timeout(120)
async def test_more_addresses_than_it_has_rows_fit_into_a_bounded_table(clock: Clock) -> None:
    """The largest table there is; who was counted last is still known."""
    table = Table(clock)
    count = MAX_ROWS * 5 // 4
    for number in range(count):
        window = Window("address", f"2001:db8::{number:x}/64", 5, 60)
        table.put(window, Entry(number, clock.now + 60))
    assert len(table) == MAX_ROWS
    last = table.get(window)
    assert last is not None
    assert last.units == count - 1


async def test_a_hundred_thousand_clients_fit_with_an_address_and_a_budget_each(
    clock: Clock,
) -> None:
    """A full table forgets others with each call: that costs, and what they spent is lost."""
    table = Table(clock)
    counters = Counters(table, clock)
    admission = Admission(counters, (Rate(20, 60), Rate(200, 86_400)), (Rate(60, 60),), 8)
    budgets = Budgets(counters, app="web", of_client=[Budget(Decimal(1), "day")])
    for name in ("192.0.2.1", "192.0.2.2"):
        client = Client(name, name, "web")
        with await admission.admit(client, {}):
            await budgets.reserve(client, 1, clock.now)
    assert len(table) / 2 * 100_000 < MAX_ROWS


async def test_a_full_table_forgets_what_ends_soonest(clock: Clock) -> None:
    table = Table(clock, max_rows=8)
    counters = Counters(table)
    day = Window("client", "a", 5, 86_400)
    await counters.take([day])
    for number in range(100):
        await counters.take([Window("address", str(number), 5, 60)])
    assert (len(table), (await standings(counters, [day]))[0].remaining) == (8, 4)


async def test_a_window_length_that_a_reload_brings_starts_empty(clock: Clock) -> None:
    counters = Counters(Table(clock))
    await counters.take([Window("client", "a", 1, 60)])
    verdict = await counters.take([Window("client", "a", 9, 3_600), Window("client", "a", 2, 60)])
    assert [standing.remaining for standing in verdict.standings] == [8, 0]


async def test_clients_are_counted_by_app_and_addresses_across_apps() -> None:
    rates, address_rates = (Rate(1, 60),), (Rate(2, 60),)
    admission = Admission(Counters(), rates, address_rates, 8)
    for app in ("web", "mobile"):
        with await admission.admit(Client("someone", "192.0.2.1", app), {}):
            pass
    headers: dict[str, str] = {}
    with pytest.raises(Refusal, match="limit of 2 calls"):
        await admission.admit(Client("someone", "192.0.2.1", "other"), headers)
    assert '"client-60";r=1' in headers["RateLimit"]


async def test_a_hit_does_the_same_work_with_many_clients_as_with_one(clock: Clock) -> None:
    """Counted in interpreter steps: a scan over all keys would show."""

    async def steps(count: int) -> int:
        counters = Counters(Table(clock))
        for number in range(count):
            await counters.take([Window("client", str(number), 5, 60)])
        seen = 0

        def trace(frame: Any, event: str, arg: Any) -> Any:
            nonlocal seen
            seen += 1
            return trace

        sys.settrace(trace)
        try:
            await counters.take([Window("client", "0", 5, 60)])
        finally:
            sys.settrace(None)
        return seen

    assert await steps(20_000) == await steps(2)


async def test_in_flight_leaves_no_trace_of_ended_calls() -> None:
    counters, places = Counters(), [Place("a", 3) for _ in range(3)]
    for place in places:
        await counters.take([], place)
    for place in places:
        counters.leave(place)
    assert len(counters.in_flight) == 0


async def test_a_limited_answer_says_what_is_left(start: Start) -> None:
    proxy = await start(RATE_LIMIT="2/minute;100/day")
    async with proxy.post() as answer:
        assert (
            answer.headers["RateLimit-Policy"]
            == '"client-60";q=2;w=60, "client-86400";q=100;w=86400'
        )
        assert answer.headers["RateLimit"] == '"client-60";r=1;t=60, "client-86400";r=99;t=86400'


async def test_beyond_the_limit_a_page_learns_when_to_come_back(start: Start) -> None:
    proxy = await start(RATE_LIMIT="1/hour")
    origin = {"Origin": "http://localhost:3000"}
    async with proxy.post():
        pass
    async with proxy.post(headers=origin) as answer:
        error = await refused(answer, 429, "rate_limited")
        assert answer.headers["Retry-After"] == "3600"
        assert answer.headers["x-should-retry"] == "false"
        assert answer.headers["Access-Control-Allow-Origin"] == origin["Origin"]
        assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
        assert "1 call in 1 hour" in error["message"]
    assert len(proxy.upstream.calls) == 1


@pytest.mark.parametrize(("seconds", "should_retry"), [(5.0, None), (5.1, "false")])
def test_only_a_short_wait_may_be_sat_through(seconds: float, should_retry: str | None) -> None:
    fields = refusals.headers(Refusal("rate_limited", "", retry_after_seconds=seconds))
    assert fields["Retry-After"] == str(math.ceil(seconds))
    assert fields.get("x-should-retry") == should_retry


async def test_parallel_calls_cannot_pass_a_limit_together(start: Start) -> None:
    proxy = await start(RATE_LIMIT="10/minute", MAX_IN_FLIGHT="100")

    async def status() -> int:
        async with proxy.post() as answer:
            return int(answer.status)

    found = await asyncio.gather(*(status() for _ in range(40)))
    assert (found.count(200), found.count(429)) == (10, 30)
    assert len(proxy.upstream.calls) == 10


async def test_calls_in_flight_are_bounded(start: Start) -> None:
    proxy = await start(MAX_IN_FLIGHT="2", RATE_LIMIT="off")
    release = asyncio.Event()
    proxy.upstream.answer = streaming(release)
    async with proxy.post() as one, proxy.post() as two:
        assert (one.status, two.status) == (200, 200)
        async with proxy.post() as third:
            await refused(third, 429, "too_many_in_flight")
            assert "RateLimit" not in third.headers  # there is no window
            assert third.headers["Retry-After"] == "1"
            assert "x-should-retry" not in third.headers
        release.set()
        await one.read()
        await two.read()
    async with proxy.post() as after:
        assert after.status == 200
    assert len(proxy.upstream.calls) == 3


@asynccontextmanager
async def beside_another(start: Start, limit: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer to a call while another one has the only place."""
    proxy, release = await start(MAX_IN_FLIGHT="1", RATE_LIMIT=limit), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.json_response({})

    proxy.upstream.answer = slow
    first = asyncio.create_task(proxy.post().__aenter__())
    await proxy.upstream.arrived.wait()
    async with proxy.post() as answer:
        yield answer
    release.set()
    (await first).release()
    assert len(proxy.upstream.calls) == 1


async def test_a_spent_window_is_told_before_a_full_house(start: Start) -> None:
    """Waiting a second would not help."""
    async with beside_another(start, "1/hour") as answer:
        await refused(answer, 429, "rate_limited")
        assert int(answer.headers["Retry-After"]) > 3500


async def test_a_call_too_many_in_flight_still_says_what_is_left(start: Start) -> None:
    async with beside_another(start, "5/minute") as answer:
        await refused(answer, 429, "too_many_in_flight")
        assert answer.headers["RateLimit"].startswith('"client-60";r=4;t=')


async def test_many_clients_of_one_address_share_its_limit(start: Start) -> None:
    proxy = await start("serve", RATE_LIMIT="100/minute", ADDRESS_RATE_LIMIT="2/minute")
    statuses = []
    for _ in range(3):
        async with proxy.post() as answer:
            statuses.append(answer.status)
            fields = answer.headers["RateLimit"]
    assert statuses == [200, 200, 429]
    assert '"address-60";r=0' in fields
    assert len(proxy.upstream.calls) == 2


async def test_a_forged_address_buys_no_second_bucket(start: Start) -> None:
    proxy = await start("serve", RATE_LIMIT="1/minute")
    statuses = []
    for number in range(3):
        forged = dict.fromkeys(
            ("X-Forwarded-For", "X-Real-IP", "CF-Connecting-IP"), f"8.8.8.{number}"
        )
        async with proxy.post(headers=forged | {"User-Agent": str(number)}) as answer:
            statuses.append(answer.status)
    assert statuses == [200, 429, 429]
    assert len(proxy.upstream.calls) == 1


async def test_clients_behind_a_trusted_proxy_have_limits_of_their_own(start: Start) -> None:
    proxy = await start("serve", RATE_LIMIT="1/minute", TRUSTED_PROXIES="loopback")
    statuses = []
    for address in ("8.8.8.8", "8.8.4.4", "1.1.1.1, 8.8.8.8"):
        async with proxy.post(headers={"X-Forwarded-For": address}) as answer:
            statuses.append(answer.status)
    assert statuses == [200, 200, 429]
    assert len(proxy.upstream.calls) == 2


async def test_limits_survive_a_reload(proxy: Proxy, start: Start) -> None:
    limited = await start(RATE_LIMIT="1/minute")
    async with limited.post():
        pass
    limited.service.apply(limited.service.settings)
    async with limited.post() as answer:
        assert answer.status == 429
    assert len(limited.upstream.calls) == 1


async def test_a_window_that_is_kept_outlives_any_crowd(clock: Clock) -> None:
    """What all have spent together must not be forgotten for a client's sake."""
    counters = Counters(Table(clock, max_rows=50))
    total = Window("total", "all", 10, 60, is_kept=True)
    await counters.take([total], cost=9)
    for number in range(1_000):
        await counters.take([Window("client", str(number), 5, 86_400)])
    assert not (await counters.take([total], cost=9)).is_admitted
