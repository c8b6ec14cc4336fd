"""The SDKs from npm in a real browser, in a page of another origin than the API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.browser import chromium
from tests.jwt_issuer import SECRET
from tests.loopback import listening
from tests.sdk.node import bundle, install
from tests.sdk.served import TEXT, Served, serving

pytestmark = pytest.mark.timeout(300)  # the first test also installs the packages

OFFICIAL = ("openai", "anthropic")
HTML = '<!doctype html><meta charset="utf-8"><script type="module" src="page.js"></script>'


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    install()
    directory = tmp_path_factory.mktemp("page")
    bundle(directory)
    return directory / "page.js"


@pytest.fixture
async def origin(script: Path) -> AsyncIterator[str]:
    """Where the page is served: by name and not by address, so that the API is another site."""

    async def serve(request: web.BaseRequest) -> web.Response:
        if request.path == "/page.js":
            return web.Response(body=script.read_bytes(), content_type="text/javascript")
        return web.Response(text=HTML, content_type="text/html")

    async with listening(serve) as port:
        yield f"http://app.test:{port}"


Tell = Callable[[Served, str, str], Awaitable[Any]]


@pytest.fixture
async def tell(origin: str, tab: chromium.Tab) -> Tell:
    """``await tell(served, sdk, case)``: what the case returned in the page."""
    await tab.go(f"{origin}/")

    async def told(served: Served, sdk: str, case: str) -> Any:
        return await tab.evaluate(f"run({sdk!r}, {case!r}, {served.url!r})")

    return told


async def test_streams_arrive_in_a_page(origin: str, tell: Tell) -> None:
    async with serving("serve", ALLOWED_MODELS="*", ALLOWED_ORIGINS=origin) as served:
        for sdk in OFFICIAL:
            answer = await tell(served, sdk, "stream")
            assert "".join(answer["pieces"]) == TEXT
            assert len(answer["pieces"]) > 1
            assert (await tell(served, sdk, "chat"))["text"] == TEXT


@pytest.mark.parametrize("sdk", OFFICIAL)
async def test_a_page_reads_why_and_how_long(sdk: str, origin: str, tell: Tell) -> None:
    said: dict[str, Any] = {"ALLOWED_MODELS": "*", "ALLOWED_ORIGINS": origin}
    async with serving("serve", RATE_LIMIT="1/hour", **said) as served:
        error = await tell(served, sdk, "limitedLong")
    assert (error["name"], error["status"], error["calls"]) == ("RateLimitError", 429, 2)
    assert error["headers"]["x-keyproxy-code"] == "rate_limited"
    assert 60 < int(error["headers"]["retry-after"]) <= 3600
    assert error["headers"]["ratelimit"].startswith('"client-3600";r=0;t=')
    assert error["headers"]["x-request-id"].startswith("req_")


async def test_a_page_of_another_origin_is_told_nothing(tell: Tell) -> None:
    async with serving("serve", ALLOWED_MODELS="*") as served:
        error = await tell(served, "openai", "refusedModel")
        assert (error["name"], error["status"]) == ("APIConnectionError", None)
        assert await served.calls() == {"open": 0, "finished": 0, "aborted": 0}


async def test_leaving_a_stream_in_a_page_reaches_the_upstream(origin: str, tell: Tell) -> None:
    said: dict[str, Any] = {"ALLOWED_MODELS": "*", "ALLOWED_ORIGINS": origin}
    async with serving("serve", pace=1, **said) as served:
        for aborted, sdk in enumerate(OFFICIAL, 1):
            assert (await tell(served, sdk, "abort"))["seen"] >= 3
            counts = await served.calls(aborted=aborted)
            assert counts == {"open": 0, "finished": 0, "aborted": aborted}


@pytest.mark.parametrize("case", (*OFFICIAL, "ai-compatible", "fetch"))
async def test_an_sdk_in_a_page_calls_with_a_session(case: str, origin: str, tell: Tell) -> None:
    said: dict[str, Any] = {"ALLOWED_MODELS": "*", "ALLOWED_ORIGINS": origin}
    async with serving("serve", **said, CLIENT_AUTH="session", SESSION_SECRET=SECRET) as served:
        answer = await tell(served, "client", case)
        assert await tell(served, "client", "shapes") == [[200, "Grüße"]] * 8
    assert answer["text"] == "Grüße"
    assert answer["sent"][1:2] == ["session"]
