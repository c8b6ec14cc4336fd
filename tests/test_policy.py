"""What a call may ask for: every place that selects a model, every field, every tool."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyproxy import dialects
from keyproxy.dialects import Dialect
from keyproxy.errors import Refusal
from keyproxy.features import CLOSED_FIELDS
from keyproxy.policy import fields, spelling
from keyproxy.policy.check import Check, Policy
from keyproxy.policy.endpoints import KNOWN
from keyproxy.policy.models import Known, Models
from keyproxy.policy.opened import Features
from tests.conftest import BODY, CHAT, Proxy, Start, refused
from tests.examples import examples

RESPONSES = "/api/v1/responses"
MESSAGES = "/api/v1/messages"
MINI = "openai/gpt-4o-mini"
CALL = {"model": MINI}
POLICY = Policy(Models(["*"]))


@pytest.mark.parametrize(
    ("patterns", "model", "is_allowed"),
    [
        (["*"], "openai/gpt-4o-mini", True),
        (["*"], "a", True),
        (["*"], "", False),
        (["openai/*"], "openai/gpt-4o", True),
        (["openai/*"], "openai/gpt/4o", True),
        (["openai/*"], "openai/gpt-4o:free", True),
        (["openai/*"], "openai/", False),
        (["openai/*"], "openai", False),
        (["openai/*"], "xopenai/gpt-4o", False),
        (["openai/*"], "OpenAI/gpt-4o", False),
        (["openai/*"], "anthropic/openai/gpt-4o", False),
        (["openai/gpt-4o"], "openai/gpt-4o", True),
        (["openai/gpt-4o"], "openai/gpt-4o-mini", False),
        (["openai/gpt-4o"], "openai/gpt-4o:online", False),
        (["openai/gpt-4o"], "openai/gpt-4o:nitro:online", False),
        (["openai/gpt-4o"], "openai/gpt-4o@preset/x", False),
        (["openai/gpt-4o"], "openai/gpt-4o ", False),
        (["openai/gpt-4o"], " openai/gpt-4o", False),
        (["openai/gpt-4o"], "openai/gpt-4o\n", False),
        (["openai/gpt-4o"], "openai/gpt-4o\x00", False),
        (["openai/gpt-4.1"], "openai/gpt-4x1", False),
        (["openai/gpt-4o"], "openai/gpt-4\u043e", False),
        (["*"], "@preset/x", False),
        (["*"], "openai/gpt-4o@preset/x", False),
        (["*"], "openai/*", False),
        (["*"], "openai/gpt-4o,anthropic/x", False),
        (["*"], "openai\\gpt-4o", False),
        (["*"], "openai/gpt-4o?x", False),
        (["*"], "openai/gpt\u200b-4o", False),
        (["*"], "\uff4fpenai/gpt-4o", False),
        (["*"], "a" * 200, True),
        (["*"], "a" * 201, False),
        (["*:free"], "openai/gpt-4o:free", True),
        (["*:free"], "openai/gpt-4o", False),
        (["*", "!openai/o1*"], "openai/gpt-4o", True),
        (["*", "!openai/o1*"], "openai/o1-pro", False),
        (["*", "!openai/o1*"], "OpenAI/O1-pro", False),
        (["!openai/o1*", "*"], "openai/o1-pro", False),
        (["openai/*", "!*:online"], "openai/gpt-4o:online", False),
        (["openai/*", "!*:online*"], "openai/gpt-4o:online:nitro", False),
        (["!openai/o1*"], "openai/gpt-4o", False),
        (["~openai/*"], "~openai/gpt-latest", True),
        (["*"], "~openai/gpt-latest", True),
        (["openai/*"], "~openai/gpt-latest", False),
        (["*", "!openai/o1*"], "~openai/o1-latest", False),
        (["*", "!openai/o1*"], "~openai/gpt-latest", False),
        (["*", "~openai/gpt-*", "!openai/o1*"], "~openai/gpt-latest", True),
        (["*", "~openai/*", "!openai/o1*"], "~openai/o1-latest", False),
        (["*", "!anthropic/*"], "claude-haiku-4-5-20251001", False),
        (["*", "claude-haiku-*", "!anthropic/*"], "claude-haiku-4-5-20251001", True),
        (["*", "!openai/o1"], "openai/o1:free", False),
        (["*", "!openai/o1"], "OpenAI/o1:Free", False),
        ([], "openai/gpt-4o", False),
    ],
)
def test_models(patterns: list[str], model: str, is_allowed: bool) -> None:
    assert Models(patterns).allows(model) is is_allowed


ROWS: list[Any] = [
    {
        "id": "anthropic/claude-opus-4.7",
        "canonical_slug": "anthropic/claude-4.7-opus-20260416",
        "pricing": {"prompt": "0.000005", "completion": "0.000025"},
    },
    {
        "id": "anthropic/claude-opus-4.7:free",
        "canonical_slug": "anthropic/claude-4.7-opus-20260416",
    },
    {"id": "anthropic/claude-haiku", "canonical_slug": "anthropic/claude-haiku-20260101"},
    {
        "id": "~anthropic/claude-latest",
        "canonical_slug": "~anthropic/claude-latest",
        "alias_target": {"name": "Opus", "slug": "anthropic/claude-opus-4.7"},
    },
    {"id": "z/wise", "canonical_slug": "z/wise-1", "pricing": {"prompt": "-1", "completion": "-1"}},
    {"id": "odd/row", "canonical_slug": 1, "alias_target": [], "pricing": "-1"},
    {"id": ["x"]},
    "x",
    None,
]
OPUS = "!anthropic/claude-opus-4.7"


@pytest.mark.parametrize(
    ("patterns", "model", "before", "after"),
    [
        (["*", OPUS], "anthropic/claude-4.7-opus-20260416", True, False),
        (["*", OPUS], "Anthropic/Claude-4.7-Opus-20260416:free", True, False),
        (["*", "!anthropic/*:free"], "anthropic/claude-4.7-opus-20260416:free", False, False),
        (["*", f"{OPUS}:free"], "anthropic/claude-4.7-opus-20260416:free", True, False),
        (["*", f"{OPUS}:free"], "anthropic/claude-4.7-opus-20260416", True, True),
        (["*", "~anthropic/*", OPUS], "~anthropic/claude-latest", True, False),
        (["*", OPUS], "~anthropic/claude-latest", False, False),
        (["*", OPUS], "anthropic/claude-haiku-20260101", True, True),
        (["*", "!anthropic/claude-4.7-opus-20260416"], "anthropic/claude-opus-4.7", True, False),
        (["*", "!*-2026*"], "anthropic/claude-opus-4.7", True, True),
        (["*", "~anthropic/*", "!~*"], "anthropic/claude-opus-4.7", True, True),
        (["anthropic/*"], "anthropic/claude-4.7-opus-20260416", True, True),
        (["anthropic/claude-opus-4.7"], "anthropic/claude-4.7-opus-20260416", False, False),
        (["*"], "z/wise", True, False),
        (["*"], "z/wise-1", True, False),
        (["z/wise"], "z/wise", True, False),
        (["*"], "odd/row", True, True),
    ],
)
def test_a_catalogue_closes_what_spelling_leaves_open(
    patterns: list[str], model: str, before: bool, after: bool
) -> None:
    told = [Known()]
    models = Models(patterns, known=lambda: told[0])
    assert models.allows(model) is before
    told[0] = Known.of(ROWS)
    assert models.allows(model) is after
    told[0] = Known()
    assert models.allows(model) is before


def test_a_router_that_the_catalogue_tells_needs_the_word_and_its_letters() -> None:
    for words, pattern, is_allowed in (("routers", "*", False), ("routers", "z/wise", True)):
        models = Models([pattern], Features.of([words]), lambda: Known.of(ROWS))
        assert models.allows("z/wise") is is_allowed


@given(st.text(max_size=30))
@examples(150)
def test_one_allowed_model_is_allowed_in_one_spelling(text: str) -> None:
    models = Models([MINI])
    assert models.allows(text) is (text == MINI)
    if text:
        assert not models.allows(MINI + text)
        assert not models.allows(text + MINI)


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"model": "anthropic/x"}, "model_not_allowed", "model"),
        ({"model": "openai/gpt-4o@preset/x"}, "model_not_allowed", "model"),
        ({"model": "OpenAI/gpt-4o"}, "model_not_allowed", "model"),
        ({"model": None}, "model_missing", "model"),
        ({"model": ""}, "model_missing", "model"),
        ({"model": ["openai/gpt-4o"]}, "model_missing", "model"),
        ({"model": {"id": MINI}}, "model_missing", "model"),
        ({"model": 1}, "model_missing", "model"),
        ({"model": True}, "model_missing", "model"),
        ({"models": ["openai/gpt-4o", "anthropic/x"]}, "model_not_allowed", "models"),
        ({"models": ["anthropic/x"]}, "model_not_allowed", "models"),
        ({"models": "anthropic/x"}, "model_missing", "models"),
        ({"models": "openai/gpt-4o"}, "model_missing", "models"),
        ({"model": [], "models": [MINI]}, "model_missing", "model"),
        ({"model": None, "models": [MINI]}, "model_missing", "model"),
        ({"models": [""]}, "model_missing", "models"),
        ({"models": {}}, "model_missing", "models"),
        ({"models": [["openai/gpt-4o"]]}, "model_missing", "models"),
        ({"models": [None]}, "model_missing", "models"),
        ({"models": [{"model": "openai/gpt-4o"}]}, "model_missing", "models"),
        ({"models": ["openai/gpt-4o"] * 17}, "model_missing", "models"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
async def test_every_model_that_could_answer_is_checked(
    start: Start, change: dict[str, Any], code: str, param: str, path: str
) -> None:
    proxy = await start(ALLOWED_MODELS="openai/*")
    async with proxy.post(CALL | change, path) as answer:
        status = 403 if code == "model_not_allowed" else 400
        assert (await refused(answer, status, code))["param"] == param
    assert proxy.upstream.calls == []


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
async def test_a_call_without_a_model_is_refused(proxy: Proxy, path: str) -> None:
    """The account's default model would answer it, whatever that costs."""
    async with proxy.post({"messages": []}, path) as answer:
        assert (answer.status, answer.headers["X-Keyproxy-Code"]) == (400, "model_missing")
    assert proxy.upstream.calls == []


async def test_fallback_models_alone_name_the_model(start: Start) -> None:
    proxy = await start(ALLOWED_MODELS="openai/*")
    async with proxy.post({"models": ["openai/gpt-4o", MINI], "messages": []}) as answer:
        assert answer.status == 200
    assert len(proxy.upstream.calls) == 1


async def test_the_refusal_says_what_would_be_allowed(start: Start) -> None:
    proxy = await start("serve")
    async with proxy.post(BODY | {"model": "x/\x1b[2J<b>"}) as answer:
        error = await refused(answer, 403, "model_not_allowed")
    assert error["message"] == "The model x/?[2J<b> may not be used here. Allowed: openai/*."
    assert proxy.upstream.calls == []


# Spellings that some JSON reader somewhere takes for "model".
LOOK_ALIKES = [
    "Model", "MODEL", "mod\u017fel", "\uff4dodel", "model\x00", "model ", " model", "model\u200b",
    "\ufeffmodel", "mo\\del", "m\u043edel", "model[]", "model.id", "$.model", "models ", "Models",
    "_model", "", "__proto__", "constructor",
]  # fmt: skip

REFUSED_EVERYWHERE = [
    "preset", "plugins", "provider", "fallbacks", "route", "transforms", "web_search_options",
    "debug", "prompt_id", "previous_response_id", "conversation", "trace", "image_config",
    "stop_server_tools_when", "deferred_tools", "context_management", "safeguards",
    "mcp_servers", "container", "api_key", "api_base", "base_url", "extra_body", "extra_headers",
    "functions", "function_call", "audio", "callback_url", "service", "key", "unknown_field",
]  # fmt: skip


@pytest.mark.parametrize("name", LOOK_ALIKES + REFUSED_EVERYWHERE)
def test_a_field_that_is_not_listed_is_refused(name: str) -> None:
    for style in fields.FIELDS:
        with pytest.raises(Refusal, match="field_not_allowed"):
            fields.check(Check(style, POLICY), CALL | {name: "x"})


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
@pytest.mark.parametrize(
    "name", ["preset", "plugins", "fallbacks", "provider", "Model", "model\x00"]
)
async def test_a_hidden_selector_never_reaches_the_upstream(
    proxy: Proxy, path: str, name: str
) -> None:
    async with proxy.post(CALL | {name: "x"}, path) as answer:
        assert answer.status == 403
        assert answer.headers["X-Keyproxy-Code"] == "field_not_allowed"
    assert proxy.upstream.calls == []


def allowed(style: Dialect, value: dict[str, Any]) -> bool:
    """Whether the fields pass; nothing but a refusal may be raised."""
    try:
        fields.check(Check(style, POLICY), CALL | value)
    except Refusal:
        return False
    return True


def cases(style: Dialect, name: str, is_allowed: bool, *values: Any) -> list[tuple[Any, ...]]:
    return [(style, name, value, is_allowed) for value in values]


FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SERVER_TOOLS = [
    "openrouter:web_search", "openrouter:web_fetch", "openrouter:advisor", "openrouter:subagent",
    "openrouter:fusion", "openrouter:image_generation", "openrouter:files", "openrouter:bash",
    "web_search", "web_search_preview", "web_search_20250305", "mcp", "code_interpreter",
    "file_search", "computer_use", "image_generation", "advisor_20260301", "local_shell",
    "Function", "function ", "functions", "anything", "*",
]  # fmt: skip


@pytest.mark.parametrize("kind", [*SERVER_TOOLS, 1, True, False, 0, [], {}, ["function"]])
@pytest.mark.parametrize("style", [dialects.CHAT, dialects.RESPONSES, dialects.MESSAGES])
def test_a_tool_that_runs_on_a_server_is_refused(style: Dialect, kind: Any) -> None:
    tool = {"type": kind, "name": "x", "parameters": {"model": "openai/o1-pro"}}
    assert not allowed(style, {"tools": [tool]})
    assert not allowed(style, {"tools": [FUNCTION, tool]})


@pytest.mark.parametrize(
    ("style", "tool", "is_allowed"),
    [
        (dialects.CHAT, FUNCTION, True),
        (dialects.CHAT, {"type": "custom", "custom": {"name": "x"}}, True),
        (dialects.CHAT, {"type": None, "function": {"name": "x"}}, False),
        (dialects.CHAT, {"name": "x", "parameters": {}}, False),
        (dialects.CHAT, {}, False),
        (dialects.RESPONSES, {"type": "function", "name": "f"}, True),
        (dialects.RESPONSES, {"type": "custom", "name": "f"}, True),
        (dialects.RESPONSES, {"name": "f"}, False),
        (dialects.MESSAGES, {"name": "f", "input_schema": {}}, True),
        (dialects.MESSAGES, {"type": "custom", "name": "f", "input_schema": {}}, True),
        (
            dialects.MESSAGES,
            {"type": None, "name": "f", "input_schema": {}, "cache_control": None},
            True,
        ),
        (dialects.RESPONSES, {"type": None, "name": "f"}, False),
        (dialects.CHAT, "web_search", False),
        (dialects.CHAT, None, False),
        (dialects.CHAT, [FUNCTION], False),
    ],
)
def test_the_callers_own_tools_pass(style: Dialect, tool: Any, is_allowed: bool) -> None:
    assert allowed(style, {"tools": [tool]}) is is_allowed


@pytest.mark.parametrize("value", [{}, "web_search", 1, True, {"type": "function"}])
def test_tools_are_a_list(value: Any) -> None:
    assert not allowed(dialects.CHAT, {"tools": value})


@pytest.mark.parametrize(
    ("value", "is_allowed"),
    [
        ("text", True),
        ([], True),
        (None, True),
        ([{"role": "user", "content": "x"}], True),
        ([{"type": "function_call_output", "call_id": "1", "output": "x"}], True),
        ([{"type": "additional_tools", "role": "developer", "tools": []}], True),
        ([{"type": "additional_tools", "tools": [{"type": "function", "name": "f"}]}], True),
        ([{"type": "additional_tools", "tools": [{"type": "web_search"}]}], False),
        ([{"type": "additional_tools", "Tools": [{"type": "web_search"}]}], False),
        ([{"type": "tool_search_output", "tools": [{"type": "shell"}]}], False),
        ([{"type": "message", "tools": [{"type": "web_search"}]}], False),
        ([{"role": "user"}, {"type": "mcp_list_tools", "tools": [{"name": "x"}]}], False),
        ([{"type": "item_reference", "id": "msg_1"}], False),
        ([[{"type": "additional_tools", "tools": []}]], False),
        ({"type": "additional_tools", "tools": []}, False),
        (["x"], False),
        (1, False),
    ],
)
def test_tools_hidden_in_the_input_are_refused(value: Any, is_allowed: bool) -> None:
    assert allowed(dialects.RESPONSES, {"input": value}) is is_allowed


@pytest.mark.parametrize(
    ("style", "name", "value", "is_allowed"),
    [
        *cases(dialects.CHAT, "n", True, 1, 1.0, None, [], ""),
        *cases(dialects.CHAT, "n", False, 0, 2, 2.0, 64, -1, 1.5, "1", True, {}, [1], [[]], " "),
        *cases(dialects.COMPLETIONS, "n", False, 2),
        *cases(dialects.COMPLETIONS, "best_of", False, 2),
        *cases(dialects.COMPLETIONS, "best_of", True, 1),
        *cases(dialects.IMAGES, "n", False, 4),
        *cases(dialects.MESSAGES, "n", False, 1),
        *cases(dialects.MESSAGES, "speed", False, "fast"),
        *cases(dialects.CHAT, "modalities", True, ["text"], [], None),
        *cases(dialects.CHAT, "modalities", False, ["image"], ["text", "audio"], "text", {}, [[]]),
        *cases(dialects.RESPONSES, "store", True, False, None, []),
        *cases(dialects.RESPONSES, "store", False, True, 1, 0, "false", {}, [False]),
        *cases(dialects.RESPONSES, "background", True, False),
        *cases(dialects.RESPONSES, "background", False, True),
        *cases(dialects.CHAT, "store", False, True),
        *cases(dialects.CHAT, "service_tier", True, None, "auto", "default"),
        *cases(dialects.CHAT, "service_tier", False, "fast", "priority", "AUTO", ["auto"], {}, 1),
        *cases(dialects.RESPONSES, "service_tier", False, "fast", "ultrafast", "scale"),
        *cases(dialects.MESSAGES, "service_tier", False, "fast", "priority"),
        *cases(dialects.MESSAGES, "cache_control", True, {"type": "ephemeral", "ttl": "5m"}, {}),
        *cases(
            dialects.MESSAGES,
            "cache_control",
            False,
            {"ttl": "1h"},
            {"TTL": "1h"},
            {"ttl": {}},
            "1h",
            [[]],
        ),
    ],
)
def test_multipliers_of_the_price_are_bounded(
    style: Dialect, name: str, value: Any, is_allowed: bool
) -> None:
    assert allowed(style, {name: value}) is is_allowed


HONEST = {
    CHAT: BODY
    | {
        "temperature": 0.2, "max_tokens": 100, "max_completion_tokens": 100, "stream": False,
        "stream_options": {"include_usage": True}, "tools": [FUNCTION], "tool_choice": "auto",
        "response_format": {"type": "json_object"}, "reasoning": {"effort": "low"}, "seed": 1,
        "usage": {"include": True}, "stop": ["x"], "user": "u", "n": 1, "parallel_tool_calls": True,
        "logit_bias": {"1": 1}, "logprobs": True, "top_logprobs": 2, "metadata": {},
    },
    RESPONSES: CALL
    | {
        "input": "Hi", "instructions": "x", "max_output_tokens": 100, "text": {"verbosity": "low"},
        "tools": [{"type": "function", "name": "f", "parameters": {}}], "store": False,
        "include": [], "reasoning": {"effort": "low"}, "truncation": "auto", "stream": False,
    },
    MESSAGES: CALL
    | {
        "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 100, "system": "x",
        "tools": [{"name": "f", "input_schema": {"type": "object"}}], "metadata": {"user_id": "1"},
        "stop_sequences": ["x"], "thinking": {"type": "disabled"}, "stream": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("path", HONEST)
async def test_what_sdks_send_passes(proxy: Proxy, path: str) -> None:
    async with proxy.post(HONEST[path], path) as answer:
        assert answer.status == 200, await answer.text()
    assert len(proxy.upstream.calls) == 1


@pytest.mark.parametrize("value", ["true", 1, 0, {}, [True], "yes"])
async def test_stream_is_true_or_false(proxy: Proxy, value: Any) -> None:
    async with proxy.post(BODY | {"stream": value}) as answer:
        assert (await refused(answer, 400, "invalid_json"))["param"] == "stream"
    assert proxy.upstream.calls == []


async def test_a_refused_field_is_named_printably(proxy: Proxy) -> None:
    async with proxy.post(BODY | {"\x1b[2J" + "x" * 100: 1}) as answer:
        error = await refused(answer, 403, "field_not_allowed")
    assert error["param"] == "?[2J" + "x" * 36 + "…"
    assert proxy.upstream.calls == []


def test_every_style_that_takes_a_body_has_its_table() -> None:
    styles = {endpoint.dialect for endpoint in KNOWN if endpoint.method == "POST"}
    assert set(fields.FIELDS) == styles
    selectors = {"preset", "route", "debug", "conversation", "mcp_servers", "previous_response_id"}
    assert all(selectors.isdisjoint(table) for table in fields.FIELDS.values())


@pytest.mark.parametrize(
    "model", ["openai//o1", "/openai/o1", "./openai/o1", "openai/./o1", "openai/../o1", "openai/"]
)
def test_an_id_has_no_empty_and_no_dot_segment(model: str) -> None:
    """An upstream might resolve them, past an exclusion."""
    assert not Models(["*"]).allows(model)


@pytest.mark.parametrize("name", ["tool", "definition", "tools"])
def test_tools_within_tools_are_looked_at_once_each(name: str) -> None:
    """At each level once more, and a megabyte took seconds."""
    word = "openrouter:subagent"
    seen: list[str] = []

    class Counted(dict[str, Any]):
        def items(self) -> Any:
            seen.append("x")
            return super().items()

    tool: dict[str, Any] = {"type": word, "x": Counted()}
    for _ in range(20):
        tool = {"type": word, name: [tool] if name == "tools" else tool}
    check = Check(dialects.MESSAGES, replace(POLICY, features=Features.of([f"tools:{word}"])))
    fields.check(check, {"messages": [{"content": [{"type": "tool_addition", "tool": tool}]}]})
    assert seen == ["x"]


def test_names_made_to_be_slow_to_fold_are_passed_over() -> None:
    """One such letter grows 18-fold when it is normalised."""
    assert spelling.plain("\ufdfa" * 30) == "\ufdfa" * 30
    assert spelling.plain("\uff54ool\u017f") == "tools"
    assert spelling.plain("TOOLS") == "tools"


NOTHING = [b"null", b"[]", b'""', b"[ ]"]


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
@pytest.mark.parametrize("nothing", NOTHING)
async def test_a_value_that_asks_for_nothing_goes_up_as_it_came(
    start: Start, path: str, nothing: bytes
) -> None:
    """SDKs and tools write fields that nobody asked for; not one of them selects anything."""
    proxy = await start(TOTAL_BUDGET="off")
    names = {name for table in fields.FIELDS.values() for name in table} | CLOSED_FIELDS.keys()
    names |= {"unknown_field", "x" * 64}
    members = [
        b'"%b" :%b' % (name.encode(), nothing) for name in sorted(names - {"model", "thread"})
    ]
    raw = b'{ "model":"%b", %b }' % (MINI.encode(), b",".join(members))
    async with proxy.post(raw, path) as answer:
        assert answer.status == 200, await answer.text()
    assert [call.body for call in proxy.upstream.calls] == [raw]


@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
async def test_some_empty_objects_ask_for_nothing_and_others_do(proxy: Proxy, path: str) -> None:
    names = ("provider", "extra_body", "metadata", "extra_headers")
    empty: dict[str, Any] = {name: {} for name in names}
    async with proxy.post(CALL | empty, path) as answer:
        assert answer.status == 200, await answer.text()
    assert len(proxy.upstream.calls) == 1
    for name in ("web_search_options", "preset", "conversation", "image_config", "trace", "x"):
        async with proxy.post(CALL | {name: {}}, path) as answer:
            assert answer.headers["X-Keyproxy-Code"] == "field_not_allowed"
    for name, value in {"provider": {"": {}}, "extra_body": {"a": None}, "preset": [[]]}.items():
        async with proxy.post(CALL | {name: value}, path) as answer:
            assert answer.headers["X-Keyproxy-Code"] == "field_not_allowed"
    assert len(proxy.upstream.calls) == 1


# All but the last, which is an ordinary name but to objects of some languages.
@pytest.mark.parametrize("nothing", [None, [], "", {}, False])
@pytest.mark.parametrize(
    "name", [*LOOK_ALIKES[:-1], "x" * 65, "1x", "X", "toolS", "thread ", "mod\u00e8le"]
)
def test_an_odd_name_is_refused_with_any_value(name: str, nothing: Any) -> None:
    for style in fields.FIELDS:
        with pytest.raises(Refusal, match="field_not_allowed"):
            fields.check(Check(style, POLICY), CALL | {name: nothing})


@pytest.mark.parametrize("nothing", [None, [], ""])
async def test_no_fallback_models_are_as_good_as_none(start: Start, nothing: Any) -> None:
    proxy = await start(ALLOWED_MODELS="openai/*", MODEL_ALIASES=f"fast={MINI}")
    async with proxy.post({"model": "fast", "models": nothing}) as answer:
        assert answer.status == 200, await answer.text()
    [call] = proxy.upstream.calls
    assert json.loads(call.body) == {"model": MINI, "models": nothing}
    async with proxy.post({"models": nothing, "messages": []}) as answer:
        assert (await refused(answer, 400, "model_missing"))["param"] == "model"
    assert len(proxy.upstream.calls) == 1


@pytest.mark.parametrize("nothing", [None, [], ""])
@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
async def test_an_empty_length_is_one_that_is_not_said(
    start: Start, path: str, nothing: Any
) -> None:
    """The cap is filled in for it, and no budget takes it for a demand."""
    proxy = await start(MAX_TOKENS="50", TOTAL_BUDGET="1/day", ALLOWED_FEATURES="web")
    names = {name for table in fields.FIELDS.values() for name in table} | {"preset"}
    empty = dict.fromkeys(sorted(names - {"model"}), nothing)
    async with proxy.post(empty | CALL, path) as answer:
        assert answer.status == 200, await answer.text()
    [call] = proxy.upstream.calls
    sent = json.loads(call.body)
    length = "max_output_tokens" if path == RESPONSES else "max_tokens"
    changed = {name for name in empty if sent[name] != nothing}
    bounds = {"stop_server_tools_when"} if nothing == [] else set()  # it could lift the bound
    assert changed - bounds == {length} | ({"max_tool_calls"} if path == RESPONSES else set())
    assert sent[length] == 50


def test_an_empty_list_of_stop_conditions_says_a_number_of_steps_where_tools_run() -> None:
    for words, expected in (([], []), (["web"], [{"type": "step_count_is", "step_count": 10}])):
        body: dict[str, Any] = CALL | {"stop_server_tools_when": []}
        fields.check(Check(dialects.CHAT, replace(POLICY, features=Features.of(words))), body)
        assert body["stop_server_tools_when"] == expected


@pytest.mark.parametrize(
    ("path", "name", "meant"),
    [
        (CHAT, "temprature", "temperature"),
        (CHAT, "tempature", "temperature"),
        (CHAT, "maxTokens", "max_tokens"),
        (CHAT, "max-tokens", "max_tokens"),
        (CHAT, "massages", "messages"),
        (CHAT, "straem", "stream"),
        (CHAT, "Model", "model"),
        (CHAT, "modle", "model"),
        (CHAT, "topP", "top_p"),
        (CHAT, "web_search_option", "web_search_options"),
        (RESPONSES, "max_output_token", "max_output_tokens"),
        (MESSAGES, "stop_sequence", "stop_sequences"),
    ],
)
async def test_a_slip_of_the_keys_is_answered_with_the_name_that_was_meant(
    proxy: Proxy, path: str, name: str, meant: str
) -> None:
    async with proxy.post(CALL | {name: 0.5}, path) as answer:
        error = await refused(answer, 403, "field_not_allowed")
    assert error["message"] == f"The field {name} is not allowed here: did you mean {meant}?"
    assert proxy.upstream.calls == []


@pytest.mark.parametrize(
    ("style", "name"),
    [
        (dialects.CHAT, "min_tokens"),  # of other servers, and no max_tokens
        (dialects.CHAT, "reasoning_format"),
        (dialects.CHAT, "trace"),
        (dialects.CHAT, "user_id"),
        (dialects.MESSAGES, "seed"),
        (dialects.CHAT, "conversation"),
        (dialects.CHAT, "max_output_tokens"),  # open in another style
        (dialects.CHAT, "temperatur\u0435"),
        (dialects.CHAT, "temperature" * 1_000_000),
        (dialects.CHAT, ""),
    ],
)
def test_other_names_are_no_slips(style: Dialect, name: str) -> None:
    with pytest.raises(Refusal) as raised:
        fields.check(Check(style, POLICY), CALL | {name: 0.5})
    assert "did you mean" not in raised.value.message
    assert len(raised.value.message) < 200


def test_no_open_name_is_taken_for_a_slip_of_another() -> None:
    for table in fields.FIELDS.values():
        for name in table:
            assert spelling.near(name, table) == name
