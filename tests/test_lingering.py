"""A streamed call whose client leaves early is booked at what it cost, if its head comes soon."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from keyproxy.upstream import requests as lingering
from keyproxy.upstream.requests import Lingering
from tests.conftest import BODY, Proxy, Start
from tests.fake_upstream import WIRE_HEADERS, FakeUpstream, event_stream
from tests.test_relay import in_flight, soon
from tests.test_timeouts import base_of, full_listener

pytestmark = pytest.mark.usefixtures("no_loose_ends")
STREAM = BODY | {"stream": True}
ID = WIRE_HEADERS["X-Generation-Id"]


@pytest.fixture
def release(upstream: FakeUpstream) -> asyncio.Event:
    """The head of the upstream's answers comes once it is set, and of the body nothing."""
    event = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/generation"):
            return web.json_response({"data": {"id": ID, "total_cost": 0.0001}})
        if request.method == "GET":
            return upstream.catalogue_answer(request)
        await event.wait()
        await event_stream(request)
        await asyncio.Event().wait()
        raise AssertionError

    upstream.answer = answer
    return event


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only an event ends the wait."""
    monkeypatch.setattr(lingering, "LINGER_SECONDS", 60.0)


async def call(proxy: Proxy, body: dict[str, Any]) -> None:
    async with proxy.post(body) as answer:
        await answer.read()


async def left(proxy: Proxy, body: dict[str, Any]) -> None:
    """Call, and leave when the call has come up."""
    before = len(proxy.upstream.calls)
    calling = asyncio.create_task(call(proxy, body))
    async with asyncio.timeout(5):
        while len(proxy.upstream.calls) == before:
            await asyncio.sleep(0.01)
    calling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await calling


async def booked(ledger: Path, count: int = 1, where: str = "1") -> Any:
    """The rows of calls, once there are so many ``where`` something holds."""
    columns = "generation_id, cost, cost_source, ended"
    with closing(sqlite3.connect(ledger)) as connection:
        async with asyncio.timeout(10):
            while True:
                found = connection.execute(f"SELECT {columns} FROM calls WHERE {where}").fetchall()  # noqa: S608
                if len(found) == count:
                    return found
                await asyncio.sleep(0.01)


@pytest.mark.usefixtures("patient")
async def test_a_streamed_call_left_before_its_head_is_settled_exactly(
    start: Start, upstream: FakeUpstream, release: asyncio.Event, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    proxy = await start(LEDGER=str(ledger))
    await left(proxy, STREAM)
    assert not upstream.left.is_set()
    await in_flight(proxy, 1)  # its place stays taken
    release.set()
    await soon(upstream.left)  # nothing is read on
    await in_flight(proxy, 0)
    found = await booked(ledger, where="is_settled")
    assert found == [(ID, 100_000_000, "exact", "client_left")]


async def test_a_head_that_does_not_come_soon_is_not_waited_for(
    start: Start, upstream: FakeUpstream, release: asyncio.Event, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    proxy = await start(LEDGER=str(ledger))
    await left(proxy, STREAM)
    await soon(upstream.left)
    await in_flight(proxy, 0)
    found = await booked(ledger, where="ended IS NOT NULL")
    assert found == [(None, None, "estimated", "client_left")]


@pytest.mark.parametrize(
    ("status", "fault"), [(500, "uncertain"), (404, "config"), (408, "caller")]
)
async def test_a_call_left_while_an_error_is_read_is_settled(
    start: Start, upstream: FakeUpstream, tmp_path: Path, status: int, fault: str
) -> None:
    async def failing(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response({"data": {"id": ID, "total_cost": 0}})
        fields = {"X-Generation-Id": ID, "Content-Type": "application/json"}
        response = web.StreamResponse(status=status, headers=fields)
        await response.prepare(request)
        has_begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    has_begun = asyncio.Event()
    upstream.answer = failing
    ledger = tmp_path / "ledger.sqlite3"
    proxy = await start(LEDGER=str(ledger))
    calling = asyncio.create_task(call(proxy, STREAM))
    await has_begun.wait()
    calling.cancel()
    found = await booked(ledger, where="is_settled")
    assert found == [(ID, 0, "exact", "client_left")]
    with closing(sqlite3.connect(ledger)) as connection:
        assert connection.execute("SELECT class FROM attempts").fetchall() == [(fault,)]


@pytest.mark.usefixtures("patient", "release")
async def test_a_call_that_does_not_stream_ends_with_its_client(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    await left(proxy, BODY)
    await soon(upstream.left)
    await in_flight(proxy, 0)


@pytest.mark.usefixtures("patient", "release")
async def test_a_stop_waits_for_no_head(proxy: Proxy, upstream: FakeUpstream) -> None:
    await left(proxy, STREAM)
    async with asyncio.timeout(5):
        await proxy.service.drain()
    await soon(upstream.left)
    await in_flight(proxy, 0)


@pytest.mark.usefixtures("patient")
async def test_no_other_key_is_tried_for_a_client_that_has_left(
    start: Start, upstream: FakeUpstream
) -> None:
    release = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.json_response({"error": {"code": 402}}, status=402)

    upstream.answer = answer
    proxy = await start(OPENROUTER_API_KEY="sk-or-v1-first-aaaaaaaaaaaa,sk-or-v1-next-bbbbbbbbbbb")
    await left(proxy, STREAM)
    release.set()
    await in_flight(proxy, 0)
    assert len(upstream.calls) == 1


async def test_a_client_that_leaves_while_connecting_costs_nothing(
    start: Start, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.sqlite3"
    with full_listener() as (full, _):
        proxy = await start(UPSTREAM=base_of(full), LEDGER=str(ledger))
        calling = asyncio.create_task(call(proxy, STREAM))
        await booked(ledger)
        calling.cancel()
        await in_flight(proxy, 0)
        await booked(ledger, 0)


@pytest.mark.usefixtures("patient", "release")
async def test_the_connection_of_one_too_many_is_closed_at_once(
    proxy: Proxy, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lingering, "MOST", 0)
    await left(proxy, STREAM)
    await soon(upstream.left)
    await in_flight(proxy, 0)


async def test_no_more_than_so_many_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "MOST", 2)
    who, head = Lingering(), asyncio.get_running_loop().create_future()
    calls = [asyncio.create_task(who.outlast(head)) for _ in range(3)]
    assert await calls[2] is None
    head.set_result("head")
    assert await asyncio.gather(*calls[:2]) == ["head"] * 2


async def test_who_lingers_at_the_end_is_let_go_and_nobody_lingers_after_it() -> None:
    who, never = Lingering(), asyncio.get_running_loop().create_future()
    first = asyncio.create_task(who.outlast(never))
    await asyncio.sleep(0)
    await who.end()
    assert first.result() is None
    assert await who.outlast(never) is None


@pytest.mark.parametrize("end", [ConnectionError(), None])
async def test_an_answer_that_does_not_come_is_none(end: Exception | None) -> None:
    who, head = Lingering(), asyncio.get_running_loop().create_future()
    call = asyncio.create_task(who.outlast(head))
    await asyncio.sleep(0)
    if end is None:
        head.cancel()
    else:
        head.set_exception(end)
    assert await call is None
