"""Figures agree with the ledger and the log after a long mixed run, and stay bounded."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from keyproxy.demo import upstream as demo
from keyproxy.ledger.ledger import Ledger
from keyproxy.money import settling
from keyproxy.server.service import Service, running
from tests.conftest import BODY, CHAT, Proxy, Start, settings
from tests.examples import TIMES
from tests.test_admin import HERE, TOKEN
from tests.test_live import over
from tests.test_logs import lines
from tests.test_metrics import samples

__all__ = ["lines"]  # a fixture
CALLS, AT_ONCE = 600 * TIMES, 20
MESSAGES = [{"role": "user", "content": "Say something"}]
MIX: tuple[dict[str, Any], ...] = (
    *[{"model": "demo/chat", "stream": True}] * 5,
    *[{"model": "demo/chat"}] * 4,
    {"model": "demo/cut", "stream": True},
    {"model": "demo/midstream-error", "stream": True},
    {"model": "demo/429"},
    {"model": "demo/500"},
    {"model": "demo/402"},
    {"model": "forbidden/model"},
    {"model": "demo/chat", "stream": True, "leaves": True},
    {"model": ""},
    {"model": "demo/chat", "origin": "https://evil.example"},
    {"model": "demo/chat", "path": "/api/v1/nothing"},
)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with demo.running(pace=0) as base:
        said = {"OPENROUTER_API_KEY": demo.DEMO_KEY, "UPSTREAM": base, "ADMIN": HERE}
        said |= {"LEDGER": str(tmp_path / "ledger.sqlite3"), "RATE_LIMIT": f"{CALLS * 3 // 4}/hour"}
        said |= {"ALLOWED_MODELS": "demo/*", "TOTAL_BUDGET": "100/day", "MAX_IN_FLIGHT": "50"}
        async with running(settings("dev", **said)) as made:
            yield made


async def scraped(service: Service, **headers: str) -> dict[str, dict[tuple[str, ...], float]]:
    assert service.admin is not None
    url = f"http://{service.admin.addresses[0]}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        assert answer.status == 200
        return samples(await answer.text())


async def called(session: aiohttp.ClientSession, url: str, asked: dict[str, Any]) -> None:
    asked = dict(asked)
    path, origin = asked.pop("path", CHAT), asked.pop("origin", None)
    leaves = asked.pop("leaves", False)
    fields = {} if origin is None else {"Origin": origin}
    try:
        asking = session.post(url + path, json=asked | {"messages": MESSAGES}, headers=fields)
        async with asking as answer:
            if leaves:
                await answer.content.readany()
                answer.close()
            else:
                await answer.read()
    except aiohttp.ClientError:
        pass  # it was cut


@pytest.mark.timeout(300)
async def test_after_hundreds_of_mixed_calls_they_equal_ledger_and_log(
    service: Service, lines: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The demo knows nothing of calls that it refused, so that asking about them again is no use.
    monkeypatch.setattr(settling, "ERROR_PAUSES_SECONDS", ())
    url = f"http://{service.addresses[0]}"
    asked = itertools.islice(itertools.cycle(MIX), CALLS)
    async with aiohttp.ClientSession() as session:

        async def some() -> None:
            for each in asked:
                await called(session, url, each)

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    book = service.accounting.book
    assert isinstance(book, Ledger)
    shown = service.readers.shown
    assert shown
    async with asyncio.timeout(60):
        while shown.tally._unsettled:
            await asyncio.sleep(0.1)
    assert await book.flush()
    found = await scraped(service)
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as ledger:
        calls, settled, cost, inputs, outputs = ledger.execute(
            "SELECT count(*), sum(is_settled), sum(cost), sum(input_tokens), sum(output_tokens)"
            " FROM calls"
        ).fetchone()
    assert (calls, settled) == (calls, calls)
    assert sum(found["keyproxy_calls_total"].values()) == calls
    assert sum(found["keyproxy_cost_usd_total"].values()) == pytest.approx(
        cost / 10**12, abs=1e-9, rel=0
    )
    tokens = {labels[2]: n for labels, n in found["gen_ai_client_token_usage_sum"].items()}
    assert tokens == {"input": inputs, "output": outputs}
    assert found["keyproxy_cost_unsettled_usd"] == {(): 0}

    await service.close()  # the counts of floods are written
    logged: Counter[str] = Counter()
    for line in lines():
        if "code" in line:
            logged[line["code"]] += line.get("count", 1)
    refusals = {code: n for (code,), n in found["keyproxy_refusals_total"].items() if n}
    assert refusals == logged
    assert {"rate_limited", "model_not_allowed", "model_missing"} <= refusals.keys()
    assert calls + logged.total() >= CALLS


async def test_hostile_names_and_clients_add_no_series(start: Start) -> None:
    proxy: Proxy = await start(
        "serve",
        ADMIN=HERE,
        ADMIN_TOKEN=TOKEN,
        ALLOWED_MODELS="*",
        RATE_LIMIT="off",
        TRUSTED_PROXIES="loopback",
    )
    token = {"Authorization": f"Bearer {TOKEN}"}

    async def call(number: int) -> None:
        body = BODY | {"model": f"hostile/name-{number}"}
        address = {"X-Forwarded-For": f"198.51.{number // 256 % 256}.{number % 256}"}
        async with proxy.post(body, headers=address) as answer:
            assert answer.status == 200

    await call(0)
    before = {name: set(series) for name, series in (await scraped(proxy.service, **token)).items()}
    for number in range(1, 200):
        await call(number)
    for number in range(10_000):
        proxy.service.readers.ended(over(f'x/{number}"}}\n', f"client {number}"))
    after = {name: set(series) for name, series in (await scraped(proxy.service, **token)).items()}
    assert after == before
