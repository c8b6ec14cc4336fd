"""Caps and aliases: what is written anew in a body, and that nothing else is."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyproxy import dialects
from keyproxy.call import Endpoint
from keyproxy.dialects import Dialect
from keyproxy.errors import Refusal
from keyproxy.features import WORDS
from keyproxy.policy import calls
from keyproxy.policy.check import Check, Policy
from keyproxy.policy.models import Models
from keyproxy.policy.opened import Features
from keyproxy.strict_json import body
from tests.conftest import BODY, Start, refused
from tests.examples import examples

CHAT, RESPONSES, MESSAGES = "/api/v1/chat/completions", "/api/v1/responses", "/api/v1/messages"
C, R, M = dialects.CHAT, dialects.RESPONSES, dialects.MESSAGES
ADVISOR, SUBAGENT, FUSION = "openrouter:advisor", "openrouter:subagent", "openrouter:fusion"
EVERYTHING = Features.of(
    [*WORDS, *(f"tools:{kind}" for kind in (ADVISOR, SUBAGENT, FUSION, "advisor_20260301"))]
)
ALIASES = {"fast": "a/mini", "dear": "x/opus"}
POLICY = Policy(Models(["a/*"], EVERYTHING), ALIASES, 100, EVERYTHING)


UPDATE = {"type": "configuration_update"}


def sent(style: Dialect, asked: dict[str, Any], policy: Policy = POLICY) -> dict[str, Any]:
    """What goes up of the fields that were asked for."""
    raw = json.dumps({"model": "a/b"} | asked).encode()
    call = calls.read(Endpoint("POST", "/api/v1/x", style), raw, policy, (), "")
    read: dict[str, Any] = json.loads(call.body)
    return {name: read[name] for name in asked}


def imposed_on(
    style: Dialect, body: dict[str, Any], most: int | None, words: str = "", models: str = ""
) -> dict[str, Any]:
    """The top-level fields that change, with their new values."""
    policy = Policy(POLICY.models, max_tokens=most, features=Features.of(words.split()))
    check = Check(style, policy, ids=dict.fromkeys(models.split()))
    check.impose(body := deepcopy(body))
    return {name: body[name] for name in check.changed}


def tool(kind: str, **parameters: Any) -> list[dict[str, Any]]:
    return [{"type": kind, "parameters": parameters}]


def test_a_field_that_is_written_anew_keeps_its_numbers_text() -> None:
    raw = (
        b'{"model":"a/b","reasoning":{"max_tokens":999,"x":1.10,"y":[1E5,-0.0,'
        b'12345678901234567890.0]},"messages":[]}'
    )
    written = body.rewritten(
        raw, *body.read(raw), {"reasoning": {**body.read(raw)[0]["reasoning"], "max_tokens": 5}}
    )
    assert b'"max_tokens": 5, "x": 1.10, "y": [1E5, -0.0, 12345678901234567890.0]' in written
    assert written.endswith(b'},"messages":[]}')


@pytest.mark.parametrize(
    ("style", "asked", "imposed"),
    [
        (dialects.CHAT, {}, {"max_tokens": 100}),
        (dialects.CHAT, {"max_tokens": None}, {"max_tokens": 100}),
        (dialects.CHAT, {"max_tokens": 50}, {}),
        (dialects.CHAT, {"max_tokens": 0}, {"max_tokens": 100}),
        (dialects.CHAT, {"max_tokens": -1}, {"max_tokens": 100}),
        (dialects.CHAT, {"max_tokens": -1.0}, {"max_tokens": 100}),
        (dialects.CHAT, {"max_tokens": 50.0}, {}),
        (dialects.CHAT, {"max_tokens": 1e9}, {"max_tokens": 100}),
        (
            dialects.CHAT,
            {"max_tokens": -1, "max_completion_tokens": 2e3},
            {"max_tokens": 100, "max_completion_tokens": 100},
        ),
        (dialects.RESPONSES, {"max_output_tokens": -1}, {"max_output_tokens": 100}),
        (dialects.MESSAGES, {"max_tokens": -1}, {"max_tokens": 100}),
        (dialects.CHAT, {"max_tokens": 1, "verbosity": "max"}, {"verbosity": "high"}),
        (dialects.CHAT, {"max_tokens": 101}, {"max_tokens": 100}),
        (dialects.CHAT, {"max_completion_tokens": 101}, {"max_completion_tokens": 100}),
        (
            dialects.CHAT,
            {"max_tokens": 5000, "max_completion_tokens": 10**30},
            {"max_tokens": 100, "max_completion_tokens": 100},
        ),
        (
            dialects.CHAT,
            {"max_tokens": 1, "reasoning": {"max_tokens": 500, "effort": "high"}},
            {"reasoning": {"max_tokens": 99, "effort": "high"}},
        ),
        (
            dialects.CHAT,
            {"max_tokens": 1, "reasoning_effort": "xhigh", "reasoning": {"effort": "max"}},
            {"reasoning_effort": "high", "reasoning": {"effort": "high"}},
        ),
        (
            dialects.RESPONSES,
            {"max_output_tokens": 1, "reasoning": {"effort": "xhigh", "max_tokens": 101}},
            {"reasoning": {"effort": "high", "max_tokens": 99}},
        ),
        (
            dialects.MESSAGES,
            {"max_tokens": 1, "output_config": {"effort": "max"}},
            {"output_config": {"effort": "high"}},
        ),
        (dialects.CHAT, {"max_tokens": 1, "reasoning_effort": "low", "reasoning": None}, {}),
        (dialects.COMPLETIONS, {}, {"max_tokens": 100}),
        (dialects.RESPONSES, {"max_output_tokens": 101}, {"max_output_tokens": 100}),
        (dialects.RESPONSES, {}, {"max_output_tokens": 100}),
        (
            dialects.MESSAGES,
            {"max_tokens": 9999, "thinking": {"type": "adaptive", "display": "omitted"}},
            {"max_tokens": 100},
        ),
        (dialects.EMBEDDINGS, {}, {}),
    ],
)
def test_lengths_are_filled_in_and_lowered(
    style: Dialect, asked: dict[str, Any], imposed: dict[str, Any]
) -> None:
    assert imposed_on(style, asked, 100) == imposed
    assert imposed_on(style, asked, None) == {}


@pytest.mark.parametrize(
    ("asked", "imposed"),
    [
        ({"tools": [{}]}, {"max_tool_calls": 10}),
        ({"plugins": [{}], "max_tool_calls": 30}, {"max_tool_calls": 10}),
        ({"tools": [{}], "max_tool_calls": -1}, {"max_tool_calls": 10}),
        ({"tools": [{}], "max_tool_calls": 3}, {}),
        ({"tools": [{}], "max_tool_calls": 3.0}, {}),
        ({"input": "x"}, {"max_tool_calls": 10}),
    ],
)
def test_calls_of_server_tools_are_bounded(asked: dict[str, Any], imposed: dict[str, Any]) -> None:
    assert imposed_on(dialects.RESPONSES, asked, None, "web") == imposed
    assert imposed_on(dialects.RESPONSES, asked, None) == {}


@pytest.mark.parametrize(
    ("style", "asked", "imposed"),
    [
        (C, {"max_tokens": 8192, "reasoning": {"max_tokens": 6000}},
            {"max_tokens": 4096, "reasoning": {"max_tokens": 4095}}),
        (C, {"max_tokens": 8192, "reasoning": {"max_tokens": 4096}},
            {"max_tokens": 4096, "reasoning": {"max_tokens": 4095}}),
        (C, {"max_tokens": 8192, "reasoning": {"max_tokens": 4095}}, {"max_tokens": 4096}),
        (C, {"reasoning": {"max_tokens": 6000, "exclude": True}},
            {"max_tokens": 4096, "reasoning": {"max_tokens": 4095, "exclude": True}}),
        (C, {"max_tokens": 2000, "max_completion_tokens": 8192, "reasoning": {"max_tokens": 6e3}},
            {"max_completion_tokens": 4096, "reasoning": {"max_tokens": 1999}}),
        (C, {"max_tokens": -1, "reasoning": {"max_tokens": -1}},
            {"max_tokens": 4096, "reasoning": {"max_tokens": 4095}}),
        (C, {"max_tokens": 8192, "reasoning": {"max_tokens": 0}}, {"max_tokens": 4096}),
        (C, {"max_tokens": 8192, "reasoning": {"max_tokens": None}}, {"max_tokens": 4096}),
        (R, {"max_output_tokens": 8192, "reasoning": {"max_tokens": 6000, "summary": "auto"}},
            {"max_output_tokens": 4096, "reasoning": {"max_tokens": 4095, "summary": "auto"}}),
        (M, {"max_tokens": 8192, "thinking": {"type": "enabled", "budget_tokens": 6000}},
            {"max_tokens": 4096, "thinking": {"type": "enabled", "budget_tokens": 4095}}),
        # Its own contradictions are the caller's, as long as no cap changes anything.
        (C, {"max_tokens": 1000, "reasoning": {"max_tokens": 3000}}, {}),
        (M, {"max_tokens": 1000, "thinking": {"type": "enabled", "budget_tokens": 3000}}, {}),
        (M, {"max_tokens": 1000, "thinking": {"type": "enabled", "budget_tokens": 10}}, {}),
    ],
)  # fmt: skip
def test_reasoning_gets_fewer_tokens_than_the_answer(
    style: Dialect, asked: dict[str, Any], imposed: dict[str, Any]
) -> None:
    assert imposed_on(style, asked, 4096) == imposed


THINKING = {"thinking": {"type": "enabled", "budget_tokens": 2048}}
CLAUDE = "anthropic/claude-haiku"


@pytest.mark.parametrize(
    ("path", "asked", "param"),
    [
        (MESSAGES, {"max_tokens": 9999} | THINKING, "thinking.budget_tokens"),
        (MESSAGES, THINKING, "thinking.budget_tokens"),
        (CHAT, {"model": CLAUDE, "reasoning": {"max_tokens": 2048}}, "reasoning.max_tokens"),
        (CHAT, {"models": ["a/b", CLAUDE], "reasoning": {"max_tokens": 500}},
            "reasoning.max_tokens"),
        (RESPONSES, {"model": CLAUDE, "reasoning": {"max_tokens": 2048}}, "reasoning.max_tokens"),
        (RESPONSES, {"model": "fast", "reasoning": {"max_tokens": 2048}}, "reasoning.max_tokens"),
        (RESPONSES, {"model": CLAUDE, "input": [UPDATE | {"reasoning": {"max_tokens": 2048}}]},
            "input.reasoning.max_tokens"),
        (CHAT, {"tools": tool(ADVISOR, model=CLAUDE, reasoning={"max_tokens": 2048})},
            "tools[openrouter:advisor].parameters.reasoning.max_tokens"),
        (MESSAGES, {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": CLAUDE}]},
            "tools[advisor_20260301].max_tokens"),
    ],
)  # fmt: skip
async def test_reasoning_that_a_cap_leaves_too_little_for_is_refused_not_removed(
    start: Start, path: str, asked: dict[str, Any], param: str
) -> None:
    features = f"tools:{ADVISOR},tools:advisor_20260301"
    proxy = await start(
        MAX_TOKENS="1000", MODEL_ALIASES=f"fast={CLAUDE}", ALLOWED_FEATURES=features
    )
    async with proxy.post({"model": "a/b"} | asked, path) as answer:
        error = await refused(answer, 403, "field_not_allowed")
    assert error.get("param", param) == param
    assert "needs 1024 tokens at least" in error["message"]
    assert "only 1000 here" in error["message"]
    assert "KEYPROXY_MAX_TOKENS=4096" in error["message"]
    assert proxy.upstream.calls == []


@pytest.mark.parametrize("least", [1, 2, 1023, 1024])
def test_models_of_others_reason_with_what_a_cap_leaves(least: int) -> None:
    asked = {"model": "a/b", "max_tokens": 9999, "reasoning": {"max_tokens": 2048}}
    capped = imposed_on(C, asked, least + 1, models="a/b")
    assert capped == {"max_tokens": least + 1, "reasoning": {"max_tokens": least}}
    with pytest.raises(Refusal, match="needs 1 tokens"):
        imposed_on(C, asked, 1, models="a/b")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("100", "'100'"), (1.5, "1.5"), (-0.5, "-0.5"), (True, "true"),
        (False, "false"), (-2, "-2"), (-(10**30), "-1000000000000000000000000000000"),
        ([100], "a list"), ({}, "an object"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("more", [{}, {"max_completion_tokens": 5}])
async def test_a_length_that_is_no_number_of_tokens_is_refused(
    start: Start, value: Any, shown: str, more: dict[str, Any]
) -> None:
    proxy = await start(MAX_TOKENS="100")
    async with proxy.post(BODY | {"max_tokens": value} | more) as answer:
        error = await refused(answer, 400, "invalid_json")
    assert error["param"] == "max_tokens"
    assert error["message"] == (
        f"The field max_tokens is {shown}; it must be a whole number from 0 up, or -1 for no limit."
    )
    assert proxy.upstream.calls == []


@pytest.mark.parametrize("length", ["-1", "-1.0", "4096.0", "4.096e3", "1e30", '"many"', "0"])
async def test_without_a_cap_a_length_goes_up_as_it_is_written(start: Start, length: str) -> None:
    proxy = await start()
    raw = f'{{"model":"a/b","messages":[],"max_tokens":{length}}}'
    async with proxy.post(raw) as answer:
        assert answer.status == 200
    assert proxy.upstream.calls[0].body.decode() == raw


@pytest.mark.parametrize(
    ("asked", "sent"),
    [("-1", "4096"), ("-1.0", "4096"), ("1e30", "4096"), ("4.096e3", "4.096e3")],
)
async def test_a_budget_caps_a_call_without_a_limit(start: Start, asked: str, sent: str) -> None:
    proxy = await start(TOTAL_BUDGET="100/day")
    raw = '{"model":"openai/gpt-4o-mini","messages":[],"max_tokens":%s}'
    async with proxy.post(raw % asked) as answer:
        assert answer.status == 200
    assert [call.body.decode() for call in proxy.upstream.calls] == [raw % sent]


HARD = {"reasoning": {"effort": "xhigh"}}
LESS = {"reasoning": {"effort": "high"}}


@pytest.mark.parametrize(
    ("style", "field", "asked", "imposed"),
    [
        (R, "input", [UPDATE | HARD], [UPDATE | LESS]),
        (R, "input", [UPDATE | {"Reasoning": {"Effort": "max"}}],
            [UPDATE | {"Reasoning": {"Effort": "high"}}]),
        (R, "input", [UPDATE | {"reasoning": {"max_tokens": 100}}],
            [UPDATE | {"reasoning": {"max_tokens": 99}}]),
        (R, "input", [UPDATE | {"Reasoning": {"Max_Tokens": -1}}],
            [UPDATE | {"Reasoning": {"Max_Tokens": 99}}]),
        (C, "tools", tool(ADVISOR, model="a/b", reasoning={"max_tokens": 500}),
            tool(ADVISOR, model="a/b", reasoning={"max_tokens": 99}, max_completion_tokens=100)),
        (C, "tools", tool(ADVISOR, model="a/b", max_completion_tokens=50,
                          reasoning={"max_tokens": 40}),
            tool(ADVISOR, model="a/b", max_completion_tokens=50, reasoning={"max_tokens": 40})),
        (C, "messages", [{"role": "system", "content": "x", "configuration_update": HARD}],
            [{"role": "system", "content": "x", "configuration_update": LESS}]),
        (M, "messages", [{"role": "system", "output_config": {"effort": "max"}}],
            [{"role": "system", "output_config": {"effort": "high"}}]),
        (C, "tools", tool(ADVISOR, model="a/b", max_completion_tokens=101, **HARD),
            tool(ADVISOR, model="a/b", max_completion_tokens=100, **LESS)),
        (C, "tools", tool(ADVISOR, model="a/b"),
            tool(ADVISOR, model="a/b", max_completion_tokens=100)),
        (C, "tools", [{"type": SUBAGENT}], tool(SUBAGENT, max_completion_tokens=100)),
        (C, "tools", tool(SUBAGENT, tools=tool("openrouter:web_search")),
            tool(SUBAGENT, tools=tool("openrouter:web_search"), max_completion_tokens=100,
                 max_tool_calls=10)),
        (C, "tools", tool(SUBAGENT, max_tool_calls=25, tools=tool(ADVISOR, model="a/b")),
            tool(SUBAGENT, max_tool_calls=10, max_completion_tokens=100,
                 tools=tool(ADVISOR, model="a/b", max_completion_tokens=100))),
        (C, "tools", tool(FUSION, model="a/b", analysis_models=["a/b"], tools=[]),
            tool(FUSION, model="a/b", analysis_models=["a/b"], tools=[],
                 max_completion_tokens=100)),
        (C, "tools", tool(ADVISOR, model="a/b", max_completion_tokens=-1),
            tool(ADVISOR, model="a/b", max_completion_tokens=100)),
        (C, "tools", tool(ADVISOR, model="a/b", max_completion_tokens=1e9, max_uses=-1),
            tool(ADVISOR, model="a/b", max_completion_tokens=100, max_uses=10)),
        (C, "messages", [{"role": "user", "content": [{"type": "text", "max_tokens": 2e9}]}],
            [{"role": "user", "content": [{"type": "text", "max_tokens": 100}]}]),
        (M, "tools", [{"type": "web_search_20260318", "name": "web_search", "max_uses": 99}],
            [{"type": "web_search_20260318", "name": "web_search", "max_uses": 10}]),
        (C, "tools", tool("openrouter:web_search", max_results=99, max_total_results=999),
            tool("openrouter:web_search", max_results=20, max_total_results=50)),
        (C, "plugins", [{"id": "web", "max_uses": 11}], [{"id": "web", "max_uses": 10}]),
        (C, "stop_server_tools_when", [{"type": "step_count_is", "step_count": 1000}],
            [{"type": "step_count_is", "step_count": 10}]),
        (C, "stop_server_tools_when", [{"type": "max_cost", "max_cost_in_dollars": 1}],
            [{"type": "max_cost", "max_cost_in_dollars": 1},
             {"type": "step_count_is", "step_count": 10}]),
    ],
)  # fmt: skip
def test_what_stands_deep_in_a_call_is_lowered_too(
    style: Dialect, field: str, asked: Any, imposed: Any
) -> None:
    assert sent(style, {field: asked}) == {field: imposed}
    assert sent(style, {field: imposed}) == {field: imposed}


@pytest.mark.parametrize(
    ("style", "field", "asked"),
    [
        (R, "input", [UPDATE | LESS]),
        (R, "input", [{"type": "tool_search_call", "arguments": {"max_tokens": "x", "effort": 1}}]),
        (M, "messages", [{"content": [{"type": "tool_use", "input": {"effort": "max"}}]}]),
        (C, "tools", [{"type": "function", "function": {"name": "f", "max_tokens": 999}}]),
        (C, "tools", tool("openrouter:web_search", max_uses=0, max_results=None)),
    ],
)
def test_what_is_within_the_caps_stays_as_it_is(style: Dialect, field: str, asked: Any) -> None:
    assert sent(style, {field: asked}) == {field: asked}


async def test_text_in_a_field_that_is_written_anew_stays_as_short(start: Start) -> None:
    proxy = await start(MAX_TOKENS="100")
    said = '[{"role": "system", "content": "Grüße, 🙂", "output_config": {"effort": "max"}}]'
    asked = f'{{"model":"a/b", "max_tokens":9 ,"messages":{said}}}'
    async with proxy.post(asked, MESSAGES) as answer:
        assert answer.status == 200
    assert proxy.upstream.calls[0].body.decode() == asked.replace('"max"', '"high"')


@pytest.mark.parametrize("value", ["1000", 1.5, True, -2])
def test_a_setting_of_a_tool_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(Refusal, match="whole number"):
        sent(C, {"tools": tool(ADVISOR, model="a/b", max_completion_tokens=value)})


def test_without_a_cap_only_counts_are_bounded() -> None:
    policy = Policy(POLICY.models, features=EVERYTHING)
    asked = tool(ADVISOR, model="a/b", max_completion_tokens=9**9, max_uses=99, **HARD)
    expected = tool(ADVISOR, model="a/b", max_completion_tokens=9**9, max_uses=10, **HARD)
    assert sent(C, {"tools": asked}, policy) == {"tools": expected}


@pytest.mark.parametrize("name", ["analysis_models", "models"])
def test_a_panel_of_models_is_bounded(name: str) -> None:
    plugin = {"id": "fusion", "model": "a/b", "analysis_models": ["a/b"], "tools": []}
    assert sent(C, {"plugins": [plugin | {name: ["a/b"] * 8}]})
    with pytest.raises(Refusal, match="holds 9 models") as caught:
        sent(C, {"plugins": [plugin | {name: ["a/b"] * 9}]})
    assert caught.value.code == "field_not_allowed"


def test_a_filter_of_models_may_be_long() -> None:
    plugin = {"id": "auto-router", "allowed_models": ["a/b"] * 20}
    assert sent(C, {"plugins": [plugin]}) == {"plugins": [plugin]}


async def test_a_changed_call_keeps_everything_else(start: Start) -> None:
    proxy = await start(MAX_TOKENS="100", MODEL_ALIASES="fast=openai/gpt-4o-mini")
    raw = (
        ' {"temperature" : 1.50e0,\t"max_tokens":\n 1E3 , "x":1, "model":"fast",'
        '"messages":[{"role":"user","content":"\\u00e9 \U0001f642 \\"max_tokens\\": 9"}]} '
    )
    sent = raw.replace("1E3", "4000").replace(' "x":1,', "")
    async with proxy.post(sent) as answer:
        assert answer.status == 200
    expected = sent.replace("4000", "100").replace('"fast"', '"openai/gpt-4o-mini"')
    assert proxy.upstream.calls[0].body.decode() == expected


async def test_an_unchanged_call_goes_up_byte_for_byte(start: Start) -> None:
    proxy = await start(MAX_TOKENS="100", MODEL_ALIASES="fast=openai/gpt-4o-mini")
    raw = '{"max_tokens" : 100,  "model":"openai/gpt-4o","messages":[] }'
    async with proxy.post(raw):
        pass
    assert proxy.upstream.calls[0].body.decode() == raw


@pytest.mark.parametrize(
    ("path", "field"),
    [(CHAT, "max_tokens"), (RESPONSES, "max_output_tokens"), (MESSAGES, "max_tokens")],
)
async def test_a_missing_length_is_filled_in(start: Start, path: str, field: str) -> None:
    proxy = await start(MAX_TOKENS="100")
    async with proxy.post({"model": "a/b"}, path=path) as answer:
        assert answer.status == 200
    assert json.loads(proxy.upstream.calls[0].body) == {"model": "a/b", field: 100}


async def test_an_alias_is_checked_by_what_it_stands_for(start: Start) -> None:
    proxy = await start(
        ALLOWED_MODELS="openai/*", MODEL_ALIASES="fast=openai/gpt-4o-mini,dear=anthropic/opus"
    )
    async with proxy.post({"models": ["fast", "openai/gpt-4o"], "messages": []}) as answer:
        assert answer.status == 200
    sent = json.loads(proxy.upstream.calls[0].body)
    assert sent["models"] == ["openai/gpt-4o-mini", "openai/gpt-4o"]
    async with proxy.post(BODY | {"model": "dear"}) as answer:
        await refused(answer, 403, "model_not_allowed")
    assert len(proxy.upstream.calls) == 1


def naming(model: str) -> list[tuple[Dialect, dict[str, Any]]]:
    """Calls that name a model in each place beside ``model``."""
    fusion = {"id": "fusion", "model": model, "analysis_models": ["a/b", model], "tools": []}
    advisor = {"type": "advisor_20260301", "name": "advisor", "model": model, "max_tokens": 1}
    added = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": advisor}}
    return [
        (C, {"models": ["a/b", model]}),
        (M, {"fallbacks": [{"model": "a/b"}, {"model": model}]}),
        (C, {"tools": tool(ADVISOR, model=model, max_completion_tokens=1)}),
        (C, {"plugins": [fusion]}),
        (C, {"plugins": [{"id": "auto-router", "allowed_models": [model]}]}),
        (R, {"tools": [{"type": "image_generation", "model": model, "quality": "low"}]}),
        (R, {"input": [{"type": "additional_tools", "tools": [advisor]}]}),
        (M, {"messages": [{"role": "system", "content": [added]}]}),
    ]


@pytest.mark.parametrize(
    ("style", "asked", "expected"),
    [(style, asked, naming("a/mini")[at][1]) for at, (style, asked) in enumerate(naming("fast"))],
)
def test_an_alias_gives_way_to_its_model_wherever_it_stands(
    style: Dialect, asked: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert sent(style, asked) == expected


@pytest.mark.parametrize(("style", "asked"), naming("dear"))
def test_an_alias_of_a_forbidden_model_is_refused_wherever_it_stands(
    style: Dialect, asked: dict[str, Any]
) -> None:
    with pytest.raises(Refusal, match="The model x/opus may not be used here"):
        sent(style, asked)


async def test_an_alias_deep_in_a_call_changes_that_field_only(start: Start) -> None:
    proxy = await start(MODEL_ALIASES="fast=openai/gpt-4o-mini", ALLOWED_FEATURES="fallbacks")
    asked = '{"model" : "a/b","fallbacks": [ {"model":"fast"} ] ,"top_p":1.0e0, "max_tokens":9 }'
    async with proxy.post(asked, MESSAGES) as answer:
        assert answer.status == 200
    expected = asked.replace('[ {"model":"fast"} ]', '[{"model": "openai/gpt-4o-mini"}]')
    assert proxy.upstream.calls[0].body.decode() == expected


async def test_aliases_stand_in_the_list(start: Start) -> None:
    proxy = await start(
        ALLOWED_MODELS="openai/*", MODEL_ALIASES="fast=openai/gpt-4o-mini,dear=anthropic/opus"
    )
    async with proxy.get("/api/v1/models") as answer:
        body = await answer.json()
    assert [row["id"] for row in body["data"]] == ["fast", "openai/gpt-4o-mini", "openai/gpt-4o"]
    assert body["data"][0]["name"] == "Mini"
    assert body["total_count"] == 3


async def test_a_list_that_a_page_already_has_is_not_sent_again(start: Start) -> None:
    proxy = await start()
    async with proxy.get("/api/v1/models") as answer:
        etag = answer.headers["ETag"]
    for known, status in ((etag, 304), (f'W/{etag}, "other"', 304), ('"other"', 200)):
        async with proxy.get("/api/v1/models", headers={"If-None-Match": known}) as answer:
            assert answer.status == status
            assert answer.headers["ETag"] == etag
            assert bool(await answer.read()) is (status == 200)


NAMES = st.text(max_size=5)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@examples(100)
@given(
    st.dictionaries(NAMES, JSON, min_size=1, max_size=5),
    st.dictionaries(NAMES, JSON, max_size=3),
    st.sets(st.integers(0, 4)),
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
def test_rewriting_sets_and_removes_just_these_fields(
    before: dict[str, Any],
    changes: dict[str, Any],
    places: set[int],
    indent: int | None,
    is_ascii: bool,
) -> None:
    raw = json.dumps(before, indent=indent, ensure_ascii=is_ascii).encode("utf-8", "replace")
    before = json.loads(raw)
    removed = {name for at, name in enumerate(before) if at in places} - changes.keys()
    kept = {name: value for name, value in before.items() if name not in removed}
    written = body.rewritten(raw, *body.read(raw), changes, removed)
    assert list(json.loads(written).items()) == list((kept | changes).items())


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ('{"a": 1, "length" : ', "}"),
        ('{"a": {"length": 5}, "length": ', "}"),
        ('{"length": ', ', "a": {"length": 5}}'),
        (r'{"a": {"length": 5}, "len\u0067th": ', "}"),
        (r'{"len\u0067th": ', ', "a": {"length": 5}}'),
        (r'{"a": "say \"length", "length": ', "}"),
        (r'{"length": ', r', "a": "\\\"length"}'),
        ('{"a": "length", "length": ', "}"),
        (r'{"a": ["\u0067"], "length": ', "}"),
        ('{"length":', ',"a":"' + "x" * 140_000 + '"}'),
    ],
)
@pytest.mark.parametrize("value", ["9", '"length"', '{"length": 9}'])
def test_a_field_is_set_where_it_stands_and_nowhere_else(
    before: str, behind: str, value: str
) -> None:
    raw = f"{before}{value}{behind}".encode()
    assert body.rewritten(raw, *body.read(raw), {"length": 7}) == f"{before}7{behind}".encode()


@pytest.mark.parametrize(
    ("removed", "left"),
    [
        ("a", b'{ "b" : 2 ,"c":3}'),
        ("b", b'{"a": 1 ,"c":3}'),
        ("c", b'{"a": 1, "b" : 2}'),
        ("ab", b'{"c":3}'),
        ("bc", b'{"a": 1}'),
        ("abc", b"{}"),
        ("x", b'{"a": 1, "b" : 2 ,"c":3}'),
    ],
)
def test_what_stays_beside_a_removed_field_stays_to_the_byte(removed: str, left: bytes) -> None:
    raw = b'{"a": 1, "b" : 2 ,"c":3}'
    assert body.rewritten(raw, *body.read(raw), {}, set(removed)) == left
