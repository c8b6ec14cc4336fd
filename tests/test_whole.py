"""Items of a Responses input: whole ones pass, what only refers to a stored one does not."""

from __future__ import annotations

from typing import Any

import pytest

from keyproxy import dialects
from keyproxy.errors import Refusal
from keyproxy.policy import conversation, fields
from keyproxy.policy.check import Check, Policy
from keyproxy.policy.models import Models
from tests.conftest import Proxy, refused

Item = dict[str, Any]
POLICY = Policy(Models(["*"]))
RESPONSES = "/api/v1/responses"
SAID = {"type": "output_text", "text": "x", "annotations": []}

# As the SDKs of OpenAI and OpenRouter give them out, with an id and a status where they have one.
WHOLE: list[Item] = [
    {"type": "message", "role": "assistant", "content": [SAID], "phase": "final_answer"},
    {"type": "message", "role": "user", "content": "x"},
    {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
    {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}], "content": None},
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "x"}]},
    {"type": "compaction", "encrypted_content": "gAAA"},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}'},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""},
    {"type": "function_call_output", "call_id": "c", "output": "rain"},
    {"type": "function_call_output", "call_id": "c", "output": ""},
    {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text"}]},
    {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"},
    {"type": "custom_tool_call_output", "call_id": "c", "output": "x"},
    {"type": "tool_search_call", "arguments": {"query": "x"}, "execution": "client"},
    {"type": "tool_search_output", "tools": [{"type": "function", "name": "f"}]},
    {"type": "web_search_call", "action": {"type": "search", "query": "x"}},
    {"type": "file_search_call", "queries": ["x"], "results": None},
    {"type": "image_generation_call", "result": "iVBO"},
    {"type": "code_interpreter_call", "code": "1 + 1", "outputs": None},
    {"type": "computer_call", "call_id": "c", "actions": [{"type": "click", "x": 1}]},
    {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot"}},
    {"type": "local_shell_call", "call_id": "c", "action": {"type": "exec", "command": ["ls"]}},
    {"type": "local_shell_call_output", "output": "x"},
    {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}},
    {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "x"}]},
    {"type": "apply_patch_call", "call_id": "c", "operation": {"type": "delete_file"}},
    {"type": "apply_patch_call_output", "call_id": "c", "output": None},
    {"type": "mcp_approval_request", "server_label": "s", "name": "f", "arguments": "{}"},
    {"type": "mcp_approval_response", "approval_request_id": "m", "approve": False},
    {"type": "mcp_call", "server_label": "s", "name": "f", "arguments": "{}", "output": "x"},
    {"type": "program", "call_id": "c", "code": "x", "fingerprint": "y"},
    {"type": "program_output", "call_id": "c", "result": "x"},
    {"type": "openrouter:web_search", "action": {"type": "search", "query": "x"}},
    {"type": "openrouter:datetime", "datetime": "2026-03-12T14:30:00Z", "timezone": "UTC"},
    {"type": "openrouter:bash", "command": "ls", "exitCode": 0},
    {"type": "call_of_next_year", "output": "x"},
]
STATUS = {"id": "x_1", "status": "completed"}
BARE = sorted({item["type"] for item in WHOLE if "type" in item} | conversation.WHOLE.keys())


def allowed(item: Any) -> bool:
    try:
        fields.check(
            Check(dialects.RESPONSES, POLICY), {"input": [{"role": "user", "content": "x"}, item]}
        )
    except Refusal as error:
        refusal = error
    else:
        return True
    assert (refusal.code, refusal.param) == ("field_not_allowed", "input[1]")
    return False


@pytest.mark.parametrize("item", WHOLE)
def test_a_whole_item_passes_with_and_without_its_id(item: Item) -> None:
    assert allowed(item)
    assert allowed(STATUS | item)


@pytest.mark.parametrize(
    "name",
    ["ID", "Id", "iD", "id\0", "id ", " id", "i\u200bd", "\uff49d", "\u0131d", "id[]", "", "i d"],
)
def test_no_spelling_hides_an_id(name: str) -> None:
    assert not allowed({"type": "image_generation_call", name: "ig_1"})


@pytest.mark.parametrize("kind", BARE)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"status": None},
        {"role": "assistant", "content": []},
        {"role": "user", "content": [{}, [], [None], ""]},
        {"summary": [], "encrypted_content": None, "content": None},
        {"encrypted_content": "", "result": None, "action": {}, "queries": [], "tools": [{}]},
        {"call_id": "c", "name": "f", "server_label": "s"},
        {"result": 1, "code": True, "content": 0},
        {"x": "y", "model": "m", "Content": "x"},
    ],
)
def test_an_item_with_nothing_of_its_own_is_refused(kind: str, more: Item) -> None:
    status = {} if kind == "apply_patch_call_output" else STATUS
    assert not allowed(status | {"type": kind, "id": "x_1"} | more)


@pytest.mark.parametrize(
    "item",
    [
        {"type": "item_reference", "id": "x_1"},
        {"type": "item_reference", "id": "x_1", "role": "user", "content": "x", "output": "x"},
        {"type": "Item_Reference", "id": "x_1", "output": "x"},
        {"type": "item_reference ", "id": "x_1", "output": "x"},
        {"type": "item_reference\0", "output": "x"},
        {"type": "\uff49tem_reference", "output": "x"},
        {"type": "Message", "id": "x_1", "content": "x"},
        {"type": "", "id": "x_1", "content": "x"},
        {"type": "call_of_next_year"},
        {"type": "call_of_next_year", "item_id": "x_1"},
        {"type": "call_of_next_year", "id": "x_1", "call_id": "c", "name": "f"},
        {"id": "x_1"},
        {"id": "x_1", "role": "user", "content": []},
        {"id": "x_1", "role": "user", "content": ""},
        {"id": "", "type": "reasoning", "summary": []},
        {"role": "user", "content": "x", "Type": "item_reference", "id": "x_1"},
        {"type": "message", "role": "user", "content": "x", "ID": "x_1"},
        {"type": "message", "role": "user", "content": "x", "\u0131d": "x_1", "\uff29D": "x_1"},
        [{"type": "message", "role": "user", "content": "x"}],
        [],
        "x_1",
        None,
    ],
)
def test_no_spelling_makes_a_reference_pass(item: Any) -> None:
    assert not allowed(item)


def test_a_known_item_without_an_id_refers_to_nothing() -> None:
    assert allowed({"type": "compaction_trigger"})
    assert allowed({"type": "message", "role": "user", "content": ""})
    assert allowed({"type": "additional_tools", "role": "developer", "tools": []})


@pytest.mark.parametrize(
    "item",
    [
        {"type": "image_generation_call", "id": "ig_1"},
        {"type": "message", "id": "msg_1"},
        {"type": "reasoning", "id": "rs_1", "status": "completed", "summary": []},
        {"type": "item\u005freference", "id": "msg_1"},
    ],
)
async def test_what_another_caller_stored_is_not_reached(proxy: Proxy, item: Item) -> None:
    said: list[Item] = [{"role": "user", "content": "x"}] * 3
    call = {"model": "openai/gpt-4o-mini", "input": [*said, item]}
    async with proxy.post(call, RESPONSES) as answer:
        assert (await refused(answer, 403, "field_not_allowed"))["param"] == "input[3]"
    assert proxy.upstream.calls == []
    call["input"] = [*said, {"type": "image_generation_call", "id": "ig_1", "result": "iVBO"}]
    async with proxy.post(call, RESPONSES) as answer:
        assert answer.status == 200
    assert len(proxy.upstream.calls) == 1


async def test_an_audio_answer_that_only_refers_to_a_stored_one_is_refused(proxy: Proxy) -> None:
    def call(audio: Any) -> Item:
        messages = [{"role": "user", "content": "x"}, {"role": "assistant", "audio": audio}]
        return {"model": "openai/gpt-4o-mini", "messages": messages}

    for audio in (
        {"id": "audio_1"},
        {"Id": "a", "data": ""},
        {"id": "a", "data": None},
        {"id": "a", "transcript": " ", "data": False},
        [{"id": "a"}],
    ):
        async with proxy.post(call(audio)) as answer:
            error = await refused(answer, 403, "field_not_allowed")
        assert error["param"] == "messages.audio"
    assert proxy.upstream.calls == []
    async with proxy.post(call({"id": "audio_1", "data": "UklG", "transcript": "x"})) as answer:
        assert answer.status == 200
