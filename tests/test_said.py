"""What a call keeps of what it says, for providers that want it in other words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keyproxy import dialects
from keyproxy.call import Endpoint, Said
from keyproxy.policy import calls
from keyproxy.policy.check import Policy
from keyproxy.policy.models import Models
from keyproxy.policy.opened import Features

FEATURES = Features.of(["web", "fallbacks"])
ALIASES = {"fast": "openai/gpt-5-mini"}


def said(body: Any, style: dialects.Dialect = dialects.CHAT, **policy: Any) -> Said:
    raw = body if isinstance(body, bytes) else json.dumps({"model": "a/b"} | body).encode()
    endpoint = Endpoint("POST", f"/api/v1{style.path}", style)
    call = calls.read(
        endpoint, raw, Policy(Models(["*"]), ALIASES, is_routed=True, **policy), (), ""
    )
    assert call.said is not None
    return call.said


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, *parts]}]}


def test_a_call_that_only_one_provider_can_take_keeps_nothing() -> None:
    endpoint = Endpoint("POST", "/api/v1/chat/completions", dialects.CHAT)
    assert calls.read(endpoint, b'{"model":"a/b"}', Policy(Models(["*"])), (), "").said is None


def test_nothing_set_and_nothing_taken_out_are_the_bytes_that_were_read() -> None:
    raw = b'{"model" :"a/b", "n":1 }'
    assert said(raw).write({}, ()) is raw


def test_an_alias_and_a_cap_stay_in_other_words() -> None:
    written = said(b'{"model":"fast","x":null,"max_tokens": 900}', max_tokens=100)
    assert written.write({}, ["x"]) == b'{"model":"openai/gpt-5-mini","max_tokens": 100}'
    assert written.write({"model": "gpt-5-mini"}, ["max_tokens"]) == (
        b'{"model":"gpt-5-mini","x":null}'
    )


def test_a_model_that_is_called_there_as_it_was_asked_for_is_not_written_anew() -> None:
    raw = b'{"model":"fast"}'
    assert said(raw).write({"model": "fast"}, ()) is raw


def test_which_fields_ask_for_something() -> None:
    found = said({"stop": None, "tools": [], "n": 1})
    assert found.asking == {"model", "n"}
    assert set(found.fields) == {"model", "stop", "tools", "n"}


def test_models_that_may_answer_are_those_of_the_call_and_not_of_its_tools() -> None:
    asked = {
        "model": "fast",
        "models": ["c/d", "openai/gpt-5-mini"],
        "tools": [{"type": "openrouter:web_search", "parameters": {"engine": "exa"}}],
    }
    found = said(asked, features=FEATURES)
    assert found.answering == ("openai/gpt-5-mini", "c/d")
    assert found.server_tools == {"openrouter:web_search"}
    messages = {"max_tokens": 5, "fallbacks": [{"model": "c/d"}]}
    assert said(messages, dialects.MESSAGES, features=FEATURES).answering == ("a/b", "c/d")


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "image_url", "image_url": {"url": "https://x.example"}}, "image"),
        ({"type": "file", "file": {"filename": "a.pdf", "file_data": "data:x"}}, "file"),
        ({"type": "document", "source": {"type": "base64", "data": "x"}}, "file"),
        ({"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}, "audio"),
        ({"type": "video_url", "video_url": {"url": "https://x.example"}}, "video"),
        ({"type": "hologram"}, "hologram"),
    ],
)
def test_kinds_of_input_beside_text(part: dict[str, Any], kind: str) -> None:
    assert said(user(part)).inputs == {kind}
    assert said(user()).inputs == frozenset()


@pytest.mark.parametrize(
    ("style", "turn", "is_sealed"),
    [
        (
            dialects.RESPONSES,
            {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
            True,
        ),
        (dialects.MESSAGES, {"type": "thinking", "thinking": "x", "signature": "EqQB"}, True),
        (dialects.MESSAGES, {"type": "thinking", "thinking": "x", "signature": ""}, False),
        (dialects.MESSAGES, {"type": "redacted_thinking", "data": "x"}, True),
        (dialects.CHAT, {"reasoning_details": [{"type": "reasoning.encrypted"}]}, True),
        (dialects.CHAT, {"reasoning_details": [{"type": "reasoning.text", "text": "x"}]}, False),
        (
            dialects.CHAT,
            {"tool_calls": [{"extra_content": {"google": {"thought_signature": "x"}}}]},
            True,
        ),
        (dialects.CHAT, {"reasoning": "plain"}, False),
    ],
)
def test_reasoning_that_only_its_issuer_can_read(
    style: dialects.Dialect, turn: dict[str, Any], is_sealed: bool
) -> None:
    if style is dialects.RESPONSES:
        asked: dict[str, Any] = {"input": [turn]}
    else:
        message = {"role": "assistant", "content": "x"} | turn
        content = {"role": "assistant", "content": [turn]}
        asked = {"messages": [message if style is dialects.CHAT else content]}
    assert said(asked, style).is_sealed is is_sealed


def test_reasoning_by_its_id_alone() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "x"}]}
    assert said({"input": [item]}, dialects.RESPONSES).names_reasoning
    whole = item | {"encrypted_content": "gAAA"}
    assert not said({"input": [whole]}, dialects.RESPONSES).names_reasoning
