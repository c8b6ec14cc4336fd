"""What goes up agrees with itself: the providers' rules accept it if they accepted the caller's.

The rules are written down here apart from the policy, from the documentation of Anthropic
("Extended thinking", "Advisor tool") and OpenRouter ("Reasoning tokens"), state November 2026.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keyproxy import dialects
from keyproxy.call import Endpoint
from keyproxy.dialects import Dialect
from keyproxy.errors import Refusal
from keyproxy.policy import calls
from keyproxy.policy.check import Policy
from keyproxy.policy.models import Models
from keyproxy.policy.opened import Features
from tests.examples import examples

Body = dict[str, Any]
ADVISORS = ("openrouter:advisor", "advisor_20260301")
FEATURES = Features.of([*(f"tools:{kind}" for kind in ADVISORS), "many"])
LENGTHS = {
    dialects.CHAT: ("max_tokens", "max_completion_tokens"),
    dialects.RESPONSES: ("max_output_tokens",),
    dialects.MESSAGES: ("max_tokens",),
    dialects.COMPLETIONS: ("max_tokens",),
}
UNLIMITED = 10**9
SOME = (1, 2, 99, 500, 1023, 1024, 1025, 2000.0, 3999, 4000, 4001, 6000, 8192.0, 10**12)


def lengths(style: Dialect, body: Body) -> list[float]:
    """Of the answer, by each of the fields; -1 and none have no limit."""
    said = [body[name] for name in LENGTHS[style] if body.get(name) is not None]
    return [UNLIMITED * 10**9 if length == -1 else length for length in said]


def faults(style: Dialect, body: Body) -> list[str]:
    """What a provider would answer with 400."""
    found = [f"a length of {length}" for length in lengths(style, body) if length < 1]
    shortest = min(lengths(style, body), default=UNLIMITED * 10**9)
    model = body["model"]
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "enabled":
        found += too_much(thinking["budget_tokens"], shortest, "anthropic/")
        found += ["a budget below 1024"] if thinking["budget_tokens"] < 1024 else []
    elif "budget_tokens" in thinking:
        found.append("a budget without thinking")
    found += too_much((body.get("reasoning") or {}).get("max_tokens"), shortest, model)
    for item in body.get("input", []):
        found += too_much((item.get("reasoning") or {}).get("max_tokens"), shortest, model)
    for tool in body.get("tools", []):
        if tool["type"] == "advisor_20260301":
            found += ["a short advisor"] if tool.get("max_tokens", 1024) < 1024 else []
        else:
            settings = tool["parameters"]
            longest = settings.get("max_completion_tokens", UNLIMITED * 10**9)
            budget = settings.get("reasoning", {}).get("max_tokens")
            found += too_much(budget, longest, settings["model"])
    if body.get("best_of", 10) < body.get("n", 1):
        found.append("more answers than candidates")
    return found


def too_much(budget: float | None, length: float, model: str) -> list[str]:
    """Reasoning is a part of the answer; OpenRouter gives Anthropic's models 1,024 at least."""
    if not budget:
        return []
    taken = max(budget, 1024) if model.startswith("anthropic/") else budget
    return [f"reasoning of {taken} in an answer of {length}"] if taken >= length else []


def within(style: Dialect, body: Body, cap: int) -> bool:
    """Whether no cap has a reason to change anything at the top level."""
    said = lengths(style, body)
    budgets = [(body.get("reasoning") or {}).get("max_tokens") or 0]
    budgets.append((body.get("thinking") or {}).get("budget_tokens") or 0)
    return bool(said) and max(said) <= cap and max(budgets) < cap


NUMBER = st.sampled_from(SOME)
LENGTH = st.sampled_from((*SOME, -1, -1.0, None))
MODEL = st.sampled_from(["openai/gpt-5", "anthropic/claude-haiku-4.5"])


def reasoning(*more: Any) -> st.SearchStrategy[Body]:
    settings: dict[str, Any] = {
        "max_tokens": st.sampled_from((*SOME, *more)),
        "effort": st.sampled_from(["low", "high", "xhigh"]),
        "enabled": st.just(True),
        "exclude": st.booleans(),
    }
    return st.fixed_dictionaries({}, optional=settings)


REASONING = reasoning(0, None)
THINKING = st.one_of(
    st.fixed_dictionaries({"type": st.just("enabled"), "budget_tokens": NUMBER}),
    st.sampled_from(({"type": "adaptive", "display": "summarized"}, {"type": "disabled"}, None)),
)
ADVISOR = st.fixed_dictionaries(
    {"model": MODEL},
    optional={
        "max_completion_tokens": NUMBER,
        "reasoning": st.fixed_dictionaries({}, optional={"max_tokens": NUMBER}),
    },
)
TOOL = st.one_of(
    ADVISOR.map(lambda settings: {"type": ADVISORS[0], "parameters": settings}),
    st.fixed_dictionaries(
        {"type": st.just(ADVISORS[1]), "name": st.just("advisor"), "model": MODEL},
        optional={"max_tokens": NUMBER},
    ),
)
UPDATE = st.fixed_dictionaries({"type": st.just("configuration_update"), "reasoning": reasoning()})
MORE: dict[Dialect, dict[str, Any]] = {
    dialects.CHAT: {"reasoning": REASONING | st.none(), "tools": st.lists(TOOL, max_size=2)},
    dialects.RESPONSES: {
        "reasoning": REASONING | st.none(),
        "input": st.lists(UPDATE, max_size=2),
        "tools": st.lists(TOOL, max_size=1),
    },
    dialects.MESSAGES: {"thinking": THINKING, "tools": st.lists(TOOL, max_size=1)},
    dialects.COMPLETIONS: {"n": st.integers(1, 3), "best_of": st.integers(1, 3)},
}


def bodies(style: Dialect) -> st.SearchStrategy[Body]:
    said = dict.fromkeys(LENGTHS[style], LENGTH)
    return st.fixed_dictionaries({"model": MODEL}, optional=said | MORE[style])


@pytest.mark.parametrize("style", MORE)
@given(data=st.data(), cap=st.sampled_from([1, 100, 1023, 1024, 1025, 2000, 4000, 100_000]))
@examples(150)
def test_a_call_that_providers_accept_is_one_after_the_cap(
    style: Dialect, data: st.DataObject, cap: int
) -> None:
    body = data.draw(bodies(style))
    assume(not faults(style, body) or within(style, body, cap))
    raw = json.dumps(body).encode()
    policy = Policy(Models(["*"], FEATURES), max_tokens=cap, features=FEATURES)
    endpoint = Endpoint("POST", "/api/v1/x", style)
    try:
        sent = json.loads(calls.read(endpoint, raw, policy, (), "").body)
    except Refusal as error:
        refusal = error
    else:
        judge(style, body, sent, cap)
        return
    assert cap <= 1024  # so that some reasoning has no room
    assert (refusal.code, refusal.hint) == ("field_not_allowed", "KEYPROXY_MAX_TOKENS=4096")


def judge(style: Dialect, body: Body, sent: Body, cap: int) -> None:
    assert faults(style, body) or faults(style, sent) == []
    assert lengths(style, sent)
    assert all(1 <= length <= cap for length in lengths(style, sent))
    for name in ("thinking", "reasoning"):  # lowered, never taken away
        asked, left = body.get(name) or {}, sent.get(name) or {}
        assert asked.keys() == left.keys()
        assert all(bool(asked[each]) == bool(left[each]) for each in asked)
    if within(style, body, cap):
        kept = [name for name in body if name not in ("reasoning", "tools", "input")]
        assert [sent[name] for name in kept] == [body[name] for name in kept]
