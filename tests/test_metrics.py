"""What Prometheus reads: names, sums that agree with the ledger and the log, bounded series."""

from __future__ import annotations

import asyncio
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from keyproxy.admin.prometheus import GAUGES
from keyproxy.admin.tally import FAMILIES, MOST_MODELS, Tally
from keyproxy.call import Usage
from keyproxy.money.pricelist import PriceList
from keyproxy.record import Record
from tests.conftest import Start, inspected
from tests.fake_upstream import FakeUpstream, event_stream, serving
from tests.records import entry
from tests.test_admin import HERE, look
from tests.test_logs import lines

__all__ = ["lines"]  # a fixture
MODEL = {"id": "openai/gpt-4o-mini", "pricing": {"prompt": "0.00000015", "completion": "0.0000006"}}

LABELS = {
    "keyproxy_calls_total": {"app", "endpoint", "provider", "http_status"},
    "keyproxy_refusals_total": {"code"},
    "keyproxy_attempts_total": {"provider", "class"},
    "keyproxy_cost_usd_total": {"app", "provider", "model", "cost_source"},
    "keyproxy_cost_unsettled_usd": set(),
    "keyproxy_reserved_usd": set(),
    "keyproxy_budget_usd": {"budget", "state"},
    "keyproxy_open_streams": set(),
    "keyproxy_added_delay_seconds": set(),
    "keyproxy_ledger_backlog": set(),
    "keyproxy_ledger_lost_calls_total": set(),
    "keyproxy_key_usable": {"provider"},
    "keyproxy_storage_up": set(),
    "keyproxy_price_age_seconds": set(),
}
GEN_AI = {
    "gen_ai_server_time_to_first_token_seconds",
    "gen_ai_client_operation_duration_seconds",
    "gen_ai_client_token_usage",
}
Samples = dict[str, dict[tuple[str, ...], float]]


def samples(text: str) -> Samples:
    """By name, the values by labels in the order of their names."""
    found: Samples = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? ([^ ]+)", line):
            labels = re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', match[2] or "")
            values = tuple(value for _, value in sorted(labels))
            found.setdefault(match[1], {})[values] = float(match[3])
    return found


async def scraped(proxy: Any) -> str:
    async with look(proxy) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/plain"
        text: str = await answer.text()
        return text


def known() -> dict[str, set[str]]:
    """The labels of each metric."""
    found = {family.name: set(family.labels) for family in FAMILIES}
    return found | {gauge.name: set(gauge.labels) for gauge in GAUGES}


def test_names_and_labels_are_those_that_are_promised() -> None:
    found = known()
    assert LABELS.items() <= found.items()
    assert found.keys() >= GEN_AI
    assert not any("client" in label for labels in found.values() for label in labels)
    modelled = {name for name, labels in found.items() if "model" in labels}
    assert modelled == {"keyproxy_cost_usd_total"}


def test_the_page_lists_every_metric_with_its_labels() -> None:
    page = (Path(__file__).parent.parent / "docs" / "watching.md").read_text()
    table = page.partition("| metric | labels | what |\n")[2].partition("\n\n")[0]
    listed: dict[str, set[str]] = {}
    labels: set[str] = set()
    for line in table.splitlines()[1:]:
        names, said, _ = re.split(r" ?\| ?", line.strip("| "), maxsplit=2)
        labels = labels if said == "the same" else set(re.findall("`([a-z_]+)`", said))
        listed |= dict.fromkeys(re.findall("`([a-z_]+)`", names), labels)
    assert listed == known()


def checked(promtool: str, *what: str, given: str = "") -> tuple[int, str]:
    """The exit code, and what is said."""
    done = subprocess.run(
        [promtool, "check", *what], input=given, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


async def test_promtool_finds_nothing_wrong(start: Start) -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    proxy = await start(ADMIN=HERE, TOTAL_BUDGET="5/day")
    async with proxy.post() as answer:
        assert answer.status == 200
    text = await scraped(proxy)
    assert set(LABELS) <= set(re.findall(r"^# TYPE ([a-z_]+) ", text, re.M))
    assert await asyncio.to_thread(checked, promtool, "metrics", given=text) == (0, "")


async def test_openmetrics_is_had_for_the_asking(start: Start) -> None:
    proxy = await start(ADMIN=HERE)
    wanted = {"Accept": "application/openmetrics-text;version=1.0.0"}
    async with look(proxy, headers=wanted) as answer:
        assert answer.content_type == "application/openmetrics-text"
        assert (await answer.text()).endswith("# EOF\n")


def test_the_library_is_not_loaded_before_the_first_scrape() -> None:
    code = (
        "import sys, keyproxy.server.service\n"
        "print(sorted(name for name in sys.modules if 'prometheus_client' in name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class Priced(FakeUpstream):
    """Lists one model, with its prices."""

    def catalogue_answer(self, request: web.Request) -> web.Response:
        if request.path != "/api/v1/models":
            return super().catalogue_answer(request)
        return web.json_response({"data": [MODEL], "total_count": 1, "links": {"next": None}})


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with serving(Priced()) as fake:
        yield fake


async def test_a_call_is_in_the_figures(start: Start) -> None:
    proxy = await start(ADMIN=HERE, TOTAL_BUDGET="5/day", MAX_TOKENS="100")
    await proxy.service.accounting.prices.loaded(5)  # type: ignore[union-attr]
    async with proxy.post() as answer:
        await answer.read()
    async with proxy.post({"model": "x/y"}, headers={"Origin": "https://evil.example"}) as answer:
        assert answer.status == 403
    async with look(proxy, "/nothing") as answer:
        assert answer.status == 404  # who watches is no caller
    found = samples(await scraped(proxy))
    chat = "POST /api/v1/chat/completions"
    assert found["keyproxy_calls_total"] == {("default", chat, "200", "openrouter"): 1}
    refusals = {code: count for code, count in found["keyproxy_refusals_total"].items() if count}
    assert refusals == {("origin_not_allowed",): 1}
    assert found["keyproxy_attempts_total"] == {("ok", "openrouter"): 1}
    cost = {("default", "exact", "openai/gpt-4o-mini", "openrouter"): 0.000088}
    assert found["keyproxy_cost_usd_total"] == pytest.approx(cost, abs=1e-12)
    assert found["gen_ai_client_token_usage_sum"] == {
        ("chat", "openrouter", "input"): 14,
        ("chat", "openrouter", "output"): 6,
    }
    assert found["gen_ai_client_operation_duration_seconds_count"] == {("chat", "openrouter"): 1}
    assert found["keyproxy_added_delay_seconds_count"] == {(): 1}
    assert found["keyproxy_budget_usd"][("total:day", "limit")] == 5
    assert found["keyproxy_budget_usd"][("total:day", "spent")] == pytest.approx(0.000088)
    assert found["keyproxy_budget_usd"][("total:day", "reserved")] == 0
    assert found["keyproxy_key_usable"] == {("openrouter",): 1}
    assert found["keyproxy_storage_up"] == {(): 1}


async def test_what_is_ill_is_seen(start: Start, upstream: FakeUpstream, tmp_path: Path) -> None:
    path, base = tmp_path / "ledger.sqlite3", "redis://127.0.0.1:9"
    upstream.key_status = 401
    proxy = await start(ADMIN=HERE, LEDGER=str(path), STORAGE=base, TOTAL_BUDGET="5/day")
    await inspected(proxy)
    await proxy.service.accounting.prices.loaded(5)  # type: ignore[union-attr]
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        asked = asyncio.create_task(proxy.service.accounting.book.unsettled(1))
        await asyncio.sleep(0)
        found = samples(await scraped(proxy))
        asked.cancel()
    assert found["keyproxy_storage_up"] == {(): 0}
    assert found["keyproxy_key_usable"] == {("openrouter",): 0}
    assert found["keyproxy_ledger_backlog"][()] >= 1
    assert 0 <= found["keyproxy_price_age_seconds"][()] < 60
    assert found["keyproxy_ledger_lost_calls_total"] == {(): 0}


async def test_an_answer_of_a_model_that_nobody_allowed_is_counted(
    start: Start, upstream: FakeUpstream
) -> None:
    async def other(request: web.Request) -> web.Response:
        return web.json_response({"id": "gen-1", "model": "some/other", "choices": []})

    proxy = await start(ADMIN=HERE, ALLOWED_MODELS="openai/*")
    assert samples(await scraped(proxy))["keyproxy_other_model_served_total"] == {(): 0}
    upstream.answer = other
    async with proxy.post() as answer:
        assert answer.status == 200
        await answer.read()
    assert samples(await scraped(proxy))["keyproxy_other_model_served_total"] == {(): 1}


async def test_an_open_stream_is_seen_with_what_it_may_cost(
    start: Start, upstream: FakeUpstream
) -> None:
    go_on = asyncio.Event()

    async def stream(request: Any) -> Any:
        response = await event_stream(request)
        await response.write(b'data: {"id":"gen-1"}\n\n')
        await go_on.wait()
        await response.write(b"data: [DONE]\n\n")
        return response

    upstream.answer = stream
    proxy = await start(ADMIN=HERE, TOTAL_BUDGET="5/day", MAX_TOKENS="100")
    body = {"model": "openai/gpt-4o-mini", "stream": True, "max_tokens": 100}
    async with proxy.post(body | {"messages": [{"role": "user", "content": "x"}]}) as answer:
        await answer.content.readany()
        found = samples(await scraped(proxy))
        assert found["keyproxy_open_streams"] == {(): 1}
        reserved = found["keyproxy_budget_usd"][("total:day", "reserved")]
        assert reserved == pytest.approx(found["keyproxy_reserved_usd"][()], abs=1e-9)
        go_on.set()
        await answer.read()
    found = samples(await scraped(proxy))
    assert (found["keyproxy_open_streams"], found["keyproxy_reserved_usd"]) == ({(): 0}, {(): 0})
    assert found["gen_ai_server_time_to_first_token_seconds_count"] == {("chat", "openrouter"): 1}


async def test_answers_to_what_is_no_request_are_counted(start: Start, lines: Any) -> None:
    proxy = await start(ADMIN=HERE)
    assert b"400" in await proxy.raw(b"no request at all\r\n\r\n")
    await proxy.raw(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: y\r\n" * 500 + b"\r\n")
    logged = Counter(line["code"] for line in lines() if "code" in line)
    found = samples(await scraped(proxy))["keyproxy_refusals_total"]
    assert {code: count for (code,), count in found.items() if count} == logged
    assert logged.total() == 2


def test_models_beyond_the_first_hundred_of_the_list_are_other() -> None:
    class Book:
        listed = PriceList(prices={f"a/{number}": None for number in range(200)})

    tally = Tally(lambda: Book)  # type: ignore[arg-type, return-value]
    for model in (*(f"a/{number}" for number in range(150)), "b/unlisted", "a/3:nitro"):
        record = Record("POST", "/", models=(model,), app="default")
        record.booked = entry(reserved=None).attempts
        record.booked[0].end(None, 200, "complete", 1.0)
        tally.ended(record)
    models = Counter(labels[2] for labels in tally.sums["keyproxy_cost_usd_total"])
    assert len(models) == MOST_MODELS + 1
    assert "b/unlisted" not in models
    assert "other" in models


def test_a_cost_that_is_told_later_is_counted_once_and_then() -> None:
    tally = Tally()
    record = Record("POST", "/", request_id="req_1", app="default")
    known: dict[str, Any] = {"endpoint": "POST /api/v1/responses", "generation_id": "gen-1"}
    call = entry("req_1", reserved=Decimal("0.5"), **known)
    call.attempts[0].end(None, 200, "client_left", 1.0)
    record.booked = call.attempts
    tally.ended(record)
    assert tally.unsettled_usd == 0.5
    assert tally.sums["keyproxy_cost_usd_total"] == {}
    row = call.unsettled(None)
    row.attempt.cost, row.attempt.cost_source = Decimal("0.1"), "exact"
    row.usage = Usage(input_tokens=3, output_tokens=4)
    tally.settled(row)
    assert tally.unsettled_usd == 0
    assert tally.sums["keyproxy_cost_usd_total"] == {
        ("default", "openrouter", "other", "exact"): 10**11
    }


@pytest.mark.parametrize(
    ("told", "counted"),
    [(None, (3, 4)), (Usage(), (3, 4)), (Usage(output_tokens=9), (3, 9))],
)
def test_tokens_that_an_answer_told_count_where_nobody_tells_more(
    told: Usage | None, counted: tuple[int, int]
) -> None:
    """As the ledger has them, which keeps what it knows."""
    tally = Tally()
    record = Record("POST", "/", request_id="req_1", usage=Usage(input_tokens=3, output_tokens=4))
    call = entry("req_1", generation_id="gen-1")
    call.attempts[0].end(None, 200, "upstream_cut", 1.0)
    record.booked = call.attempts
    tally.ended(record)
    row = call.unsettled(None)
    row.usage = told
    tally.settled(row)
    sums = tally.sums["gen_ai_client_token_usage"]
    assert {labels[-1]: kept[-1] for labels, kept in sums.items()} == dict(
        zip(("input", "output"), counted, strict=True)
    )
