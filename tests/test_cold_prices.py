"""Budgets hold from a model's first call on, whatever its providers take beyond the list."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from keyproxy.money.pricebook import AT_ONCE
from tests.conftest import SERVE, Proxy, Start, refused, settings
from tests.fake_upstream import FakeUpstream, serving

MODELS = [f"openai/model-{number}" for number in range(60)]
LISTED, TAKEN = Decimal("0.00001"), Decimal("0.00002")
TOKENS = 500
"""Of each answer: 0.005 USD by the list, 0.01 by the provider that serves it."""
UNLIMITED = {"RATE_LIMIT": "off", "MAX_IN_FLIGHT": "100"}


class Dear(FakeUpstream):
    """An upstream whose only provider takes twice what the list says."""

    asked: Counter[str]
    """How often each model was asked about."""
    asking = most_asking = 0
    tells: asyncio.Event
    status = 200

    @property
    def billed(self) -> Decimal:
        return TAKEN * TOKENS * len(self.calls)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/api/v1/models":
            rows = [{"id": model, **_priced(LISTED)} for model in MODELS]
            return web.json_response({"data": rows})
        if request.path.endswith("/endpoints"):
            return await self._tell(request.path[len("/api/v1/models/") : -len("/endpoints")])
        return await super().handle(request)

    async def _tell(self, model: str) -> web.Response:
        self.asked[model] += 1
        self.asking += 1
        self.most_asking = max(self.most_asking, self.asking)
        try:
            await self.tells.wait()
            await asyncio.sleep(0.01)  # so that questions can meet
        finally:
            self.asking -= 1
        endpoints = [{"tag": "dear", **_priced(TAKEN)}]
        return web.json_response({"data": {"endpoints": endpoints}}, status=self.status)


def _priced(completion: Decimal) -> dict[str, Any]:
    return {"context_length": 1000, "pricing": {"prompt": "0", "completion": f"{completion:f}"}}


@pytest.fixture
async def upstream() -> AsyncIterator[Dear]:
    fake = Dear()
    fake.asked, fake.tells = Counter(), asyncio.Event()
    fake.tells.set()

    async def charge(request: web.Request) -> web.StreamResponse:
        usage = {"prompt_tokens": 0, "completion_tokens": TOKENS, "cost": float(TAKEN * TOKENS)}
        return web.json_response({"id": "gen-1790981416-AbCd", "usage": usage})

    fake.answer = charge
    async with serving(fake):
        yield fake
        fake.tells.set()


def body(model: str) -> dict[str, Any]:
    said = [{"role": "user", "content": "x"}]
    return {"model": model, "max_tokens": TOKENS, "messages": said}


async def status(proxy: Proxy, model: str = MODELS[0]) -> int:
    async with proxy.post(body(model)) as answer:
        await answer.read()
        return int(answer.status)


async def until_asked(upstream: Dear, *models: str) -> None:
    async with asyncio.timeout(10):
        while upstream.asking or not upstream.asked.keys() >= set(models):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("unpriced", ["refuse", "allow"])
async def test_parallel_first_calls_of_a_dearer_provider_stay_within_the_budget(
    start: Start, upstream: Dear, unpriced: str
) -> None:
    proxy = await start("serve", TOTAL_BUDGET="0.10/day", UNPRICED=unpriced, **UNLIMITED)
    found = Counter(await asyncio.gather(*(status(proxy) for _ in range(30))))
    assert upstream.billed == Decimal("0.1")
    assert (found[200], found.keys() <= {200, 402, 429}) == (10, True)
    assert upstream.asked == {MODELS[0]: 1}


async def test_many_cold_models_at_once_are_asked_about_few_at_a_time(
    start: Start, upstream: Dear
) -> None:
    proxy = await start("serve", TOTAL_BUDGET="0.30/day", **UNLIMITED)
    found = Counter(await asyncio.gather(*(status(proxy, model) for model in MODELS)))
    assert upstream.billed == Decimal("0.3")
    assert (found[200], found.keys() <= {200, 402, 429}) == (30, True)
    assert upstream.most_asking == AT_ONCE == 8
    assert upstream.asked == dict.fromkeys(MODELS, 1)


async def test_a_first_call_is_refused_while_nobody_tells_what_its_providers_take(
    start: Start, upstream: Dear
) -> None:
    proxy = await start("serve", TOTAL_BUDGET="0.10/day", **UNLIMITED)
    upstream.tells.clear()
    async with proxy.post(body(MODELS[0])) as answer:
        await refused(answer, 503, "overloaded")
        assert answer.headers["Retry-After"] == "1"
        assert "x-should-retry" not in answer.headers
    assert upstream.calls == []
    upstream.tells.set()
    prices = proxy.service.assembly.accounting.prices
    assert prices is not None
    async with asyncio.timeout(10):
        while not prices.hosts_of(MODELS[0]):
            await asyncio.sleep(0.01)
    assert await status(proxy) == 200
    assert upstream.asked[MODELS[0]] == 1


async def test_a_first_call_counts_by_the_list_where_unknown_prices_are_allowed(
    start: Start, upstream: Dear
) -> None:
    proxy = await start("serve", TOTAL_BUDGET="0.0051/day", UNPRICED="allow", **UNLIMITED)
    upstream.tells.clear()
    assert await status(proxy) == 200


@pytest.mark.parametrize(
    ("answer", "expected"), [(200, 200), (404, 200), (403, 200), (429, 503), (500, 503), (503, 503)]
)
async def test_an_upstream_that_does_not_tell_of_providers_is_taken_at_its_list(
    start: Start, upstream: Dear, answer: int, expected: int
) -> None:
    """Not every upstream has such a page; one that is in trouble may have it later."""
    proxy = await start("serve", TOTAL_BUDGET="0.10/day", **UNLIMITED)
    upstream.status = answer
    assert await status(proxy) == expected
    assert len(upstream.calls) == (expected == 200)


async def test_models_that_the_list_does_not_know_are_not_asked_about(
    start: Start, upstream: Dear
) -> None:
    proxy = await start("serve", ALLOWED_MODELS="*", TOTAL_BUDGET="0.10/day", **UNLIMITED)
    names = [f"openai/made-up-{number}" for number in range(200)]
    for name in [*names, f"{MODELS[1]}:floor", MODELS[1]]:
        await status(proxy, name)
    assert upstream.asked == {MODELS[1]: 1}
    assert len(upstream.calls) == 2


async def test_models_that_are_named_are_asked_about_ahead(start: Start, upstream: Dear) -> None:
    said = {"ALLOWED_MODELS": f"{MODELS[1]},openai/model-4*,!{MODELS[3]}", "TOTAL_BUDGET": "1/day"}
    proxy = await start("serve", MODEL_ALIASES=f"fast={MODELS[4]}", **said)
    await until_asked(upstream, MODELS[1], MODELS[4])
    upstream.tells.clear()
    assert await status(proxy, "fast") == 200
    assert await status(proxy, MODELS[1]) == 200
    upstream.tells.set()
    said |= {"ALLOWED_MODELS": f"{MODELS[1]},{MODELS[5]}"}
    reloaded = settings("serve", **(SERVE | said)).kept(upstream=upstream.base_url)
    proxy.service.apply(reloaded)
    await until_asked(upstream, MODELS[5])
    assert upstream.asked == dict.fromkeys([MODELS[1], MODELS[4], MODELS[5]], 1)


async def test_without_a_budget_no_call_waits_for_what_providers_take(
    start: Start, upstream: Dear, tmp_path: Path
) -> None:
    said = {"ALLOWED_MODELS": f"{MODELS[1]},openai/*", "LEDGER": str(tmp_path / "ledger")}
    proxy = await start("serve", UNPRICED="refuse", **said)
    upstream.tells.clear()
    assert await status(proxy) == 200
    assert MODELS[1] not in upstream.asked
