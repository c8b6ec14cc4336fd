"""What becomes of an answer when its client leaves, where the provider bills it to the end."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from keyproxy.attempts.drains import MOST, MOST_BYTES, Drains
from keyproxy.record import ClientLeft, Record
from keyproxy.settings import Secret
from keyproxy.transport.reply import Reply
from keyproxy.upstream.headers import KeySearch
from tests.conftest import CHAT, KEY, Proxy
from tests.fakes import server
from tests.fakes.books import Plan
from tests.fakes.fake import Fake
from tests.fakes.server import Fakes
from tests.routed import HI, proxy_before

STREAM = {"model": "openai/gpt-oss-120b", "stream": True, **HI}
LONG = Plan(tokens=40, pause_seconds=0.02)


@pytest.fixture
async def fakes() -> AsyncIterator[Fakes]:
    async with server.serving("groq", "cerebras") as running:
        yield running


async def leave(proxy: Proxy, provider: str) -> None:
    """Begin to read a stream of ``provider``, and hang up."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{proxy.url}/api/v1/chat/completions", json=STREAM) as answer,
    ):
        assert answer.headers["X-Keyproxy-Provider"] == provider
        await answer.content.readany()
        answer.close()


async def hang_up(asking: asyncio.Future[Any]) -> None:
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def drained(proxy: Proxy, fake: Fake) -> None:
    """Let ``fake`` answer, and wait until what goes on for nobody has ended."""
    drains = proxy.service.assembly._routes().drains
    while not drains._tasks:
        await asyncio.sleep(0)
    fake.released.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*drains._tasks)


def is_over(fake: Fake) -> bool:
    return bool(fake.bills) and fake.bills[-1].cost is not None


@pytest.mark.parametrize(("said", "is_whole"), [("", True), ('on_hangup = "cut"', False)])
async def test_groq_is_read_to_its_end_unless_the_operator_says_otherwise(
    fakes: Fakes, said: str, is_whole: bool
) -> None:
    fake = fakes["groq"]
    fake.plan = lambda seen, body: LONG
    async with proxy_before(fakes, of_each=said) as proxy:
        await leave(proxy, "groq")
        await fake.until(lambda: is_over(fake))
        drains = proxy.service.assembly._routes().drains
        async with asyncio.timeout(5):
            await asyncio.gather(*drains._tasks)
    [bill] = fake.bills
    assert (b"[DONE]" in bytes(bill.said)) is is_whole


def booked(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT provider, cost, cost_source, ended, is_settled FROM attempts"
        ).fetchall()


WHOLE = STREAM | {"stream": False}
SLOW_HEAD = Plan(tokens=40, pause_seconds=0.2)


@pytest.mark.parametrize("names", [("groq",), ("groq", "cerebras")])  # held, while there is another
@pytest.mark.parametrize(
    ("body", "plan", "has_head"),
    [
        (WHOLE, SLOW_HEAD, False),
        (WHOLE, Plan(tokens=40, ends="slow"), True),
        (STREAM, Plan(tokens=40, ends="slow"), True),
    ],
)
async def test_what_has_not_begun_when_its_client_leaves_is_booked_at_what_it_cost(
    names: tuple[str, ...], body: dict[str, Any], plan: Plan, has_head: bool, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    async with server.serving(*names) as fakes:
        fake = fakes["groq"]
        fake.plan = lambda seen, body: plan
        async with proxy_before(fakes, LEDGER=str(ledger)) as proxy:
            asking = asyncio.ensure_future(proxy.post(body).__aenter__())
            await fake.until(lambda: bool(fake.bills))
            [record] = proxy.service._open_records()
            while has_head and record.answer is None:
                await asyncio.sleep(0)
            await hang_up(asking)
            await drained(proxy, fake)
        assert len(fakes.calls) == 1
        [bill] = fake.bills
        assert bill.cost is not None
        cost = int(bill.cost * 10**12)
        assert booked(ledger) == [("groq", cost, "computed", "client_left", 1)]


async def test_no_large_body_is_kept_for_a_client_that_is_no_more(fakes: Fakes) -> None:
    fake = fakes["groq"]
    fake.plan = lambda seen, body: Plan(ends="hang")
    large = WHOLE | {"messages": [{"role": "user", "content": "x" * (MOST_BYTES + 1)}]}
    async with proxy_before(fakes) as proxy:
        asking = asyncio.ensure_future(proxy.post(large).__aenter__())
        await fake.until(lambda: bool(fake.bills))
        await hang_up(asking)
        while proxy.service._open_records():
            await asyncio.sleep(0)
        assert not proxy.service.assembly._routes().drains._tasks


async def test_what_is_not_worth_to_be_known_is_not_waited_for() -> None:
    """There was no connection yet, or there is no room: the caller hears what it would without."""
    drains, stack, seen = Drains(), AsyncExitStack(), asyncio.Event()

    async def work() -> None:
        seen.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ClientLeft(None) from None

    async def late(found: None) -> None:
        pytest.fail("it was waited for")

    asking = asyncio.ensure_future(drains.outlast(stack, work(), Record("POST", CHAT), late))
    await seen.wait()
    asking.cancel()
    with pytest.raises(ClientLeft):
        await asking
    assert not drains._tasks


async def test_a_refusal_that_comes_when_the_client_has_left_costs_nothing(
    fakes: Fakes, tmp_path: Path
) -> None:
    """And nobody else is asked for a client that is no more."""
    ledger = tmp_path / "ledger.sqlite3"
    fake, come = fakes["groq"], asyncio.Event()
    answer = fake._answer

    async def late(*asked: Any) -> Any:
        come.set()
        await fake.released.wait()
        return fake._error(fake.vendor.troubles["rate"], "chat")

    fake._answer = late  # type: ignore[method-assign, assignment]
    async with proxy_before(fakes, LEDGER=str(ledger)) as proxy:
        asking = asyncio.ensure_future(proxy.post(WHOLE).__aenter__())
        await come.wait()
        await hang_up(asking)
        await drained(proxy, fake)
        assert [seen.vendor for seen in fakes.calls] == ["groq"]
        async with proxy.post(WHOLE) as next_one:  # which knows of it
            assert next_one.headers["X-Keyproxy-Provider"] == "cerebras"
            assert "X-Keyproxy-Attempts" not in next_one.headers
    fake._answer = answer  # type: ignore[method-assign]
    provider, cost, *_ = booked(ledger)[0]
    assert (provider, cost) == ("groq", 0)


async def test_a_provider_that_stops_billing_is_cut(fakes: Fakes) -> None:
    async with server.serving("cerebras") as alone:
        fake = alone["cerebras"]
        fake.plan = lambda seen, body: LONG
        async with proxy_before(alone) as proxy:
            await leave(proxy, "cerebras")
            await fake.until(lambda: is_over(fake))
        assert b"[DONE]" not in bytes(fake.bills[0].said)


async def test_a_stop_ends_what_is_read_on(fakes: Fakes) -> None:
    fake = fakes["groq"]
    fake.plan = lambda seen, body: Plan(tokens=1000, pause_seconds=0.02)
    async with proxy_before(fakes) as proxy:
        drains = proxy.service.assembly._routes().drains
        await leave(proxy, "groq")
        async with asyncio.timeout(5):
            while not drains._tasks:
                await asyncio.sleep(0)
        await drains.end()
        await fake.until(lambda: is_over(fake))
    assert b"[DONE]" not in bytes(fake.bills[0].said)


async def test_a_stop_ends_what_is_waited_for_and_books_the_worst(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    async with server.serving("groq") as fakes:
        fake = fakes["groq"]
        fake.plan = lambda seen, body: Plan(ends="hang")
        async with proxy_before(fakes, LEDGER=str(ledger)) as proxy:
            asking = asyncio.ensure_future(proxy.post(WHOLE).__aenter__())
            await fake.until(lambda: bool(fake.bills))
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            drains = proxy.service.assembly._routes().drains
            while not drains._tasks:
                await asyncio.sleep(0)
        [(provider, cost, source, ended, is_settled)] = booked(ledger)
        assert (provider, source, ended, is_settled) == ("groq", "estimated", "client_left", 1)
        assert cost > int(fake.billed * 10**12) > 0


class Unread(asyncio.Transport):
    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


async def test_so_many_are_read_on_at_once_and_none_after_a_stop() -> None:
    drains = Drains()

    async def is_taken() -> bool:
        left: list[bool] = []
        async with AsyncExitStack() as stack:
            stack.callback(left.append, True)
            reply = Reply(200, {}, None, Unread())
            drains.take(stack, reply, KeySearch([Secret(KEY)]), [])
        return not left

    assert [await is_taken() for _ in range(MOST + 1)] == [True] * MOST + [False]
    await drains.end()
    assert not await is_taken()


async def test_a_key_in_what_is_read_on_cuts_it_and_is_shown_to_nobody() -> None:
    drains, seen, cut = Drains(), bytearray(), asyncio.Event()
    reply = Reply(200, {}, None, Unread(), cut.set)
    drains.take(AsyncExitStack(), reply, KeySearch([Secret(KEY)]), [seen.extend])
    for piece in (b'{"model":"a/b","x":"', KEY[:50].encode(), KEY[50:].encode()):
        reply.feed(piece)
    assert cut.is_set()
    assert bytes(seen) == b'{"model":"a/b","x":"'
    reply.end()
    await drains.end(1.0)


async def test_what_is_read_on_takes_its_providers_place_and_not_its_clients(fakes: Fakes) -> None:
    fake = fakes["groq"]
    fake.plan = lambda seen, body: Plan(tokens=40, ends="slow")
    said = "max_in_flight = 1"
    async with proxy_before(fakes, of_each=said, MAX_IN_FLIGHT="1") as proxy:
        asking = asyncio.ensure_future(proxy.post(STREAM).__aenter__())
        await fake.until(lambda: bool(fake.bills))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        drains = proxy.service.assembly._routes().drains
        while not drains._tasks or proxy.service._open_records():
            await asyncio.sleep(0)
        async with proxy.post(STREAM) as answer:  # the client's one place is free again
            assert (answer.status, answer.headers["X-Keyproxy-Provider"]) == (200, "cerebras")
            await answer.read()
        fake.released.set()
        async with asyncio.timeout(5):
            await asyncio.gather(*drains._tasks)
        async with proxy.post(STREAM) as answer:
            assert answer.headers["X-Keyproxy-Provider"] == "groq"
            await answer.read()
