"""Odd values in every field, before several providers: an answer or a refusal, never a fault."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from keyproxy.call import Client
from keyproxy.dialects import CHAT, DIALECTS, MESSAGES, RESPONSES, Dialect
from keyproxy.errors import Refusal
from keyproxy.money.usage import UsageReader
from keyproxy.routing.first_output import FirstOutput
from keyproxy.routing.homes import Homes
from keyproxy.routing.memory import Memory
from keyproxy.routing.router import Router
from keyproxy.upstream import faults
from keyproxy.upstream.answers import shown_error
from keyproxy.upstream.providers import PROVIDERS
from tests.fakes import server
from tests.loopback import listening
from tests.routed import HI, proxy_before
from tests.test_qualify import call

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 10**30, "", "x", [], {}, [1], ["x"], [None], [[]]),
    *({"a": 1}, {"type": "x"}, [{}], [{"type": "x"}], {"effort": []}, {"order": "x"}, {"by": 1}),
    *([{"role": 1, "content": 2}], [{"role": "assistant", "content": [None], "reasoning": {}}]),
    *({"max_price": {"prompt": "x"}}, {"only": [""], "sort": {"by": []}}, {"effort": "low"}),
    [{"role": "assistant", "tool_calls": {}, "name": [], "audio": {}}],
]
OPEN = "provider,many,priority,fallbacks,web,cache-1h"


@pytest.mark.usefixtures("no_loose_ends")
@pytest.mark.parametrize("style", [CHAT, RESPONSES, MESSAGES], ids=lambda style: style.name)
async def test_odd_values_are_no_fault_of_ours(style: Dialect) -> None:
    draw = random.Random(style.name)
    names = [name for name in style.fields if name != "model"]
    async with (
        server.serving() as fakes,
        proxy_before(fakes, ALLOWED_FEATURES=OPEN, RATE_LIMIT="off") as proxy,
    ):
        for _ in range(400):
            body: dict[str, Any] = {"model": "openai/gpt-oss-120b"}
            body |= {name: draw.choice(ODD) for name in draw.sample(names, draw.randint(1, 5))}
            async with proxy.post(body, path=f"/api/v1{style.path}") as answer:
                told = await answer.read()
                assert answer.headers.get("X-Keyproxy-Code") != "internal_error", (body, told)
        assert fakes.strays() == []


VALUES: list[Any] = [None, True, 10**30, "", "x", [], {}, [[]], [{}], {"type": []}, [{"type": {}}]]


def spoiled(value: Any) -> Iterator[Any]:
    """``value`` with an odd one in each place of it, one after the other."""
    yield from VALUES
    is_list, is_object = isinstance(value, list), isinstance(value, dict)
    for key in range(len(value)) if is_list else [*value] if is_object else ():
        for odd in spoiled(value[key]):
            shallow = copy.copy(value)
            shallow[key] = odd
            yield shallow


IMAGE = {"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "low"}}
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
USED = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "index": 0}
THOUGHT = {"type": "reasoning.text", "text": "x", "signature": "s"}
BODIES: dict[Dialect, dict[str, Any]] = {
    CHAT: {
        "messages": [
            {"role": "user", "name": "n", "content": [{"type": "text", "text": "x"}, IMAGE]},
            {"role": "assistant", "tool_calls": [USED], "reasoning_details": [THOUGHT]},
            {"role": "tool", "tool_call_id": "t1", "content": "y", "tool": {"type": "function"}},
        ],
        "models": ["a/b"],
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "provider": {"order": ["x"], "sort": {"by": "price"}, "max_price": {"prompt": 1}},
        "reasoning": {"effort": "low", "exclude": False},
        "stream_options": {"include_usage": False},
        "stop": ["x"],
        "metadata": {"user_id": "u"},
    },
    RESPONSES: {
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
            {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "s"},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "y"},
        ],
        "tools": [{"type": "function", **FUNCTION}],
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "text": {"format": {"type": "text"}},
    },
    MESSAGES: {
        "max_tokens": 9,
        "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "x"}]},
            {"role": "assistant", "content": [{"type": "thinking", "signature": "s"}]},
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "fallbacks": [{"model": "a/b"}],
        "metadata": {"user_id": "u"},
    },
}


@pytest.mark.parametrize("style", BODIES, ids=lambda style: style.name)
def test_odd_values_deep_within_are_no_fault_of_ours(style: Dialect) -> None:
    """They are refused, or go where they may, written as each home wants them."""
    at = {"maker/small": [(name, "x") for name in PROVIDERS]}
    router = Router("default", Homes(tuple(PROVIDERS.values()), at=at), Memory())
    went = 0
    for body in spoiled(BODIES[style]):
        if not isinstance(body, dict) or "type" in body:
            continue
        try:
            asked = call(body, style)
            options = router.plan(asked, Client("ann", "192.0.2.1")).options
        except Refusal:
            continue
        assert asked.said is not None
        for option in options:
            went += bool(json.loads(option.edits.body(asked.said)))
    assert went > 100


ANSWER = {
    "id": "x",
    "type": "response.created",
    "object": "chat.completion.chunk",
    "code": "c",
    "choices": [{"delta": {"content": ""}, "finish_reason": None, "error": None}],
    "usage": {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1}, "cost": 1},
    "response": {"id": "y", "error": None, "usage": {"input_tokens": 1}},
    "error": {"message": "m", "code": 400, "type": "t", "details": [{"reason": "r"}]},
    "detail": [{"loc": ["body", "x"], "msg": "m", "type": "t"}],
    "message": {"id": "z", "usage": {"input_tokens": 1}, "detail": [{"loc": []}]},
}


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_odd_answers_are_no_fault_of_ours(dialect: Dialect) -> None:
    """Each answer in each dialect and from each provider, of which a third is asked in turn."""
    odd = [*spoiled(ANSWER), *spoiled({**ANSWER, "error": None}), *spoiled([ANSWER])]
    providers = [*PROVIDERS.values()]
    for turn, text in enumerate(dict.fromkeys(map(json.dumps, odd)), DIALECTS.index(dialect)):
        raw = text.encode()
        event = b"data: %b" % raw
        for data, is_stream in ((raw, False), (event + b"\n\n", True), (event, True)):
            first = FirstOutput(dialect, is_event_stream=is_stream)
            assert first.watch(data) or first.watch(None)
            reader = UsageReader(dialect, is_stream)
            reader.watch(data)
            reader.finish()
        faults.rest_seconds({}, json.loads(raw))
        for provider in providers[turn % 3 :: 3]:
            fault = provider.classify(400, json.loads(raw))
            shown_error(provider, dialect, 400, raw, json.loads(raw), "application/json", fault)


@pytest.mark.parametrize("raw", [b'{"type": []}', b'{"type": {}, "error": null}'])
@pytest.mark.parametrize("is_streaming", [False, True])
async def test_an_odd_answer_passes_where_another_home_might_be_asked(
    raw: bytes, is_streaming: bool
) -> None:
    """While it is held, it is looked at."""
    said = b"data: %b\n\n" % raw if is_streaming else raw
    kind = "text/event-stream" if is_streaming else "application/json"

    async def say(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(body=said, content_type=kind)

    async with server.serving("groq", "cerebras") as fakes, listening(say) as port:
        fakes["groq"].origin = f"http://127.0.0.1:{port}"
        body = {"model": "openai/gpt-oss-120b", "stream": is_streaming, **HI}
        async with proxy_before(fakes) as proxy, proxy.post(body) as answer:
            assert (answer.status, await answer.read()) == (200, said)


@pytest.mark.parametrize(
    "turn", [{"content": [{"type": []}]}, {"content": "x", "tool": {"type": []}}]
)
async def test_an_odd_type_in_a_message_is_refused(turn: dict[str, Any]) -> None:
    async with server.serving("groq", "cerebras") as fakes, proxy_before(fakes) as proxy:
        body = {"model": "openai/gpt-oss-120b", "messages": [{"role": "user", **turn}]}
        async with proxy.post(body) as answer:
            assert answer.status in (403, 404), await answer.read()
        assert fakes.calls == []
