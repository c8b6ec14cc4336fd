"""The official SDKs do not notice which of nine providers answers them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import MessageParam
from openai.types.chat import ChatCompletionMessageParam

from tests.fakes.replies import ARGUMENTS, PIECES
from tests.fakes.server import serving
from tests.fakes.vendors import VENDORS
from tests.sdk.node import Node, install
from tests.test_matrix import TOOLS, Caller, calling

TEXT = "".join(PIECES)
ASKED = json.loads("".join(ARGUMENTS))
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Grüße"}]
HELLO_ANTHROPIC: list[MessageParam] = [{"role": "user", "content": "Grüße"}]


def speaking(dialect: str) -> list[str]:
    return [name for name, vendor in VENDORS.items() if dialect in vendor.paths]


@asynccontextmanager
async def opened(name: str, directory: Path) -> AsyncIterator[tuple[openai.AsyncOpenAI, Caller]]:
    async with (
        serving(name) as fakes,
        calling(name, directory, fakes) as caller,
        openai.AsyncOpenAI(base_url=f"{caller.url}/api/v1", api_key="none") as client,
    ):
        yield client, caller


@pytest.mark.parametrize("name", speaking("chat"))
async def test_openais_sdk_chats_with_each_of_them(name: str, tmp_path: Path) -> None:
    tool: Any = TOOLS["chat"]
    async with opened(name, tmp_path) as (client, caller):
        model = caller.model("chat")
        chat = client.chat.completions
        answer = await chat.create(model=model, messages=HELLO)
        assert answer.choices[0].message.content == TEXT
        assert answer.usage is not None
        stream = await chat.create(model=model, messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(pieces) == TEXT
        first = await chat.create(model=model, messages=HELLO, tools=[tool])
        message: Any = first.choices[0].message
        [call] = message.tool_calls
        assert json.loads(call.function.arguments) == ASKED
        told: Any = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
        for echo in (message, message.model_dump()):  # with all nulls, too, as many do
            last = await chat.create(model=model, messages=[*HELLO, echo, told], tools=[tool])
            assert last.choices[0].message.content == TEXT
        async with chat.stream(model=model, messages=HELLO, tools=[tool]) as helped:
            done = await helped.get_final_completion()
        assert json.loads((done.choices[0].message.tool_calls or [])[0].function.arguments) == ASKED
        assert len(caller.fake.bills) == len(caller.fake.calls) == 6


@pytest.mark.parametrize("name", speaking("responses"))
async def test_openais_sdk_reads_responses(name: str, tmp_path: Path) -> None:
    tool: Any = TOOLS["responses"]
    async with opened(name, tmp_path) as (client, caller):
        model = caller.model("responses")
        whole = await client.responses.create(model=model, input="Grüße")
        stream = await client.responses.create(model=model, input="Grüße", stream=True)
        events = [event async for event in stream]
        pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert whole.output_text == "".join(pieces) == TEXT
        said: list[Any] = [{"role": "user", "content": "Grüße"}]
        first = await client.responses.create(model=model, input=said, tools=[tool])
        [call] = first.output
        assert call.type == "function_call"
        said += [
            call.model_dump(exclude_none=True),
            {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
        ]
        last = await client.responses.create(model=model, input=said, tools=[tool])
        assert last.output_text == TEXT
        assert caller.fake.stored == []


@pytest.mark.parametrize("name", speaking("messages"))
async def test_anthropics_sdk_speaks_with_each_that_has_messages(name: str, tmp_path: Path) -> None:
    tool: Any = TOOLS["messages"]
    async with (
        serving(name) as fakes,
        calling(name, tmp_path, fakes) as caller,
        anthropic.AsyncAnthropic(base_url=f"{caller.url}/api", api_key="none") as client,
    ):
        asked: Any = {"model": caller.model("messages"), "max_tokens": 100}
        answer = await client.messages.create(messages=HELLO_ANTHROPIC, **asked)
        assert answer.content[0].type == "text"
        assert answer.content[0].text == TEXT
        async with client.messages.stream(messages=HELLO_ANTHROPIC, **asked) as stream:
            assert "".join([text async for text in stream.text_stream]) == TEXT
        first = await client.messages.create(messages=HELLO_ANTHROPIC, tools=[tool], **asked)
        [call] = first.content
        assert call.type == "tool_use"
        assert call.input == ASKED
        echoed: Any = {"role": "assistant", "content": first.content}
        told: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
        turns = [*HELLO_ANTHROPIC, echoed, {"role": "user", "content": [told]}]
        last = await client.messages.create(messages=turns, tools=[tool], **asked)
        assert last.content[0].type == "text"
        assert fakes.strays() == []


# From npm


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    install()
    with Node() as node:
        yield node


AI = ("chat", "stream", "tools", "toolsStream")
CASES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("chat", "openai", ("chat", "tools", "toolsStream")),
    ("chat", "openrouter", ("chat", "stream", "tools")),
    ("chat", "ai-compatible", AI),
    ("chat", "ai-openai-chat", AI),
    ("chat", "ai-groq", AI),
    ("responses", "openai", ("responses", "responsesStream")),
    ("responses", "openrouter", ("responses", "responsesStream")),
    ("responses", "ai-openai", AI),
    ("messages", "ai-anthropic", AI),
    ("messages", "anthropic", ("chat", "stream", "rawStream", "tools", "toolsStream")),
)
UNLIKE_OPENROUTER = {
    **dict.fromkeys(("anthropic", "gemini", "deepinfra", "mistral"), "chat"),
    "openai": "stream",  # null as the usage of all chunks but the last
}
"""Whose chat has not the form that OpenRouter's SDK insists on, and where that shows."""
SAYS = {
    **dict.fromkeys(("chat", "stream", "responses", "responsesStream"), TEXT),
    **dict.fromkeys(("tools", "toolsStream"), "get_weather"),
    "rawStream": "message_stop",
}
SPOKEN = [
    (name, sdk, cases)
    for dialect, sdk, cases in CASES
    for name in speaking(dialect)
    if (sdk, dialect) != ("openrouter", "chat") or name not in UNLIKE_OPENROUTER
]


@pytest.mark.timeout(300)  # the first test also installs the packages
@pytest.mark.parametrize(("name", "sdk", "cases"), SPOKEN)
async def test_the_sdks_in_node_neither(
    name: str, sdk: str, cases: tuple[str, ...], node: Node, tmp_path: Path
) -> None:
    model = VENDORS[name].models[0].canonical
    aliases = f"demo/echo={model},demo/tools={model}"
    async with (
        serving(name) as fakes,
        calling(name, tmp_path, fakes, MODEL_ALIASES=aliases) as caller,
    ):
        for case in cases:
            said = json.dumps(await node.run(sdk, case, caller.url), ensure_ascii=False)
            assert SAYS[case] in said.replace('", "', "")
        assert fakes.strays() == []


@pytest.mark.parametrize("name", UNLIKE_OPENROUTER)
async def test_openrouters_sdk_reads_no_answers_of_another_form(
    name: str, node: Node, tmp_path: Path
) -> None:
    """It says so, and what was answered has come, and is paid for: docs/clients.md."""
    aliases = f"demo/echo={VENDORS[name].models[0].canonical}"
    async with (
        serving(name) as fakes,
        calling(name, tmp_path, fakes, MODEL_ALIASES=aliases) as caller,
    ):
        with pytest.raises(pytest.fail.Exception, match=r"ResponseValidationError|ZodError"):
            await node.run("openrouter", UNLIKE_OPENROUTER[name], caller.url)
        [bill] = caller.fake.bills
        assert bill.cost is not None
