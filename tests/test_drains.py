"""What becomes of an answer when its client leaves, where the provider bills it to the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest
from multidict import CIMultiDict

from keyproxy.attempts.drains import Drains
from keyproxy.settings import Secret
from keyproxy.transport.reply import Reply
from keyproxy.upstream.headers import KeySearch
from tests.conftest import KEY, Proxy
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
        drains = proxy.service.assembly._routing.drains
        async with asyncio.timeout(5):
            await asyncio.gather(*drains._tasks)
    [bill] = fake.bills
    assert (b"[DONE]" in bytes(bill.said)) is is_whole


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
        drains = proxy.service.assembly._routing.drains
        await leave(proxy, "groq")
        async with asyncio.timeout(5):
            while not drains._tasks:
                await asyncio.sleep(0)
        await drains.end()
        await fake.until(lambda: is_over(fake))
    assert b"[DONE]" not in bytes(fake.bills[0].said)


async def test_a_key_in_what_is_read_on_cuts_it_and_is_shown_to_nobody() -> None:
    class Connection:
        is_cut = False

        def pause_reading(self) -> None: ...

        def resume_reading(self) -> None: ...

        def abort(self) -> None:
            self.is_cut = True

    drains, seen, connection = Drains(), bytearray(), Connection()
    reply = Reply(200, CIMultiDict(), None, connection)
    drains.take(AsyncExitStack(), reply, KeySearch([Secret(KEY)]), [seen.extend])
    for piece in (b'{"model":"a/b","x":"', KEY[:50].encode(), KEY[50:].encode()):
        reply.feed(piece)
    assert connection.is_cut
    assert bytes(seen) == b'{"model":"a/b","x":"'
    reply.end()
    await drains.end(1.0)
