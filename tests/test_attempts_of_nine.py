"""What each of nine providers says when it fails, and where the call goes from there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.server import serving
from tests.fakes.shapes import ORGANISATION, USER
from tests.fakes.vendors import VENDORS
from tests.routed import HI, failing, proxy_before

MOVES = {"load": True, "account": True, "uncertain": True, "config": True, "caller": False}
TROUBLES = [
    (name, said, MOVES[trouble.kind])
    for name, vendor in VENDORS.items()
    for said, trouble in vendor.troubles.items()
]
PATHS = {"chat": "/api/v1/chat/completions", "messages": "/api/v1/messages"}


def other_than(name: str) -> str:
    return "groq" if name != "groq" else "mistral"


def body_for(path: str) -> dict[str, Any]:
    return {"model": "a/b", **HI} | ({"max_tokens": 9} if path.endswith("messages") else {})


@pytest.mark.parametrize(("name", "said", "moves"), TROUBLES)
async def test_a_call_goes_on_where_another_may_take_it(name: str, said: str, moves: bool) -> None:
    other = other_than(name)
    async with (
        serving(name, other) as fakes,
        proxy_before(fakes, more=failing(**{name: said, other: "whole"})) as proxy,
        proxy.post(body_for("chat")) as answer,
    ):
        raw, head = await answer.text(), answer.headers
        assert [seen.vendor for seen in fakes.calls] == ([name, other] if moves else [name])
        assert fakes.strays() == []
        assert ORGANISATION not in raw + str(head)
        assert USER not in raw
        if moves:
            assert (answer.status, head["X-Keyproxy-Provider"]) == (200, other)
            assert raw.encode() == bytes(fakes[other].bills[0].said)
            status = VENDORS[name].troubles[said].status
            word = "failed" if VENDORS[name].troubles[said].kind == "account" else str(status)
            assert head["X-Keyproxy-Attempts"] == f"{name}={word}, {other}=200"
        else:
            trouble = VENDORS[name].troubles[said]
            assert (answer.status, head["X-Keyproxy-Provider"]) == (trouble.status, name)


SPEAKING = [
    (name, dialect, said)
    for name, vendor in VENDORS.items()
    for dialect in vendor.paths
    if dialect in PATHS
    for said in ("invalid", "context", "semantic", "rate")
    if said in vendor.troubles
]


@pytest.mark.parametrize(("name", "dialect", "said"), SPEAKING)
async def test_an_error_is_told_in_the_shape_of_its_dialect(
    name: str, dialect: str, said: str
) -> None:
    """Five shapes come; clients read one, or Anthropic's."""
    trouble = VENDORS[name].troubles[said]
    async with (
        serving(name) as fakes,
        proxy_before(fakes, more=failing(**{name: said})) as proxy,
        proxy.post(body_for(PATHS[dialect]), PATHS[dialect]) as answer,
    ):
        raw = await answer.text()
        body = json.loads(raw)
        assert answer.status == trouble.status
        assert ORGANISATION not in raw
        error = body["error"]
        beginning = trouble.message.partition(" in organization")[0][:20]
        assert error["message"].startswith(beginning)
        if dialect == "messages":
            assert (body["type"], "type" in error) == ("error", True)
        elif trouble.param and name not in ("openrouter", "cerebras"):
            assert error["param"] == trouble.param


@pytest.mark.parametrize(
    ("name", "said"), [("anthropic", "credit"), ("gemini", "key"), ("xai", "wrong_key")]
)
async def test_a_400_that_is_the_accounts_is_not_laid_at_the_callers_door(
    name: str, said: str
) -> None:
    async with (
        serving(name) as fakes,
        proxy_before(fakes, more=failing(**{name: said})) as proxy,
        proxy.post(body_for("chat")) as answer,
    ):
        raw = await answer.text()
        assert answer.status in (400, 502)
        for words in ("API key", "xa***le", "Plans & Billing"):
            assert words not in raw
