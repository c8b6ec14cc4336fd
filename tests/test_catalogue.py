"""The model list: fetched without the key, cached, cut down to what is allowed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from keyproxy.errors import Refusal
from keyproxy.policy.models import Models
from keyproxy.settings.sources import Sources
from keyproxy.upstream import answers
from keyproxy.upstream.catalogue import (
    FRESH_SECONDS,
    REFUSED_SECONDS,
    STALE_SECONDS,
    Catalogue,
    KeyWanted,
    resolved,
)
from keyproxy.upstream.headers import KeySearch
from keyproxy.upstream.openrouter import OPENROUTER
from keyproxy.upstream.provider import Fetched
from tests.conftest import KEY, Proxy, Start, refused, served, settings
from tests.fake_upstream import MODELS, FakeUpstream, completion


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
        (200, b'{"data": []}' + b" " * (8 << 20), "application/json"),
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


def wants_key(**answers: Any) -> Any:
    """Lists that are shown to who has the key alone, and by key where ``answers`` has it."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return completion()
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if key not in {KEY, OTHER_KEY}:
            error = {"code": 401, "message": "No cookie auth credentials found"}
            return web.json_response({"error": error}, status=401)
        if request.path.endswith("/endpoints"):
            return web.json_response({"error": {"code": 404, "message": "no such"}}, status=404)
        own = {
            "id": f"openai/of-{key[9:13]}",
            "user_id": "user_1",
            "context_length": 1000,
            "pricing": {"prompt": "0.000001", "completion": "0.000002"},
        }
        rows: Any = MODELS["data"]
        status, rows = answers.get(key[9:13], (200, [*rows, own]))
        return web.json_response({"data": rows}, status=status)

    return answer


OTHER_KEY = "sk-or-v1-other-" + "0123456789abcdef" * 4
LISTED = ["openai/gpt-4o-mini", "openai/gpt-4o", "openai/of-test"]


def credentials(upstream: FakeUpstream) -> list[str | None]:
    """With which keys the list was asked for."""
    return [seen.headers.get("Authorization") for seen in upstream.catalogue]


async def test_a_list_that_wants_a_key_is_asked_for_again_with_it(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.answer = wants_key()
    proxy = await start(ALLOWED_MODELS="openai/*")
    for _ in range(2):
        async with proxy.get("/api/v1/models") as answer:
            text = await answer.text()
        assert [row["id"] for row in json.loads(text)["data"]] == LISTED
        assert "user_1" not in text
    assert credentials(upstream) == [None, f"Bearer {KEY}"]
    async with proxy.get("/api/v1/models/count") as answer:
        assert await answer.json() == {"data": {"count": 3}}
    assert len(upstream.catalogue) == 2
    assert {seen.target for seen in upstream.catalogue} == {"/api/v1/models"}


@pytest.mark.parametrize("status", [403, 404, 429, 500])
async def test_the_key_is_shown_after_a_401_only(
    proxy: Proxy, upstream: FakeUpstream, status: int
) -> None:
    async def other(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"code": status}}, status=status)

    upstream.answer = other
    async with proxy.get("/api/v1/models") as answer:
        assert answer.status == status
    assert credentials(upstream) == [None]


async def test_apps_with_different_keys_see_each_its_own_list(
    start: Start, upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.answer = wants_key()
    toml = f"""
        [apps.other]
        allowed_origins = "https://b.example"
        openrouter_api_key = "{OTHER_KEY}"
    """
    (tmp_path / "keyproxy.toml").write_text(toml)
    environ = {
        "OPENROUTER_API_KEY": KEY,
        "KEYPROXY_UPSTREAM": upstream.base_url,
        "KEYPROXY_TOTAL_BUDGET": "off",
    }
    proxy = await start()
    proxy.service.apply(Sources("dev", {}, environ, tmp_path).read())
    for origin, own in ((None, "openai/of-test"), ("https://b.example", "openai/of-othe")):
        fields = {"Origin": origin} if origin else {}
        async with proxy.get("/api/v1/models", headers=fields) as answer:
            rows = (await answer.json())["data"]
        assert [row["id"] for row in rows if "/of-" in row["id"]] == [own]
    assert credentials(upstream) == [None, f"Bearer {KEY}", f"Bearer {OTHER_KEY}"]


async def test_a_reload_forgets_what_was_asked_for_with_a_key(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.answer = wants_key()
    proxy = await start()
    assert "openai/of-test" in await ids(proxy)
    changed = settings(OPENROUTER_API_KEY=OTHER_KEY, UPSTREAM=upstream.base_url)
    proxy.service.apply(changed)
    assert "openai/of-othe" in await ids(proxy)


async def test_a_list_that_refuses_the_key_is_our_502_that_says_so(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.answer = wants_key(test=(401, []))
    proxy = await start("serve")
    for _ in range(2):
        async with proxy.get("/api/v1/models") as answer:
            error = await refused(answer, 502, "upstream_invalid")
        assert "wants a key" in error["message"]
    assert credentials(upstream) == [None, f"Bearer {KEY}"]
    async with proxy.post() as answer:
        assert answer.status == 200


@pytest.mark.parametrize("spelled", [KEY, KEY.replace("-", "\\u002d")])
async def test_a_list_that_holds_the_key_is_not_shown(
    start: Start, upstream: FakeUpstream, spelled: str
) -> None:
    async def telling(request: web.Request) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            return web.json_response({}, status=401)
        body = b'{"data": [{"id": "openai/gpt-4o", "name": "%b"}]}' % spelled.encode()
        return web.Response(body=body, content_type="application/json")

    upstream.answer = telling
    proxy = await start()
    async with proxy.get("/api/v1/models") as answer:
        await refused(answer, 502, "upstream_invalid")


async def test_a_list_that_moved_is_not_followed_with_the_key(
    start: Start, upstream: FakeUpstream
) -> None:
    async def moved(request: web.Request) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            return web.json_response({}, status=401)
        return web.Response(status=307, headers={"Location": "/api/v1/elsewhere"})

    upstream.answer = moved
    proxy = await start()
    async with proxy.get("/api/v1/models") as answer:
        await refused(answer, 502, "upstream_invalid")
    assert {seen.target for seen in upstream.catalogue} == {"/api/v1/models"}


async def test_a_public_list_outlives_a_401(start: Start) -> None:
    """A hiccup; and what was public must not become one key's list in between."""
    source = Source()
    catalogue = Catalogue(source.fetch, clock=lambda: source.now)
    everything: Any = Models(["*"])
    await catalogue.answer("/api/v1/models/count", "", everything)
    source.status, source.now = 401, FRESH_SECONDS + 1
    assert (await catalogue.answer("/api/v1/models/count", "", everything)).status == 200
    source.now = STALE_SECONDS + 1
    for _ in range(2):
        with pytest.raises(KeyWanted):
            await catalogue.answer("/api/v1/models/count", "", everything)
    assert source.count == 3
    source.status, source.now = 200, source.now + REFUSED_SECONDS
    assert (await catalogue.answer("/api/v1/models/count", "", everything)).status == 200


async def test_prices_and_names_of_a_list_that_wants_a_key_are_known_and_not_kept(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.answer = wants_key()
    ledger = tmp_path / "ledger.sqlite3"
    given = settings(
        UPSTREAM=upstream.base_url,
        LEDGER=str(ledger),
        BUDGET="1/day",
        UNPRICED="refuse",
        ALLOWED_MODELS="*,!some/other",
    )
    async with served(given, upstream) as proxy:
        async with proxy.post({"model": "openai/of-test", "messages": []}) as answer:
            assert answer.status == 200
        async with asyncio.timeout(5):
            while not proxy.service.assembly.names.known().listed:
                await asyncio.sleep(0.01)
    assert ledger.exists()
    assert list(ledger.parent.glob("prices*")) == []


async def test_a_list_that_is_kept_fresh_is_not_asked_for_again_by_a_reload(
    start: Start, upstream: FakeUpstream
) -> None:
    said = {"ALLOWED_MODELS": "*,!openai/of-test", "UPSTREAM": upstream.base_url}
    proxy = await start(**said)
    for _ in range(3):
        proxy.service.apply(settings(**said))
        async with proxy.get("/api/v1/models") as answer:
            assert answer.status == 200
    asked = [seen.target for seen in upstream.catalogue]
    assert asked == ["/api/v1/models?output_modalities=all"]


class Source:
    """A fetch that counts, and a clock."""

    def __init__(self) -> None:
        self.now, self.count, self.is_down, self.status = 0.0, 0, False, 200

    async def fetch(self, path: str) -> Fetched:
        self.count += 1
        if self.is_down:
            raise Refusal("upstream_unreachable", "away")
        fetched = Fetched(self.status, b'{"data":[{"id":"a/b"}]}')
        return answers.read(OPENROUTER, path, fetched, KeySearch([]))


async def test_an_old_list_serves_while_the_upstream_is_away() -> None:
    source = Source()
    catalogue = Catalogue(source.fetch, clock=lambda: source.now)
    everything: Any = Models(["*"])

    async def ask() -> Fetched:
        return await catalogue.answer("/api/v1/models/count", "", everything)

    assert await ask() == Fetched(200, b'{"data": {"count": 1}}')
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


async def test_models_that_there_are_not_push_out_none_that_there_is() -> None:
    source = Source()
    catalogue = Catalogue(source.fetch, clock=lambda: source.now)
    for status, number in [(200, 0), *((404, number) for number in range(300)), (200, 0)]:
        source.status = status
        await catalogue.answer(f"/api/v1/model/a/b{status}-{number}", "", Models(["*"]))
    assert source.count == 301
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
        while not proxy.service.assembly.names.known().listed:
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


async def test_the_list_is_fetched_once_for_prices_names_and_pages(
    start: Start, upstream: FakeUpstream
) -> None:
    pricing = {"prompt": "0.000001", "completion": "0.000002"}
    text, image = ({"output_modalities": [kind]} for kind in ("text", "image"))
    rows = [
        {"id": "openai/gpt-4o-mini", "pricing": pricing, "context_length": 1000},
        {"id": "openai/gpt-4o", "canonical_slug": "openai/gpt-4o-1", "architecture": text},
        {"id": "openai/painter", "architecture": image},
    ]

    async def listed(request: web.Request) -> web.StreamResponse:
        if request.path == "/api/v1/models":
            return web.json_response({"data": rows})
        return completion() if request.method == "POST" else web.json_response({}, status=404)

    upstream.answer = listed
    proxy = await start(BUDGET="1/day", UNPRICED="refuse", ALLOWED_MODELS="*,!openai/gpt-4o")
    assert await ids(proxy) == ["openai/gpt-4o-mini"]
    assert await ids(proxy, "?output_modalities=all") == ["openai/gpt-4o-mini", "openai/painter"]
    async with proxy.post() as answer:
        assert answer.status == 200
    async with proxy.post({"model": "openai/gpt-4o-1", "messages": []}) as answer:
        await refused(answer, 403, "model_not_allowed")
    targets = [seen.target for seen in upstream.catalogue if "endpoints" not in seen.target]
    assert targets == ["/api/v1/models?output_modalities=all"]


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
