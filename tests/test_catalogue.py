"""The model list: fetched without the key, cached, cut down to what is allowed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from keyproxy.errors import Refusal
from keyproxy.policy.models import Models
from keyproxy.upstream.catalogue import (
    FRESH_SECONDS,
    STALE_SECONDS,
    Catalogue,
    Fetched,
    Page,
    resolved,
)
from tests.conftest import Proxy, Start, refused
from tests.fake_upstream import MODELS, FakeUpstream


async def ids(proxy: Proxy, query: str = "") -> list[str]:
    async with proxy.get(f"/api/v1/models{query}") as answer:
        assert answer.status == 200
        return [row["id"] for row in (await answer.json())["data"]]


async def test_the_list_shows_allowed_models_only(start: Start) -> None:
    proxy = await start(ALLOWED_MODELS="openai/*,!openai/gpt-4o")
    async with proxy.get("/api/v1/models") as answer:
        body = await answer.json()
    assert body == {"data": MODELS["data"][:1], "total_count": 1, "links": {"next": None}}  # type: ignore[index]


async def test_the_list_is_asked_for_once_and_without_the_key(proxy: Proxy) -> None:
    for _ in range(3):
        assert len(await ids(proxy)) == 3
    [seen] = proxy.upstream.catalogue
    assert "Authorization" not in seen.headers


async def test_pages_of_the_list_are_cut_here(proxy: Proxy) -> None:
    async with proxy.get("/api/v1/models?limit=2") as answer:
        first = await answer.json()
    assert [row["id"] for row in first["data"]] == ["openai/gpt-4o-mini", "openai/gpt-4o"]
    assert first["links"] == {"next": "/api/v1/models?limit=2&offset=2"}
    async with proxy.get(first["links"]["next"]) as answer:
        second = await answer.json()
    assert [row["id"] for row in second["data"]] == ["anthropic/claude-sonnet-4"]
    assert second["links"] == {"next": None}
    assert len(proxy.upstream.catalogue) == 1


async def test_filters_are_the_upstreams(proxy: Proxy) -> None:
    await ids(proxy, "?supported_parameters=tools%2Creasoning&limit=1")
    [seen] = proxy.upstream.catalogue
    assert seen.target == "/api/v1/models?supported_parameters=tools%2Creasoning"


async def test_the_count_is_of_allowed_models(start: Start) -> None:
    proxy = await start(ALLOWED_MODELS="openai/*")
    async with proxy.get("/api/v1/models/count") as answer:
        assert await answer.json() == {"data": {"count": 2}}


async def test_a_models_page_is_shown_when_it_is_allowed(start: Start) -> None:
    proxy = await start(ALLOWED_MODELS="openai/*,~openai/*")
    async with proxy.get("/api/v1/models/%7Eopenai/gpt-4o%3Afree/endpoints") as answer:
        assert answer.status == 200
    [seen] = proxy.upstream.catalogue
    assert seen.target == "/api/v1/models/~openai/gpt-4o:free/endpoints"
    async with proxy.get("/api/v1/model/anthropic/claude-sonnet-4") as answer:
        await refused(answer, 403, "model_not_allowed")
    assert len(proxy.upstream.catalogue) == 1


async def test_many_who_ask_at_once_cause_one_fetch(proxy: Proxy) -> None:
    release = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.json_response(MODELS)

    proxy.upstream.answer = slow
    asking = [asyncio.create_task(ids(proxy)) for _ in range(5)]
    await proxy.upstream.arrived.wait()
    asking.pop().cancel()
    release.set()
    assert [len(found) for found in await asyncio.gather(*asking)] == [3] * 4
    assert len(proxy.upstream.catalogue) == 1


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (200, b"<html>", "text/html"),
        (200, b'{"data": 1}', "application/json"),
        (200, b"[]", "application/json"),
        (302, b"", "text/html"),
        (401, b'{"error":{"message":"No cookie auth credentials found"}}', "application/json"),
    ],
)
async def test_a_list_that_cannot_be_read_is_our_502(
    proxy: Proxy, status: int, body: bytes, content_type: str
) -> None:
    async def odd(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body, content_type=content_type)

    proxy.upstream.answer = odd
    async with proxy.get("/api/v1/models") as answer:
        await refused(answer, 502, "upstream_invalid")


@pytest.mark.parametrize("depth", [900, 940, 960, 980, 1_000, 100_000])
async def test_a_list_that_is_nested_too_deeply_is_never_our_500(proxy: Proxy, depth: int) -> None:
    """Python reads somewhat deeper than it writes."""
    deep = b"[" * depth + b"]" * depth
    bodies = iter((b'{"data":[],"x":' + deep + b"}", b'{"data":[{"id":"a/b","x":' + deep + b"}]}"))

    async def nested(request: web.Request) -> web.StreamResponse:
        return web.Response(body=next(bodies), content_type="application/json")

    proxy.upstream.answer = nested
    for query in ("", "?category=x"):
        async with proxy.get("/api/v1/models" + query) as answer:
            assert answer.status in (200, 502)


async def test_a_busy_upstream_says_when_to_come_back(proxy: Proxy) -> None:
    async def busy(request: web.Request) -> web.StreamResponse:
        fields = {"Retry-After": "7", "X-RateLimit-Limit": "50", "Set-Cookie": "a=b"}
        return web.json_response({"error": {"code": 429}}, status=429, headers=fields)

    proxy.upstream.answer = busy
    async with proxy.get("/api/v1/models") as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
        assert answer.headers["X-RateLimit-Limit"] == "50"
        assert "Set-Cookie" not in answer.headers


async def test_an_error_page_becomes_json_of_its_status(proxy: Proxy) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(status=503, body=b"<html>", content_type="text/html")

    proxy.upstream.answer = page
    async with proxy.get("/api/v1/models") as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (503, 503)
        assert "X-Keyproxy-Code" not in answer.headers


async def test_an_unknown_model_keeps_the_upstreams_404(proxy: Proxy) -> None:
    async def missing(request: web.Request) -> web.StreamResponse:
        return web.json_response(
            {"error": {"message": "Not Found", "code": 404}, "user_id": "user_1"}, status=404
        )

    proxy.upstream.answer = missing
    async with proxy.get("/api/v1/model/openai/nope") as answer:
        assert answer.status == 404
        assert await answer.json() == {"error": {"message": "Not Found", "code": 404}}


class Source:
    """A fetch that counts, and a clock."""

    def __init__(self) -> None:
        self.now, self.count, self.is_down = 0.0, 0, False

    async def fetch(self, path: str) -> Fetched:
        self.count += 1
        if self.is_down:
            raise Refusal("upstream_unreachable", "away")
        return Fetched(200, b'{"data":[{"id":"a/b"}]}', {})


async def test_an_old_list_serves_while_the_upstream_is_away() -> None:
    source = Source()
    catalogue = Catalogue(source.fetch, clock=lambda: source.now)
    everything: Any = Models(["*"])

    async def ask() -> Page:
        return await catalogue.answer("/api/v1/models/count", "", everything)

    assert await ask() == Page(200, b'{"data": {"count": 1}}')
    source.is_down, source.now = True, FRESH_SECONDS + 1
    assert (await ask()).status == 200
    assert source.count == 2
    source.now = STALE_SECONDS + 1
    with pytest.raises(Refusal):
        await ask()


async def test_the_cache_is_bounded() -> None:
    source = Source()
    catalogue = Catalogue(source.fetch, clock=lambda: source.now)
    for number in range(300):
        await catalogue.answer(f"/api/v1/model/a/b{number}", "", Models(["*"]))
    assert len(catalogue._details) == 256


async def test_odd_filters_do_not_push_out_the_whole_list() -> None:
    source = Source()
    catalogue = Catalogue(source.fetch, clock=lambda: source.now)
    for number in range(30):
        await catalogue.answer("/api/v1/models", "", Models(["*"]))
        await catalogue.answer("/api/v1/models", f"category=c{number}", Models(["*"]))
    assert source.count == 31


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/models", "/models"),
        ("/models/count", "/models/count"),
        ("/model/my/fast", "/model/a/b"),
        ("/models/my/fast/endpoints", "/models/a/b/endpoints"),
        ("/model/a/endpoints", "/model/a/endpoints"),
        ("/models/models/endpoints/endpoints", "/models/models/endpoints/endpoints"),
    ],
)
def test_an_alias_in_a_detail_path_is_resolved(path: str, expected: str) -> None:
    allowed = Models(["a/*", "models/endpoints"])
    found = resolved(f"/api/v1{path}", allowed, {"my/fast": "a/b"})
    assert found == f"/api/v1{expected}"


ROWS = [
    {"id": "anthropic/claude-opus-4.7", "canonical_slug": "anthropic/claude-4.7-opus-20260416"},
    {"id": "openai/gpt-4o-mini", "canonical_slug": "openai/gpt-4o-mini"},
    {"id": "odd/brand-new", "pricing": {"prompt": "-1", "completion": "-1"}},
]


async def test_an_excluded_model_is_excluded_under_its_other_name(
    start: Start, upstream: FakeUpstream
) -> None:
    async def listed(request: web.Request) -> web.StreamResponse:
        return web.json_response({"data": ROWS} if request.method == "GET" else {})

    upstream.answer = listed
    proxy = await start(ALLOWED_MODELS="*,!anthropic/claude-opus-4.7")
    await upstream.arrived.wait()  # asked for at the start
    async with asyncio.timeout(5):
        while not proxy.service._names._known:
            await asyncio.sleep(0.01)
    for model in ("anthropic/claude-4.7-opus-20260416", "odd/brand-new"):
        async with proxy.post({"model": model, "messages": []}) as answer:
            await refused(answer, 403, "model_not_allowed")
    proxy.service.apply(proxy.service.settings)
    async with proxy.post({"model": "anthropic/claude-4.7-opus-20260416"}) as answer:
        await refused(answer, 403, "model_not_allowed")
    assert upstream.calls == []
    async with proxy.post() as answer:
        assert answer.status == 200


async def test_a_router_that_the_list_tells_of_is_no_model(
    start: Start, upstream: FakeUpstream
) -> None:
    async def listed(request: web.Request) -> web.StreamResponse:
        return web.json_response({"data": ROWS} if request.method == "GET" else {})

    upstream.answer = listed
    proxy = await start()
    async with proxy.get("/api/v1/models") as answer:
        assert answer.status == 200
    async with proxy.post({"model": "odd/brand-new", "messages": []}) as answer:
        await refused(answer, 403, "model_not_allowed")
    assert upstream.calls == []
