"""What each word of KEYPROXY_ALLOWED_FEATURES opens, what stays closed, and what the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from keyproxy import dialects
from keyproxy.dialects import Dialect
from keyproxy.errors import Refusal, SettingsFaults
from keyproxy.features import CLOSED_FIELDS, OPENED_BY, WORDS
from keyproxy.policy import fields
from keyproxy.policy.check import Check, Policy
from keyproxy.policy.models import Models
from keyproxy.policy.opened import COSTLY_BETAS, Features
from keyproxy.settings.grammar import Unfit
from keyproxy.settings.grammar.features import extra_fields
from tests.conftest import BODY, CHAT, Proxy, Start, refused, settings

DOCS = Path(__file__).resolve().parents[1] / "docs" / "features.md"
MESSAGES, RESPONSES = "/api/v1/messages", "/api/v1/responses"
MAIN = (dialects.CHAT, dialects.RESPONSES, dialects.MESSAGES)
C, R, M = MAIN
LIST = ("openai/gpt-4o-mini", "anthropic/claude-*", "!anthropic/claude-opus-*")
GOOD = "anthropic/claude-haiku"
BAD = "anthropic/claude-opus-5"


def refusal(words: str, style: Dialect, value: dict[str, Any], *more: str) -> Refusal | None:
    """What is said to ``value`` with these words on and models like ``LIST``, or nothing."""
    features = Features.of(words.split())
    try:
        fields.check(
            Check(style, Policy(Models([*LIST, *more], features), features=features)), value
        )
    except Refusal as error:
        return error
    return None


def tool(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"tools": [{"type": f"openrouter:{kind}", "parameters": parameters}]}


def said(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def heard(*parts: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": list(parts)}]}


def edits(*made: Any) -> dict[str, Any]:
    return {"context_management": {"edits": list(made)}}


TOKENS = {"type": "input_tokens", "value": 50_000}
CLEAR = {
    "type": "clear_tool_uses_20250919",
    "trigger": TOKENS,
    "keep": {"type": "tool_uses", "value": 3},
    "exclude_tools": ["f"],
    "clear_tool_inputs": False,
}
GRAMMAR = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /x/"}}
FILE = {"type": "file", "file": {"file_id": "file-1"}}
HOUR = {"type": "ephemeral", "ttl": "1h"}
SEARCH = {
    "type": "tool_search",
    "execution": "client",
    "description": "x",
    "parameters": {"type": "object", "properties": {"model": {"type": "string"}}},
}
ADDED = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {}}}


FUSION = {"id": "fusion", "analysis_models": [GOOD], "model": GOOD, "tools": []}


OPENED: list[tuple[str, Dialect, dict[str, Any]]] = [
    ("web", C, {"plugins": [{"id": "web", "max_results": 3}]}),
    ("web", M, {"plugins": [{"id": "web-fetch"}]}),
    ("web", C, {"web_search_options": {"search_context_size": "low"}}),
    ("web", C, tool("web_search", engine="exa")),
    ("web", M, tool("web_fetch")),
    ("web", R, {"tools": [{"type": "web_search_preview_2025_03_11"}]}),
    ("web", M, {"tools": [{"type": "web_search_20260209", "name": "web_search"}]}),
    ("web", R, {"input": [{"type": "additional_tools", "tools": [{"type": "web_search"}]}]}),
    ("web", C, {"tool_choice": {"type": "openrouter:web_search"}}),
    ("web", R, {"tool_choice": {"type": "allowed_tools", "tools": [{"type": "web_search"}]}}),
    ("web", C, {"stop_server_tools_when": [{"type": "step_count_is", "step_count": 3}]}),
    ("pdf", C, {"plugins": [{"id": "file-parser", "pdf": {"engine": "mistral-ocr"}}]}),
    ("workspace-files", C, said(FILE)),
    ("workspace-files", R, heard({"type": "input_file", "file_id": "1"})),
    ("workspace-files", M, said({"type": "document", "source": {"file_id": "1"}})),
    ("images", C, {"modalities": ["text", "image"]}),
    ("images", C, {"image_config": {"aspect_ratio": "16:9"}}),
    ("images", C, tool("image_generation", model=GOOD)),
    ("images", R, {"tools": [{"type": "image_generation", "model": GOOD}]}),
    ("audio", C, {"modalities": ["text", "audio"]}),
    ("audio", C, {"audio": {"voice": "alloy", "format": "wav"}}),
    ("provider", C, {"provider": {"order": ["openai", "deepinfra/fp8"], "sort": "price"}}),
    ("provider", R, {"provider": {"zdr": True, "data_collection": "deny", "only": None}}),
    ("priority", C, {"service_tier": "priority"}),
    ("priority", M, {"speed": "fast"}),
    ("priority provider", C, {"provider": {"only": ["openai/priority"]}}),
    ("cache-1h", M, {"cache_control": HOUR}),
    ("cache-1h", M, {"system": [{"type": "text", "text": "x", "cache_control": HOUR}]}),
    ("cache-1h", C, said({"type": "text", "text": "x", "cache_control": HOUR})),
    ("cache-1h", M, {"tools": [{"name": "f", "cache_control": HOUR}]}),
    ("cache-1h", C, {"prompt_cache_options": {"ttl": "24h"}}),
    ("cache-1h", R, {"prompt_cache_retention": "24h"}),
    ("priority", M, {"inference_geo": "us"}),
    ("many", C, {"n": 4}),
    ("many", dialects.COMPLETIONS, {"prompt": ["x", "y"]}),
    ("many", dialects.COMPLETIONS, {"best_of": 10}),
    ("fallbacks", M, {"fallbacks": [{"model": GOOD}]}),
    ("routers", C, {"plugins": [{"id": "auto-router", "allowed_models": [GOOD]}]}),
    ("routers", C, {"plugins": [FUSION]}),
    ("tools:openrouter:datetime", C, tool("datetime", timezone="UTC")),
    ("tools:openrouter:advisor", C, tool("advisor", model=GOOD)),
    ("tools:openrouter:subagent", R, tool("subagent", model=GOOD)),
    ("tools:advisor_20260301", M, {"tools": [{"type": "advisor_20260301", "model": GOOD}]}),
    (
        "tools:openrouter:fusion",
        C,
        tool("fusion", model=GOOD, analysis_models=[GOOD], tools=[]),
    ),
    ("tools:openrouter:subagent web", C, tool("subagent", **tool("web_search"))),
]


@pytest.mark.parametrize(("word", "style", "value"), OPENED)
def test_a_word_opens_what_all_the_others_do_not(
    word: str, style: Dialect, value: dict[str, Any]
) -> None:
    assert refusal(word, style, value) is None
    needed = word.split()
    others = [*WORDS, "tools:openrouter:apply_patch", *needed]
    for one in needed:
        error = refusal(" ".join({*others} - {one}), style, value)
        if error is None:
            assert "stop_server_tools_when" in value  # any server tool opens it
            error = refusal("pdf", style, value)
        assert error is not None
        assert error.code == "field_not_allowed"
        assert one in (error.hint or "").partition("=")[2].split(",")


EVERYTHING = " ".join(WORDS) + " " + " ".join(
    f"tools:{kind}"
    for kind in (
        "openrouter:advisor", "openrouter:subagent", "openrouter:fusion", "advisor_20260301",
        "openrouter:datetime",
    )
)  # fmt: skip


@pytest.mark.parametrize(
    ("style", "value"),
    [
        (C, tool("advisor")),
        (C, tool("advisor", name="x")),
        (C, {"tools": [{"type": "openrouter:advisor", "model": GOOD}]}),
        (C, tool("advisor", model=BAD)),
        (C, tool("advisor", model="")),
        (C, tool("advisor", model=["x"])),
        (C, tool("advisor", model=GOOD, Model=BAD)),
        (M, {"tools": [{"type": "advisor_20260301"}]}),
        (M, {"tools": [{"type": "advisor_20260301", "model": BAD}]}),
        (C, tool("image_generation")),
        (R, {"tools": [{"type": "image_generation"}]}),
        (R, {"tools": [{"type": "image_generation", "parameters": {"model": GOOD}}]}),
        (R, {"tools": [{"type": "image_generation", "model": BAD}]}),
        (C, tool("fusion", model=GOOD)),
        (C, tool("fusion", model=GOOD, analysis_models=[GOOD])),
        (C, tool("fusion", model=GOOD, analysis_models=[], tools=[])),
        (C, tool("fusion", model=GOOD, analysis_models=[GOOD, BAD], tools=[])),
        (C, tool("fusion", model=GOOD, analysis_models=[GOOD], tools=[], preset="general-high")),
        (C, tool("subagent", model=BAD)),
        (C, tool("subagent", reasoning={"model": BAD})),
        (C, tool("subagent", tools=[{"type": "openrouter:bash"}])),
        (C, tool("subagent", tools=[{"type": "openrouter:advisor"}])),
        (C, tool("subagent", tools=tool("subagent", model=BAD)["tools"])),
        (C, tool("web_search", judge_model=BAD)),
        (C, tool("web_search", nested=[{"x": {"model": BAD}}])),
        (C, tool("web_search") | {"plugins": [{"id": "fusion", "model": BAD}]}),
        (C, {"plugins": [{"id": "fusion", "preset": "general-high"}]}),
        (C, {"plugins": [{"id": "fusion", "enabled": False, "model": BAD}]}),
        (C, {"plugins": [{"id": "auto-router", "allowed_models": ["*"]}]}),
        (C, {"plugins": [{"id": "auto-router", "pin_model": True}]}),
        (C, {"plugins": [{"id": "jev-router", "models": [BAD]}]}),
        (C, {"plugins": [{"id": "switchyard-router", "judge_model": BAD}]}),
        (C, {"plugins": [{"id": "web", "ID": "fusion"}]}),
        (C, {"plugins": [{"id": "moderation"}]}),
        (C, {"plugins": [{"id": "armor", "enabled": False}]}),
        (C, {"plugins": ["web"]}),
        (C, {"plugins": {"id": "web"}}),
        (C, {"image_config": {"model": BAD}}),
        (M, {"fallbacks": [{"model": BAD}]}),
        (M, {"fallbacks": [{"model": GOOD, "max_tokens": 9}]}),
        (M, {"fallbacks": [{"model": GOOD}] * 4}),
        (M, {"fallbacks": [GOOD]}),
        (M, {"fallbacks": {"model": GOOD}}),
        (C, {"fallbacks": [{"model": GOOD}]}),
        (C, {"provider": {"options": {"openai": {}}}}),
        (C, {"provider": {"zdr": False}}),
        (C, {"provider": {"data_collection": "allow"}}),
        (C, {"provider": {"only": "openai"}}),
        (C, {"provider": {"only": [{"slug": "openai"}]}}),
        (C, {"provider": {"Only": ["openai"]}}),
        (C, {"provider": ["openai"]}),
        (C, {"n": 11}),
        (C, {"n": "2"}),
        (C, {"n": True}),
        (C, {"n": 2.5}),
        (C, {"modalities": ["video"]}),
        (C, {"service_tier": ["priority"]}),
        (M, {"cache_control": {"ttl": ["1h"]}}),
        (R, {"tools": [{"type": "mcp", "server_url": "https://x.example"}]}),
        (R, {"tools": [{"type": "namespace", "name": "x", "tools": [{"type": "mcp"}]}]}),
        (R, {"tool_choice": {"type": "mcp"}}),
        (C, {"tool_choice": "openrouter:files"}),
        (C, {"tool_choice": {"type": "auto", "Type": "openrouter:files"}}),
        (C, {"tools": [{"type": "function", "Type": "openrouter:files"}]}),
        (M, said(ADDED | {"tool": {"definition": {"type": "mcp_toolset"}}})),
        (M, said(ADDED | {"tool": {"definition": {"type": "advisor_20260301", "model": BAD}}})),
        (M, said({"type": "x", "tools": [{"type": "openrouter:files"}]})),
        (M, said(ADDED | {"tool": {"type": "mcp_toolset", "mcp_server_name": "x"}})),
        (M, said(ADDED | {"tool": {"type": "mcp_toolset_reference", "server_name": "x"}})),
        (M, said(ADDED | {"tool": [{"type": "openrouter:files"}]})),
        (M, said(ADDED | {"tool": {"type": "advisor_20260301", "model": BAD}})),
        (M, said(ADDED | {"tool": {"type": "tool_reference", "definition": {"type": "mcp"}}})),
        (M, said(ADDED | {"tool": {"name": "f", "tool": {"definition": {"type": "mcp"}}}})),
        (M, said(ADDED | {"Tool": {"type": "openrouter:files"}})),
        (M, said(ADDED | {"tool": {"name": "f", "definition": {"type": "mcp"}}})),
        (M, said(ADDED | {"tool": tool("web_fetch", definition={"type": "mcp"})["tools"][0]})),
        (M, said({"type": "my_tool_use", "input": {"tools": [{"type": "openrouter:files"}]}})),
        (R, {"instructions": [{"type": "additional_tools", "tools": [{"type": "mcp"}]}]}),
        (R, {"instructions": ["x"]}),
        (C, edits(CLEAR)),
        (R, edits(CLEAR)),
        (M, edits({"type": "compact_20270101"})),
        (M, edits({"type": "compact_20260112", "model": GOOD})),
        (M, edits(CLEAR | {"trigger": TOKENS | {"model": BAD}})),
        (M, edits({"type": ["compact_20260112"]})),
        (M, edits({"Type": "compact_20260112"})),
        (M, edits("compact_20260112")),
        (M, {"context_management": {"edits": [CLEAR], "mode": "x"}}),
        (M, {"context_management": {"edits": CLEAR}}),
        (M, {"context_management": [CLEAR]}),
        (R, {"input": [{"id": "msg_1"}]}),
        (R, {"input": [{"id": "msg_1", "type": None}]}),
        (R, {"input": [{"id": "msg_1", "role": "user"}]}),
        (R, {"input": [{"id": "msg_1", "content": "x"}]}),
        (R, {"input": [{"ID": "msg_1", "Type": "item_reference"}]}),
        (R, {"input": [{"id": "msg_1", "type": ["item_reference"]}]}),
        (dialects.COMPLETIONS, {"prompt": ["x"] * 11}),
        (R, {"input": [{"type": "tool_search_output", "tools": [{"type": "shell"}]}]}),
        (R, {"tools": [SEARCH | {"tools": [{"type": "function"}]}]}),
        (R, {"tools": [SEARCH | {"model": BAD}]}),
        (R, {"tools": [SEARCH | {"Execution": "server"}]}),
        (C, {"speed": "standard"}),
        (C, {"transforms": ["Middle-Out"]}),
        (C, {"require_parameters": {"order": ["openai"]}}),
        (C, {"require_parameters": "true"}),
        (C, {"transforms": ["middle-out", "middle-out"]}),
        (C, {"transforms": ["middle-out", {"model": BAD}]}),
        (C, {"transforms": "middle-out"}),
        (C, {"transforms": {"middle-out": True}}),
        (R, {"transforms": ["middle-out"]}),
        (M, {"transforms": ["middle-out"]}),
        (C, {"functions": [{"name": "f", "type": "openrouter:files"}]}),
        (C, {"functions": [{"name": "f", "model": BAD}]}),
        (C, {"functions": {"name": "f"}}),
        (C, {"functions": ["f"]}),
        (C, {"function_call": {"name": "f", "type": "openrouter:files"}}),
        (C, {"function_call": {"name": {"type": "mcp"}}}),
        (C, {"function_call": "required"}),
        (C, {"function_call": ["auto"]}),
        (R, {"context_management": [{"type": "compact_20260112"}]}),
        (R, {"context_management": [{"type": "compaction", "model": BAD}]}),
        (R, {"context_management": [{"type": "compaction", "compact_threshold": {"x": 1}}]}),
        (R, {"context_management": ["compaction"]}),
        (R, {"client_metadata": {"x": {"model": BAD}}}),
        (R, {"client_metadata": {"x": ["y"]}}),
        (R, {"client_metadata": "x"}),
        (R, {"image": {"model": BAD}}),
        (R, {"image": {"context_compression": {"model": BAD}}}),
        (R, {"image": "data:"}),
        (M, {"compaction": {"type": "summarize", "model": BAD}}),
        (M, {"compaction": {}}),
        (M, {"compaction": "summarize"}),
        (M, {"inference_geo": "Global"}),
        (M, {"inference_geo": {"x": 1}}),
        (C, {"prompt_cache_retention": {"ttl": ["24h"]}}),
        (R, {"prompt_cache_options": {"comparison_response_id": "resp_1"}}),
        (C, {"prompt_cache_options": {"Comparison_Response_Id": "resp_1"}}),
        (C, {"preset": "x"}),
        (R, {"prompt": {"id": "x"}}),
        (dialects.EMBEDDINGS, {"input": [{"content": [{"definition": {}}]}]}),
    ],
)  # fmt: skip
def test_some_things_stay_closed_with_every_word_on(style: Dialect, value: dict[str, Any]) -> None:
    assert refusal(EVERYTHING, style, value) is not None


@pytest.mark.parametrize(
    "kind",
    [
        "files",
        "file_search",
        "memory",
        "mcp",
        "bash",
        "shell",
        "code_interpreter",
        "code_execution_20260521",
        "mcp_toolset",
        "mcp_20251120",
        "shell_2",
        "bash-1",
        "files:read",
        "computer_use_preview",
    ],
)
@pytest.mark.parametrize("prefix", ["", "openrouter:", "openrouter:experimental__", "x."])
def test_tools_that_reach_the_account_have_no_word(kind: str, prefix: str) -> None:
    error = refusal(f"tools:{prefix}{kind}", C, {"tools": [{"type": prefix + kind}]})
    assert error is not None
    assert error.hint is None


@pytest.mark.parametrize(
    ("style", "value"),
    [
        (C, {"plugins": [{"id": "response-healing"}, {"id": "context-compression"}]}),
        (C, {"plugins": [{"id": "web", "enabled": False}]}),
        (C, said({"type": "file", "file": {"filename": "a.pdf", "file_data": "data:,x"}})),
        (C, said({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}})),
        (R, heard({"type": "input_image", "file_id": None, "image_url": "x"})),
        (R, {"input": [{"type": "tool_search_call", "arguments": {"tools": "x", "file_id": 1}}]}),
        (R, {"instructions": "x"}),
        (M, said({"type": "server_tool_use", "input": {"tools": "x"}})),
        (M, said(ADDED | {"tool": {"type": "tool_reference", "name": "f"}})),
        (M, said(ADDED | {"tool": {"name": "f", "input_schema": {}}})),
        (M, said({"type": "compaction", "content": "x", "tool_changes": [ADDED]})),
        (dialects.COMPLETIONS, {"prompt": ["x"]}),
        (M, {"tools": [{"type": None, "name": "f", "input_schema": {}}]}),
        (C, {"tools": [{"type": "custom", "custom": {"name": "f", "format": GRAMMAR}}]}),
        (C, {"tool_choice": {"type": "custom", "custom": {"name": "f"}}}),
        (M, {"context_management": {}}),
        (M, {"context_management": {"edits": None}}),
        (M, edits({"type": "clear_thinking_20251015", "keep": "all"}, CLEAR)),
        (M, edits({"type": "compact_20260112", "trigger": TOKENS, "instructions": "x"})),
        (dialects.COMPLETIONS, {"prompt": [1, 2, 3]}),
        (M, said({"type": "tool_use", "input": {"file_id": "x", "tools": [{"type": "mcp"}]}})),
        (M, said(ADDED | {"tool": {"definition": {"name": "f", "input_schema": {}}}})),
        (R, {"tools": [SEARCH]}),
        (R, {"input": [{"type": "additional_tools", "role": "developer", "tools": [SEARCH]}]}),
        (R, {"tools": [{"type": "namespace", "name": "x", "tools": [{"type": "function"}]}]}),
        (R, {"tools": [{"type": "function", "name": "f", "parameters": {"model": {}}}]}),
        (C, {"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        (M, {"tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}}),
        (R, {"tool_choice": {"type": "allowed_tools", "tools": [{"type": "function"}]}}),
        (C, {"tool_choice": "required"}),
        (C, {"transforms": ["middle-out"]}),
        (C, {"require_parameters": True}),
        (C, {"functions": [{"name": "f", "description": "x", "parameters": {"model": {}}}]}),
        (C, {"function_call": "auto"}),
        (C, {"function_call": {"name": "f"}}),
        (C, {"prompt_cache_retention": "in_memory"}),
        (R, {"prompt_cache_options": {"comparison_response_id": None, "ttl": "30m"}}),
        (R, {"context_management": [{"type": "compaction", "compact_threshold": 1000}]}),
        (R, {"image": {"context_compression": "disabled"}}),
        (R, {"client_metadata": {"x-codex-installation-id": "6d1f"}}),
        (M, {"compaction": {"type": "summarize", "instructions": None}}),
        (M, {"speed": "standard"}),
        (dialects.IMAGES, {"style": "vivid", "safety_identifier": "x"}),
        (dialects.TRANSCRIPTIONS, {"timestamp_granularities": ["word"]}),
    ],
)
def test_what_costs_nothing_needs_no_word(style: Dialect, value: dict[str, Any]) -> None:
    assert refusal("", style, value) is None


@pytest.mark.parametrize(
    ("kind", "is_closed"),
    [
        ("bash_20250124", False),
        ("memory_20250818", False),
        ("openrouter:bash_20250124", True),
        ("openrouter:memory_20250818", True),
        ("bash_20250124_x", True),
        ("bash_latest", True),
        ("text_editor_20250728", False),
        ("computer_20251124", False),
        ("local_shell", False),
        ("apply_patch", False),
        ("bashful", False),
        ("openrouter:datetime", False),
    ],
)
def test_one_rule_tells_tools_of_the_caller_from_closed_ones(kind: str, is_closed: bool) -> None:
    error = refusal(f"tools:{kind}", M, {"tools": [{"type": kind, "name": "x"}]})
    assert (error is not None) is is_closed
    if is_closed:
        assert "never open" in fault(ALLOWED_FEATURES=f"tools:{kind}")


def test_models_of_fields_are_among_the_models_of_a_call() -> None:
    features = Features.of(["fallbacks", "tools:openrouter:advisor"])
    value = tool("advisor", model="anthropic/a") | {"fallbacks": [{"model": "anthropic/b"}]}
    check = Check(M, Policy(Models(["*"]), features=features))
    fields.check(check, value)
    assert [*check.named] == ["anthropic/a", "anthropic/b"]


@pytest.mark.parametrize(
    ("patterns", "words", "model", "is_allowed"),
    [
        ("openai/*", "", "openai/gpt-4o:free", True),
        ("openai/*", "", "openai/gpt-4o:floor:exacto", True),
        ("openai/*", "", "openai/gpt-4o:thinking", True),
        ("openai/*", "", "openai/gpt-4o:online", False),
        ("openai/*", "", "openai/gpt-4o:Online", False),
        ("openai/*", "", "openai/gpt-4o:free:online", False),
        ("openai/gpt-4o:online", "", "openai/gpt-4o:online", False),
        ("openai/gpt-4o:online", "web", "openai/gpt-4o:online", True),
        ("openai/*", "web", "openai/gpt-4o:online", True),
        ("openai/*", "web", "openai/gpt-4o:nitro", False),
        ("openai/*", "web", "openai/gpt-4o:online:nitro", False),
        ("openai/*", "web priority", "openai/gpt-4o:online:nitro", True),
        ("openai/*", "web priority", "openai/gpt-4o:turbo", False),
        ("openai/*,openai/gpt-4o:turbo", "", "openai/gpt-4o:turbo", True),
        ("*", "", "openai/gpt-4o:", False),
        ("*", "", "openai:online/gpt-4o", False),
        ("*", "routers", "openrouter/auto", False),
        ("openrouter/*", "routers", "openrouter/auto", False),
        ("openrouter/auto", "", "openrouter/auto", False),
        ("openrouter/auto", "routers", "openrouter/auto", True),
        ("openrouter/auto", "routers", "openrouter/auto-beta", False),
        ("openrouter/auto", "routers", "openrouter/auto:free", False),
        ("*", "routers", "OpenRouter/Auto", False),
        ("*", "routers", "typesafe/jev-router", False),
        ("*", "routers", "switchpoint/router", False),
        ("switchpoint/router", "", "switchpoint/router", False),
        ("switchpoint/router", "routers", "switchpoint/router", True),
        ("anthropic/*", "", "anthropic/claude-opus-4.6-fast", False),
        ("anthropic/*", "", "anthropic/claude-opus-4.6-fast:free", False),
        ("anthropic/*", "", "anthropic/claude-4.6-opus-fast-20260207", False),
        ("anthropic/*", "priority", "anthropic/claude-opus-4.6-fast", True),
        ("anthropic/claude-opus-4.6-fast", "", "anthropic/claude-opus-4.6-fast", True),
        ("*", "", "Anthropic/claude-opus-4.6-Fast", False),
        ("*", "", "~anthropic/claude-opus-fast-latest", False),
        ("*", "", "claude-opus-4-6-fast", False),
        ("*", "", "anthropic/claude-breakfast", True),
        ("*", "", "x-ai/grok-4-fast", True),
        ("*", "routers", "~openrouter/auto", False),
        ("*", "", "openrouter/fusion", False),
        ("*", "", "openrouter/bodybuilder", False),
        ("*", "", "openrouter/pareto-code:nitro", False),
        ("*", "", "auto", False),
        ("*", "web priority routers", "openai/gpt-4o@preset/x", False),
        ("*", "web priority routers", "@preset/x", False),
    ],
)
def test_variants_and_routers(patterns: str, words: str, model: str, is_allowed: bool) -> None:
    models = Models(patterns.split(","), Features.of(words.split()))
    assert models.allows(model) is is_allowed


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (
            {"provider": {"sort": "price"}},
            "The field provider can cost extra, which is not open here. Leave it out of the call.",
            "KEYPROXY_ALLOWED_FEATURES=provider,web",
        ),
        (
            {"tools": [{"type": "openrouter:advisor"}]},
            "The field tools holds a tool of type openrouter:advisor that runs on a server, which"
            " is not open here. Allowed: function.",
            "KEYPROXY_ALLOWED_FEATURES=tools:openrouter:advisor,web",
        ),
        (
            {"trace": {}},
            "The field trace is not allowed here. Leave it out of the call.",
            "KEYPROXY_EXTRA_FIELDS=trace",
        ),
        (
            {"preset": "x"},
            "The field preset is not allowed here: a stored preset chooses models, prompts and"
            " tools. Leave it out of the call.",
            None,
        ),
        (
            {"model": "openai/gpt-4o:nitro"},
            "The model openai/gpt-4o:nitro may not be used here: the variant :nitro has a price of"
            " its own. Allowed: the same model without it.",
            "KEYPROXY_ALLOWED_FEATURES=priority,web",
        ),
        (
            {"model": "openrouter/auto"},
            "The model openrouter/auto may not be used here: it is a router, which chooses other"
            " models. Allowed: the models themselves.",
            "KEYPROXY_ALLOWED_FEATURES=routers,web",
        ),
    ],
)
async def test_a_refusal_says_what_to_do_and_dev_which_line_to_paste(
    start: Start, change: dict[str, Any], message: str, hint: str | None
) -> None:
    proxy = await start(ALLOWED_FEATURES="web")
    async with proxy.post(BODY | change) as answer:
        error = await refused(answer, 403, answer.headers["X-Keyproxy-Code"])
    assert error["message"].startswith(message)
    assert (hint or "") in error["message"]
    assert ("KEYPROXY_" in error["message"]) is (hint is not None)
    assert proxy.upstream.calls == []


@pytest.mark.parametrize(
    ("words", "asked", "passed"),
    [
        ("", "interleaved-thinking-2025-05-14, tomorrow-2027-01-01", None),
        ("", "context-1m-2025-08-07", ""),
        ("", "Context-1M-2025-08-07,fast-mode-2026-02-01", ""),
        ("", "a-1, context-1m-2025-08-07 ,b-2", "a-1,b-2"),
        ("long-context", "a-1, context-1m-2025-08-07", None),
        ("long-context", "context-1m-2025-08-07,fast-mode-2026-02-01", "context-1m-2025-08-07"),
        ("priority", "fast-mode-2026-02-01", None),
    ],
)
async def test_a_beta_that_costs_is_left_out_until_its_word_is_on(
    start: Start, words: str, asked: str, passed: str | None
) -> None:
    proxy = await start(ALLOWED_FEATURES=words or "off")
    headers = {"anthropic-beta": asked, "anthropic-version": "2023-06-01"}
    async with proxy.post(BODY | {"max_tokens": 9}, MESSAGES, headers=headers) as answer:
        assert answer.status == 200
    [seen] = proxy.upstream.calls
    assert seen.headers.get("anthropic-beta", "") == (asked if passed is None else passed)
    assert seen.headers["anthropic-version"] == "2023-06-01"


def test_the_page_has_every_beta_that_costs() -> None:
    rows = documented()
    start = rows.index(["name begins with", "word"]) + 2
    expected = [[f"`{name}`", f"`{word}`"] for name, word in COSTLY_BETAS.items()]
    assert rows[start : start + len(expected)] == expected
    assert set(COSTLY_BETAS.values()) <= set(WORDS)


async def test_allowed_features_and_extra_fields_pass(start: Start) -> None:
    proxy = await start("serve", ALLOWED_FEATURES="web", EXTRA_FIELDS="trace")
    call = BODY | {"plugins": [{"id": "web"}], "trace": {"trace_id": "1"}}
    async with proxy.post(call, CHAT, headers={"Origin": "https://app.example"}) as answer:
        assert answer.status == 200, await answer.text()
    assert len(proxy.upstream.calls) == 1


@pytest.mark.parametrize("value", [b'["middle-out"]', b"[ ]", b"null"])
async def test_the_older_name_of_a_free_plugin_passes_as_it_came(
    proxy: Proxy, value: bytes
) -> None:
    raw = b'{"model":"%b", "messages":[],"transforms" : %b}' % (GOOD.encode(), value)
    async with proxy.post(raw) as answer:
        assert answer.status == 200, await answer.text()
    assert [call.body for call in proxy.upstream.calls] == [raw]


NEVER = [
    ("workspace_id", "wrkspc_1"),
    ("user_profile_id", "uprof_1"),
    ("fallback_credit_token", "tok"),
    ("billing_policy", {"type": "billing_policy", "bill_to": "user_profile"}),
    ("diagnostics", {"previous_message_id": "msg_1"}),
    ("diagnostics", {}),
    ("previous_response_id", "resp_1"),
    ("conversation", {"id": "conv_1"}),
    ("container", "container_1"),
    ("safeguards", [{}]),
    ("access_programs", {"cyber": "daybreak_red"}),
    ("background_options", {"continuation_id": "x"}),
    ("moderation", {"model": "omni-moderation-latest"}),
    ("deferred_tools", [{"type": "openrouter:web_search"}]),
    ("deferred_tools", {"profile": "portable"}),
    ("betas", ["context-1m-2025-08-07"]),
    ("thread", {"type": "continue", "previous_message_id": "msg_1"}),
    ("thread", {"type": "create"}),
    ("thread", {}),
    ("thread", []),
    ("thread", ""),
    ("thread", False),
    ("thread", 0),
]


@pytest.mark.parametrize(("name", "value"), NEVER)
@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
async def test_what_reaches_further_than_the_call_is_never_offered(
    proxy: Proxy, path: str, name: str, value: Any
) -> None:
    async with proxy.post({"model": GOOD, name: value}, path) as answer:
        error = await refused(answer, 403, "field_not_allowed")
    assert f"The field {name} is not allowed here: " in error["message"]
    assert "KEYPROXY_" not in error["message"]
    assert proxy.upstream.calls == []


@pytest.mark.parametrize("name", CLOSED_FIELDS)
def test_a_closed_field_stays_closed_whatever_the_settings_hold(name: str) -> None:
    policy = Policy(Models(["*"]), features=Features.of(WORDS, [name]))
    for style, table in fields.FIELDS.items():
        if name not in table:
            with pytest.raises(Refusal, match="field_not_allowed") as raised:
                fields.check(Check(style, policy), {name: {"id": "x"}})
            assert raised.value.hint is None


@pytest.mark.parametrize("thread", [{"type": "create"}, {"type": "continue"}, "x", [], ""])
async def test_a_thread_is_refused_in_the_words_that_sdks_go_on_without_it(
    proxy: Proxy, thread: Any
) -> None:
    call = {"model": GOOD, "max_tokens": 9, "messages": [], "thread": thread}
    async with proxy.post(call, MESSAGES) as answer:
        error = await refused(answer, 403, "field_not_allowed")
    assert error["type"] == "permission_error"
    assert error["error_type"] == "field_not_allowed"
    assert error["details"] == {
        "error_code": "thread_unsupported_request",
        "unsupported": ["thread"],
    }
    async with proxy.post(call | {"thread": None, "preset": "x"}, MESSAGES) as answer:
        assert "details" not in await refused(answer, 403, "field_not_allowed")
    assert proxy.upstream.calls == []
    async with proxy.post(call | {"thread": None}, MESSAGES) as answer:
        assert answer.status == 200
    assert json.loads(proxy.upstream.calls[0].body)["thread"] is None


# --- settings ------------------------------------------------------------------------------


def fault(**variables: str) -> str:
    with pytest.raises(SettingsFaults) as caught:
        settings(**variables)
    [found] = caught.value.faults
    return str(found)


def test_words_and_names_are_read_once_each() -> None:
    read = settings(ALLOWED_FEATURES="web, pdf,web,tools:openrouter:datetime", EXTRA_FIELDS="trace")
    assert read.allowed_features == ("web", "pdf", "tools:openrouter:datetime")
    assert read.extra_fields == ("trace",)
    assert settings(ALLOWED_FEATURES="off", EXTRA_FIELDS="off").allowed_features == ()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("Web", "workspace-files"),
        ("everything", "workspace-files"),
        ("*", "workspace-files"),
        ("tools", "tools:openrouter:datetime"),
        ("tools:", "tools:openrouter:datetime"),
        ("tools:*", "tools:openrouter:datetime"),
        ("tools:function", "runs itself"),
        ("tools:openrouter:bash", "never open"),
        ("tools:mcp", "never open"),
        ("tools:code_execution_20260101", "never open"),
        (",", "workspace-files"),
    ],
)
def test_an_unknown_feature_is_a_fault(word: str, expected: str) -> None:
    assert expected in fault(ALLOWED_FEATURES=word)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, "never open") for name in CLOSED_FIELDS),
        *((name, f"KEYPROXY_ALLOWED_FEATURES={words[0]}") for name, words in OPENED_BY.items()),
        *((name, "docs/features.md") for name in ("model", "tools", "n", "max_tokens", "seed")),
        ("Model", "lower-case"),
        ("a.b", "lower-case"),
        ("*", "lower-case"),
        ("my_model", "choose no model"),
        (",", "trace"),
    ],
)
def test_a_field_that_must_not_be_opened_by_name_is_a_fault(name: str, expected: str) -> None:
    assert expected in fault(EXTRA_FIELDS=name)


def test_of_a_list_with_a_wrong_entry_the_others_can_be_pasted() -> None:
    assert fault(EXTRA_FIELDS="trace,plugins,a_b").endswith("\n    KEYPROXY_EXTRA_FIELDS=trace,a_b")
    assert fault(EXTRA_FIELDS="preset").endswith("\n    KEYPROXY_EXTRA_FIELDS=off")
    assert fault(ALLOWED_FEATURES="Web,pdf").endswith("\n    KEYPROXY_ALLOWED_FEATURES=pdf")


@pytest.mark.parametrize("style", fields.FIELDS)
def test_an_extra_field_opens_that_name_only(style: Dialect) -> None:
    policy = Policy(Models(["*"]), features=Features.of([], ["trace"]))
    fields.check(Check(style, policy), {"trace": {"any": "thing"}})
    with pytest.raises(Refusal, match="field_not_allowed"):
        fields.check(Check(style, policy), {"Trace": {}})


def test_no_name_of_the_table_is_an_extra_field() -> None:
    names = {name for table in fields.FIELDS.values() for name in table}
    for name in names:
        with pytest.raises(Unfit):
            extra_fields(name)
    assert set(OPENED_BY) <= names
    assert set(CLOSED_FIELDS) & names == {"prompt"}
    assert "prompt" not in fields.FIELDS[dialects.RESPONSES]


# --- the page ------------------------------------------------------------------------------


def documented() -> list[list[str]]:
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:1] == "|"]


# Rules that the page tells together, or in other words.
CALLED = {
    **dict.fromkeys(("cache_options", "retention"), "lifetime"),
    **dict.fromkeys(("compaction", "function_call", "functions", "image"), "shape"),
    **dict.fromkeys(("summary", "texts", "transforms"), "shape"),
    **dict.fromkeys(("flag", "stream"), "true or false"),
    **dict.fromkeys(("region", "speed"), "priority"),
    "prediction": "free",
    "prompts": "one text",
    "stop_conditions": "with tools",
}


def rule(style: Dialect, name: str) -> str:
    """What the page says of a field: a rule's name, that of a feature in code type."""
    word = style.fields.get(name, "–")
    called = CALLED.get(word, word.replace("_", "-"))
    return f"`{called}`" if called in WORDS else called


@pytest.mark.parametrize("styles", [MAIN, tuple(s for s in fields.FIELDS if s not in MAIN)])
def test_the_page_has_the_table_of_the_code(styles: tuple[Dialect, ...]) -> None:
    rows = documented()
    start = rows.index(["field", *(style.name for style in styles)])
    names = sorted({name for style in styles for name in fields.FIELDS[style]})
    expected = [[f"`{name}`", *(rule(style, name) for style in styles)] for name in names]
    assert rows[start + 2 : start + 2 + len(names)] == expected


def test_the_page_has_every_word_and_every_closed_field() -> None:
    rows = documented()
    words = [row[0].strip("`") for row in rows if len(row) == 3 and row[0][:1] == "`"]
    assert words == [*WORDS, "tools:<type>"]
    pairs = {row[0].strip("`"): row[1] for row in rows if len(row) == 2}
    assert CLOSED_FIELDS.items() <= pairs.items()
    opened = {name: tuple(re.findall(r"`(.*?)`", pairs[name])) for name in OPENED_BY}
    assert opened == OPENED_BY


def test_the_page_says_which_rules_there_are() -> None:
    text = DOCS.read_text(encoding="utf-8")
    rules = {rule(style, name) for style in fields.FIELDS for name in style.fields}
    for name in rules:
        assert name.strip("`") in WORDS or f"**{name}**" in text


@pytest.mark.parametrize("place", ["tools", "tool_choice"])
async def test_a_tool_of_a_type_that_is_no_name_is_refused_unread(start: Start, place: str) -> None:
    proxy = await start("dev", ALLOWED_FEATURES="web")
    tool = {"type": "openrouter:web_search" + "😀" * 20_000}
    async with proxy.post(BODY | {place: [tool] if place == "tools" else tool}) as answer:
        error = await refused(answer, 403, "field_not_allowed")
    assert len(error["message"]) < 300
    assert proxy.upstream.calls == []
