"""Limits that replicas share, over real servers: exact, in one round trip, and what holds
when the server is killed, frozen, restarted, or says no."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    closing,
)
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
from structlog.testing import capture_logs

from keyproxy.call import Client
from keyproxy.errors import Refusal
from keyproxy.limits.admit import Admission
from keyproxy.limits.connection import ANSWER_SECONDS
from keyproxy.limits.counters import Counters
from keyproxy.limits.shared import SharedCounters, open_shared
from keyproxy.limits.windows import Place, Span, Verdict, Window
from keyproxy.money.budget import MOST_NANO, NOTHING, Budgets
from keyproxy.settings.grammar.network import storage
from keyproxy.settings.grammar.plain import Budget, Rate
from keyproxy.transport.client import trust
from tests import servers
from tests.counting import standings
from tests.servers import Server

# The tests share a machine with others: where it is not the point, an answer may take long.
PATIENT = {"answer_seconds": 5.0}
# Where a server is to be given up: after longer than a busy machine keeps one from answering.
BRIEF: dict[str, Any] = {"answer_seconds": 0.4}
MINUTE = Window("client", "web:someone", 100, 60)
_DAY = int(time.time()) // 86_400 * 86_400
TODAY = Span(_DAY, _DAY + 86_400)

Replica = Callable[..., Awaitable[SharedCounters]]


@pytest.fixture(params=servers.KINDS)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    if servers.binary(request.param) is None:
        pytest.skip(f"no {request.param}-server on this machine")
    async with servers.running(request.param) as running:
        yield running


@pytest.fixture
async def replica(server: Server) -> AsyncIterator[Replica]:
    """Makes one more process's counters: ``await replica("local", url=…, answer_seconds=…)``.

    They have reached the server, unless that ``is_away``.
    """
    async with AsyncExitStack() as stack:

        async def made(
            failure: Any = "local",
            url: str = "",
            *,
            is_away: bool = False,
            on_change: Callable[[bool], None] = lambda is_down: None,
            **options: Any,
        ) -> SharedCounters:
            place, start = storage(url or server.url), Changes()
            assert place is not None
            counters = await stack.enter_async_context(
                open_shared(place, failure, on_change=start, **{**PATIENT, **options})
            )
            if counters.is_down and not is_away:  # a start does not wait for a busy machine
                await start.wait(False)
            counters.on_change = on_change
            return counters

        yield made


class Changes:
    """Hears when storage goes down and comes back."""

    def __init__(self) -> None:
        self.heard: list[bool] = []
        self._events = {True: asyncio.Event(), False: asyncio.Event()}

    def __call__(self, is_down: bool) -> None:
        self.heard.append(is_down)
        self._events[is_down].set()
        self._events[not is_down].clear()

    async def wait(self, is_down: bool) -> None:
        async with asyncio.timeout(10):
            await self._events[is_down].wait()


def admitted(verdicts: list[Verdict]) -> int:
    return sum(verdict.is_admitted for verdict in verdicts)


async def takes(
    count: int, *replicas: SharedCounters, window: Window = MINUTE, cost: int = 1
) -> int:
    """How many of so many parallel calls, spread over the replicas, are admitted."""
    turns = (replicas[number % len(replicas)] for number in range(count))
    return admitted(await asyncio.gather(*(one.take([window], cost=cost) for one in turns)))


# Counting together


async def test_a_thousand_parallel_calls_at_two_replicas_pass_a_limit_of_100_exactly(
    replica: Replica,
) -> None:
    assert await takes(1_000, await replica(), await replica()) == 100


async def test_a_limited_call_is_one_command_whatever_it_is_limited_by(
    server: Server, replica: Replica
) -> None:
    rates = (Rate(20, 60), Rate(300, 86_400))
    admission = Admission(await replica(), rates, rates, 8)
    call = AsyncExitStack()

    async def begin() -> None:
        call.enter_context(await admission.admit(Client("someone", "192.0.2.1"), {}))

    assert await monitored(server, begin) == ["evalsha"]
    # Its place is given back when it has ended, and nobody waits for that.
    assert await monitored(server, call.aclose) == ["zrem"]


async def test_a_budget_is_reserved_and_settled_by_one_command_each(
    server: Server, replica: Replica
) -> None:
    budgets = Budgets(
        await replica(),
        app="web",
        of_client=[Budget(Decimal(1), "day")],
        of_all=[Budget(Decimal(9), "month")],
    )
    client, reserved = Client("someone", "192.0.2.1"), NOTHING

    async def reserve() -> None:
        nonlocal reserved
        reserved = await budgets.reserve(client, 5_000, time.time())

    assert await monitored(server, reserve) == ["evalsha"]
    settle = partial(budgets.settle, reserved, Decimal("0.000002"))
    assert await monitored(server, settle) == ["evalsha"]
    left = [found.remaining for found in await standings(budgets._counters, reserved.windows)]
    assert left == [10**9 - 2_000, MOST_NANO, 9 * 10**9 - 2_000, MOST_NANO]


async def monitored(server: Server, step: Callable[[], Awaitable[None]]) -> list[str]:
    """The commands that clients (not scripts) send to the server during ``step``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"MONITOR\r\n")
    await reader.readline()
    await step()
    await asyncio.sleep(0)  # what is told without waiting is on its way
    await server.command("ECHO", "done")
    lines = []
    while b'"ECHO"' not in (line := await reader.readline()):
        lines.append(line.decode())
    writer.close()
    return [line.split('"')[1].lower() for line in lines if " lua]" not in line]


async def test_a_refused_call_is_counted_in_no_shared_window(replica: Replica) -> None:
    one, other = await replica(), await replica()
    minute, day = Window("client", "a", 1, 60), Window("client", "a", 5, 86_400)
    await one.take([minute, day])
    for _ in range(3):
        verdict = await other.take([minute, day])
    assert [standing.remaining for standing in verdict.standings] == [0, 4]
    assert [standing.window for standing in verdict.in_the_way] == [minute]


async def test_a_shared_window_ends_when_it_said(replica: Replica) -> None:
    counters, window = await replica(), Window("client", "a", 1, 1)
    assert (await counters.take([window])).is_admitted
    wait = (await counters.take([window])).standings[0].resets_in_seconds
    assert 0 < wait <= 1
    await asyncio.sleep(wait + 0.01)
    assert (await counters.take([window])).is_admitted


async def test_headers_tell_what_all_replicas_together_left(replica: Replica) -> None:
    rates = (Rate(5, 60),)
    headers: dict[str, str] = {}
    for counters in (await replica(), await replica()):
        with await Admission(counters, rates, (), 8).admit(Client("a", "192.0.2.1"), headers):
            pass
    assert headers == {
        "RateLimit-Policy": '"client-60";q=5;w=60',
        "RateLimit": '"client-60";r=3;t=60',
    }


async def test_money_is_exact_and_settled_in_the_window_it_was_taken_from(
    replica: Replica,
) -> None:
    one, other, most = await replica(), await replica(), 2**53
    budget = Window("budget", "a", most, 86_400, span=TODAY)
    taken = (await one.take([budget], cost=most - 1)).standings[0]
    assert taken.remaining == 1
    assert not (await other.take([budget], cost=2)).is_admitted
    await other.adjust([(taken.window, -5)])
    assert (await standings(one, [budget]))[0].remaining == 6
    await other.adjust([(taken.window, -(2**53))])
    assert (await standings(one, [budget]))[0].remaining == most


async def test_an_adjustment_revives_no_shared_window(server: Server, replica: Replica) -> None:
    await (await replica()).adjust([(MINUTE, 1), (Window("b", "a", 9, 86_400, span=TODAY), 1)])
    assert await server.command("KEYS", "keyproxy:client*") == b"*0\r\n+OK\r\n"


async def test_long_names_of_clients_make_short_keys(server: Server, replica: Replica) -> None:
    counters = await replica()
    for name in ("x" * 5_000, "x" * 5_001, "schön"):
        verdict = await counters.take([Window("client", name, 2, 60)], Place(name, 8))
        assert verdict.standings[0].remaining == 1
    keys = (await server.command("KEYS", "*")).split(b"\r\n")
    assert max(map(len, keys)) < 100


async def test_a_server_that_forgot_the_script_is_taught_it_again(
    server: Server, replica: Replica
) -> None:
    one, other = await replica(), await replica()
    passed = await takes(60, one, other)
    await server.command("SCRIPT", "FLUSH")
    assert passed + await takes(100, one, other) == 100
    assert not one.is_down


# Calls in flight


async def test_calls_in_flight_are_shared(replica: Replica) -> None:
    one, other = await replica(), await replica()
    first, second = Place("a", 1), Place("a", 1)
    assert (await one.take([MINUTE], first)).is_admitted
    crowded = await other.take([MINUTE], second)
    assert (crowded.is_admitted, crowded.is_crowded) == (False, True)
    assert crowded.standings[0].remaining == 99
    one.leave(first)
    await standings(one, [])  # what it told before has arrived
    assert (await other.take([MINUTE], second)).is_admitted


async def test_a_client_that_leaves_while_it_is_counted_keeps_no_place(replica: Replica) -> None:
    counters = await replica()
    call = asyncio.create_task(counters.take([], Place("a", 1)))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert (await counters.take([], Place("a", 1))).is_admitted


async def test_leases_of_open_calls_are_renewed(server: Server, replica: Replica) -> None:
    one = await replica(lease_seconds=0.4, renew_seconds=0.1)
    await one.take([], Place("a", 1))
    await asyncio.sleep(0.8)
    assert (await (await replica()).take([], Place("a", 1))).is_crowded


HOLDER = """
import asyncio, sys
from keyproxy.settings.grammar.network import storage
from keyproxy.limits.connection import ANSWER_SECONDS
from keyproxy.limits.shared import open_shared
from keyproxy.limits.windows import Place

async def hold():
    leases = {"lease_seconds": 1.0, "renew_seconds": 0.2}
    async with open_shared(storage(sys.argv[1]), "local", **leases) as counters:
        await counters.take([], Place("a", 2))
        print("held", flush=True)
        await asyncio.sleep(60)

asyncio.run(hold())
"""


async def test_the_places_of_a_killed_process_heal(server: Server, replica: Replica) -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, server.url, stdout=subprocess.PIPE
    )
    assert program.stdout is not None
    assert await program.stdout.readline() == b"held\n"
    # A living replica's place beside it stays taken.
    counters = await replica(lease_seconds=1.0, renew_seconds=0.2)
    assert (await counters.take([], Place("a", 2))).is_admitted
    assert (await counters.take([], Place("a", 2))).is_crowded
    program.kill()
    await program.wait()
    async with asyncio.timeout(10):
        while not (await counters.take([], Place("a", 2))).is_admitted:
            await asyncio.sleep(0.05)
    assert (await counters.take([], Place("a", 2))).is_crowded


async def test_a_place_taken_alone_is_known_to_all_when_the_server_is_back(
    server: Server, replica: Replica
) -> None:
    changes, others = Changes(), Changes()
    one, other = await replica(on_change=changes), await replica(on_change=others)
    server.kill()
    await asyncio.gather(changes.wait(True), others.wait(True))
    assert (await one.take([], Place("a", 1))).is_admitted
    await server.start()
    await asyncio.gather(changes.wait(False), others.wait(False))
    await standings(one, [])  # the leases were renewed before
    assert (await other.take([], Place("a", 1))).is_crowded


async def test_a_place_that_was_asked_for_in_vain_and_then_taken_alone_is_held(
    server: Server, replica: Replica
) -> None:
    """It is given back, since the server may have given it, and then renewed."""
    changes = Changes()
    one, other = await replica(on_change=changes, **BRIEF), await replica()
    server.freeze()
    assert (await one.take([], Place("a", 1))).is_admitted
    server.thaw()
    await changes.wait(False)
    await standings(one, [])
    assert (await other.take([], Place("a", 1))).is_crowded


# Without the server


async def under_load(server: Server, breaks: Callable[[], None], *replicas: SharedCounters) -> int:
    """How many calls of one client are admitted, the server breaking in the middle."""
    before = [asyncio.create_task(takes(300, *replicas))]
    await asyncio.sleep(0)
    breaks()
    return sum(await asyncio.gather(*before, takes(700, *replicas)))


@pytest.mark.parametrize("breaks", [Server.kill, Server.freeze])
async def test_counting_alone_lets_at_most_each_replicas_limit_through(
    server: Server, replica: Replica, breaks: Callable[[Server], None]
) -> None:
    one, other = await replica(answer_seconds=ANSWER_SECONDS), await replica(answer_seconds=0.08)
    passed = await takes(60, one, other)
    async with asyncio.timeout(10):
        passed += await under_load(server, lambda: breaks(server), one, other)
        passed += await takes(1_000, one, other)
    assert one.is_down
    assert other.is_down
    assert 100 <= passed <= 200


async def test_a_restart_hands_nobody_a_new_bucket(server: Server, replica: Replica) -> None:
    """Killed before anybody noticed, killed under load, and empty each time."""
    changes, others = Changes(), Changes()
    one, other = await replica(on_change=changes), await replica(on_change=others)
    passed = await takes(100, one, other)
    assert passed == 100
    for _ in range(2):
        server.kill()
        await asyncio.gather(changes.wait(True), others.wait(True))
        passed += await takes(200, one, other)
        await server.start()
        await asyncio.gather(changes.wait(False), others.wait(False))
        passed += await takes(200, one, other)
    assert passed <= 200
    assert (await standings(one, [MINUTE]))[0].resets_in_seconds <= 60


async def test_what_was_counted_alone_is_told_once(server: Server, replica: Replica) -> None:
    changes = Changes()
    counters = await replica(on_change=changes)
    assert await takes(10, counters) == 10
    server.kill()
    await changes.wait(True)
    assert await takes(20, counters) == 20
    await server.start()
    await changes.wait(False)
    assert await takes(5, counters) == 5
    assert (await standings(await replica(), [MINUTE]))[0].remaining == 65


async def test_money_settled_while_the_server_was_frozen_is_told_later(
    server: Server, replica: Replica
) -> None:
    changes = Changes()
    counters = await replica(on_change=changes, **BRIEF)
    budget = Window("budget", "a", 100, 86_400, span=TODAY)
    taken = (await counters.take([budget], cost=60)).standings[0].window
    server.freeze()
    await standings(counters, [budget])
    await changes.wait(True)
    await counters.adjust([(taken, -50)])
    server.thaw()
    await changes.wait(False)
    assert (await standings(counters, [budget]))[0].remaining == 90


@pytest.mark.parametrize(("failure", "spent"), [("local", 50), ("closed", 10)])
async def test_what_a_storage_answers_late_is_counted_once(
    server: Server, replica: Replica, failure: Any, spent: int
) -> None:
    """Nobody waits for it, but it says what the storage has heard of the question."""
    changes = Changes()
    counters = await replica(failure, on_change=changes, late_seconds=30.0, **BRIEF)
    opened = Window("budget", "a", 2**53, 86_400, span=TODAY, is_open=True)
    budget = Window("budget", "a", 100, 86_400, span=TODAY, opened=opened)
    assert (await counters.take([budget], cost=30)).is_admitted
    server.freeze()
    taken = counters.take([budget], cost=40)  # then counted here, or refused
    settled = counters.adjust([(budget, -20), (opened, -30)])
    await asyncio.gather(taken, settled, return_exceptions=True)
    assert counters.is_down
    server.thaw()
    await changes.wait(False)
    assert [each.units for each in await standings(counters, [budget])] == [spent, spent - 10]


async def test_a_late_answer_about_a_window_that_is_over_leaves_the_next_one_as_it_is(
    server: Server,
) -> None:
    """Else that would have its whole amount once more."""
    changes, line, window = Changes(), asyncio.Event(), replace(MINUTE, amount=3)
    line.set()
    async with AsyncExitStack() as stack:
        place = storage(await stack.enter_async_context(slowed(server, line.wait)))
        assert place is not None
        shared = open_shared(place, "local", on_change=changes, late_seconds=30.0, **BRIEF)
        counters = await stack.enter_async_context(shared)
        assert await takes(1, counters, window=window) == 1
        await server.command("PEXPIRE", "keyproxy:client:60:web:someone", "800")
        left_seconds = (await standings(counters, [window]))[0].resets_in_seconds
        line.clear()
        assert await takes(1, counters, window=window) == 1
        await asyncio.sleep(left_seconds)
        assert await takes(4, counters, window=window) == 3
        line.set()
        await changes.wait(False)
        assert await takes(2, counters, window=window) == 0


async def test_what_was_set_aside_alone_is_told_as_such(server: Server, replica: Replica) -> None:
    changes = Changes()
    counters = await replica(on_change=changes)
    opened = Window("budget", "a", 2**53, 86_400, span=TODAY, is_open=True)
    budget = Window("budget", "a", 100, 86_400, span=TODAY, opened=opened)
    server.kill()
    await changes.wait(True)
    assert (await counters.take([budget], cost=60)).is_admitted
    await server.start()
    await changes.wait(False)
    assert [each.units for each in await standings(counters, [budget])] == [60, 60]


async def test_what_was_given_back_is_not_held_against_a_client_later(
    server: Server, replica: Replica
) -> None:
    changes = Changes()
    counters = await replica(on_change=changes)
    budget = Window("budget", "a", 100, 86_400, span=TODAY)
    taken = (await counters.take([budget], cost=60)).standings[0].window
    await counters.adjust([(taken, -60)])
    server.kill()
    await changes.wait(True)
    assert (await standings(counters, [budget]))[0].remaining == 100


async def test_what_calls_give_back_at_once_after_a_restart_is_given_back_once(
    server: Server, replica: Replica
) -> None:
    """Only the first of them tells what the server has lost."""
    changes = Changes()
    counters = await replica(on_change=changes)
    assert await takes(16, counters, cost=5) == 16
    server.kill()
    await changes.wait(True)
    await server.start()
    await changes.wait(False)
    await asyncio.gather(*(counters.adjust([(MINUTE, -4)]) for _ in range(16)))
    assert (await standings(counters, [MINUTE]))[0].remaining == 84
    assert (await standings(await replica(), [MINUTE]))[0].remaining == 84


async def test_what_a_server_refused_to_hear_is_told_again(
    server: Server, replica: Replica
) -> None:
    changes = Changes()
    counters = await replica(on_change=changes)
    assert await takes(80, counters) == 80
    server.kill()
    await changes.wait(True)
    await server.start()
    await changes.wait(False)
    await server.command("CONFIG", "SET", "maxmemory", "1")
    assert await takes(10, counters) == 10
    await changes.wait(True)
    await server.command("CONFIG", "SET", "maxmemory", "0")
    await changes.wait(False)
    assert (await standings(counters, [MINUTE]))[0].remaining == 10


async def test_a_lost_month_is_told_until_it_ends(server: Server, replica: Replica) -> None:
    changes = Changes()
    counters = await replica(on_change=changes)
    end = int(time.time()) + 1800
    month = Span(end - 31 * 86_400, end)
    budget = Window("budget", "all", 100, 31 * 86_400, span=month)
    assert await takes(1, counters, window=budget, cost=80) == 1
    server.kill()
    await changes.wait(True)
    await server.start()
    await changes.wait(False)
    assert await takes(1, counters, window=budget, cost=80) == 0
    assert (await standings(await replica(), [budget]))[0].remaining == 20


async def test_what_a_process_recalls_is_the_least_that_the_storage_holds(
    server: Server, replica: Replica
) -> None:
    few, many = replace(MINUTE, key="few"), replace(MINUTE, key="many")
    one, other = await replica(), await replica()
    assert await takes(10, one, window=few) + await takes(50, one, window=many) == 60
    recalled = [(window, 15) for window in (few, many, few)]
    assert await monitored(server, lambda: other.recall(recalled)) == ["evalsha"]
    assert [found.remaining for found in await standings(one, [few, many])] == [70, 50]


async def test_much_is_recalled_in_commands_that_hold_nobody_up(
    server: Server, replica: Replica
) -> None:
    windows = [replace(MINUTE, key=f"client {number}") for number in range(450)]
    counters = await replica()
    assert (
        await monitored(server, lambda: counters.recall([(window, 1) for window in windows]))
        == ["evalsha"] * 3
    )
    assert {found.remaining for found in await standings(await replica(), windows)} == {99}


async def test_what_was_recalled_while_the_storage_was_down_is_told_with_the_next_call(
    server: Server, replica: Replica
) -> None:
    changes = Changes()
    server.freeze()
    counters = await replica(on_change=changes, is_away=True)
    await counters.recall([(MINUTE, 80)])
    server.thaw()
    await changes.wait(False)
    assert await takes(30, counters) == 20
    assert (await standings(await replica(), [MINUTE]))[0].remaining == 0


async def test_looking_at_a_window_does_not_begin_it(replica: Replica) -> None:
    counters = await replica()
    assert (await standings(counters, [MINUTE]))[0].remaining == 100
    alone = (await Counters.take(counters, [MINUTE])).standings[0]
    assert round(alone.resets_in_seconds, 3) == 60  # what it would say alone


@pytest.mark.parametrize(("delta", "remaining"), [(10, 30), (-10, 40)])
async def test_a_settlement_that_may_be_lost_is_repeated_only_where_twice_is_too_much(
    server: Server, replica: Replica, delta: int, remaining: int
) -> None:
    """Too much counted is safe; a sum given back twice is not."""
    changes = Changes()
    counters = await replica(on_change=changes, **BRIEF)
    budget = Window("budget", "a", 100, 86_400, span=TODAY)
    taken = (await counters.take([budget], cost=60)).standings[0].window
    server.freeze()
    await counters.adjust([(taken, delta)])
    await changes.wait(True)
    server.kill()
    await server.start()
    await changes.wait(False)
    assert (await standings(counters, [budget]))[0].remaining == remaining


async def test_closed_refuses_without_waiting_and_open_counts_nothing(
    server: Server, replica: Replica
) -> None:
    closed, opened = await replica("closed"), await replica("open")
    await takes(10, closed, opened)
    for each in (closed, opened):
        await standings(each, [MINUTE])
    changes = [Changes(), Changes()]
    closed.on_change, opened.on_change = changes
    server.kill()
    await asyncio.gather(*(each.wait(True) for each in changes))
    with pytest.raises(Refusal) as refused:
        await closed.take([MINUTE], Place("a", 8))
    assert (refused.value.code, refused.value.retry_after_seconds) == ("overloaded", 1)
    assert len(closed.in_flight) == 0
    assert await takes(300, opened) == 300
    await server.start()
    await asyncio.gather(*(each.wait(False) for each in changes))
    assert await takes(300, opened, closed) == 90


@pytest.mark.parametrize("failure", ["local", "closed", "open"])
async def test_a_frozen_server_holds_nobody_up_and_comes_back_by_itself(
    server: Server, replica: Replica, failure: Any
) -> None:
    changes = Changes()
    counters = await replica(failure, on_change=changes, **BRIEF)
    server.freeze()
    with capture_logs() as lines:
        async with asyncio.timeout(5):
            for _ in range(20):  # one after the other: only the first may wait
                calls = (counters.take([MINUTE]) for _ in range(50))
                await asyncio.gather(*calls, return_exceptions=True)
    assert counters.is_down
    assert lines[0]["reason"].startswith("no answer within")
    server.thaw()
    await changes.wait(False)
    assert changes.heard == [True, False]
    assert (await standings(counters, [MINUTE]))[0].window == MINUTE


async def test_a_busy_process_does_not_take_the_storage_for_down(replica: Replica) -> None:
    """Answers that have come wait for others' turns; that is no fault of the storage's."""
    counters = await replica(answer_seconds=ANSWER_SECONDS)
    calls = asyncio.gather(*(counters.take([MINUTE]) for _ in range(300)))
    while not calls.done():
        time.sleep(0.2)  # noqa: ASYNC251 (what keeps the loop busy)
        await asyncio.sleep(0)
    assert admitted(await calls) == 100
    assert not counters.is_down


Carry = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What one side writes to the other."""


async def carry_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)


@asynccontextmanager
async def behind_a_line(server: Server, up: Carry, down: Carry) -> AsyncIterator[str]:
    """The address of ``server`` behind a line that carries questions so, and answers so."""
    lines: list[asyncio.Task[None]] = []

    async def carried(
        carry: Carry, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with closing(writer):
            await carry(reader, writer)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection("127.0.0.1", server.port)
        lines.append(asyncio.create_task(carried(up, reader, questions)))
        lines.append(asyncio.create_task(carried(down, answers, writer)))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        yield f"{server.kind}://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        await asyncio.gather(*lines, return_exceptions=True)


def slowed(
    server: Server, pause: Callable[[], Awaitable[object]]
) -> AbstractAsyncContextManager[str]:
    """The address of ``server`` behind a line on which each script's answer makes a ``pause``."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line.startswith(b"*"):
                await pause()
            writer.write(line)

    return behind_a_line(server, carry_at_once, carry)


def bad_line(
    server: Server, is_bad: asyncio.Event, luck: random.Random, cuts: float
) -> AbstractAsyncContextManager[str]:
    """The address of ``server`` behind a line that delays a piece of ten, and is cut at so many."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if is_bad.is_set() and luck.random() < 0.1:
                await asyncio.sleep(luck.random() * 0.06)
            if is_bad.is_set() and luck.random() < cuts:
                return
            writer.write(data)

    return behind_a_line(server, carry, carry)


@pytest.mark.parametrize("cuts", [0.0, 0.01])
async def test_money_is_exact_on_a_slow_line_and_never_too_little_on_one_that_is_cut(
    server: Server, cuts: float
) -> None:
    luck, is_bad, changes, spent = random.Random(cuts), asyncio.Event(), Changes(), 0
    opened = Window("budget", "a", 2**53, 86_400, span=TODAY, is_open=True)
    budget = Window("budget", "a", 2**53, 86_400, span=TODAY, opened=opened)
    is_bad.set()

    async def call(counters: SharedCounters) -> None:
        nonlocal spent
        amount = luck.randint(1, 50)
        if (await counters.take([budget], cost=amount)).is_admitted:
            await asyncio.sleep(luck.random() * 0.05)
            spent += (cost := luck.randint(0, 2 * amount))
            await counters.adjust([(budget, cost - amount), (opened, -amount)])

    async with AsyncExitStack() as stack:
        line = bad_line(server, is_bad, luck, cuts)
        place = storage(await stack.enter_async_context(line))
        assert place is not None
        patience = {"answer_seconds": 0.01, "late_seconds": 30.0}
        shared = open_shared(place, "local", on_change=changes, **patience)
        counters = await stack.enter_async_context(shared)
        calls = []
        for _ in range(300):
            calls.append(asyncio.create_task(call(counters)))
            await asyncio.sleep(luck.random() * 0.01)
        await asyncio.gather(*calls)
        is_bad.clear()
        found = await standings(counters, [budget])
        while counters.is_down:  # what is owed is told by who asks when it is up
            await changes.wait(False)
            found = await standings(counters, [budget])
    units = [each.units for each in found]
    assert units[0] >= spent
    assert cuts or units == [spent, 0]


async def test_a_storage_that_answers_slowly_holds_no_call_up_for_all_those_before_it(
    server: Server,
) -> None:
    async with slowed(server, partial(asyncio.sleep, ANSWER_SECONDS / 6)) as url:
        place = storage(url)
        assert place is not None
        async with open_shared(place, "local") as counters:
            assert (await counters.take([MINUTE])).is_admitted
            assert not counters.is_down
            assert await takes(24, counters) == 24
            assert counters.is_down


async def test_a_storage_that_falls_behind_is_down_although_it_answers(server: Server) -> None:
    """Each turn of the loop reads an answer, and each is later than the one before."""
    async with slowed(server, partial(asyncio.sleep, 0.004)) as url:
        place = storage(url)
        assert place is not None
        async with open_shared(place, "local") as counters:
            calls: list[asyncio.Task[Verdict]] = []
            while not counters.is_down and len(calls) < 500:
                calls.append(asyncio.create_task(counters.take([MINUTE])))
                time.sleep(0.002)  # noqa: ASYNC251 (what else there is to do in a turn)
                await asyncio.sleep(0)
            assert counters.is_down
            assert admitted(await asyncio.gather(*calls)) == min(len(calls), 100)


async def test_what_was_told_while_a_connection_was_given_up_is_told_to_the_next(
    server: Server, replica: Replica
) -> None:
    changes, places = Changes(), [Place("a", 2), Place("a", 2)]
    counters = await replica(on_change=changes, **BRIEF)
    for place in places:
        await counters.take([], place)

    def left(is_down: bool) -> None:
        """A call ends in the turn of the loop in which the storage is given up."""
        changes(is_down)
        if is_down:
            asyncio.get_running_loop().call_soon(counters.leave, places[0])

    counters.on_change = left
    server.freeze()
    await standings(counters, [MINUTE])
    assert counters.is_down
    server.thaw()
    await changes.wait(False)
    assert (await standings(counters, [MINUTE]))[0].window == MINUTE
    assert (await counters.take([], Place("a", 2))).is_admitted
    assert (await counters.take([], Place("a", 2))).is_crowded


async def test_a_cost_beyond_what_was_set_aside_counts_before_it_is_known_whether_it_was_heard(
    server: Server, replica: Replica
) -> None:
    changes = Changes()
    counters = await replica(on_change=changes, late_seconds=30.0, **BRIEF)
    budget = Window("budget", "a", 100, 86_400, span=TODAY)
    assert (await counters.take([budget], cost=10)).is_admitted
    server.freeze()
    await counters.adjust([(budget, 80)])
    assert await takes(2, counters, window=budget, cost=10) == 1
    server.thaw()
    await changes.wait(False)
    assert (await standings(counters, [budget]))[0].units == 100


async def test_each_of_very_many_is_answered_by_a_storage_that_was_down(
    server: Server, replica: Replica
) -> None:
    """What is told while it is down is bounded; what is asked afterwards must not be."""
    changes = Changes()
    counters = await replica(on_change=changes, answer_seconds=20.0)
    server.kill()
    await changes.wait(True)
    await server.start()
    await changes.wait(False)
    async with asyncio.timeout(10):
        await asyncio.gather(*(counters.look([MINUTE]) for _ in range(10_100)))


async def test_one_line_is_logged_for_each_change(server: Server, replica: Replica) -> None:
    changes = Changes()
    with capture_logs() as lines:
        counters = await replica(on_change=changes)
        server.kill()
        await changes.wait(True)
        await takes(50, counters)
        await server.start()
        await changes.wait(False)
    said = [line for line in lines if line["event"].startswith("limits storage")]
    assert [(line["event"], line["log_level"]) for line in said] == [
        ("limits storage down", "warning"),
        ("limits storage back", "info"),
    ]
    assert said[0]["until_it_is_back"] == "each process counts for itself"


async def test_a_server_that_is_not_there_yet_is_found_later(server: Server) -> None:
    place = storage(server.url)
    assert place is not None
    server.kill()
    changes = Changes()
    async with open_shared(place, "local", on_change=changes) as counters:
        assert counters.is_down
        assert await takes(150, counters) == 100
        await server.start()
        await changes.wait(False)
        assert await takes(50, counters) == 0


async def test_a_server_that_is_frozen_at_the_start_holds_nobody_up(server: Server) -> None:
    place = storage(server.url)
    assert place is not None
    server.freeze()
    changes = Changes()
    async with asyncio.timeout(5), open_shared(place, "closed", on_change=changes) as counters:
        assert counters.is_down
        server.thaw()
        await changes.wait(False)
        assert await takes(5, counters) == 5


# Who may use it


async def test_user_password_and_database_come_from_the_url(
    server: Server, replica: Replica
) -> None:
    await server.command("ACL", "SETUSER", "kp", "on", ">p@ss/word?", "~keyproxy:*", "+@all")
    named = server.url.replace("://", "://kp:p%40ss%2Fword%3F@") + "/3"
    assert await takes(101, await replica(url=named)) == 100
    assert b"db3:keys=" in await server.command("INFO", "keyspace")


async def test_a_wrong_password_is_down_and_is_never_shown(
    server: Server, replica: Replica
) -> None:
    await server.command("CONFIG", "SET", "requirepass", "right-password")
    with capture_logs() as lines:
        url = server.url.replace("://", "://:wrong-password@")
        counters = await replica(url=url, is_away=True)
    assert counters.is_down
    assert "WRONGPASS" in lines[0]["reason"] or "AuthenticationError" in lines[0]["reason"]
    assert "password@" not in str(lines)
    assert "wrong-password" not in str(lines)


async def test_a_server_that_takes_no_writes_is_down(server: Server, replica: Replica) -> None:
    """A replica after a failover: it answers, and counts nothing."""
    await server.command("REPLICAOF", "127.0.0.1", "1")
    assert (await replica(is_away=True)).is_down


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def tls_options(authority: trustme.CA, directory: Path, name: str) -> list[str]:
    certificate = authority.issue_cert(name)
    key, chain = directory / "key.pem", directory / "chain.pem"
    certificate.private_key_pem.write_to_path(str(key))
    for part in certificate.cert_chain_pems:
        part.write_to_path(str(chain), append=True)
    return ["--tls-cert-file", str(chain), "--tls-key-file", str(key), "--tls-auth-clients", "no"]


@pytest.mark.parametrize(
    ("name", "is_trusted"), [("127.0.0.1", True), ("127.0.0.1", False), ("other.example", True)]
)
async def test_tls_is_verified(
    authority: trustme.CA, tmp_path: Path, name: str, is_trusted: bool
) -> None:
    """By name and by authority, the system's and the extra one."""
    if servers.binary("redis") is None:
        pytest.skip("no redis-server on this machine")
    extra = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(extra))
    options = tls_options(authority, tmp_path, name)
    async with servers.running("redis", *options, has_tls=True) as server:
        place = storage(f"rediss://127.0.0.1:{server.port}")
        assert place is not None
        checked = trust(extra if is_trusted else None)
        async with open_shared(place, "local", trust=checked, **PATIENT) as counters:
            await takes(1, counters)
            assert counters.is_down is not (name == "127.0.0.1" and is_trusted)


async def test_budgets_are_found_where_earlier_replicas_count_them(
    server: Server, replica: Replica
) -> None:
    budgets = Budgets(await replica(), app="web", of_client=[Budget(Decimal(1), "day")])
    await budgets.reserve(Client("someone", "192.0.2.1", "web"), 5, _DAY + 1.0)
    said = (await server.command("KEYS", "*:web:someone*")).split()
    names = {each.partition(b":web:")[0] for each in said if each.startswith(b"keyproxy:")}
    assert names == {b"keyproxy:client-usd-day:86400", b"keyproxy:client-usd-day-open:86400"}
