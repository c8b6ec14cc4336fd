"""Looks for a body that passes the checks and means something else to another JSON reader.

    python tests/fuzz/body.py --seconds 20

Guided by coverage with atheris where that is installed, otherwise driven by hypothesis. The
first finding is printed and ends the run with an error.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from keyproxy.call import Call
from keyproxy.errors import Refusal
from keyproxy.features import WORDS
from keyproxy.policy import calls
from keyproxy.policy.check import Policy
from keyproxy.policy.endpoints import KNOWN
from keyproxy.policy.models import Models
from keyproxy.policy.opened import Features
from keyproxy.strict_json import body
from tests.fuzz.readers import Member, Members, folded, plain, read, views

ALLOWED = ("good/a", "good/b:free")
ALIASES = {"fast": "good/a"}
CAP = 100
LENGTHS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})
CHANGEABLE = LENGTHS | {
    "model", "models", "reasoning", "reasoning_effort", "thinking", "output_config",
    "max_tool_calls", "verbosity", "text",
}  # fmt: skip
DEEP = {"messages", "input", "system", "tools", "plugins", "fallbacks", "stop_server_tools_when"}
"""Fields in which caps and aliases are imposed where they stand."""
BUDGETS = (("reasoning", "max_tokens"), ("thinking", "budget_tokens"))
SELECTORS = frozenset({"preset", "route", "base_url", "extra_body", "previous_response_id"})
ENDPOINTS = tuple(endpoint for endpoint in KNOWN if endpoint.method == "POST")
OPEN = (*WORDS, "tools:openrouter:advisor", "tools:openrouter:subagent", "tools:advisor_20260301")
POLICIES = (
    Policy(Models(ALLOWED)),
    Policy(Models(ALLOWED), ALIASES, CAP),
    Policy(Models(ALLOWED, Features.of(OPEN)), ALIASES, CAP, Features.of(OPEN)),
)
CHANGES: tuple[dict[str, Any], ...] = (
    {"model": "good/z"},
    {"max_tokens": 7, "model": "\u00e9\u2028"},
    {"": {"a": [1.5, None]}, "models": ["x", "y"], "a": True},
)

TOKENS = (
    *[bytes([byte]) for byte in b'{}[]:,"\\/.-+eE019a'],
    b" ", b"\t", b"\n", b"\r", b"\x0c", b"\x00", b"\xff", b"\xc0\xae", b"\xed\xa0\x80",
    b"\xef\xbb\xbf", b"\\u0000", b"\\ud83d\\ude42", b"\\ud800", b"\\u006d", b"\\u017f", b"\\n",
    b'"model":', b'"models":', b'"mod\\u0065l":', b'"Model":', b'"mod\xc5\xbfel":',
    b'"\xef\xbd\x8dodel":', b'"model\\u0000":', b'"models\\u0000x":', b'"model ":',
    b'"good/a"', b'"good/b:free"', b'"bad/x"', b'"fast"', b'"good/a\\u0000"', b'"good\\/a"',
    b'["good/a","fast"]', b'["bad/x"]', b'"messages":[]', b'"messages":', b'"input":', b'"tools":',
    b'"type":', b'"function"', b'"web_search"', b'"openrouter:fusion"', b'"plugins":', b'"id":',
    b'"fusion"', b'"analysis_models":', b'"fallbacks":', b'[{"model":"bad/x"}]', b'"parameters":',
    b'"preset":', b'"provider":', b'"only":', b'"reasoning":', b'"thinking":', b'"max_tokens":',
    b'"max_completion_tokens":', b'"max_output_tokens":', b'"budget_tokens":', b'"n":',
    b'"reasoning_effort":', b'"effort":', b'"output_config":', b'"max"', b'"max_tool_calls":',
    b'"stream":', b'"tool_choice":', b'"cache_control":', b'"ttl":', b'"1h"', b'"input_images":',
    b'"tool":', b'"definition":', b'"instructions":', b'"configuration_update":', b'"edits":',
    b'"context_management":', b'"openrouter:advisor"', b'"openrouter:subagent"', b'"max_uses":',
    b'"tool_addition"', b'"my_tool_use"', b'"tool_use"', b'"role":', b'"content":', b'"system":',
    b'"stop_server_tools_when":', b'"step_count":', b'"compact_20260112"', b'"prompt":',
    b"true", b"false", b"null", b"NaN", b"-Infinity", b"1e999", b"-0", b"1.50e0", b"1000000",
    b"[" * 20, b"]" * 20, b"{}", b"[]", b"//", b"/*", b"'",
)  # fmt: skip
SEEDS = (
    b'{"model":"good/a","messages":[{"role":"user","content":"Gr\xc3\xbc\\u00dfe"}],"stream":true}',
    b' {"models" : ["good/a","fast"], "max_tokens":1000000,"input":"x"}\r\n',
    b'{"model":"fast","reasoning":{"max_tokens":1000,"effort":"low"},"max_completion_tokens":null}',
    b'{"model":"good/a","model":"bad/x"}',
    b'{"model":"good/a","mod\\u0065l":"bad/x"}',
    b'{"model":"good/a","Model":"bad/x"}',
    b'{"model":"good/a","model\\u0000":"bad/x"}',
    b'{"model":"good/a","tools":[{"type":"openrouter:fusion","parameters":{"model":"bad/x"}}]}',
    b'{"model":"good/a","plugins":[{"id":"fusion","analysis_models":["bad/x"],"model":"good/a"}]}',
    b'{"model":"good/a","fallbacks":[{"model":"good/b:free"}],"max_tokens":5,"thinking":{}}',
    b'{"model":"good/a","n":1.50e0,"seed":-0,"user":"\\ud83d\\ude42"}',
    b'{"model":"good/a","tools":[{"type":"openrouter:advisor","parameters":{"model":"fast"}}]}',
    b'{"model":"good/a","messages":[{"configuration_update":{"reasoning":{"effort":"max"}}}]}',
    b'{"model":"good/a","input":[{"role":"user","content":[{"tool":{"type":"mcp"}}]}]}',
    b'{"model":"good/a","fallbacks":[{"model":"fast"}],"stop_server_tools_when":[]}',
    b'{"model":"good/a","models":null,"preset":"","stream":[],"extra_body":{},"max_tokens":""}',
    b'{"model":null,"models":[],"provider":{},"Model":null}',
    b'{"a":' + b"[" * 60 + b"]" * 60 + b"}",
)


def examine(raw: bytes) -> None:
    """Raises AssertionError, or whatever the checks failed with, for a finding."""
    try:
        parsed = body.read(raw)[0]
    except Refusal:
        parsed = None
    if parsed is not None:
        check_readers_agree(raw, parsed)
        for changes in CHANGES if parsed else ():
            check_rewriting(raw, parsed, changes)
    for policy in POLICIES:
        for endpoint in ENDPOINTS:
            try:
                call = calls.read(endpoint, raw, policy, (), "")
            except Refusal:
                continue
            check_call(raw, call, policy)


def check_readers_agree(raw: bytes, parsed: dict[str, Any]) -> None:
    assert json.loads(raw) == parsed
    assert plain(read(raw.decode())) == parsed


def check_rewriting(raw: bytes, parsed: dict[str, Any], changes: dict[str, Any]) -> None:
    """Only the named fields differ; every other byte is where and what it was."""
    text, new = raw.decode(), body.rewritten(raw, *body.read(raw), changes).decode()
    assert body.read(new.encode())[0] == parsed | changes
    before: Members = read(text)
    after: Members = read(new)
    assert [member.name for member in after[: len(before)]] == [member.name for member in before]
    at = at_new = 0
    for old, now in zip(before, after, strict=False):
        assert text[at : old.start] == new[at_new : now.start]
        if old.name not in changes:
            assert text[old.start : old.end] == new[now.start : now.end]
        at, at_new = old.end, now.end
    assert new.endswith(text[at:])


def check_call(raw: bytes, call: Call, policy: Policy) -> None:
    members: Members = read(call.body.decode())
    before, after = json.loads(raw), json.loads(call.body)
    if call.body != raw:
        changed = {name for name in after if name not in before or after[name] != before[name]}
        assert before.keys() <= after.keys()
        assert changed <= (CHANGEABLE | DEEP if policy.max_tokens else frozenset())
        for name in changed & DEEP:
            check_lowered(before[name], after[name])
    for outer, inner in BUDGETS if policy.max_tokens else ():
        asked = after.get(outer)
        budget = asked.get(inner) if isinstance(asked, dict) else None
        assert budget is None or budget <= CAP, f"{outer}.{inner} is above the cap"
    for member in members:
        assert re.fullmatch("[a-z][a-z0-9_]*", member.name), f"{member.name!r} is an odd name"
    for view in map(said, views(members)):
        named = [view["model"]] if "model" in view else []
        if "models" in view:
            assert isinstance(view["models"], list), "models is no list"
            named += view["models"]
        assert named, "no model is named"
        assert set(named) <= set(ALLOWED), f"{named} would answer"
        assert SELECTORS.isdisjoint(view), "something else selects a model"
        assert view.get("stream") in (True, False, None)
        for name in LENGTHS & view.keys() if policy.max_tokens else ():
            assert view[name] is None or view[name] <= CAP, f"{name} is above the cap"
        for fallback in view.get("fallbacks") or ():
            assert {"model"} == {member.name for member in fallback}
            assert fallback[0].value in ALLOWED
        for hidden in named_within(view.get("plugins")):
            assert hidden in ALLOWED, f"{hidden} is named in a plugin"


def said(view: dict[str, Any]) -> dict[str, Any]:
    """What is left without null, empty lists and empty texts, which select nothing."""
    return {
        name: value
        for name, value in view.items()
        if not (value is None or value == "" or (value == [] and type(value) is list))
        and not (value == [] and name == "extra_body")
    }


def check_lowered(before: Any, after: Any) -> None:
    """Nothing is taken away, and what differs was lowered, filled in, or an alias."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            check_lowered(value, after[name])
        assert set(after) - set(before) <= LENGTHS | {"parameters"}
    elif isinstance(before, list) and isinstance(after, list):
        for old, new in zip(before, after, strict=False):
            check_lowered(old, new)
        assert after[len(before) :] in ([], [{"type": "step_count_is", "step_count": 10}])
    elif before != after:
        is_alias = isinstance(before, str) and ALIASES.get(before) == after
        is_less = after in ("high", 10, 20, 50, CAP)
        assert is_alias or is_less or before is None, f"{before} became {after}"


def named_within(value: Any) -> Iterator[Any]:
    """Every model that an object somewhere in ``value`` names."""
    for item in value if isinstance(value, list) else ():
        if not isinstance(item, Member):
            yield from named_within(item)
        elif folded(item.name) in ("model", "models", "analysis_models"):
            yield from item.value if isinstance(item.value, list) else [item.value]
        else:
            yield from named_within(item.value)


NAMES = tuple(token for token in TOKENS if token.endswith(b'":'))
VALUES = (
    b'"good/a"', b'"good/b:free"', b'"bad/x"', b'"fast"', b'["good/a","fast"]', b'["bad/x"]',
    b"true", b"false", b"null", b"1", b"-0", b"1.50e0", b"1000000", b'""', b'"auto"', b'"function"',
    b'"web_search"', b'"openrouter:fusion"', b'"fusion"', b'"pdf"', b'"1h"', b'"file-parser"',
    b'"\\u00e9\xc3\xa9"', b'"additional_tools"', b'"item_reference"', b'"advisor_20260301"',
    b'"openrouter:advisor"', b'"openrouter:subagent"', b'"tool_reference"', b'"max"', b'"user"',
    b'"my_tool_use"', b'"tool_use"', b'"step_count_is"', b'"compact_20260112"',
)  # fmt: skip


def made(data: bytes) -> bytes:
    """A body from any bytes: an object, tokens of JSON, or the bytes themselves."""
    if data[:1] < b"\x40":
        return data[1:]
    if data[:1] < b"\x80":
        return b"".join(TOKENS[byte % len(TOKENS)] for byte in data[1:])
    return _whole(iter(data[1:]), b"}")


def _whole(data: Iterator[int], closing: bytes) -> bytes:
    """An object or array whose members ``data`` chooses, valid but for its names."""
    parts = []
    for byte in data:
        if byte == 255:
            break
        name = NAMES[byte % len(NAMES)] if closing == b"}" else b""
        byte = next(data, 0) if closing == b"}" else byte
        if byte >= 192:
            value = _whole(data, b"}" if byte < 224 else b"]")
        else:
            value = VALUES[byte % len(VALUES)]
        parts.append(name + value)
    return (b"{" if closing == b"}" else b"[") + b",".join(parts) + closing


_ONE_TOKEN = st.sampled_from(TOKENS)
_TOKENS = st.lists(_ONE_TOKEN, max_size=25).map(b"".join)
_MEMBER = st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | _TOKENS).map(b"".join)
_OBJECTS = st.lists(_MEMBER, max_size=5).map(
    lambda members: b"{" + b",".join([b'"model":"good/a"', *members]) + b"}"
)


def _mutated(seed: bytes, at: int, count: int, put: bytes) -> bytes:
    at %= len(seed) + 1
    return seed[:at] + put + seed[at + count :]


_MUTATED = st.builds(
    _mutated,
    st.sampled_from(SEEDS),
    st.integers(0, 200),
    st.integers(0, 12),
    _TOKENS | st.binary(max_size=3),
)
BODIES = st.one_of(_OBJECTS, _MUTATED, _TOKENS, st.binary(max_size=60).map(made))
"""Bodies for hypothesis: objects of telling members, seeds with a piece put in, junk."""


def by_hypothesis(seconds: float) -> None:
    end = time.monotonic() + seconds
    count = 0

    @settings(
        max_examples=5_000,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(BODIES)
    def check(raw: bytes) -> None:
        nonlocal count
        if time.monotonic() < end:
            count += 1
            examine(raw)

    while time.monotonic() < end:
        check()
    print(f"{count} bodies, no finding")


def _instrumented() -> Iterator[FunctionType]:
    """The functions whose branches guide the search: the checks and the readers."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("keyproxy.policy.", "tests.fuzz.readers")):
            for thing in vars(module).values():
                members = vars(thing).values() if isinstance(thing, type) else (thing,)
                for member in members:
                    if isinstance(member, FunctionType) and member.__module__ == name:
                        yield member


def by_atheris(seconds: float) -> None:
    """Never returns: the engine ends the process."""
    atheris: Any = importlib.import_module("atheris")
    for function in _instrumented():
        atheris.instrument_func(function)
    folder = Path(tempfile.mkdtemp(prefix="keyproxy-fuzz-"))
    for number, seed in enumerate(SEEDS):
        (folder / str(number)).write_bytes(b" " + seed)
    for number, start in enumerate((b"\x40", b"\x80", b"\x80\x00\x00")):
        (folder / f"made-{number}").write_bytes(start)
    words = (b"".join(b"\\x%02x" % byte for byte in token) for token in TOKENS)
    Path(f"{folder}.dict").write_bytes(b"".join(b'"%b"\n' % word for word in words))
    options = [f"-max_total_time={max(1, round(seconds))}", "-max_len=400", "-timeout=10"]
    options += [f"-dict={folder}.dict", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *options, str(folder)], lambda data: examine(made(data)))
    atheris.Fuzz()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20, help="how long to look")
    parser.add_argument("--engine", choices=("atheris", "hypothesis"))
    asked = parser.parse_args()
    has_atheris = importlib.util.find_spec("atheris") is not None
    engine = asked.engine or ("atheris" if has_atheris else "hypothesis")
    print(f"looking for {asked.seconds:g} s with {engine}", flush=True)
    (by_atheris if engine == "atheris" else by_hypothesis)(asked.seconds)


if __name__ == "__main__":
    main()
