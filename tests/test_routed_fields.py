"""Calls as clients of OpenRouter write them: a provider that qualifies never refuses one."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from keyproxy.dialects import DIALECTS
from keyproxy.upstream.providers import PROVIDERS
from tests.conftest import Proxy
from tests.fakes import server
from tests.fakes.fake import Fake
from tests.fakes.server import Fakes
from tests.fakes.vendors import VENDORS
from tests.routed import proxy_before

PATHS = {"chat": "chat/completions", "responses": "responses", "messages": "messages"}
SPOKEN = [
    (name, dialect)
    for name, provider in PROVIDERS.items()
    for dialect in provider.takes
    if dialect in PATHS
]
FIELDS = {style.name: style.fields for style in DIALECTS}
OPEN = "provider,many,priority,fallbacks"


@pytest.fixture(params=sorted(VENDORS))
async def before(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, Proxy, Fakes]]:
    async with AsyncExitStack() as stack:
        fakes = await stack.enter_async_context(server.serving(request.param))
        proxy = await stack.enter_async_context(
            proxy_before(fakes, ALLOWED_FEATURES=OPEN, RATE_LIMIT="off")
        )
        yield request.param, proxy, fakes


def models_of(fake: Fake) -> list[str]:
    return [model.canonical for model in fake.vendor.models if model.dialects is None]


def turns(dialect: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Hi"}]
    if dialect == "responses":
        return {"input": messages}
    return {"messages": messages} | ({"max_tokens": 900} if dialect == "messages" else {})


async def ask(
    proxy: Proxy, dialect: str, body: dict[str, Any]
) -> tuple[int, str | None, str, bytes]:
    """Status, our code, where it came from, and the answer."""
    async with proxy.post(body, path=f"/api/v1/{PATHS[dialect]}") as answer:
        raw = await answer.read()
        code = answer.headers.get("X-Keyproxy-Code")
        return answer.status, code, answer.headers.get("X-Keyproxy-Provider", ""), raw


CITIES = {"type": "array", "minItems": 1, "items": {"type": "string"}}
SCHEMA = {"type": "object", "properties": {"minItems": {"type": "string"}, "cities": CITIES}}
ANSWER = {"type": "json_schema", "json_schema": {"name": "cities", "schema": SCHEMA}}
TOOLS = [{"type": "function", "function": {"name": "visit", "parameters": SCHEMA}}]
VALUES: dict[str, list[Any]] = {
    "temperature": [0, 1, None],
    "top_p": [0.5, 1],
    "top_k": [0, 40],
    "min_p": [0, 0.1],
    "frequency_penalty": [0, 0.5, None],
    "presence_penalty": [0, 0.5],
    "repetition_penalty": [1, 1.1],
    "logprobs": [False, True, None],
    "seed": [7, None],
    "stop": ["END", ["END"], [], None],
    "stop_sequences": [["END"], []],
    "max_tokens": [600, 20_000, 40_000, None],
    "max_completion_tokens": [600, 20_000, 40_000, None],
    "max_output_tokens": [600, 20_000, 40_000, None],
    "n": [1, 2, None],
    "stream": [True, False, None],
    "stream_options": [{"include_usage": True}, {"include_usage": False}, None],
    "tools": [[], None, TOOLS],
    "tool_choice": ["auto", "none"],
    "parallel_tool_calls": [True, False],
    "response_format": [{"type": "text"}, {"type": "json_object"}, ANSWER],
    "reasoning": [
        {"effort": "low"},
        {"effort": "none"},
        {"effort": "high", "exclude": False},
        {"max_tokens": 200},
        {"summary": "auto"},
    ],
    "reasoning_effort": ["low", "none", None],
    "verbosity": ["low"],
    "store": [False, None],
    "user": ["ann", ""],
    "metadata": [{"user_id": "ann"}, {}],
    "session_id": ["s1"],
    "usage": [{"include": True}],
    "models": [[]],
    "provider": [{}, {"order": ["azure"]}, {"sort": "price"}],
    "service_tier": ["auto", "flex"],
    "prompt_cache_key": ["k"],
    "safety_identifier": ["k"],
    "transforms": [["middle-out"], []],
    "text": [{"format": {"type": "text"}}, {"format": {"name": "city", **ANSWER}}],
    "truncation": ["disabled", "auto"],
    "include": [[], ["reasoning.encrypted_content"]],
    "background": [False],
    "thinking": [{"type": "disabled"}, {"type": "enabled", "budget_tokens": 1024}],
}
"""What clients of OpenRouter send, each as it asks for something and as it does not."""


@pytest.mark.parametrize("dialect", PATHS)
async def test_what_qualifies_is_never_refused_there(
    before: tuple[str, Proxy, Fakes], dialect: str
) -> None:
    name, proxy, fakes = before
    if (name, dialect) not in SPOKEN:
        return
    draw = random.Random(f"{name} {dialect}")
    own = [each for each in VALUES if each in FIELDS[dialect]]
    taken = 0
    models = models_of(fakes[name])
    for _ in range(150):
        body = {"model": draw.choice(models), **turns(dialect)}
        for field in draw.sample(own, draw.randint(1, 4)):
            body[field] = draw.choice(VALUES[field])
        if dialect == "messages":
            body["max_tokens"] = 900  # which it cannot do without
        before_it = len(fakes.calls)
        status, code, _, raw = await ask(proxy, dialect, body)
        if code is None:
            assert status == 200, (body, fakes.calls[-1].json, raw)
            taken += 1
        else:
            assert code in ("no_provider_qualifies", "field_not_allowed"), (body, raw)
            assert len(fakes.calls) == before_it
    assert taken >= 15
