"""What a refusal of the policy says: true of the value, and what the developer can change."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from keyproxy.call import Endpoint
from keyproxy.dialects import Dialect
from keyproxy.errors import Refusal
from keyproxy.features import WORDS
from keyproxy.policy import calls
from keyproxy.policy.check import Policy
from keyproxy.policy.fields import FIELDS
from keyproxy.policy.models import Models
from keyproxy.policy.opened import Features
from tests.conftest import Start, refused

RESPONSES, MESSAGES = "/api/v1/responses", "/api/v1/messages"
ODD: list[Any] = [
    None, True, False, 0, 1, -1, -2, 2, 11, 10**30, 1.0, 2.0, 1.5, -1.0, -0.5, 1e300, "", "1",
    "2000", "true", "null", "x" * 99, [], [None], ["x"], [1, 2.0], [1.5] * 3, ["x"] * 11, [[]],
    [{}], {}, {"type": None}, {"ttl": 1}, {"ttl": "1h"}, {"effort": 1}, {"max_tokens": "9"},
    {"max_tokens": -2}, {"budget_tokens": 1.5}, {"budget_tokens": True},
]  # fmt: skip
ALL = Features.of([*WORDS, "tools:openrouter:advisor"])
POLICIES = [
    Policy(Models(["*"])),
    Policy(Models(["*"]), max_tokens=100),
    Policy(Models(["*"], ALL), max_tokens=5000, features=ALL),
]


def in_words(value: Any) -> str:
    """A value as a message may call it."""
    if isinstance(value, str):
        return f"'{value[:39]}…" if len(value) > 39 else f"'{value}'"
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    return json.dumps(value)


def is_whole(value: Any) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())


def found_at(body: Any, param: str) -> Any:
    for name in param.split("."):
        body = body[name]
    return body


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("style", FIELDS)
def test_what_a_refusal_says_of_a_value_is_true(style: Dialect, policy: Policy) -> None:
    endpoint = Endpoint("POST", "/api/v1/x", style)
    for name in FIELDS[style]:
        for value in ODD:
            body = {"model": "a/b", name: value}
            try:
                calls.read(endpoint, json.dumps(body).encode(), policy, (), "")
            except Refusal as error:
                judge(body, error)


def judge(body: dict[str, Any], refusal: Refusal) -> None:
    said = re.match(r"The field (\S+) is (?!about)([^;,]+?)(?:[;,]| and needs)", refusal.message)
    if said and not re.search(r"[\[(]", said[1]):
        assert said[2] == in_words(found_at(body, said[1])), refusal.message
    place = re.match(r"The field ([^\s\[]+) (?:is|must|holds)", refusal.message)
    if place:
        value = found_at(body, place[1])
        words = in_words(value).strip("'")
        truths = {
            "must be a list": not isinstance(value, list) or not 0 < len(value) <= 16,
            "must be true or false": not isinstance(value, bool),
            "must be a whole number": not is_whole(value) or value < -1,
            f"Allowed: {words}.": isinstance(value, str),  # a number, and not the text of one
        }
        for text, is_true in truths.items():
            assert is_true or text not in refusal.message, (refusal.message, value)


RAN = "that runs on a server"


@pytest.mark.parametrize(
    ("path", "tool", "text"),
    [
        (MESSAGES, {"type": "bash_20250124", "name": "bash"}, "bash_20250124, which"),
        (MESSAGES, {"type": "text_editor_20250728"}, "text_editor_20250728, which"),
        (MESSAGES, {"type": "computer_20251124"}, "computer_20251124, which"),
        (MESSAGES, {"type": "memory_20250818"}, "memory_20250818, which"),
        (RESPONSES, {"type": "local_shell"}, "local_shell, which"),
        (RESPONSES, {"type": "shell"}, "shell, which"),
        (RESPONSES, {"type": "apply_patch"}, "apply_patch, which"),
        (RESPONSES, {"type": "computer_use_preview"}, "computer_use_preview, which"),
        (RESPONSES, {"name": "f", "parameters": {}}, "a tool without a type, which"),
        (RESPONSES, {"type": "web_search"}, f"web_search {RAN}"),
        (RESPONSES, {"type": "image_generation"}, f"image_generation {RAN}"),
        (MESSAGES, {"type": "web_fetch_20250910"}, f"web_fetch_20250910 {RAN}"),
        (MESSAGES, {"type": "openrouter:datetime"}, f"openrouter:datetime {RAN}"),
    ],
)
async def test_only_a_tool_that_runs_on_a_server_is_said_to(
    start: Start, path: str, tool: dict[str, Any], text: str
) -> None:
    proxy = await start()
    async with proxy.post({"model": "a/b", "tools": [tool]}, path) as answer:
        error = await refused(answer, 403, "field_not_allowed")
    assert text in error["message"]
    assert proxy.upstream.calls == []


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "store: false"),
        ({"input": [{"type": "function_call", "id": "fc_1"}]}, "store: false"),
        ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]},
            'store: false and include: ["reasoning.encrypted_content"]'),
        ({"input": "x", "store": True}, "is true, which is not open here. Allowed: false."),
        ({"input": "x", "previous_response_id": "resp_1"}, "send all of it in input"),
        ({"input": "x", "conversation": {"id": "conv_1"}}, "send all of it in input"),
        ({"input": "x", "prompt_cache_retention": "24h"}, "Allowed: in_memory."),
        ({"input": "x", "extra_body": {"top_k": 1}}, "stand at the top of a call"),
        ({"input": "x", "plugins": [{"id": "y"}]},
            "Allowed: response-healing, context-compression."),
    ],
)  # fmt: skip
async def test_a_refusal_names_what_the_developer_can_change(
    start: Start, field: dict[str, Any], text: str
) -> None:
    proxy = await start()
    async with proxy.post({"model": "a/b"} | field, RESPONSES) as answer:
        error = await refused(answer, 403, "field_not_allowed")
    assert text in error["message"]
    assert proxy.upstream.calls == []
