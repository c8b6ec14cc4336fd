"""Budgets through real sockets: what is set aside, refused, given back and booked."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from keyproxy.call import Client
from keyproxy.limits.counters import Counters
from keyproxy.money.budget import Budgets, Kind, levels, shown
from keyproxy.settings.grammar.plain import Budget
from keyproxy.transport.pool import Origin
from tests.conftest import CHAT, SERVE, Proxy, Start, refused, settings
from tests.counting import standings
from tests.fake_upstream import FakeUpstream, event_stream, serving

MODEL = "openai/gpt-4o-mini"
# 100,000 tokens of context at 0.0000001 USD, and 0.00001 USD for each token of an answer.
ROW = {
    "id": MODEL,
    "context_length": 100_000,
    "pricing": {"prompt": "0.0000001", "completion": "0.00001"},
    "top_provider": {"max_completion_tokens": 50_000},
}
UNPRICED = {"id": "openai/unknown", "pricing": {"prompt": "0", "completion": "0"}}
FREE = {"id": "openai/gift:free", "pricing": {"prompt": "0", "completion": "0"}}
BODY = {"model": MODEL, "max_tokens": 1000, "messages": [{"role": "user", "content": "x"}]}
"""Could cost 0.01 USD for its answer and some 0.0001 for what it reads."""


def billed(cost: Any, **usage: Any) -> web.Response:
    said = {"prompt_tokens": 10, "completion_tokens": 5, "cost": cost, **usage}
    return web.json_response({"id": "gen-1790981416-AbCd", "model": MODEL, "usage": said})


class Books(FakeUpstream):
    """An upstream with prices, that charges ``cost`` for each call."""

    cost: Any = 0.001
    has_prices = True
    generations: dict[str, Any]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/api/v1/models" and not self.has_prices:
            return web.json_response({"error": {"code": 502}}, status=502)
        if request.path == "/api/v1/models":
            return web.json_response({"data": [ROW, UNPRICED, FREE]})
        if request.path.endswith("/endpoints"):
            return web.json_response({"error": {"code": 404}}, status=404)
        if request.path == "/api/v1/generation":
            found = self.generations.get(request.query["id"])
            if callable(found):
                found = found()
            return web.json_response({"data": found}, status=200 if found else 404)
        return await super().handle(request)


@pytest.fixture
async def upstream() -> AsyncIterator[Books]:
    fake = Books()
    fake.generations = {}

    async def charge(request: web.Request) -> web.StreamResponse:
        return billed(fake.cost)

    fake.answer = charge
    async with serving(fake):
        yield fake


async def status(proxy: Proxy, **more: Any) -> int:
    async with proxy.post({**BODY, **more}) as answer:
        await answer.read()
        return int(answer.status)


async def settled(proxy: Proxy) -> None:
    """Wait for what follows the answers."""
    accounting = proxy.service.accounting
    while accounting._tasks or accounting._unread:
        await asyncio.gather(*accounting._tasks, asyncio.sleep(0.001))


async def statuses_through(start: Start, path: Path, *said: dict[str, str]) -> list[list[int]]:
    """Two calls of 0.001 USD each after a start and after each reload of what is said."""
    found: list[list[int]] = []
    proxy = await start("serve", LEDGER=str(path), RATE_LIMIT="off", **said[0])
    for number, variables in enumerate(said):
        if number:
            more = SERVE | {"RATE_LIMIT": "off", "LEDGER": str(path)} | variables
            upstream = proxy.upstream.base_url
            proxy.service.apply(settings("serve", **more).kept(upstream=upstream))
            await settled(proxy)
        found.append([])
        for _ in range(2):
            found[-1].append(await status(proxy, max_tokens=100))  # could cost 0.0011
            await settled(proxy)
    return found


@pytest.mark.parametrize("name", ["BUDGET", "APP_BUDGET", "TOTAL_BUDGET"])
async def test_a_budget_that_a_reload_brings_knows_what_was_spent(
    start: Start, upstream: Books, tmp_path: Path, name: str
) -> None:
    found = await statuses_through(start, tmp_path / "ledger", {}, {name: "0.0035/month"})
    assert found == [[200, 200], [200, 402]]
    assert len(upstream.calls) == 3


async def test_a_longer_window_that_a_reload_brings_is_counted_and_no_other_twice(
    start: Start, upstream: Books, tmp_path: Path
) -> None:
    said = (
        {"BUDGET": "0.0045/day"},
        {"BUDGET": "0.0045/day;0.0055/month"},
        {"BUDGET": "0.0065/day;0.0055/month", "APP_BUDGET": "1/month"},
    )
    found = await statuses_through(start, tmp_path / "ledger", *said)
    assert found == [[200, 200], [200, 200], [200, 402]]
    assert len(upstream.calls) == 5


async def test_a_budget_that_was_away_for_a_while_counts_what_it_missed(
    start: Start, upstream: Books, tmp_path: Path
) -> None:
    one: dict[str, str] = {"BUDGET": "0.0065/day"}
    found = await statuses_through(start, tmp_path / "ledger", one, {}, one, one)
    assert found == [[200, 200], [200, 200], [200, 200], [402, 402]]
    assert len(upstream.calls) == 6


async def test_a_budget_that_a_reload_brings_waits_for_a_ledger_that_is_locked(
    start: Start, upstream: Books, tmp_path: Path
) -> None:
    path = tmp_path / "ledger"
    proxy = await start("serve", LEDGER=str(path), RATE_LIMIT="off")
    said = SERVE | {"RATE_LIMIT": "off", "LEDGER": str(path), "BUDGET": "0.0015/month"}
    with closing(sqlite3.connect(path, isolation_level=None)) as other, capture_logs() as logs:
        other.execute("BEGIN IMMEDIATE")
        assert await status(proxy, max_tokens=100) == 200  # its row waits in line
        proxy.service.apply(settings("serve", **said).kept(upstream=proxy.upstream.base_url))
        async with asyncio.timeout(10):
            while not any(log["event"].startswith("new budgets do not count") for log in logs):
                await asyncio.sleep(0.01)
        other.execute("ROLLBACK")
        await settled(proxy)
    assert "new budgets count what was spent before" in [log["event"] for log in logs]
    assert await status(proxy, max_tokens=100) == 402
    assert len(upstream.calls) == 1


async def test_a_window_that_does_not_hold_a_call_yet_is_not_corrected_for_it() -> None:
    """Its row will be read as it has been settled."""
    noon, usd = 20_728 * 86_400 + 43_200.0, 1_000_000_000
    counters, client = Counters(wall=lambda: noon), Client("203.0.113.9", "203.0.113.9")
    unread: dict[Kind, float] = {("client", "default", "day"): noon}
    budgets = Budgets(
        counters, app="default", of_client=[Budget(Decimal(100), "day")], unread=unread
    )
    reservation = await budgets.reserve(client, 5 * usd, noon + 1)

    async def spent() -> int:
        standing = (await standings(counters, reservation.windows))[0]
        return standing.window.amount - standing.remaining

    await budgets.correct(client.id, noon - 1, Decimal(-3))
    assert await spent() == 5 * usd
    await budgets.correct(client.id, noon + 1, Decimal(-1))
    assert await spent() == 4 * usd
    unread.clear()
    await budgets.correct(client.id, noon - 1, Decimal(-3))
    assert await spent() == usd


async def test_a_budget_admits_calls_until_it_is_spent(start: Start, upstream: Books) -> None:
    proxy = await start("serve", BUDGET="0.02/day", TOTAL_BUDGET="off", RATE_LIMIT="off")
    upstream.cost = 0.009
    found = []
    for _ in range(3):
        found.append(await status(proxy))
        await settled(proxy)
    assert found == [200, 200, 402]
    assert len(upstream.calls) == 2


async def test_the_surplus_of_a_reservation_is_given_back(start: Start, upstream: Books) -> None:
    """Each call could cost 0.0101 USD, and costs a tenth."""
    proxy = await start("serve", BUDGET="0.02/day", TOTAL_BUDGET="off", RATE_LIMIT="off")
    for _ in range(9):
        assert await status(proxy) == 200
        await settled(proxy)
    assert len(upstream.calls) == 9


async def test_a_call_that_does_not_fit_is_told_which_length_would(
    start: Start, upstream: Books
) -> None:
    proxy = await start("serve", BUDGET="0.01/day", TOTAL_BUDGET="off")
    async with proxy.post({**BODY, "max_tokens": 2000}) as answer:
        error = await refused(answer, 402, "call_too_costly")
        assert "Retry-After" not in answer.headers
        assert answer.headers["x-should-retry"] == "false"
    tokens = int(error["message"].rpartition("max_tokens ≤ ")[2].rstrip("."))
    assert upstream.calls == []
    assert 900 < tokens < 1000
    assert await status(proxy, max_tokens=tokens + 1) == 402
    assert await status(proxy, max_tokens=tokens) == 200


async def test_a_spent_budget_says_which_and_until_when(start: Start, upstream: Books) -> None:
    proxy = await start("serve", BUDGET="0.0105/day", TOTAL_BUDGET="off", RATE_LIMIT="off")
    upstream.cost = 0.0105
    assert await status(proxy) == 200
    await settled(proxy)
    async with proxy.post(BODY, headers={"Origin": "https://app.example"}) as answer:
        error = await refused(answer, 402, "budget_exhausted")
        assert 0 < int(answer.headers["Retry-After"]) <= 86_400
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert "0.0105 USD a day for each user" in error["message"]
    assert len(upstream.calls) == 1


async def test_open_reservations_are_told_from_spent_money(start: Start, upstream: Books) -> None:
    proxy = await start("serve", BUDGET="0.015/day", TOTAL_BUDGET="off")
    release = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await release.wait()
        return billed(0.001)

    upstream.answer = slow
    first = asyncio.create_task(status(proxy))
    await upstream.arrived.wait()
    async with proxy.post(BODY) as answer:
        await refused(answer, 429, "budget_busy")
        assert answer.headers["Retry-After"] == "1"
        assert "x-should-retry" not in answer.headers
    release.set()
    assert await first == 200
    await settled(proxy)
    assert await status(proxy) == 200
    assert len(upstream.calls) == 2


async def test_parallel_calls_cannot_overshoot(start: Start, upstream: Books) -> None:
    proxy = await start(
        "serve", BUDGET="0.10/day", TOTAL_BUDGET="off", RATE_LIMIT="off", MAX_IN_FLIGHT="100"
    )
    upstream.cost = 0.0101
    found = await asyncio.gather(*(status(proxy) for _ in range(60)))
    assert found.count(200) == 9
    assert set(found) <= {200, 429, 402}
    assert len(upstream.calls) == 9


@pytest.mark.parametrize("name", ["APP_BUDGET", "TOTAL_BUDGET"])
async def test_all_clients_together_have_a_budget(start: Start, upstream: Books, name: str) -> None:
    variables = {"TOTAL_BUDGET": "off", name: "0.011/hour", "TRUSTED_PROXIES": "loopback"}
    proxy = await start("serve", **variables)
    upstream.cost = 0.01
    for number, expected in ((1, 200), (2, 402)):
        headers = {"X-Forwarded-For": f"8.8.8.{number}"}
        async with proxy.post(BODY, headers=headers) as answer:
            assert answer.status == expected
        await settled(proxy)
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(("name", "whose"), [("APP", "this app"), ("TOTAL", "this server")])
async def test_strangers_learn_no_figures_of_a_budget_that_all_share(
    start: Start, upstream: Books, name: str, whose: str
) -> None:
    """Which budget and until when; the figures are the operator's, by the log and in dev."""
    said = {"TOTAL_BUDGET": "off", f"{name}_BUDGET": "0.0123/day", "RATE_LIMIT": "off"}
    proxy = await start("serve", **said)
    upstream.cost = 0.0123
    release = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await release.wait()
        return billed(0.0123)

    upstream.answer = slow
    texts = []
    async with proxy.post({**BODY, "max_tokens": 2000}) as answer:
        texts.append(await refused(answer, 402, "call_too_costly"))
    first = asyncio.create_task(status(proxy))
    await upstream.arrived.wait()
    async with proxy.post(BODY) as answer:
        texts.append(await refused(answer, 429, "budget_busy"))
    release.set()
    assert await first == 200
    await settled(proxy)
    async with proxy.post(BODY) as answer:
        texts.append(await refused(answer, 402, "budget_exhausted"))
    messages = [error["message"] for error in texts]
    for message in messages:
        assert f"budget of {whose} for the day" in message
        assert "0.012" not in message
    assert "begins anew at" in messages[0]
    assert re.search(r"could cost up to 0\.020 USD, .* ask for max_tokens ≤ \d+\.", messages[0])
    assert "begins anew at" in messages[2]
    assert len(upstream.calls) == 1


async def test_the_max_tokens_that_are_advised_fit_into_every_budget(start: Start) -> None:
    said = {"BUDGET": "0.0123/day", "TOTAL_BUDGET": "0.006/day", "RATE_LIMIT": "off"}
    proxy = await start("serve", **said)
    async with proxy.post({**BODY, "max_tokens": 2000}) as answer:
        message = (await refused(answer, 402, "call_too_costly"))["message"]
    assert proxy.upstream.calls == []
    advice = re.search(r"ask for max_tokens ≤ (\d+)", message)
    assert advice is not None
    async with proxy.post({**BODY, "max_tokens": int(advice[1])}) as answer:
        assert answer.status == 200


async def test_in_dev_the_figures_of_each_budget_are_said(start: Start, upstream: Books) -> None:
    proxy = await start("dev", TOTAL_BUDGET="0.01/day", UNPRICED="refuse")
    async with proxy.post({**BODY, "max_tokens": 2000}) as answer:
        error = await refused(answer, 402, "call_too_costly")
    assert (
        "0.010 USD of it is left; lower KEYPROXY_MAX_TOKENS, or: KEYPROXY_TOTAL_BUDGET="
        in error["message"]
    )
    tokens = int(error["message"].partition("ask for max_tokens ≤ ")[2].partition(".")[0])
    assert upstream.calls == []
    assert await status(proxy, max_tokens=tokens) == 200


async def test_without_a_known_price_a_budget_lets_nothing_through(
    start: Start, upstream: Books
) -> None:
    proxy = await start("serve", BUDGET="1/day", TOTAL_BUDGET="off")
    async with proxy.post({**BODY, "model": "openai/unknown"}) as answer:
        error = await refused(answer, 402, "call_too_costly")
    assert "openai/unknown" in error["message"]
    assert upstream.calls == []


RESPONSES, MESSAGES = "/api/v1/responses", "/api/v1/messages"
PDF = {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}
OWN_SHELL = {"type": "local_shell"}


@pytest.mark.parametrize(
    ("path", "more", "text"),
    [
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "file", "file": PDF}]}]},
            "What the file can cost at most is not known here, so that no budget could be kept."
            " Send its text instead."),
        (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_file", **PDF}]}]},
            "What the file can cost"),
        (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "document", "source": {
            "type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}]}]},
            "What the file can cost"),
        (RESPONSES, {"input": "x", "tools": [OWN_SHELL]}, "What the tool local_shell can cost"),
        (CHAT, {"service_tier": "priority"}, "What its service_tier can cost"),
        (CHAT, {"modalities": ["image"]}, "What an answer that is more than text can cost"),
        (CHAT, {"plugins": [{"id": "file-parser"}]}, "What the plugin file-parser can cost"),
    ],
)  # fmt: skip
async def test_a_call_that_no_price_bounds_is_told_by_which_part(
    start: Start, upstream: Books, path: str, more: dict[str, Any], text: str
) -> None:
    words = "tools:local_shell,priority,images,pdf"
    proxy = await start("serve", BUDGET="1/day", TOTAL_BUDGET="off", ALLOWED_FEATURES=words)
    async with proxy.post({"model": BODY["model"], **more}, path) as answer:
        error = await refused(answer, 402, "call_too_costly")
    assert text in error["message"]
    assert upstream.calls == []


@pytest.mark.parametrize(
    ("path", "asked", "advice"),
    [
        (RESPONSES, {"max_output_tokens": 2000}, "max_output_tokens"),
        (MESSAGES, {"max_tokens": 2000}, "max_tokens"),
        (CHAT, {"max_completion_tokens": 2000}, "max_completion_tokens"),
        (CHAT, {"max_completion_tokens": 2000, "max_tokens": 1900},
            "max_tokens and max_completion_tokens"),
    ],
)  # fmt: skip
async def test_the_field_that_is_advised_is_the_one_that_the_call_has(
    start: Start, upstream: Books, path: str, asked: dict[str, Any], advice: str
) -> None:
    said = {"BUDGET": "0.0123/day", "TOTAL_BUDGET": "off", "RATE_LIMIT": "off"}
    proxy = await start("serve", **said)
    body = {"model": BODY["model"], **asked}
    async with proxy.post(body, path) as answer:
        message = (await refused(answer, 402, "call_too_costly"))["message"]
    found = re.search(r"; ask for (\w+(?: and \w+)?) ≤ (\d+)( and less reasoning)?\.", message)
    assert found is not None
    assert (found[1], found[3]) == (advice, None)
    assert upstream.calls == []
    async with proxy.post(body | dict.fromkeys(asked, int(found[2])), path) as answer:
        assert answer.status == 200


async def test_advice_that_leaves_no_room_to_reason_says_so(start: Start, upstream: Books) -> None:
    proxy = await start("serve", BUDGET="0.0123/day", TOTAL_BUDGET="off")
    async with proxy.post(
        {**BODY, "max_tokens": 2000, "reasoning": {"max_tokens": 1900}}
    ) as answer:
        message = (await refused(answer, 402, "call_too_costly"))["message"]
    assert " and less reasoning." in message
    assert upstream.calls == []


async def test_a_price_list_that_was_never_had_makes_no_call_too_costly(
    start: Start, upstream: Books
) -> None:
    upstream.has_prices = False
    proxy = await start("serve", BUDGET="1/day", TOTAL_BUDGET="off")
    async with proxy.post(BODY) as answer:
        error = await refused(answer, 503, "overloaded")
        assert 25 < int(answer.headers["Retry-After"]) <= 33
    assert "not known here yet" in error["message"]
    assert upstream.calls == []


async def test_unpriced_models_may_be_allowed_until_the_budget_is_spent(
    start: Start, upstream: Books
) -> None:
    proxy = await start("serve", BUDGET="0.01/day", TOTAL_BUDGET="off", UNPRICED="allow")
    upstream.cost = 0.02
    assert await status(proxy, model="openai/unknown") == 200
    await settled(proxy)
    assert await status(proxy, model="openai/unknown") == 402
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("mode", ["dev", "serve"])
async def test_a_free_call_that_is_billed_all_the_same_counts_in_the_running_budget(
    start: Start, upstream: Books, mode: str
) -> None:
    proxy = await start(mode, BUDGET="1/day", RATE_LIMIT="off")
    upstream.cost = 0.995
    assert await status(proxy, model=FREE["id"]) == 200  # the first call of the day
    await settled(proxy)
    assert await status(proxy) == 402
    assert await status(proxy, model=FREE["id"]) == 200  # what costs nothing fits into any budget
    await settled(proxy)
    assert len(upstream.calls) == 2


async def test_who_runs_it_is_told_once_no_answer_fits_any_more(
    start: Start, upstream: Books
) -> None:
    """Long before the last nano-dollar: what is left pays for no call."""
    proxy = await start("serve", APP_BUDGET="1/day", TOTAL_BUDGET="5/day", RATE_LIMIT="off")
    with capture_logs() as logs:
        upstream.cost = 0.995
        assert await status(proxy) == 200
        await settled(proxy)
        assert await status(proxy) == 402  # a shorter answer would fit
        await proxy.service.alerts.look()
        assert [log["alert"] for log in logs if "alert" in log] == ["budget_80"]
        upstream.cost = 0.00499
        assert await status(proxy, max_tokens=100) == 200
        await settled(proxy)
        assert await status(proxy) == 402
        await proxy.service.alerts.look()
    told = [log for log in logs if "alert" in log]
    assert [log["alert"] for log in told] == ["budget_80", "budget_100"]
    assert told[1]["app"] == "default"
    assert len(upstream.calls) == 2


async def test_an_error_of_the_upstream_costs_nothing(start: Start, upstream: Books) -> None:
    proxy = await start("serve", BUDGET="0.0105/day", TOTAL_BUDGET="off")

    async def failing(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"code": 503, "message": "no"}}, status=503)

    for answer in (failing, None, failing):
        upstream.answer = answer or failing
        assert await status(proxy) == 503
        await settled(proxy)
    assert len(upstream.calls) == 3


async def test_an_error_that_did_cost_is_counted_once_the_upstream_tells(
    start: Start, upstream: Books
) -> None:
    proxy = await start("serve", BUDGET="0.0105/day", TOTAL_BUDGET="off", RATE_LIMIT="off")
    upstream.generations["gen-1790981416-AbCdEf"] = {"total_cost": 0.009}

    async def failing(request: web.Request) -> web.StreamResponse:
        body, head = {"error": {"code": 502}}, {"X-Generation-Id": "gen-1790981416-AbCdEf"}
        return web.json_response(body, status=502, headers=head)

    upstream.answer = failing
    assert await status(proxy) == 502
    async with asyncio.timeout(20):  # it is asked about each second
        while await status(proxy) != 402:
            await asyncio.sleep(0.1)


async def test_a_cost_that_is_told_while_we_stop_is_counted(
    start: Start, upstream: Books, tmp_path: Path
) -> None:
    """A shared storage outlives us, and the ledger has the cost as final: nobody would later."""
    path = tmp_path / "ledger.sqlite3"
    proxy = await start("serve", TOTAL_BUDGET="1/month", LEDGER=str(path))
    accounting, holding = proxy.service.accounting, sqlite3.connect(path, isolation_level=None)

    def told() -> dict[str, float]:
        holding.execute("BEGIN IMMEDIATE")  # so that the row waits for it
        return {"total_cost": 0.009}

    async def failing(request: web.Request) -> web.StreamResponse:
        body, head = {"error": {"code": 502}}, {"X-Generation-Id": "gen-1790981416-AbCdEf"}
        return web.json_response(body, status=502, headers=head)

    upstream.generations["gen-1790981416-AbCdEf"], upstream.answer = told, failing
    with closing(holding):
        assert await status(proxy) == 502
        async with asyncio.timeout(20):
            while not (holding.in_transaction and accounting.book.backlog):  # type: ignore[union-attr]
                await asyncio.sleep(0.001)
        closed = asyncio.create_task(accounting.close())
        for _ in range(5):
            await asyncio.sleep(0)
        holding.rollback()
        await closed
        [row] = holding.execute("SELECT cost, is_settled FROM calls")
    [level] = await levels(accounting.counters, accounting._budgets.values(), time.time())
    assert (row, level.spent) == ((9_000_000_000, 1), Decimal("0.009"))


@pytest.mark.parametrize(("given", "then"), [(524, 402), (502, 402), (503, 503), (429, 429)])
async def test_an_edge_that_gave_up_on_the_upstream_tells_nothing_of_the_cost(
    start: Start, upstream: Books, given: int, then: int
) -> None:
    """The server behind it had the call, and may have gone on; of others it took none."""
    proxy = await start("serve", BUDGET="0.0105/day", TOTAL_BUDGET="off")

    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<h1>cloudflare</h1>", content_type="text/html", status=given)

    upstream.answer = page
    assert await status(proxy) == given
    await settled(proxy)
    assert await status(proxy) == then


async def lead_to(proxy: Proxy, base_url: str) -> None:
    """From now on the upstream is elsewhere, and no connection to the old one is left."""
    pool = proxy.service.assembly.pools.of(proxy.upstream.base_url)
    await pool.close()
    pool.origin = Origin.of(base_url)


async def test_an_upstream_that_was_never_reached_costs_nothing(start: Start) -> None:
    proxy = await start("serve", BUDGET="0.0105/day", TOTAL_BUDGET="off", UNPRICED="allow")
    proxy.service.apply(proxy.service.settings)
    await lead_to(proxy, "http://127.0.0.1:9/api/v1")
    for _ in range(3):
        assert await status(proxy) == 502
        await settled(proxy)


async def test_a_stream_is_booked_with_what_its_last_usage_says(
    start: Start, upstream: Books
) -> None:
    proxy = await start("serve", BUDGET="0.02/day", TOTAL_BUDGET="off", RATE_LIMIT="off")

    async def stream(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        for event in (
            {"choices": [{"delta": {"content": 'a "usage":{"cost":0} b'}}]},
            {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.012}},
        ):
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    upstream.answer = stream
    assert await status(proxy, stream=True) == 200
    await settled(proxy)
    assert await status(proxy, stream=True) == 402
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("cost", [-1, "0", None, "NaN", True, [0], 10**9])
async def test_a_cost_that_cannot_be_true_leaves_the_reservation(
    start: Start, upstream: Books, cost: Any
) -> None:
    proxy = await start("serve", BUDGET="0.0105/day", TOTAL_BUDGET="off")

    async def hostile(request: web.Request) -> web.StreamResponse:
        usage = {"prompt_tokens": -1, "completion_tokens": -1, "cost": cost}
        return web.json_response({"id": "x", "usage": usage})

    upstream.answer = hostile
    assert await status(proxy) == 200
    await settled(proxy)
    assert await status(proxy) == 402
    assert len(upstream.calls) == 1


async def test_a_cut_stream_is_settled_by_asking_the_upstream(
    start: Start, upstream: Books
) -> None:
    proxy = await start("serve", BUDGET="0.0105/day", TOTAL_BUDGET="off", RATE_LIMIT="off")

    async def cut(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request, **{"X-Generation-Id": "gen-1790981416-AbCdEf"})
        await response.write(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
        assert request.transport is not None
        request.transport.abort()
        return response

    upstream.answer = cut
    with pytest.raises(aiohttp.ClientPayloadError):
        await status(proxy, stream=True)
    await settled(proxy)
    assert await status(proxy) == 402  # the reservation stands
    upstream.generations["gen-1790981416-AbCdEf"] = {"total_cost": 0.0001}
    upstream.answer = None
    async with asyncio.timeout(20):  # it is asked about each second, then less often
        while await status(proxy) != 200:
            await asyncio.sleep(0.1)


async def test_a_client_that_leaves_pays_what_was_set_aside(start: Start, upstream: Books) -> None:
    proxy = await start("serve", BUDGET="0.0105/day", TOTAL_BUDGET="off")

    async def endless(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        while True:
            await response.write(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
            await asyncio.sleep(0.01)

    upstream.answer = endless
    async with proxy.post({**BODY, "stream": True}) as answer:
        await answer.content.readany()
    await upstream.left.wait()
    async with asyncio.timeout(5):
        while proxy.service.kit.default.admission.counters.in_flight["default:127.0.0.1"]:
            await asyncio.sleep(0.01)
    await settled(proxy)
    assert await status(proxy) == 402
    assert len(upstream.calls) == 1


async def test_a_cap_is_imposed_where_there_is_a_budget(start: Start, upstream: Books) -> None:
    proxy = await start("serve", BUDGET="1/day", TOTAL_BUDGET="off")
    body = {name: value for name, value in BODY.items() if name != "max_tokens"}
    async with proxy.post(body) as answer:
        assert answer.status == 200
    assert json.loads(upstream.calls[0].body)["max_tokens"] == 4096


def test_money_is_shown_with_the_digits_that_matter() -> None:
    amounts = ["0", "0.5", "0.96", "12", "0.000088", "0.0101", "1.239"]
    assert [shown(Decimal(each)) for each in amounts] == [
        *("0.00", "0.50", "0.96", "12.00", "0.000088", "0.010", "1.24"),
    ]


async def test_an_upstream_that_takes_no_connection_costs_nothing(start: Start) -> None:
    proxy = await start(
        "serve", BUDGET="0.015/day", TOTAL_BUDGET="off", UNPRICED="allow", CONNECT_TIMEOUT="0.2"
    )
    await status(proxy)
    await settled(proxy)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as deaf, ExitStack() as stack:
        for _ in range(3):  # more than it takes
            full = stack.enter_context(socket.socket())
            full.setblocking(False)
            full.connect_ex(deaf.getsockname())
        await lead_to(proxy, f"http://127.0.0.1:{deaf.getsockname()[1]}/api/v1")
        for _ in range(3):
            assert await status(proxy) == 504
            await settled(proxy)


async def test_the_line_to_paste_has_room_beside_what_was_spent_beyond_the_budget(
    start: Start, upstream: Books
) -> None:
    upstream.cost = 0.5  # a bill beyond what was set aside
    proxy = await start(TOTAL_BUDGET="0.02/day")
    assert await status(proxy) == 200
    async with proxy.post(BODY) as answer:
        error = await refused(answer, 402, "budget_exhausted")
    line = re.search(r"KEYPROXY_TOTAL_BUDGET=([0-9.]+)/day", error["message"])
    assert line is not None
    assert float(line[1]) > 0.51
    raised = settings("dev", TOTAL_BUDGET=f"{line[1]}/day", UPSTREAM=upstream.base_url)
    proxy.service.apply(raised.kept(listen=proxy.service.settings.listen))
    assert await status(proxy) == 200


async def test_a_call_too_dear_for_a_budget_that_is_far_from_spent_alarms_nobody(
    start: Start, upstream: Books
) -> None:
    """What it asks costs more than is left, with whichever answer; others go on."""
    proxy = await start("serve", APP_BUDGET="0.04/day", TOTAL_BUDGET="5/day", RATE_LIMIT="off")
    dear = [{"role": "user", "content": "x" * 400_000}]
    with capture_logs() as logs:
        upstream.cost = 0.031
        assert await status(proxy) == 200
        await settled(proxy)
        assert await status(proxy, messages=dear) == 402
        await proxy.service.alerts.look()
        assert [log["alert"] for log in logs if "alert" in log] == []
        upstream.cost = 0.005
        assert await status(proxy, max_tokens=100) == 200
        await settled(proxy)
        await proxy.service.alerts.look()
    told = {log["alert"]: log["event"] for log in logs if "alert" in log}
    assert set(told) == {"budget_80", "budget_100"}
    assert "what is left was too little for a call; such are refused until" in told["budget_100"]
    assert len(upstream.calls) == 2
