"""The live data: what is kept of the last hour, its bounds, and who gets it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp

from keyproxy.admin.events import MOST_READERS, TICK_SECONDS, Events
from keyproxy.admin.history import History
from keyproxy.admin.recent import CELL_SECONDS, CELLS, MINUTES, MOST_NAMES, Recent
from keyproxy.call import Cost, Head, Usage
from keyproxy.floods import Floods
from keyproxy.ledger.ledger import Ledger, opened
from keyproxy.record import Record
from keyproxy.settings import Address, Settings
from keyproxy.transport.connection import Serving
from keyproxy.transport.messages import NO_LINES
from keyproxy.transport.server import Server
from tests.conftest import KEY, Clock, Proxy, Start
from tests.records import entry
from tests.test_admin import HERE, look


def over(model: str = "a/b", client: str = "c", usd: str | None = "0.5", **facts: Any) -> Record:
    record = Record("POST", "/x", models=(model,), client=client, app="default", http_status=200)
    record.endpoint, record.provider = "POST /api/v1/chat/completions", "openrouter"
    record.booked = entry(reserved=None).attempts
    cost = None if usd is None else Cost(Decimal(usd), Decimal(usd), "exact")
    record.booked[0].end(cost, 200, "complete", 1.0)
    record.answer = Head(200, "", None, "")
    record.usage = Usage(input_tokens=3, output_tokens=4)
    for name, fact in facts.items():
        setattr(record, name, fact)
    return record


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Name and data of each event of a stream."""
    while block := await answer.content.readuntil(b"\n\n"):
        name, data = block.decode().removesuffix("\n\n").split("\n")
        yield name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def test_a_call_is_in_its_cell_and_in_the_hour() -> None:
    recent = Recent(wall=lambda: 1_800_000_003.0)
    recent.ended(over(is_streaming=True, first_byte_at=None))
    recent.ended(over("a/other", usd="0.25"))
    refusal = over(booked=[], code="rate_limited", side="client", http_status=429)
    refusal.hint = "KEYPROXY_RATE_LIMIT=off"
    recent.ended(refusal)
    recent.ended(over(usd="0", ended="upstream_cut"))
    [cell] = recent.cells()
    assert cell == [1_800_000_000, 2, 1, 1, 0.75, 9, 12, None, None]
    assert recent.tops(1)["model"] == [["a/b", 2, 0.5, 14], ["other", 1, 0.25, 7]]
    assert recent.tops(8)["provider"] == [["openrouter", 3, 0.75, 21]]
    assert [(row["code"], row["count"], row["hint"]) for row in recent.refusals()] == [
        ("rate_limited", 1, "KEYPROXY_RATE_LIMIT=off")
    ]
    assert [call["ended"] for call in recent.errors()] == ["upstream_cut"]
    assert len(recent.calls()) == 4


def test_after_an_hour_it_is_forgotten(clock: Clock) -> None:
    recent = Recent(wall=clock)
    recent.ended(over())
    clock.now += 3600 - CELL_SECONDS
    assert len(recent.cells()) == 1
    clock.now += CELL_SECONDS
    assert recent.cells() == []
    clock.now += 60
    assert recent.tops(8)["model"] == []
    recent.ended(over())  # in the same place of the ring
    assert [cell[1] for cell in recent.cells()] == [1]


def test_what_is_kept_does_not_grow_with_names(clock: Clock) -> None:
    recent = Recent(wall=clock)
    for number in range(10_000):
        clock.now += 0.5
        recent.ended(over(f"hostile/{number}" * 50, f"client {number}"))
    minutes = recent._minutes
    assert (len(minutes), len(recent._cells)) == (MINUTES, CELLS)
    names = [len(names) for minute in minutes for names in minute.sums.values()]
    assert max(names) == MOST_NAMES + 1
    assert max(len(name) for m in minutes for by in m.sums.values() for name in by) <= 120
    [*_, (rest, calls, _, _)] = recent.tops(8)["client"]
    assert rest == "other"
    assert calls + 8 == sum(row[1] for row in recent.tops(10**6)["client"])


def test_a_cost_told_later_counts_then_and_addresses_are_as_in_the_log(clock: Clock) -> None:
    recent = Recent(lambda: "prefix", wall=clock)
    record = over(client="192.0.2.0/24", request_id="req_1")
    said: dict[str, Any] = {
        "endpoint": "POST /api/v1/responses",
        "models": ("a/b",),
        "generation_id": "gen-1",
    }
    call = entry("req_1", client="192.0.2.7", **said)
    call.attempts[0].end(None, 200, "client_left", 1.0)
    record.booked = call.attempts
    recent.ended(record)
    assert recent.tops(8)["client"] == [["192.0.2.0/24", 1, 0.0, 0]]
    row = call.unsettled(None)
    row.attempt.cost = Decimal("0.1")
    recent.settled(row)
    assert recent.tops(8)["client"] == [["192.0.2.0/24", 1, 0.1, 0]]
    assert recent.calls()[0]["usd"] == 0.1


async def test_the_first_event_has_everything_and_the_next_a_call(start: Start) -> None:
    proxy = await start(ADMIN=HERE)
    async with proxy.post() as answer:
        await answer.read()
    async with asyncio.timeout(20), look(proxy, "/events") as answer:
        assert answer.content_type == "text/event-stream"
        told = events(answer)
        name, state = await anext(told)
        assert (name, len(state["calls"])) == ("state", 1)
        assert state["calls"][0]["model"] == "openai/gpt-4o-mini"
        assert [thing["name"] for thing in state["health"]] == [
            *("process", "keys", "prices", "storage", "ledger")
        ]
        async with proxy.post({"model": ""}) as refusal:
            assert refusal.status == 400
        tick: dict[str, Any] = {"refusals": []}
        while not tick["refusals"]:
            name, tick = await anext(told)
        assert (name, tick["refusals"][0]["code"]) == ("tick", "model_missing")
        assert sum(cell[2] for cell in tick["cells"]) == 1
    assert TICK_SECONDS <= 1


async def test_thirty_days_come_out_of_the_ledger(start: Start, tmp_path: Path) -> None:
    proxy = await start(ADMIN=HERE, LEDGER=str(tmp_path / "ledger.sqlite3"))
    async with proxy.post() as answer:
        await answer.read()
    book = proxy.service.accounting.book
    assert isinstance(book, Ledger)
    await book.flush()
    async with look(proxy, "/state.json") as answer:
        assert answer.content_type == "application/json"
        state = await answer.json()
    [[_, calls, usd, inputs, outputs]] = state["history"]["days"]
    assert (calls, usd, inputs, outputs) == (1, 0.000088, 14, 6)
    assert state["history"]["tops"]["client"] == [["127.0.0.1", 1, 0.000088, 20]]
    assert state["history"]["tops"]["provider"] == [["openrouter", 1, 0.000088, 20]]
    assert state["process"]["has_ledger"] is True


async def test_without_a_ledger_there_are_no_days(start: Start) -> None:
    proxy = await start(ADMIN=HERE)
    async with look(proxy, "/state.json") as answer:
        state = await answer.json()
    assert (state["history"], state["process"]["has_ledger"]) == (None, False)


async def test_the_ledger_is_asked_once_a_minute_whoever_looks(
    tmp_path: Path, clock: Clock, monkeypatch: Any
) -> None:
    async with opened(tmp_path / "ledger.sqlite3") as ledger:
        history = History(ledger, lambda: "prefix", clock)
        asked = 0
        read = History._read

        def counted(self: History, ledger: Ledger) -> dict[str, Any]:
            nonlocal asked
            asked += 1
            return read(self, ledger)

        monkeypatch.setattr(History, "_read", counted)
        await asyncio.gather(*(history.days() for _ in range(20)))
        assert asked == 1
        clock.now += 60
        await history.days()
        assert asked == 2
        assert history._client("web/2001:db8::/64") == "web/2001:db8::/48"
        assert history._client("2001:db8::/64") == "2001:db8::/48"
        assert history._client("192.0.2.7") == "192.0.2.0/24"
        assert history._client("phone") == "phone"


@asynccontextmanager
async def serving(made: Events) -> AsyncIterator[str]:
    settings = Settings.from_environ("dev", {"OPENROUTER_API_KEY": KEY})
    server = Server(Serving(made.show, lambda *_: NO_LINES, settings, 100, Floods()))
    [address] = await server.listen([Address("127.0.0.1", 0)])
    try:
        yield address
    finally:
        await made.close()
        await server.close()


async def test_a_reader_that_stops_to_read_is_cut_and_others_go_on() -> None:
    tick = 0

    async def more() -> dict[str, Any]:
        nonlocal tick
        tick += 1
        return {"tick": tick, "x": "y" * 200_000}

    made = Events(more, more, tick_seconds=0.001, unread_seconds=0.5)
    async with serving(made) as address, aiohttp.ClientSession() as session:
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port))) as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(30), session.get(f"http://{address}/") as answer:
                told = events(answer)
                while made.readers < 2:
                    await anext(told)
                while made.readers == 2:
                    await anext(told)
                _, then = await anext(told)
                assert (await anext(told))[1]["tick"] > then["tick"]


async def test_no_name_ends_a_line_of_an_event() -> None:
    async def odd() -> dict[str, Any]:
        return {"name": "a\u2028b\u0085c\nd\udc00"}

    async with (
        serving(Events(odd, odd)) as address,
        aiohttp.request("GET", f"http://{address}/") as answer,
    ):
        block = (await answer.content.readuntil(b"\n\n")).decode("ascii")
    _, data = block.strip().splitlines()
    assert json.loads(data.removeprefix("data: ")) == await odd()


async def test_ticks_are_made_once_for_all_and_only_while_somebody_reads() -> None:
    made = Events(_nothing, _nothing, tick_seconds=0.01)
    async with serving(made) as address, aiohttp.ClientSession() as session:
        answers = [await session.get(f"http://{address}/") for _ in range(20)]
        for answer in answers:
            told = events(answer)
            assert [(await anext(told))[0], (await anext(told))[0]] == ["state", "tick"]
        assert made.readers == 20
        ticking = made._ticking
        assert ticking is not None
        for answer in answers:
            answer.close()
        async with asyncio.timeout(10):
            await asyncio.wait([ticking])
        assert (made.readers, made._ticking) == (0, None)


async def test_dashboards_are_bounded(start: Start) -> None:
    proxy = await start(ADMIN=HERE)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        readers = [await look_on(session, proxy) for _ in range(MOST_READERS)]
        assert {answer.status for answer in readers} == {200}
        last = await look_on(session, proxy)
        assert (last.status, last.headers["X-Keyproxy-Code"]) == (503, "overloaded")
        async with proxy.post() as answer:
            assert answer.status == 200
        for answer in (*readers, last):
            answer.close()


async def test_a_stop_ends_what_dashboards_read(start: Start) -> None:
    proxy = await start(ADMIN=HERE)
    async with look(proxy, "/events") as answer:
        await answer.content.readuntil(b"\n\n")
        await proxy.service.close()
        async with asyncio.timeout(5):
            try:
                while await answer.content.readany():
                    pass
            except aiohttp.ClientPayloadError:
                pass


async def _nothing() -> dict[str, Any]:
    return {}


async def look_on(session: aiohttp.ClientSession, proxy: Proxy) -> aiohttp.ClientResponse:
    assert proxy.service.admin is not None
    return await session.get(f"http://{proxy.service.admin.addresses[0]}/events")
