"""Calls to a provider of another shape: all that is sent and believed comes from its value."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from aiohttp import web

import keyproxy
from keyproxy import dialects
from keyproxy.call import Call, Endpoint
from keyproxy.errors import Refusal
from keyproxy.key_forms import NO_KEY
from keyproxy.record import Record
from keyproxy.settings import Secret
from keyproxy.transport.client import Pools
from keyproxy.upstream.anthropic import ANTHROPIC
from keyproxy.upstream.compatible import compatible
from keyproxy.upstream.keyring import KeyStates
from keyproxy.upstream.openrouter import OPENROUTER
from keyproxy.upstream.send import Answer, Upstream
from tests.conftest import settings
from tests.fake_upstream import FakeUpstream, event_stream

KEYS = [Secret("sk-ant-api03-" + letter * 40) for letter in "ab"]
VERSION = ("anthropic-version", "2023-06-01")
MESSAGES = Endpoint("POST", "/api/v1/messages", dialects.MESSAGES)
CHAT = Endpoint("POST", "/api/v1/chat/completions", dialects.CHAT)
RESPONSES = Endpoint("POST", "/api/v1/responses", dialects.RESPONSES)


@pytest.fixture
async def anthropic(upstream: FakeUpstream) -> AsyncIterator[Upstream]:
    given = settings(TITLE="Ours")
    async with Pools(given) as pools:
        pool = pools.of(upstream.base_url)
        yield Upstream(given, pool, KeyStates(), hidden=KEYS, provider=ANTHROPIC, keys=KEYS)


def call(endpoint: Endpoint = MESSAGES) -> Call:
    return Call(endpoint, endpoint.path, b'{"model":"claude"}', "beta=true", headers=(VERSION,))


async def sent(upstream: Upstream, call: Call) -> tuple[Answer, bytes]:
    async with upstream.send(call, Record("POST", call.path)) as answer:
        return answer, await answer.reply.read_whole(1 << 20) or b""


async def test_the_key_enters_as_its_provider_wants_it(
    anthropic: Upstream, upstream: FakeUpstream
) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        fields = {"request-id": "req_1", "anthropic-ratelimit-requests-limit": "50"}
        response = await event_stream(request, **fields)
        await response.write(b"event: message_stop\ndata: {}\n\n")
        return response

    upstream.answer = stream
    answer, body = await sent(anthropic, call())
    assert body == b"event: message_stop\ndata: {}\n\n"
    assert (answer.head.key, answer.head.generation_id) == (KEYS[0].label, None)
    assert "request-id" in answer.headers
    of_others = {"X-Generation-Id", "anthropic-ratelimit-requests-limit"}
    assert not of_others & set(answer.headers), "how much is left of the account's limits"
    [seen] = upstream.calls
    assert seen.target == "/api/v1/messages?beta=true"
    assert seen.headers["x-api-key"] == KEYS[0].reveal()
    assert seen.headers["anthropic-version"] == "2023-06-01"
    assert not {"Authorization", "X-Title", "X-OpenRouter-Title"} & set(seen.headers)


async def test_what_a_provider_does_not_speak_never_reaches_it(
    anthropic: Upstream, upstream: FakeUpstream
) -> None:
    with pytest.raises(Refusal, match="Anthropic has no /api/v1/responses") as caught:
        await sent(anthropic, call(RESPONSES))
    assert caught.value.code == "endpoint_not_allowed"
    assert upstream.calls == []


async def test_the_key_enters_as_the_dialect_wants_it_where_that_is_not_the_providers_own(
    anthropic: Upstream, upstream: FakeUpstream
) -> None:
    await sent(anthropic, Call(CHAT, CHAT.path, b"{}"))
    [seen] = upstream.calls
    assert seen.headers["Authorization"] == f"Bearer {KEYS[0].reveal()}"
    assert "x-api-key" not in seen.headers
    assert seen.headers["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize("said", ["2023-06-01", "2026-10-21"])
async def test_a_version_that_the_client_names_is_its_own(
    anthropic: Upstream, upstream: FakeUpstream, said: str
) -> None:
    await sent(anthropic, replace(call(), headers=(("anthropic-version", said),)))
    [seen] = upstream.calls
    assert seen.headers.getall("anthropic-version") == [said]


async def test_a_host_that_asks_for_no_key_gets_none(upstream: FakeUpstream) -> None:
    given = settings()
    async with Pools(given) as pools:
        house = compatible("openai-compatible", "house", upstream.base_url)
        pool, keys = pools.of(upstream.base_url), [NO_KEY]
        asked = Upstream(given, pool, KeyStates(), provider=house, keys=keys)
        answer, _ = await sent(asked, Call(CHAT, CHAT.path, b"{}"))
    assert answer.head.status == 200
    [seen] = upstream.calls
    assert not {"Authorization", "x-api-key"} & set(seen.headers)


async def test_a_key_that_is_refused_in_its_providers_words_is_not_the_last(
    anthropic: Upstream, upstream: FakeUpstream
) -> None:
    async def forbidden(request: web.Request) -> web.StreamResponse:
        is_good = request.headers["x-api-key"] == KEYS[1].reveal()
        return web.json_response({"type": "message"}, status=200 if is_good else 403)

    upstream.answer = forbidden
    answer, _ = await sent(anthropic, call())
    assert (answer.head.status, answer.head.key) == (200, KEYS[1].label)


@pytest.mark.parametrize(
    ("name", "stays"), [("organization_id", False), ("user_id", True), ("message", True)]
)
async def test_what_is_private_in_an_error_is_its_providers_to_say(
    anthropic: Upstream, upstream: FakeUpstream, name: str, stays: bool
) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        error = {"type": "invalid_request_error", name: "x1"}
        return web.json_response({"type": "error", "error": error}, status=400)

    upstream.answer = refuse
    _, body = await sent(anthropic, call())
    assert (name in json.loads(body)["error"]) is stays


async def test_a_key_that_is_told_as_a_model_goes_into_no_book(upstream: FakeUpstream) -> None:
    given, keys = settings(), [Secret("sk-or-v1-" + "0123456789abcdef" * 3)]

    async def tell(request: web.Request) -> web.StreamResponse:
        told = {"total_cost": 0.5, "model": f"some/{keys[0].reveal()}"}
        return web.json_response({"data": told})

    upstream.answer = tell
    async with Pools(given) as pools:
        pool = pools.of(upstream.base_url)
        asked = Upstream(given, pool, KeyStates(), hidden=keys, provider=OPENROUTER, keys=keys)
        told = await asked.generation("gen-1", keys[0].label)
    assert told is not None
    assert (told.usage.cost, told.model) == (Decimal("0.5"), None)


async def test_a_call_that_nobody_can_be_asked_about_is_not_asked_about(
    anthropic: Upstream, upstream: FakeUpstream
) -> None:
    assert await anthropic.generation("req_1", KEYS[0].label) is None
    assert upstream.catalogue == []


@pytest.mark.parametrize("status", [200, 401])
async def test_a_key_is_asked_about_where_its_provider_tells_of_it(
    anthropic: Upstream, upstream: FakeUpstream, status: int
) -> None:
    async def models(request: web.Request) -> web.StreamResponse:
        return web.json_response({"data": []}, status=status)

    upstream.answer = models
    report = await anthropic.inspect(KEYS[0])
    assert report.status == status
    [seen] = upstream.catalogue
    assert (seen.target, seen.headers["x-api-key"]) == (
        "/api/v1/models?limit=1",
        KEYS[0].reveal(),
    )
    assert "Authorization" not in seen.headers


def test_openrouter_has_each_of_our_endpoints_where_we_have_it() -> None:
    for dialect in dialects.DIALECTS:
        endpoint = Endpoint("POST", f"/api/v1{dialect.path}", dialect)
        assert OPENROUTER.taking(Call(endpoint, endpoint.path, b"{}")).fields is None


_FACTS = re.compile(
    r"openrouter\.ai|x-openrouter|/generation|/key\b|/endpoints$|output_modalities|canonical_slug"
    r"|alias_target|x-title|total_cost|user_id",
    re.I,
)


@pytest.mark.parametrize("folder", ["upstream", "server", "transport", "ledger", "limits"])
def test_no_file_but_its_own_knows_a_fact_of_the_provider(folder: str) -> None:
    package = Path(keyproxy.__file__).parent
    for path in sorted((package / folder).glob("*.py")):
        if path.name in ("openrouter.py", "offered.py"):  # the second writes pages in its form
            continue
        tree = ast.parse(path.read_text())
        spoken = {
            id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)
        }  # docstrings
        facts = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in spoken
            and _FACTS.search(node.value)
        ]
        assert facts == [], path.name
