"""Alerts: what is told to whom, when, how often; and that no call waits for it.

The receivers are real servers. ``look`` is called where the process would look within a second.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web

from keyproxy import logs
from keyproxy.admin.alerts import alert_of
from keyproxy.admin.conditions import Condition
from keyproxy.admin.outbox import MOST_HELD, PAUSES_SECONDS, Alert, Outbox, signature
from keyproxy.errors import SettingsFaults
from keyproxy.settings import Secret, Settings
from keyproxy.transport.client import open_clients, open_session
from tests.conftest import BODY, CHAT, KEY, Proxy, Start, inspected, settings
from tests.fake_upstream import FakeUpstream, completion, event_stream
from tests.program import environment, started
from tests.receiver import Receiver, receiving

SECRET = "whsec_0123456789abcdef"
COST = 0.000088  # of a call, as the fake upstream says


@pytest.fixture
def lines() -> Iterator[Any]:
    """Reads the lines about alerts so far."""
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    yield lambda: [
        line
        for line in map(json.loads, stream.getvalue().splitlines())
        if "alert" in line or "not delivered" in line["message"]
    ]
    structlog.reset_defaults()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def call(proxy: Proxy, times: int = 1, status: int = 200) -> None:
    for _ in range(times):
        async with proxy.post() as answer:
            await answer.read()
            assert answer.status == status


async def look(proxy: Proxy, receiver: Receiver, number: int) -> list[dict[str, Any]]:
    """What was told after a look, which is so much in all."""
    await proxy.service.alerts.look()
    if number:
        await receiver.told(number)
    assert len(receiver.got) == number
    return [each.alert for each in receiver.got]


async def test_spend_beyond_the_border_is_told_once_and_signed(
    lines: Any, start: Start, receiver: Receiver
) -> None:
    proxy = await start(
        ALERT_URL=receiver.url, ALERT_SECRET=SECRET, ALERT_SPEND="0.0001/hour;1/month"
    )
    await call(proxy)
    await look(proxy, receiver, 0)
    await call(proxy)
    [alert] = await look(proxy, receiver, 1)
    await call(proxy)
    await look(proxy, receiver, 1)

    assert re.fullmatch(r"alert_[0-9a-f]{24}", alert.pop("id"))
    at = datetime.fromisoformat(alert.pop("at"))
    assert abs(at - datetime.now(UTC)) < timedelta(minutes=1)
    instance = alert.pop("instance")
    assert instance.endswith(f":{proxy.port}")
    text = alert.pop("text")
    assert text == alert.pop("content")
    assert text == (
        f"keyproxy at {instance}: 0.00018 USD were spent in this hour, more than 0.0001 USD."
    )
    assert alert == {
        "alert": "spend",
        "state": "firing",
        "app": None,
        "value": 2 * COST,
        "limit": 0.0001,
    }
    [line] = lines()
    assert (line["alert"], line["state"], line["level"]) == ("spend", "firing", "warning")

    [got] = receiver.got
    assert got.headers["Content-Type"] == "application/json"
    said = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", got.headers["X-Keyproxy-Signature"])
    assert said is not None
    assert abs(int(said[1]) - time.time()) < 60
    signed = f"{said[1]}.".encode() + got.body
    assert said[2] == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()


async def test_the_process_looks_by_itself(start: Start, receiver: Receiver) -> None:
    proxy = await start(ALERT_URL=receiver.url, ALERT_SPEND="0.00001/day")
    await call(proxy)
    [alert] = await receiver.told()
    assert alert["alert"] == "spend"


async def test_the_next_hour_ends_it_and_begins_anew(
    lines: Any, start: Start, receiver: Receiver
) -> None:
    proxy = await start(ALERT_URL=receiver.url, ALERT_SPEND="0.0001/hour")
    wall = [time.time()]
    proxy.service.alerts.wall = lambda: wall[0]
    await call(proxy, 2)
    await look(proxy, receiver, 1)
    wall[0] += 3600
    fired, ended = await look(proxy, receiver, 2)
    assert (fired["state"], ended["state"]) == ("firing", "resolved")
    assert fired["id"] != ended["id"]
    assert {**fired, "id": 0, "at": 0, "state": 0, "text": 0, "content": 0} == {
        **ended, "id": 0, "at": 0, "state": 0, "text": 0, "content": 0
    }  # fmt: skip
    assert "No longer: 0.00018 USD were spent" in ended["text"]
    assert lines()[-1]["level"] == "info"
    await call(proxy, 2)
    assert (await look(proxy, receiver, 3))[-1]["state"] == "firing"


async def test_a_restart_reads_back_what_was_spent_in_the_running_window(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    said = {
        "LEDGER": str(tmp_path / "ledger.sqlite3"),
        "ALERT_URL": receiver.url,
        "ALERT_SPEND": "0.0001/month",
    }
    first = await start(**said)
    await call(first)
    await look(first, receiver, 0)
    await first.service.close()
    second = await start(**said)
    await look(second, receiver, 0)
    await call(second)
    [alert] = await look(second, receiver, 1)
    assert alert["value"] == 2 * COST


async def test_what_the_ledger_does_not_hold_yet_counts_all_the_same(
    lines: Any, start: Start, tmp_path: Path
) -> None:
    """A reload brings the border; the row of a call that has ended waits in memory."""
    path = str(tmp_path / "ledger.sqlite3")
    proxy = await start(LEDGER=path)
    await proxy.service.alerts.look()
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        await call(proxy, 2)
        base = proxy.upstream.base_url
        proxy.service.apply(settings(ALERT_SPEND="0.0001/month", UPSTREAM=base, LEDGER=path))
        await proxy.service.alerts.look()
    assert [line["value"] for line in lines() if line["alert"] == "spend"] == [2 * COST]


async def test_a_ledger_that_cannot_be_read_silences_no_alert(
    lines: Any, start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.sqlite3"
    said = {"LEDGER": str(path), "ALERT_URL": receiver.url}
    proxy = await start(**said)
    await proxy.service.alerts.look()
    await call(proxy, 2)
    path.unlink()
    upstream = proxy.upstream.base_url
    proxy.service.apply(settings(ALERT_SPEND="0.0001/month", UPSTREAM=upstream, **said))
    [alert] = await look(proxy, receiver, 1)
    assert (alert["alert"], alert["value"]) == ("spend", 2 * COST)


async def test_without_a_receiver_the_log_has_it_all_the_same(lines: Any, start: Start) -> None:
    proxy = await start(ALERT_SPEND="0.00001/day")
    await call(proxy)
    await proxy.service.alerts.look()
    [line] = lines()
    assert line["alert"] == "spend"


async def test_without_a_border_nothing_is_told(
    lines: Any, start: Start, receiver: Receiver
) -> None:
    proxy = await start(ALERT_URL=receiver.url)
    await call(proxy, 25)
    await look(proxy, receiver, 0)
    assert lines() == []
    assert "X-Keyproxy-Signature" not in str(receiver.got)


async def test_a_fifth_of_the_calls_failing_is_told_and_its_end_too(
    start: Start, upstream: FakeUpstream, receiver: Receiver
) -> None:
    async def broken(request: web.Request) -> web.Response:
        return web.json_response({"error": {"code": 503, "message": "no"}}, status=503)

    proxy = await start(ALERT_URL=receiver.url, RATE_LIMIT="off")
    upstream.answer = broken
    await call(proxy, 4, status=503)
    upstream.answer = None
    await call(proxy, 15)
    await look(proxy, receiver, 0)  # of 19 calls
    await call(proxy)
    [alert] = await look(proxy, receiver, 1)
    assert (alert["alert"], alert["value"], alert["limit"]) == ("calls_failing", 0.2, 0.2)
    assert "4 of 20 calls of the last 5 minutes failed (20%)." in alert["text"]
    await call(proxy)
    ended = (await look(proxy, receiver, 2))[-1]
    assert (ended["alert"], ended["state"]) == ("calls_failing", "resolved")


async def test_what_counts_as_a_failure(
    start: Start, upstream: FakeUpstream, receiver: Receiver
) -> None:
    """Refused callers and the caller's own faults say nothing of how we fare."""

    async def told(request: web.Request) -> web.StreamResponse:
        status = len(upstream.calls)
        if status == 1:
            response = await event_stream(request)
            await response.write(b'data: {"error":{"code":500,"message":"x"}}\n\n')
            return response
        statuses = {2: 500, 3: 429, 4: 402, 5: 401, 6: 400, 7: 404}
        if status not in statuses:
            return completion()
        return web.json_response({"error": {"message": "x"}}, status=statuses[status])

    upstream.answer = told
    proxy = await start("serve", ALERT_URL=receiver.url, RATE_LIMIT="off", ADDRESS_RATE_LIMIT="off")
    for _ in range(30):
        async with proxy.post(BODY | {"model": "x/y"}) as answer:
            assert answer.status == 403
    for _ in range(20):
        async with proxy.post() as answer:
            await answer.read()
    failures = proxy.service.readers.failures
    assert failures.counts() == (20, 5)
    [alert] = await look(proxy, receiver, 1)
    assert alert["value"] == 0.25


async def test_calls_are_forgotten_after_five_minutes(
    start: Start, upstream: FakeUpstream, receiver: Receiver
) -> None:
    proxy = await start(ALERT_URL=receiver.url, UPSTREAM="http://127.0.0.1:9/api/v1")
    failures, now = proxy.service.readers.failures, [1000.0]
    failures.clock = lambda: now[0]
    await call(proxy, 20, status=502)
    await look(proxy, receiver, 1)
    now[0] += 290
    await look(proxy, receiver, 1)
    now[0] += 21
    assert failures.counts() == (0, 0)
    assert (await look(proxy, receiver, 2))[-1]["state"] == "resolved"


async def test_a_budget_at_80_and_at_100_percent(start: Start, receiver: Receiver) -> None:
    proxy = await start(ALERT_URL=receiver.url, TOTAL_BUDGET="0.0002/day", UNPRICED="allow")
    await call(proxy, 1)
    await look(proxy, receiver, 0)
    await call(proxy, 1)
    [alert] = await look(proxy, receiver, 1)
    assert (alert["alert"], alert["app"]) == ("budget_80", None)
    assert (alert["value"], alert["limit"]) == (2 * COST, 0.0002)
    assert "Of the budget of all apps together, 0.0002 USD a day, 0.00018 USD are" in alert["text"]
    await call(proxy, 1)
    alert = (await look(proxy, receiver, 2))[-1]
    assert alert["alert"] == "budget_100"
    assert "calls are refused until" in alert["text"]
    await call(proxy, status=402)
    await look(proxy, receiver, 2)


async def test_the_budget_of_an_app_names_it(start: Start, receiver: Receiver) -> None:
    proxy = await start(ALERT_URL=receiver.url, APP_BUDGET="0.0001/month")
    await call(proxy, 2)
    alerts = await look(proxy, receiver, 2)
    assert [(each["alert"], each["app"]) for each in alerts] == [
        ("budget_80", "default"),
        ("budget_100", "default"),
    ]


async def test_a_key_that_is_rejected_and_taken_back(
    start: Start, upstream: FakeUpstream, receiver: Receiver
) -> None:
    upstream.key_status = 401
    proxy = await start(ALERT_URL=receiver.url)
    await inspected(proxy)
    [alert] = await look(proxy, receiver, 1)
    assert (alert["alert"], alert["app"]) == ("key_rejected", "default")
    assert KEY not in json.dumps(alert)
    upstream.key_status = 200
    proxy.service.assembly.keys.inspect(proxy.service.settings.all_keys)
    await inspected(proxy)
    assert (await look(proxy, receiver, 2))[-1]["state"] == "resolved"


async def test_a_key_that_nears_its_limit_and_its_end(
    start: Start, upstream: FakeUpstream, receiver: Receiver
) -> None:
    ends = datetime.now(UTC) + timedelta(days=6.5)
    upstream.key_report |= {
        "limit": 20,
        "limit_remaining": 1.5,
        "expires_at": ends.isoformat().replace("+00:00", "Z"),
    }
    proxy = await start(ALERT_URL=receiver.url)
    await inspected(proxy)
    credit, expires = await look(proxy, receiver, 2)
    assert (credit["alert"], credit["value"], credit["limit"]) == ("key_credit", 18.5, 20)
    assert "20 USD, 1.5 are left." in credit["text"]
    assert (expires["alert"], expires["limit"]) == ("key_expires", 7)
    assert 6.4 < expires["value"] <= 6.5


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"limit": 20, "limit_remaining": 2.01},
        {"limit": None, "limit_remaining": None},
        {"limit": 0, "limit_remaining": 0, "expires_at": "never"},
        {"expires_at": "2999-01-01T00:00:00Z"},
        {"expires_at": "0001-01-01T00:00:00+23:59"},  # no time in UTC
        {"expires_at": "9999-12-31T23:59:59-23:59"},
    ],
)
async def test_a_key_that_is_well_is_not_told_of(
    start: Start, upstream: FakeUpstream, receiver: Receiver, report: dict[str, Any]
) -> None:
    upstream.key_report |= report
    proxy = await start(ALERT_URL=receiver.url)
    await inspected(proxy)
    await look(proxy, receiver, 0)


async def test_a_storage_that_is_down(start: Start, receiver: Receiver) -> None:
    proxy = await start(ALERT_URL=receiver.url, STORAGE="redis://127.0.0.1:9")
    await call(proxy)
    [alert] = await look(proxy, receiver, 1)
    assert alert["alert"] == "storage_down"
    assert "KEYPROXY_STORAGE_FAILURE is local" in alert["text"]


async def test_a_ledger_that_cannot_be_written(
    start: Start, receiver: Receiver, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.sqlite3"
    proxy = await start(ALERT_URL=receiver.url, LEDGER=str(path))
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        await call(proxy)
        [alert] = await look(proxy, receiver, 1)
        assert alert["alert"] == "ledger_down"
        await call(proxy)


async def test_what_flickers_is_told_once_in_a_minute(start: Start, receiver: Receiver) -> None:
    proxy = await start(ALERT_URL=receiver.url)
    alerts, now, found = proxy.service.alerts, [1000.0], [Condition("x", "It is so.", 1, 0)]

    class Flickering:
        async def look(self, at: float) -> list[Condition]:
            return found

    alerts.conditions = Flickering()  # type: ignore[assignment]
    alerts.clock = lambda: now[0]
    await look(proxy, receiver, 1)
    for _ in range(5):
        found.clear()
        await alerts.look()
        found.append(Condition("x", "It is so.", 1, 0))
        now[0] += 5
        await alerts.look()
    await look(proxy, receiver, 2)  # firing, resolved
    now[0] += 60
    await look(proxy, receiver, 3)


async def test_a_reload_changes_who_is_told(
    start: Start, receiver: Receiver, upstream: FakeUpstream
) -> None:
    proxy = await start(ALERT_SPEND="0.00001/day", ALERT_URL="http://127.0.0.1:9/gone")
    async with receiving() as other:
        given = settings(ALERT_SPEND="0.00001/day", ALERT_URL=other.url, UPSTREAM=upstream.base_url)
        proxy.service.apply(given)
        await call(proxy)
        await look(proxy, other, 1)
    assert receiver.got == []


# The end of a process, and the next one.


async def test_what_is_found_at_the_stop_is_delivered_before_it(
    upstream: FakeUpstream, receiver: Receiver, tmp_path: Path
) -> None:
    """Also by a receiver that fails the first time: the stop waits for no pause."""
    receiver.answer_with(500, 200)
    said = {"KEYPROXY_ALERT_URL": receiver.url, "KEYPROXY_ALERT_SPEND": "0.00001/day"}
    said["KEYPROXY_UPSTREAM"] = upstream.base_url
    async with started("dev", tmp_path, **said) as program:
        async with (
            aiohttp.ClientSession() as session,
            session.post(program.url + CHAT, json=BODY) as answer,
        ):
            assert answer.status == 200
        await program.stop()
        first, again = await receiver.told(2)
    assert first == again
    assert first["alert"] == "spend"
    assert "not delivered" not in program.text


async def test_what_is_held_is_delivered_though_the_last_look_fails(
    lines: Any, start: Start, receiver: Receiver
) -> None:
    class Blind:
        async def look(self, at: float) -> list[Condition]:
            raise OSError("no look")

    receiver.answer_with(500, 200)
    proxy = await start(ALERT_URL=receiver.url, ALERT_SPEND="0.00001/day")
    await call(proxy)
    await look(proxy, receiver, 1)
    proxy.service.alerts.conditions = Blind()  # type: ignore[assignment]
    await proxy.service.drain()
    assert len(receiver.got) == 2
    assert [line["alert"] for line in lines()] == ["spend"]


async def test_what_is_left_at_the_stop_is_said(
    lines: Any, start: Start, receiver: Receiver
) -> None:
    never = asyncio.Event()

    async def hang(request: web.BaseRequest) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    receiver.answer = hang
    proxy = await start(ALERT_URL=receiver.url, ALERT_SPEND="0.00001/day;0.00002/month")
    await call(proxy)
    await look(proxy, receiver, 1)
    await proxy.service.drain()
    await proxy.service.close()
    first, second, left = lines()
    assert left["message"] == "alerts were not delivered before the stop"
    assert (left["level"], left["count"]) == ("error", 2)
    assert left["ids"] == [first["id"], second["id"]]


@pytest.fixture
def kept(tmp_path: Path, receiver: Receiver) -> dict[str, str]:
    """Settings of a process and of the next one."""
    return {"LEDGER": str(tmp_path / "ledger.sqlite3"), "ALERT_URL": receiver.url}


async def ended(proxy: Proxy) -> None:
    await proxy.service.drain()
    await proxy.service.close()
    await proxy.service.accounting.book.close()  # type: ignore[union-attr]


async def test_the_next_process_tells_the_end_of_what_an_earlier_one_told(
    start: Start, receiver: Receiver, kept: dict[str, str]
) -> None:
    first = await start(ALERT_SPEND="0.0001/month", **kept)
    await call(first, 2)
    [fired] = await look(first, receiver, 1)
    await ended(first)
    second = await start(ALERT_SPEND="5/month", **kept)
    _, over = await look(second, receiver, 2)
    assert (over["alert"], over["state"]) == ("spend", "resolved")
    assert over["text"] == fired["text"].replace(": ", ": No longer: ", 1)
    assert over["instance"] == fired["instance"]
    assert (over["value"], over["limit"]) == (fired["value"], fired["limit"])
    await ended(second)
    third = await start(ALERT_SPEND="5/month", **kept)
    await look(third, receiver, 2)


async def test_what_a_killed_process_told_is_over_for_the_next(
    upstream: FakeUpstream, receiver: Receiver, kept: dict[str, str], tmp_path: Path
) -> None:
    said = {f"KEYPROXY_{name}": text for name, text in kept.items()}
    said["KEYPROXY_UPSTREAM"] = upstream.base_url
    tight, wide = {"KEYPROXY_ALERT_SPEND": "0.00001/month"}, {"KEYPROXY_ALERT_SPEND": "1/month"}
    async with started("dev", tmp_path, **said, **tight) as program:
        async with (
            aiohttp.ClientSession() as session,
            session.post(program.url + CHAT, json=BODY) as answer,
        ):
            assert answer.status == 200
        [fired] = await receiver.told()
        async with asyncio.timeout(10):
            while not told_rows(kept["LEDGER"]):
                await asyncio.sleep(0.01)
        program.signal(signal.SIGKILL)
        await program.ended()
    async with started("dev", tmp_path, **said, **wide) as program:
        _, over = await receiver.told(2)
        await program.stop()
    assert (over["state"], over["instance"]) == ("resolved", fired["instance"])
    assert told_rows(kept["LEDGER"]) == []


def told_rows(path: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        known = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'told'").fetchall()
        return known and connection.execute("SELECT * FROM told").fetchall()


async def test_what_still_fires_after_a_restart_is_not_told_anew(
    start: Start, receiver: Receiver, kept: dict[str, str]
) -> None:
    said = {**kept, "ALERT_SPEND": "0.0001/month"}
    first = await start(**said)
    await call(first, 2)
    await look(first, receiver, 1)
    await ended(first)
    second = await start(**said)
    await look(second, receiver, 1)
    await call(second)
    await look(second, receiver, 1)
    second.service.apply(settings(UPSTREAM=second.upstream.base_url, **kept))
    assert [each["state"] for each in await look(second, receiver, 2)] == ["firing", "resolved"]


async def test_what_nobody_took_is_told_by_the_next_process(
    start: Start, receiver: Receiver, kept: dict[str, str]
) -> None:
    receiver.answer_with(503)
    said = {**kept, "ALERT_SPEND": "0.0001/month"}
    first = await start(**said)
    await call(first, 2)
    await look(first, receiver, 1)
    await ended(first)
    receiver.answer, refused = None, len(receiver.got)
    second = await start(**said)
    alert = (await look(second, receiver, refused + 1))[-1]
    assert (alert["alert"], alert["state"]) == ("spend", "firing")
    await look(second, receiver, refused + 1)


async def test_a_key_is_not_well_again_before_the_next_process_has_asked(
    start: Start, upstream: FakeUpstream, receiver: Receiver, kept: dict[str, str]
) -> None:
    upstream.key_status = 401
    first = await start(**kept)
    await inspected(first)
    await look(first, receiver, 1)
    await ended(first)
    may_answer = asyncio.Event()

    async def late(request: web.Request) -> web.Response:
        await may_answer.wait()
        return web.json_response({}, status=upstream.key_status)

    upstream.key_answer = late
    second = await start(**kept)
    await look(second, receiver, 1)
    may_answer.set()
    await inspected(second)
    await look(second, receiver, 1)
    upstream.key_status, upstream.key_answer = 200, None
    second.service.assembly.keys.inspect(second.service.settings.all_keys)
    await inspected(second)
    assert [each["state"] for each in await look(second, receiver, 2)] == ["firing", "resolved"]


async def test_calls_do_not_go_well_again_because_a_process_has_seen_none(
    start: Start, upstream: FakeUpstream, receiver: Receiver, kept: dict[str, str]
) -> None:
    async def broken(request: web.Request) -> web.Response:
        return web.json_response({"error": {"code": 500, "message": "no"}}, status=500)

    upstream.answer = broken
    first = await start(RATE_LIMIT="off", **kept)
    await call(first, 20, status=500)
    await look(first, receiver, 1)
    await ended(first)
    second = await start(RATE_LIMIT="off", **kept)
    await look(second, receiver, 1)
    await call(second, 20, status=500)
    await look(second, receiver, 1)
    await ended(second)
    upstream.answer = None
    third = await start(RATE_LIMIT="off", **kept)
    await call(third, 19)
    await look(third, receiver, 1)
    await call(third)
    over = (await look(third, receiver, 2))[-1]
    assert (over["alert"], over["state"]) == ("calls_failing", "resolved")
    await ended(third)


async def test_after_five_minutes_without_calls_a_process_says_so(
    start: Start, upstream: FakeUpstream, receiver: Receiver, kept: dict[str, str]
) -> None:
    first = await start(UPSTREAM="http://127.0.0.1:9/api/v1", **kept)
    await call(first, 20, status=502)
    await look(first, receiver, 1)
    await ended(first)
    second = await start(**kept)
    now = [time.monotonic()]
    second.service.alerts.clock = lambda: now[0]
    await look(second, receiver, 1)
    now[0] += 301
    over = (await look(second, receiver, 2))[-1]
    assert (over["alert"], over["state"]) == ("calls_failing", "resolved")


# Receivers that do not take it.


@pytest.fixture
async def posting(upstream: FakeUpstream) -> AsyncIterator[Any]:
    """Makes an outbox that is running, and a list of its pauses."""
    tasks: list[asyncio.Task[None]] = []
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    async with open_clients(settings(UPSTREAM=upstream.base_url)) as (_, pools):

        def made_of(given: Settings) -> tuple[Outbox, list[float]]:
            box = Outbox(lambda url: open_session(given, url, pools.trust), lambda: given, pause)
            tasks.append(asyncio.create_task(box.run()))
            return box, pauses

        yield made_of
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def numbered(number: int = 0) -> Alert:
    return alert_of(Condition("spend", "x", number, 0), "firing", "x", "here:1", 0.0)


@pytest.mark.parametrize("how", ["hangs", "fails", "redirects"])
async def test_a_receiver_that_takes_nothing_delays_no_call(
    start: Start, receiver: Receiver, how: str
) -> None:
    never = asyncio.Event()

    async def take_nothing(request: web.BaseRequest) -> web.StreamResponse:
        if how == "hangs":
            await never.wait()
        status = 500 if how == "fails" else 307
        return web.Response(status=status, headers={"Location": receiver.url})

    receiver.answer = take_nothing
    proxy = await start(ALERT_URL=receiver.url, ALERT_SPEND="0.00001/day")
    await call(proxy)
    await look(proxy, receiver, 1)
    await call(proxy, 20)  # while it waits for the receiver, or for its next try
    assert {each.alert["alert"] for each in receiver.got} == {"spend"}
    await proxy.service.close()  # nor does it delay the stop


async def test_a_receiver_that_fails_is_asked_again_with_the_same_id(
    posting: Any, receiver: Receiver
) -> None:
    receiver.answer_with(500, 404, 429, 200)
    box, pauses = posting(settings(ALERT_URL=receiver.url, ALERT_SECRET=SECRET))
    box.put(numbered())
    told = await receiver.told(4)
    assert len({each["id"] for each in told}) == 1
    assert pauses == list(PAUSES_SECONDS[:3])


async def test_one_that_is_never_taken_is_given_up_and_the_next_one_sent(
    lines: Any, posting: Any, receiver: Receiver
) -> None:
    async def fail(request: web.BaseRequest) -> web.StreamResponse:
        is_first = json.loads(await request.read())["value"] == 0
        return web.Response(status=400 if is_first else 204)

    receiver.answer = fail
    box, pauses = posting(settings(ALERT_URL=receiver.url))
    box.put(numbered(0))
    box.put(numbered(1))
    tries = len(PAUSES_SECONDS) + 1
    told = await receiver.told(tries + 1)
    assert [each["value"] for each in told] == [0] * tries + [1]
    assert pauses == list(PAUSES_SECONDS)


async def test_a_redirect_is_not_followed(posting: Any, receiver: Receiver) -> None:
    async with receiving() as other:
        answers = iter([307, 302, 200])

        async def elsewhere(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=next(answers), headers={"Location": other.url})

        receiver.answer = elsewhere
        box, _ = posting(settings(ALERT_URL=receiver.url))
        box.put(numbered())
        await receiver.told(3)
        assert other.got == []


async def test_a_hundred_are_held(posting: Any, receiver: Receiver) -> None:
    go_on, is_asked = asyncio.Event(), asyncio.Event()

    async def hang(request: web.BaseRequest) -> web.StreamResponse:
        is_asked.set()
        await go_on.wait()
        return web.Response()

    receiver.answer = hang
    box, _ = posting(settings(ALERT_URL=receiver.url))
    box.put(numbered(0))
    await is_asked.wait()
    for number in range(1, 151):
        box.put(numbered(number))
    go_on.set()
    told = await receiver.told(1 + MOST_HELD)
    assert [each["value"] for each in told] == [0, *range(51, 151)]


async def test_an_endless_answer_is_not_read(posting: Any, receiver: Receiver) -> None:
    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        if len(receiver.got) > 1:
            return web.Response()
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65_536)

    receiver.answer = endless
    box, pauses = posting(settings(ALERT_URL=receiver.url))
    box.put(numbered(0))
    box.put(numbered(1))
    assert [each["value"] for each in await receiver.told(2)] == [0, 1]
    assert pauses == []


async def test_why_it_cannot_be_delivered_is_said_without_the_address(
    posting: Any,
) -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    box, _ = posting(
        settings(ALERT_URL="http://127.0.0.1:9/services/T0/B0/hidden-token", ALERT_SECRET=SECRET)
    )
    box.put(numbered())
    async with asyncio.timeout(10):
        while "was not delivered" not in stream.getvalue():
            await asyncio.sleep(0.01)
    structlog.reset_defaults()
    text = stream.getvalue()
    assert "cannot be reached" in text
    assert text.count("cannot be delivered") == 1
    assert "hidden-token" not in text
    assert SECRET not in text


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"ALERT_URL": "http://hooks.example/T0/hidden-token"}, "clear"),
        ({"ALERT_URL": "https://me:hidden-token@hooks.example/"}, "without user"),
        ({"ALERT_URL": "hooks.example/hidden-token"}, "https://"),
        ({"ALERT_URL": "https://hooks.example/", "ALERT_SECRET": "hidden"}, "8 to 256"),
        ({"ALERT_SECRET": "hidden-secret-of-ours"}, "KEYPROXY_ALERT_URL is not set"),
        ({"ALERT_SPEND": "much"}, "KEYPROXY_ALERT_SPEND"),
    ],
)
def test_an_address_that_is_none_is_not_repeated(variables: dict[str, str], expected: str) -> None:
    with pytest.raises(SettingsFaults) as faults:
        settings(**variables)
    assert expected in str(faults.value)
    assert "hidden" not in str(faults.value)


# What the docs tell receivers to do.

DOCS = (Path(__file__).parent.parent / "docs" / "watching.md").read_text()
BODY_SENT = '{"id": "alert_1", "text": "Grüße"}'.encode()


def block(language: str) -> str:
    return DOCS.partition(f"```{language}\n")[2].partition("```")[0]


def cases() -> list[tuple[str, bytes, bool]]:
    """A header, a body, and whether that is an alert of ours."""
    now = int(time.time())
    good = signature(Secret(SECRET), BODY_SENT, now)
    return [
        (good, BODY_SENT, True),
        (good, BODY_SENT + b" ", False),
        (signature(Secret("another-secret"), BODY_SENT, now), BODY_SENT, False),
        (signature(Secret(SECRET), BODY_SENT, now - 400), BODY_SENT, False),
        (good.replace("t=", "t=1"), BODY_SENT, False),
        ("", BODY_SENT, False),
        ("t=1,v1=zz", BODY_SENT, False),
    ]


def test_the_receivers_check_of_the_docs_in_python() -> None:
    names: dict[str, Any] = {}
    exec(block("python"), names)  # noqa: S102 - our own page
    for header, body, is_ours in cases():
        assert names["is_from_keyproxy"](SECRET, header, body) is is_ours, header


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_receivers_check_of_the_docs_in_javascript(tmp_path: Path) -> None:
    given = [[header, body.decode()] for header, body, _ in cases()]
    script = tmp_path / "receiver.mjs"
    script.write_text(
        block("js")
        + f"const cases = {json.dumps(given)};\n"
        + f"const check = ([head, body]) => isFromKeyproxy({SECRET!r}, head, Buffer.from(body));\n"
        + "console.log(JSON.stringify(cases.map(check)));"
    )
    done = subprocess.run(["node", str(script)], capture_output=True, check=True, timeout=30)
    assert json.loads(done.stdout) == [is_ours for *_, is_ours in cases()]


# keyproxy check --send-test-alert


async def checked(upstream: FakeUpstream, **variables: str) -> tuple[int, str]:
    """Exit code and output."""
    said = {f"KEYPROXY_{name}": text for name, text in variables.items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keyproxy", "check", "--send-test-alert"),
        env=environment(OPENROUTER_API_KEY=KEY, KEYPROXY_UPSTREAM=upstream.base_url, **said),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_a_test_alert_says_whether_it_arrives(
    upstream: FakeUpstream, receiver: Receiver
) -> None:
    upstream.key_report |= {"limit": 20, "limit_remaining": 15}
    said = {"ALERT_URL": receiver.url, "ALERT_SECRET": SECRET, "ALERT_SPEND": "2/hour"}
    code, output = await checked(upstream, **said)
    assert code == 0, output
    assert output.endswith("test alert: taken by the receiver (signed)\n")
    assert "alerts: to 127.0.0.1, signed; spend beyond 2 USD an hour\n" in output
    assert "s3cret-path" not in output
    [got] = receiver.got
    assert (got.alert["alert"], got.alert["state"]) == ("test", "firing")
    assert got.headers["X-Keyproxy-Signature"].startswith("t=")

    receiver.answer_with(410)
    code, output = await checked(upstream, ALERT_URL=receiver.url)
    assert code == 1
    assert output.endswith("error: the test alert was not taken: status 410\n")
    code, output = await checked(upstream)
    assert code == 2
    assert "KEYPROXY_ALERT_URL is not set" in output
