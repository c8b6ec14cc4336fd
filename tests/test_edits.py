"""What changes of a call for a home: the closed list, to the byte."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyproxy import dialects
from keyproxy.dialects import CHAT, MESSAGES, RESPONSES, Dialect, names
from keyproxy.policy.opened import Features
from keyproxy.routing.edits import Unfit, edits_for
from keyproxy.upstream import takes
from keyproxy.upstream.providers import PROVIDERS
from keyproxy.upstream.takes import ECHOES, NOTES, TURN, Takes
from tests.examples import examples
from tests.test_said import said

WIDE = Takes(fields=takes.CHAT | names("reasoning_effort seed n stream_options"), drops=NOTES)
STRICT = Takes(
    fields=takes.CHAT - {"max_tokens"} | {"stream_options", "reasoning_effort"},
    drops=NOTES,
    length="max_completion_tokens",
    asks_usage=True,
    strict_turns=ECHOES,
)
OLD = Takes(fields=takes.CHAT - {"max_completion_tokens"}, drops=NOTES, length="max_tokens")
KEEPING = Takes(fields=takes.RESPONSES | {"store"}, drops=NOTES, stores=True)
HI = b'"messages":[{"role":"user","content":"Gr\xc3\xbc\xc3\x9fe"}]'


OPEN = Features.of(["many", "priority", "provider"])


def edited(raw: bytes, home: Takes, native: str = "b", style: Dialect = CHAT) -> tuple[bytes, str]:
    found = said(raw, style, features=OPEN)
    edits = edits_for(found, style, home, native)
    return edits.body(found), ", ".join(edits.dropped)


@pytest.mark.parametrize(
    ("raw", "home", "sent", "told"),
    [
        (b'{"model":"a/b", %b }' % HI, WIDE, b'{"model":"b", %b }' % HI, ""),
        (
            b'{"user":"u","model":"a/b",%b,"models":["a/b","c/d"]}' % HI,
            WIDE,
            b'{"model":"b",%b}' % HI,
            "user, models",
        ),
        (
            b'{"model":"a/b","max_tokens":9,%b}' % HI,
            STRICT,
            b'{"model":"b",%b, "max_completion_tokens": 9}' % HI,
            "",
        ),
        (
            b'{"model":"a/b","max_tokens":9,"max_completion_tokens":20,%b}' % HI,
            STRICT,
            b'{"model":"b","max_completion_tokens":9,%b}' % HI,
            "",
        ),
        (
            b'{"model":"a/b","max_completion_tokens":9,%b}' % HI,
            OLD,
            b'{"model":"b",%b, "max_tokens": 9}' % HI,
            "",
        ),
        (b'{"model":"a/b","max_tokens":-1,%b}' % HI, OLD, b'{"model":"b",%b}' % HI, "max_tokens"),
        (
            b'{"model":"a/b","max_completion_tokens":9,%b}' % HI,
            WIDE,
            b'{"model":"b","max_completion_tokens":9,%b}' % HI,
            "",
        ),
        (
            b'{"model":"a/b","max_tokens":20,"max_completion_tokens":9,%b}' % HI,
            WIDE,
            b'{"model":"b","max_completion_tokens":9,%b}' % HI,
            "",
        ),
        (
            b'{"model":"a/b","max_tokens":9,"max_completion_tokens":-1,%b}' % HI,
            WIDE,
            b'{"model":"b","max_tokens":9,%b}' % HI,
            "",
        ),
        (
            b'{"model":"a/b",%b,"stream":true}' % HI,
            STRICT,
            b'{"model":"b",%b,"stream":true, "stream_options": {"include_usage": true}}' % HI,
            "",
        ),
        (
            b'{"model":"a/b",%b,"stream":true,"stream_options":{"include_usage":false,"x":1}}' % HI,
            STRICT,
            b'{"model":"b",%b,"stream":true,"stream_options":{"include_usage": true, "x": 1}}' % HI,
            "",
        ),
        (
            b'{"model":"a/b",%b,"reasoning":{"effort":"high","exclude":false}}' % HI,
            STRICT,
            b'{"model":"b",%b, "reasoning_effort": "high"}' % HI,
            "",
        ),
        (
            b'{"model":"a/b",%b,"reasoning":{"effort":"high"}}' % HI,
            OLD.opening(names("reasoning_effort")),
            b'{"model":"b",%b, "reasoning_effort": "high"}' % HI,
            "",
        ),
        (
            b'{"model":"a/b",%b,"presence_penalty":0.0,"n":1,"tools":[],"seed":null}' % HI,
            STRICT,
            b'{"model":"b",%b}' % HI,
            "presence_penalty, n, tools, seed",
        ),
        (
            b'{"model":"a/b","messages":[{"role":"assistant","content":"x","reasoning":"y",'
            b'"refusal":null,"name":"bot"},{"role":"user","content":"z"}]}',
            STRICT,
            b'{"model":"b","messages":[{"role": "assistant", "content": "x"},'
            b' {"role": "user", "content": "z"}]}',
            "messages.name, messages.reasoning, messages.refusal",
        ),
    ],
)
def test_the_closed_list_of_edits(raw: bytes, home: Takes, sent: bytes, told: str) -> None:
    assert edited(raw, home) == (sent, told)


def test_a_home_that_stores_answers_is_told_not_to() -> None:
    for body in (b'{"model":"b","input":"x"}', b'{"model":"b","input":"x","store":null}'):
        sent, _ = edited(body, KEEPING, style=RESPONSES)
        assert json.loads(sent)["store"] is False
    kept = b'{"model":"b","input":"x","store":false}'
    assert edited(kept, KEEPING, style=RESPONSES) == (kept, "")


def test_an_effort_stays_where_it_is_taken_as_it_is_said() -> None:
    home = KEEPING.opening(names("reasoning_effort"))
    raw = b'{"model":"b","input":"x","store":false,"reasoning":{"effort":"high"}}'
    assert edited(raw, home, style=RESPONSES) == (raw, "")


@pytest.mark.parametrize("native", ["a/b", "b"])
def test_bytes_stay_where_nothing_changes(native: str) -> None:
    raw = b' {"model" :"%b",\t%b, "temperature":1.10} ' % (native.encode(), HI)
    assert edited(raw, WIDE, native) == (raw, "")


def test_openrouter_gets_what_was_asked_for() -> None:
    raw = b'{"model":"a/b","models":["c/d"],"provider":{},"n":null,"tools":[],%b}' % HI
    openrouter = PROVIDERS["openrouter"].takes["chat"]
    assert edited(raw, openrouter, "a/b") == (raw, "")


@pytest.mark.parametrize(
    ("asked", "home", "field"),
    [
        ({"seed": 1}, STRICT, "seed"),
        ({"n": 2}, STRICT, "n"),
        ({"presence_penalty": 0.1}, STRICT, "presence_penalty"),
        ({"reasoning": {"max_tokens": 9}}, STRICT, "reasoning"),
        ({"reasoning": {"effort": "low", "exclude": True}}, STRICT, "reasoning"),
        ({"reasoning": {"effort": "low", "enabled": False}}, STRICT, "reasoning"),
        ({"reasoning": {"effort": "low"}, "reasoning_effort": "high"}, STRICT, "reasoning"),
        ({"reasoning": {"effort": "low"}}, OLD, "reasoning"),
        ({"plugins": [{"id": "response-healing"}]}, WIDE, "plugins"),
        ({"messages": [{"role": "user", "content": "x", "name": "Ann"}]}, STRICT, "messages.name"),
        (
            {"messages": [{"role": "assistant", "content": None, "refusal": "no"}]},
            STRICT,
            "messages.refusal",
        ),
    ],
)
def test_a_field_with_a_meaning_is_never_left_out(
    asked: dict[str, Any], home: Takes, field: str
) -> None:
    raw = json.dumps({"model": "a/b"} | asked).encode()
    with pytest.raises(Unfit) as caught:
        edited(raw, home)
    assert caught.value.param == field


MANY = {"type": "array", "items": {"type": "string"}, "minItems": 1}
NAMED = {"type": "object", "properties": {"minItems": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        (MANY, "minItems"),
        ({"type": "object", "properties": {"cities": MANY}}, "minItems"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"type": "null"}, MANY]}}}, "minItems"),
        ({"type": "object", "properties": {"properties": MANY}}, "minItems"),
        (NAMED, None),
        ({"$defs": {"maxItems": NAMED}, "type": "object"}, None),
        ({"type": "array", "items": NAMED}, None),
    ],
)
def test_a_keyword_of_a_schema_that_is_refused_is_a_field_with_a_meaning(
    schema: dict[str, Any], word: str | None
) -> None:
    home = replace(STRICT, schema_words=frozenset({"minItems", "maxItems"}))
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    tool = {"type": "function", "function": {"name": "x", "parameters": schema}}
    for place, value in {"response_format": form, "tools": [tool]}.items():
        raw = json.dumps({"model": "a/b", place: value}).encode()
        if word is None:
            edited(raw, home)
            continue
        with pytest.raises(Unfit) as caught:
            edited(raw, home)
        assert caught.value.param == f"{place}: {word}"


VALUES: dict[str, list[Any]] = {
    "max_tokens": [None, -1, 0, 7],
    "max_completion_tokens": [None, -1, 5, 9],
    "n": [None, 1],
    "stream": [None, False, True],
    "stream_options": [None, {}, {"include_usage": False}],
    "tools": [None, [], [{"type": "function", "function": {"name": "f"}}]],
    "presence_penalty": [0, 0.5],
    "reasoning": [None, {"effort": "low"}, {"max_tokens": 9}],
    "reasoning_effort": [None, "low", "high"],
    "service_tier": [None, "auto", "flex"],
    "models": [[], ["c/d"]],
    "provider": [{}, None],
    "user": ["", "u"],
    "seed": [None, 3],
    "store": [None, False],
    "messages": [
        [{"role": "user", "content": "x"}],
        [{"role": "assistant", "content": "x", "reasoning": "y", "audio": None}],
    ],
}
BODIES = st.fixed_dictionaries(
    {"model": st.just("a/b")},
    optional={name: st.sampled_from(values) for name, values in VALUES.items()},
)
HOMES = [
    (style, provider.takes[style.name])
    for provider in PROVIDERS.values()
    for style in (CHAT, RESPONSES, MESSAGES)
    if style.name in provider.takes
] + [(CHAT, home) for home in (WIDE, STRICT, OLD)]
MAY_BE_ADDED = {"model", "stream_options", "store", "reasoning_effort", *CHAT.lengths, "messages"}


def bounds(style: Dialect, body: dict[str, Any]) -> list[int]:
    said = [body.get(name) for name in style.lengths]
    return [length for length in said if length is not None and length >= 0]


@examples(200)
@given(BODIES, st.sampled_from(HOMES))
def test_no_edit_adds_a_model_a_tool_a_tier_or_a_length(
    asked: dict[str, Any], home: tuple[Dialect, Takes]
) -> None:
    style, there = home
    asked = {name: value for name, value in asked.items() if name in style.fields}
    found = said(asked, style, features=OPEN)
    try:
        edits = edits_for(found, style, there, "b")
    except Unfit:
        return
    sent = json.loads(edits.body(found))
    assert sent["model"] == "b"
    for name in ("models", "tools", "service_tier", "n", "provider"):
        assert name not in sent or sent[name] == asked[name]
    assert {name for name in sent if sent[name] != asked.get(name)} <= MAY_BE_ADDED
    if there.fields is not None:
        assert sent.keys() <= there.fields | {"stream_options", "store"}
    lengths, left = bounds(style, asked), bounds(style, sent)
    assert set(left) <= set(lengths)
    assert bool(left) is bool(lengths)
    turns = sent.get("messages", [])
    for turn, before in zip(turns, asked.get("messages", []), strict=True):
        assert turn.items() <= before.items()
    gone = asked.keys() - sent.keys()
    assert gone <= {*edits.dropped, *edits.respelled}


def test_every_dialect_of_a_provider_is_one_of_ours() -> None:
    ours = {style.name for style in dialects.DIALECTS}
    for provider in PROVIDERS.values():
        assert provider.takes.keys() <= ours


CLOSED = Takes(fields=takes.CHAT, drops=NOTES, strict_turns=ECHOES, turn=TURN)


@pytest.mark.parametrize(
    ("turn", "sent", "told"),
    [
        (
            {"role": "assistant", "content": "Hm", "function_call": None},
            {"role": "assistant", "content": "Hm"},
            "messages.function_call",
        ),
        (
            {
                "role": "user",
                "content": [{"type": "text", "text": "Hm", "cache_control": {"type": "ephemeral"}}],
            },
            {"role": "user", "content": [{"type": "text", "text": "Hm"}]},
            "messages.content.cache_control",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "1", "index": 0, "function": {}}]},
            {"role": "assistant", "tool_calls": [{"id": "1", "function": {}}]},
            "messages.tool_calls.index",
        ),
    ],
)
def test_what_says_nothing_within_a_turn_is_left_out_where_it_is_refused(
    turn: dict[str, Any], sent: dict[str, Any], told: str
) -> None:
    raw = json.dumps({"model": "a/b", "messages": [turn]}).encode()
    body, dropped = edited(raw, CLOSED)
    assert (json.loads(body)["messages"], dropped) == ([sent], told)
    assert json.loads(edited(raw, WIDE)[0])["messages"] == [turn]


@pytest.mark.parametrize(
    ("turn", "param"),
    [
        ({"role": "assistant", "content": "Hm", "cot_summary": "x"}, "messages.cot_summary"),
        ({"role": "user", "content": "Hm", "<b>": 1}, "messages"),
        (
            {"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]},
            "messages.content.x",
        ),
        ({"role": "assistant", "content": [{"type": "refusal"}]}, "messages.content.type"),
        ({"role": "assistant", "tool_calls": [{"custom": {}}]}, "messages.tool_calls.custom"),
    ],
)
def test_what_may_say_something_within_a_turn_leads_the_call_elsewhere(
    turn: dict[str, Any], param: str
) -> None:
    raw = json.dumps({"model": "a/b", "messages": [turn]}).encode()
    with pytest.raises(Unfit) as caught:
        edited(raw, CLOSED)
    assert caught.value.param == param
