"""Calls to a provider of another shape: all that is sent and believed comes from its value."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

import keyproxy
from keyproxy import dialects
from keyproxy.call import Call, Endpoint
from keyproxy.errors import Refusal
from keyproxy.record import Record
from keyproxy.settings import Secret
from keyproxy.transport.client import open_pool
from keyproxy.upstream.keyring import KeyStates
from keyproxy.upstream.openrouter import OPENROUTER
from keyproxy.upstream.send import Answer, Upstream
from tests.anthropic_provider import ANTHROPIC
from tests.conftest import settings
from tests.fake_upstream import FakeUpstream, event_stream

KEYS = [Secret("sk-ant-api03-" + letter * 40) for letter in "ab"]
VERSION = ("anthropic-version", "2023-06-01")
MESSAGES = Endpoint("POST", "/api/v1/messages", dialects.MESSAGES)
CHAT = Endpoint("POST", "/api/v1/chat/completions", dialects.CHAT)


@pytest.fixture
async def anthropic(upstream: FakeUpstream) -> AsyncIterator[Upstream]:
    given = settings(UPSTREAM=upstream.base_url, TITLE="Ours").kept(keys=tuple(KEYS))
    async with open_pool(given) as pool:
        yield Upstream(given, pool, KeyStates(), provider=ANTHROPIC)


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
    passed = {"request-id", "anthropic-ratelimit-requests-limit"}
    assert passed <= set(answer.headers)
    assert "X-Generation-Id" not in answer.headers
    [seen] = upstream.calls
    assert seen.target == "/api/v1/messages?beta=true"
    assert seen.headers["x-api-key"] == KEYS[0].reveal()
    assert seen.headers["anthropic-version"] == "2023-06-01"
    assert not {"Authorization", "X-Title", "X-OpenRouter-Title"} & set(seen.headers)


async def test_what_a_provider_does_not_speak_never_reaches_it(
    anthropic: Upstream, upstream: FakeUpstream
) -> None:
    with pytest.raises(Refusal, match="Anthropic has no /api/v1/chat/completions") as caught:
        await sent(anthropic, call(CHAT))
    assert caught.value.code == "endpoint_not_allowed"
    assert upstream.calls == []


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
    assert OPENROUTER.target(call()) == "/messages?beta=true"
    for dialect in dialects.DIALECTS:
        endpoint = Endpoint("POST", f"/api/v1{dialect.path}", dialect)
        assert OPENROUTER.target(Call(endpoint, endpoint.path, b"{}")) == dialect.path


_FACTS = re.compile(
    r"openrouter|/generation|/key\b|/endpoints$|output_modalities|canonical_slug"
    r"|alias_target|x-title|total_cost|user_id",
    re.I,
)


@pytest.mark.parametrize("folder", ["upstream", "server", "transport", "ledger", "limits"])
def test_no_file_but_its_own_knows_a_fact_of_the_provider(folder: str) -> None:
    package = Path(keyproxy.__file__).parent
    for path in sorted((package / folder).glob("*.py")):
        if path.name == "openrouter.py":
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
