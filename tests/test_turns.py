"""Long work is done one piece at a time, and nobody waits behind all that another brought."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import threading
import weakref
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from keyproxy.clients import credentials
from keyproxy.errors import Refusal
from keyproxy.strict_json.turns import SWITCH_SECONDS, Turns
from tests.conftest import BODY, Proxy, Start, refused

# Long to read, so that calls reach the upstream in the order in which they were read.
LARGE = BODY | {"metadata": {"numbers": [1] * 100_000}}


def in_line(turns: Turns) -> int:
    return sum(len(line) for clients in turns._waiting.values() for line in clients.values())


async def until_in_line(turns: Turns, count: int) -> None:
    async with asyncio.timeout(10):
        while in_line(turns) != count:
            await asyncio.sleep(0)


@asynccontextmanager
async def busy(turns: Turns) -> AsyncIterator[None]:
    """While somebody's work takes long."""
    end = threading.Event()
    working = asyncio.create_task(turns.do("busy", "busy", end.wait))
    try:
        await asyncio.sleep(0)
        assert turns._is_busy
        yield
    finally:
        end.set()
        await working


async def order(*places: tuple[str, str]) -> list[tuple[str, str]]:
    """In which order work is done that all came while other work was."""
    turns, done = Turns(), list[tuple[str, str]]()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group, busy(turns):
        for number, place in enumerate(places):
            group.create_task(turns.do(*place, done.append, place))
            await until_in_line(turns, number + 1)
    assert not turns._is_busy
    assert not turns._waiting
    return done


async def test_addresses_take_turns() -> None:
    flood, honest = ("a", "1"), ("b", "2")
    assert await order(flood, flood, flood, honest, honest) == [flood, honest, flood, honest, flood]


async def test_many_clients_of_one_address_have_one_turn_in_it() -> None:
    flood, honest = [("a", str(number)) for number in range(4)], ("b", "9")
    assert await order(*flood, honest) == [flood[0], honest, *flood[1:]]


async def test_clients_of_one_address_take_turns() -> None:
    flood, honest = ("a", "1"), ("a", "2")
    assert await order(flood, flood, flood, honest) == [flood, honest, flood, flood]


async def test_what_work_returns_or_raises_comes_back() -> None:
    turns = Turns()
    assert await turns.do("a", "1", len, "four") == 4
    with pytest.raises(ZeroDivisionError):
        await turns.do("a", "1", divmod, 1, 0)
    assert not turns._is_busy


async def test_who_leaves_the_line_holds_up_nobody() -> None:
    turns = Turns()
    async with busy(turns):
        left = asyncio.create_task(turns.do("a", "1", len, "x"))
        stays = asyncio.create_task(turns.do("b", "2", len, "xy"))
        await until_in_line(turns, 2)
        left.cancel()
        await asyncio.wait({left})
    assert await stays == 2
    assert left.cancelled()


async def test_who_leaves_just_when_its_turn_comes_passes_it_on() -> None:
    turns = Turns()
    async with busy(turns), asyncio.timeout(10):
        left = asyncio.create_task(turns.do("a", "1", len, "x"))
        stays = asyncio.create_task(turns.do("b", "2", len, "xy"))
        await until_in_line(turns, 2)
        turns._next()
        left.cancel()
        assert await stays == 2
    assert left.cancelled()


async def test_work_of_who_left_ends_before_the_next_begins(no_loose_ends: None) -> None:
    """A thread cannot be stopped; clients that come and leave must not fill all processors."""
    turns, end, begun, log = Turns(), threading.Event(), threading.Event(), list[str]()

    def work() -> None:
        begun.set()
        end.wait()
        log.append("first")
        raise Refusal("invalid_json", "x")

    left = asyncio.create_task(turns.do("a", "1", work))
    await asyncio.to_thread(begun.wait)
    left.cancel()
    await asyncio.wait({left})
    following = asyncio.create_task(turns.do("a", "1", log.append, "second"))
    await until_in_line(turns, 1)
    end.set()
    await following
    assert log == ["first", "second"]


async def served(proxy: Proxy, *calls: tuple[str, dict[str, str]]) -> list[str]:
    """Which calls the upstream sees, in order, of those whose bodies waited for their turns."""
    turns = proxy.service.kit.life.large_bodies

    async def call(name: str, headers: dict[str, str]) -> None:
        async with proxy.post(LARGE | {"session_id": name}, headers=headers) as answer:
            assert answer.status == 200, await answer.text()

    async with asyncio.timeout(20), asyncio.TaskGroup() as group, busy(turns):
        for number, one in enumerate(calls):
            group.create_task(call(*one))
            await until_in_line(turns, number + 1)
    return [json.loads(call.body)["session_id"] for call in proxy.upstream.calls]


async def test_a_flood_of_large_calls_holds_another_address_up_by_one(start: Start) -> None:
    proxy = await start("serve", TRUSTED_PROXIES="loopback")
    flood = {"X-Forwarded-For": "203.0.113.1"}
    honest = {"X-Forwarded-For": "198.51.100.2"}
    calls = [*((f"flood {number}", flood) for number in range(7)), ("honest", honest)]
    assert (await served(proxy, *calls))[:3] == ["flood 0", "honest", "flood 1"]


async def test_a_flood_of_large_calls_holds_another_client_up_by_one(start: Start) -> None:
    (flood, flood_hash), (honest, honest_hash) = (
        credentials.make_token("flood"),
        credentials.make_token("honest"),
    )
    hashes = f"flood:{flood_hash.digest.hex()},honest:{honest_hash.digest.hex()}"
    proxy = await start("serve", CLIENT_AUTH="token", CLIENT_TOKENS=hashes)
    calls = [(f"flood {number}", {"Authorization": f"Bearer {flood}"}) for number in range(7)]
    calls.append(("honest", {"Authorization": f"Bearer {honest}"}))
    assert (await served(proxy, *calls))[:3] == ["flood 0", "honest", "flood 1"]


async def test_a_large_body_is_refused_in_its_turn(proxy: Proxy) -> None:
    async with proxy.post(LARGE | {"n": 2}) as answer:
        await refused(answer, 403, "field_not_allowed")
    assert proxy.upstream.calls == []
    assert not proxy.service.kit.life.large_bodies._is_busy


async def test_where_no_thread_is_to_be_had_the_next_one_is_not_held_up() -> None:
    """Collections go on, too: they are off only while a thread works."""
    turns, loop = Turns(), asyncio.get_running_loop()
    spent = ThreadPoolExecutor()
    spent.shutdown()
    loop.set_default_executor(spent)
    with pytest.raises(Refusal, match="overloaded"):
        await turns.do("a", "1", len, "x")
    assert gc.isenabled()
    assert sys.getswitchinterval() > SWITCH_SECONDS
    loop.set_default_executor(ThreadPoolExecutor())
    assert await turns.do("a", "1", len, "xy") == 2


async def test_what_refused_work_had_in_hand_is_let_go_at_once() -> None:
    """A body of 20 MB and its text; a collection may be far away."""

    class Body:
        pass

    held: list[weakref.ref[Body]] = []

    def refuse() -> None:
        body = Body()
        held.append(weakref.ref(body))
        raise ValueError

    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            await Turns().do("a", "1", refuse)
        gc.disable()  # the turn has switched it on
        await asyncio.sleep(0)
        assert held[0]() is None
    finally:
        gc.enable()
