"""Whatever is done to a valid call: it is refused, or every reading of it names allowed models,
within the caps.

The reader here is written apart from the policy: it takes the bytes that would go up as
OpenRouter and more careless JSON readers could, and gathers each model and server tool it finds,
and each length and effort.
"""

from __future__ import annotations

import copy
import fnmatch
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from json.encoder import encode_basestring
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keyproxy import dialects
from keyproxy.call import Endpoint
from keyproxy.dialects import CHAT, Dialect
from keyproxy.errors import Refusal
from keyproxy.policy import calls
from keyproxy.policy.check import Policy
from keyproxy.policy.models import Models
from keyproxy.policy.opened import Features
from keyproxy.settings.grammar.plain import expression
from keyproxy.strict_json import body
from tests.examples import TIMES, examples

GOOD = ("openai/gpt-4o", "openai/gpt-4o:free", "anthropic/claude-haiku")
BAD = (
    "evil/x", "openai/o1-pro", "OPENAI/O1-PRO", "openai/gpt-4o:online", "openai/gpt-4o:nitro",
    "openai/gpt-4o@preset/x", "@preset/x", "openrouter/auto", "~openai/o1-latest",
    "openai/gpt-4o ", "\uff4fpenai/gpt-4o", "openai/gpt-4o\x00", "gpt-4o", "*", "openai/*", "",
)  # fmt: skip
PATTERNS = ("openai/*", "anthropic/claude-haiku", "!openai/o1*")
ADVISOR = "openrouter:advisor"
CAP = 100
ALIASES = {"fast": GOOD[0], "dear": "openai/o1-pro"}
SOME = Features.of(["fallbacks", "provider", "many", f"tools:{ADVISOR}"])
MANY = Features.of(
    ["web", "images", "audio", "provider", "fallbacks", "routers", "many", f"tools:{ADVISOR}"]
)
SETS = {
    "none": Policy(Models(PATTERNS)),
    "some": Policy(Models(PATTERNS, SOME), features=SOME),
    "capped": Policy(Models(PATTERNS, SOME), ALIASES, CAP, SOME),
}
LENGTHS = {"max_tokens", "max_completion_tokens", "max_output_tokens", "budget_tokens"}
EFFORTS = {"effort", "reasoning_effort", "verbosity"}
# What caps and aliases may write anew.
CHANGEABLE = LENGTHS | EFFORTS | {
    "model", "models", "fallbacks", "plugins", "tools", "messages", "input", "system",
    "max_tool_calls", "reasoning", "thinking", "output_config", "text", "stop_server_tools_when",
}  # fmt: skip
OWN: dict[Dialect, set[Any]] = {
    dialects.CHAT: {"function", "custom"},
    dialects.RESPONSES: {"function", "custom", "namespace"},
    dialects.MESSAGES: {"function", "custom", "", None},
}
# Where the arguments of a call stand that the model made: any JSON.
ARGUMENTS = [("tool_use", "input"), ("tool_search_call", "arguments")]

Pairs = list[list[Any]]
"""A JSON object as pairs, so that a name may stand in it twice; a name may be raw JSON."""


class Obj(list[Any]):
    """Pairs of an object, told from a list of values."""


def tree(value: Any) -> Any:
    if isinstance(value, dict):
        return Obj([name, tree(inner)] for name, inner in value.items())
    return [tree(item) for item in value] if isinstance(value, list) else value


def written(node: Any) -> str:
    if isinstance(node, Obj):
        return "{" + ",".join(f"{quoted(name)}:{written(inner)}" for name, inner in node) + "}"
    if isinstance(node, list):
        return "[" + ",".join(map(written, node)) + "]"
    return encode_basestring(node) if isinstance(node, str) else json.dumps(node)


def quoted(name: str) -> str:
    return name if name.startswith('"') else encode_basestring(name)


FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
VALID: dict[Dialect, list[dict[str, Any]]] = {
    dialects.CHAT: [
        {"model": GOOD[0], "messages": [{"role": "user", "content": "Hi"}], "stream": True},
        {
            "model": GOOD[1],
            "models": [GOOD[0], GOOD[2]],
            "tools": [FUNCTION],
            "tool_choice": "auto",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "x"}]},
                {"role": "tool", "tool_call_id": "1", "content": "rain"},
                {
                    "role": "system",
                    "content": "x",
                    "configuration_update": {"reasoning": {"effort": "low"}},
                },
            ],
        },
    ],
    dialects.RESPONSES: [
        {
            "models": [GOOD[0]],
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
                {"type": "additional_tools", "tools": [{"type": "function", "name": "f"}]},
                {"type": "configuration_update", "reasoning": {"effort": "low"}},
                {"type": "tool_search_call", "arguments": {"tools": "x", "max_tokens": "y"}},
            ],
            "instructions": "x",
            "tools": [{"type": "custom", "name": "g"}],
            "reasoning": {"effort": "low"},
        },
    ],
    dialects.MESSAGES: [
        {
            "model": GOOD[2],
            "max_tokens": 9,
            "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                {"role": "user", "content": "Hi"},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}],
                },
                {
                    "role": "system",
                    "output_config": {"effort": "low"},
                    "content": [
                        {"type": "tool_addition", "tool": {"type": "tool_reference", "name": "f"}},
                    ],
                },
            ],
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        },
    ],
}
PATHS = {
    dialects.CHAT: "/chat/completions",
    dialects.RESPONSES: "/responses",
    dialects.MESSAGES: "/messages",
}


def selectors(model: str) -> list[tuple[str, Any]]:
    """Fields that choose ``model`` somewhere in OpenRouter's requests."""
    advisor = {"type": ADVISOR, "parameters": {"model": model}}
    return [
        ("model", model),
        ("models", [model]),
        ("model", [model]),
        ("model", {"id": model}),
        ("fallbacks", [{"model": model}]),
        ("fallbacks", [{"model": GOOD[0]}, {"model": model}]),
        ("preset", model),
        ("plugins", [{"id": "fusion", "analysis_models": [model]}]),
        ("plugins", [{"id": "response-healing", "model": model}]),
        ("tools", [advisor]),
        ("tools", [FUNCTION, {"type": ADVISOR, "parameters": {}, "model": model}]),
        ("tools", [{"type": "openrouter:subagent", "parameters": {"tools": [advisor]}}]),
        ("tools", [{"type": "namespace", "name": "x", "tools": [advisor]}]),
        ("tools", [{"type": "openrouter:web_search"}]),
        ("input", [{"type": "additional_tools", "tools": [advisor]}]),
        ("messages", [{"role": "user", "content": "x", "tools": [advisor]}]),
        ("messages", [{"content": [{"type": "tool_addition", "tool": {"definition": advisor}}]}]),
        ("messages", [{"content": [{"type": "tool_addition", "tool": advisor}]}]),
        ("messages", [{"content": [{"type": "my_tool_use", "input": {"tools": [advisor]}}]}]),
        ("tool", advisor),
        ("tool", {"type": "tool_reference", "definition": advisor}),
        ("input", [{"type": "message", "tool": advisor}]),
        ("input", [{"id": model}]),
        ("input", [{"type": None, "id": model, "role": "user"}]),
        ("instructions", [{"type": "additional_tools", "tools": [advisor]}]),
        ("context_management", {"edits": [{"type": "compact_20260112", "model": model}]}),
        ("tools", [{"type": None, "name": "f", "tools": [advisor]}]),
        ("definition", advisor),
        ("provider", {"options": {"x": {"model": model}}}),
        ("tool_choice", {"type": "openrouter:web_search"}),
        ("prompt", {"id": model}),
        ("extra_body", {"model": model}),
    ]


GREEDY: list[tuple[str, Any]] = [
    ("effort", "max"),
    ("effort", "xhigh"),
    ("reasoning", {"effort": "xhigh", "max_tokens": 9**9}),
    ("output_config", {"effort": "max"}),
    ("configuration_update", {"reasoning": {"effort": "max"}}),
    ("max_tokens", 9**9),
    ("max_tokens", 0),
    ("max_output_tokens", 9**9),
    ("tools", [{"type": ADVISOR, "parameters": {"model": GOOD[0]}}]),
    ("tools", [{"type": ADVISOR, "parameters": {"model": GOOD[0], "max_completion_tokens": 9**9}}]),
    (
        "tools",
        [{"type": ADVISOR, "parameters": {"model": GOOD[0], "reasoning": {"effort": "max"}}}],
    ),
]
"""Fields that ask for more than the cap."""

SPELLINGS: list[Callable[[str], str]] = [
    lambda name: name,
    str.upper,
    str.title,
    lambda name: '"' + "".join(f"\\u{ord(char):04x}" for char in name) + '"',
    lambda name: f'"\\u{ord(name[0]):04X}{name[1:]}"',
    lambda name: name.replace("s", "\u017f", 1),
    lambda name: name.replace("o", "\u043e", 1),
    lambda name: "".join(chr(ord(char) + 0xFEE0) if "a" <= char <= "z" else char for char in name),
    lambda name: name + "\u200b",
    lambda name: name + "\x00",
    lambda name: " " + name,
    lambda name: "\ufeff" + name,
]


def objects(node: Any) -> Iterator[Obj]:
    if isinstance(node, Obj):
        yield node
        for _, inner in node:
            yield from objects(inner)
    elif isinstance(node, list):
        for item in node:
            yield from objects(item)


def mutate(top: Obj, kind: str, place: int, model: str, choice: int, spelling: int) -> None:
    every = list(objects(top))
    where = top if place % 3 == 0 else every[place % len(every)]
    options = selectors(model) + GREEDY
    name, value = options[choice % len(options)]
    name = SPELLINGS[spelling % len(SPELLINGS)](name)
    if kind == "insert":
        where.insert(place % (len(where) + 1), [name, tree(value)])
    elif kind == "double" and where:
        twin = copy.deepcopy(where[place % len(where)])
        twin[1] = tree(value) if choice % 2 else twin[1]
        where.insert(choice % (len(where) + 1), twin)
    elif kind == "replace":
        for pair in where:
            if pair[0] == options[choice % len(options)][0]:
                pair[1] = tree(value)
    elif kind == "rename" and where:
        pair = where[place % len(where)]
        if not pair[0].startswith('"') and pair[0]:
            pair[0] = SPELLINGS[spelling % len(SPELLINGS)](pair[0])
    elif kind == "wrap" and where:
        pair = where[place % len(where)]
        pair[1] = [pair[1]] if choice % 2 else Obj([[name, pair[1]]])
    elif kind == "turn":
        where.reverse()


MUTATION = st.tuples(
    st.sampled_from(["insert", "insert", "double", "replace", "rename", "wrap", "turn"]),
    st.integers(0, 40),
    st.sampled_from((*BAD, *GOOD, *ALIASES)),
    st.integers(0, 60),
    st.integers(0, 30),
)


def folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def readings(raw: bytes) -> Iterator[Any]:
    for fold in (str, folded):
        for is_last in (True, False):

            def one(
                pairs: list[tuple[str, Any]], fold: Any = fold, is_last: bool = is_last
            ) -> dict[str, Any]:
                found: dict[str, Any] = {}
                for name, value in pairs:
                    if is_last or fold(name) not in found:
                        found[fold(name)] = value
                return found

            yield json.loads(raw, object_pairs_hook=one)


def greedy(style: Dialect, reading: dict[str, Any]) -> Iterator[Any]:
    """Every length and effort above the cap in one reading, outside of the caller's own JSON."""
    for name, *known in (
        ("reasoning", "effort", "max_tokens"),
        ("output_config", "effort"),
        ("text", "verbosity"),
    ):
        asked = reading[name] if isinstance(reading.get(name), dict) else {}
        yield from deep(style, {n: asked[n] for n in known if asked.get(n)})  # 0: no thinking
    walked = LENGTHS | EFFORTS | {"messages", "input", "system", "tools"}
    yield from deep(style, {n: reading[n] for n in walked & reading.keys()})


def deep(style: Dialect, node: Any) -> Iterator[Any]:
    if isinstance(node, list):
        for item in node:
            yield from deep(style, item)
    for name, inner in node.items() if isinstance(node, dict) else ():
        is_long = name in LENGTHS and type(inner) is int and not 0 < inner <= CAP
        if is_long or (name in EFFORTS and inner in ("xhigh", "max")):
            yield {name: inner}
        elif name == "tools" and isinstance(inner, list):
            yield from (over for tool in inner for over in greedy_tool(style, tool))
        elif name in ("tool", "definition") and isinstance(inner, dict):
            yield from greedy_tool(style, inner)
            yield from deep(style, inner) if name == "tool" else ()
        elif (node.get("type"), name) not in ARGUMENTS:
            yield from deep(style, inner)


def greedy_tool(style: Dialect, tool: dict[str, Any]) -> Iterator[Any]:
    if tool.get("type") == ADVISOR:
        if "max_completion_tokens" not in tool["parameters"]:
            yield tool
        yield from deep(style, tool)
    elif "tools" in tool:
        yield from deep(style, {"tools": tool["tools"]})


def chosen(style: Dialect, reading: dict[str, Any]) -> Iterator[Any]:
    """Every model that an upstream could take from one reading; a server tool by its type."""
    if "model" in reading:
        yield reading["model"]
    for name in ("models", "fallbacks", "plugins"):
        for entry in reading.get(name) or []:
            yield from within(style, entry) if isinstance(entry, dict) else [entry]
    yield from (reading[name] for name in ("preset", "extra_body") if reading.get(name))
    if not isinstance(reading.get("instructions", ""), str):
        yield {"instructions": reading["instructions"]}
    yield from within(style, reading.get("context_management"))
    for item in reading["input"] if isinstance(reading.get("input"), list) else ():
        is_said = item.get("type") or (item.get("role") and item.get("content") is not None)
        yield from [] if is_said else [{"reference": item}]
    yield from tools_of(style, reading.get("tools"))
    choice = reading.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") != "function":
        yield choice
    for name in ("messages", "input", "system"):
        yield from hidden(style, reading.get(name))


def tools_of(style: Dialect, tools: Any) -> Iterator[Any]:
    for tool in tools or []:
        kind = tool.get("type", "") if isinstance(tool, dict) else tool
        if kind in OWN[style]:
            yield from tools_of(style, tool.get("tools"))
        elif kind == ADVISOR:
            yield (tool.get("parameters") or {}).get("model")
            yield from within(style, tool)
        else:
            yield {"server tool": kind}


def within(style: Dialect, node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        for name, inner in node.items():
            if name == "tools":
                yield from tools_of(style, inner)
            elif name in ("model", "models", "analysis_models"):
                yield from inner if isinstance(inner, list) else [inner]
            else:
                yield from within(style, inner)
    elif isinstance(node, list):
        for item in node:
            yield from within(style, item)


def hidden(style: Dialect, node: Any) -> Iterator[Any]:
    if isinstance(node, list):
        for item in node:
            yield from hidden(style, item)
    elif isinstance(node, dict):
        for name, inner in node.items():
            if name == "tools":
                yield from tools_of(style, inner)
            elif name == "definition" and isinstance(inner, dict):
                yield from tools_of(style, [inner])
            elif name == "tool" and isinstance(inner, dict):
                if inner.get("type") not in ("tool_reference", "tool_definition"):
                    yield from tools_of(style, [inner])
                yield from hidden(style, inner)
            elif (node.get("type"), name) not in ARGUMENTS:
                yield from hidden(style, inner)


def judge(style: Dialect, words: str, raw: bytes) -> None:
    """Fails if ``raw`` passes, and some reading of what goes up names what is not allowed."""
    policy = SETS[words]
    endpoint = Endpoint("POST", f"/api/v1{PATHS[style]}", style)
    try:
        call = calls.read(endpoint, raw, policy, (), "")
    except Refusal:
        return  # and nothing but a refusal may be raised
    before, after = body.read(raw)[0], body.read(call.body)[0]
    changed = {name for name in after if name not in before or after[name] != before[name]}
    assert before.keys() <= after.keys()
    assert changed <= CHANGEABLE if words != "none" else call.body == raw
    asked = {policy.aliases.get(model, model) for model in call.models}
    for reading in readings(call.body):
        found = list(chosen(style, reading))
        assert found
        assert all(isinstance(model, str) and model in GOOD for model in found), found
        assert set(found) <= asked
        assert not policy.max_tokens or list(greedy(style, reading)) == []


@pytest.mark.parametrize("words", SETS)
@pytest.mark.parametrize("style", VALID)
@given(
    index=st.integers(0, 1),
    mutations=st.lists(MUTATION, max_size=4),
    prefix=st.sampled_from(["", " ", "\n", "\ufeff", "[", '{"model":"evil/x"}\n']),
)
@examples(100)
def test_what_passes_names_allowed_models_in_every_reading(
    style: Dialect, words: str, index: int, mutations: list[Any], prefix: str
) -> None:
    top = tree(VALID[style][index % len(VALID[style])])
    for kind, place, model, choice, spelling in mutations:
        mutate(top, kind, place, model, choice, spelling)
    judge(style, words, (prefix + written(top)).encode())


@pytest.mark.parametrize("words", SETS)
@pytest.mark.parametrize("style", VALID)
def test_one_forbidden_model_in_any_one_place_is_never_passed(style: Dialect, words: str) -> None:
    """In every way at every place, where a third of the models stands in turn: each model in each
    way, and at each place."""
    step = max(1, 3 // TIMES)
    for valid in VALID[style]:
        places = range(len(list(objects(tree(valid)))))
        put = [
            (place, name, value)
            for number, model in enumerate((*BAD, *ALIASES))
            for way, (name, value) in enumerate(selectors(model))
            for place in places[(number + way) % step :: step]
        ]
        put += [(place, name, value) for name, value in GREEDY for place in places]
        for place, name, value in put:
            top = tree(valid)
            where = list(objects(top))[place]
            where[:] = [pair for pair in where if pair[0] != name]
            where.append([name, tree(value)])
            judge(style, words, written(top).encode())


@pytest.mark.parametrize("style", VALID)
def test_the_calls_that_are_changed_pass_unchanged(style: Dialect) -> None:
    """Or the property would hold of a policy that refuses everything."""
    endpoint = Endpoint("POST", f"/api/v1{PATHS[style]}", style)
    for value in VALID[style]:
        raw = written(tree(value)).encode()
        policy = Policy(Models(PATTERNS))
        assert calls.read(endpoint, raw, policy, (), "").body == raw
        assert json.loads(raw) == value


@given(value=st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(GOOD),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["type", "tools", "model", "id", "parameters", "ttl", "file_id", "x"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
), name=st.sampled_from(sorted({n for s in VALID for v in VALID[s] for n in v} | {
    "plugins", "provider", "fallbacks", "service_tier", "n", "modalities", "cache_control",
    "image_config", "stop_server_tools_when", "web_search_options", "audio", "speed",
})), style=st.sampled_from(list(VALID)))  # fmt: skip
@example(style=CHAT, name="plugins", value=[{"id": []}])
@example(style=CHAT, name="provider", value={"only": [1]})
@examples(400)
def test_any_value_of_any_field_is_taken_or_refused(style: Dialect, name: str, value: Any) -> None:
    policy = Policy(Models(["*"], MANY), features=MANY)
    endpoint = Endpoint("POST", f"/api/v1{PATHS[style]}", style)
    raw = json.dumps({"model": GOOD[0]} | {name: value}).encode()
    with suppress(Refusal):  # and nothing else may be raised
        calls.read(endpoint, raw, policy, (), "")


@given(st.text("ab*/", max_size=9), st.text("ab/", max_size=12))
@settings(max_examples=500)
def test_a_star_is_anything(glob: str, text: str) -> None:
    fits = fnmatch.fnmatchcase(text, glob)
    assert (re.fullmatch(expression(glob), text) is not None) is fits
    lines = f"{text[::-1]}b\n{text}"
    assert (re.search(f"^{expression(glob)}$", lines, re.M) is not None) >= fits


@pytest.mark.parametrize("patterns", [["*-*-*-*-*-*-*-*-*:free"], ["!*-*-*-*-*-*-*-*-*z", "*"]])
def test_a_name_made_to_fit_many_stars_almost_is_read_in_one_pass(patterns: list[str]) -> None:
    """With each star tried anew this would not end."""
    models = Models(patterns)
    assert models.allows("-" * 190 + "/a") is ("*" in patterns)
