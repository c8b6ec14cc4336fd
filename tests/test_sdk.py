"""The Python SDKs of OpenAI and Anthropic never notice the proxy."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import MessageParam, ToolParam
from openai.types.chat import (
    ChatCompletionContentPartImageParam,
    ChatCompletionMessageParam,
    ChatCompletionToolParam,
)
from pydantic import BaseModel

from keyproxy.demo.failures import RETRY_AFTER_SECONDS
from tests.conftest import Start
from tests.sdk.served import ASKED, TEXT, call_a_function, give_embeddings, serving

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": TEXT}]
HELLO_ANTHROPIC: list[MessageParam] = [{"role": "user", "content": TEXT}]
SCHEMA: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": SCHEMA},
}
WEATHER_ANTHROPIC: ToolParam = {"name": "get_weather", "input_schema": SCHEMA}


@asynccontextmanager
async def open_openai(url: str, **options: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{url}/api/v1", api_key="none", **options) as client:
        yield client


@asynccontextmanager
async def open_anthropic(url: str, **options: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=f"{url}/api", api_key="none", **options) as client:
        yield client


class Counting(openai.DefaultAsyncHttpxClient):
    """An HTTP client that counts what the SDK really sends, retries included."""

    calls = 0

    async def send(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        return await super().send(*args, **options)


class TestOpenAI:
    async def test_an_answer_is_read(self) -> None:
        async with serving() as served, open_openai(served.url) as client:
            answer = await client.chat.completions.create(model="demo/echo", messages=HELLO)
        assert answer.choices[0].message.content == TEXT
        assert answer.usage is not None
        assert answer.usage.completion_tokens > 1
        assert (answer._request_id or "").startswith("req_")

    async def test_a_stream_arrives_piece_by_piece(self) -> None:
        async with serving() as served, open_openai(served.url) as client:
            stream = await client.chat.completions.create(
                model="demo/echo",
                messages=HELLO,
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = [chunk async for chunk in stream]
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
        assert "".join(pieces) == TEXT
        assert len(list(filter(None, pieces))) > 1
        assert chunks[-1].usage is not None

    async def test_the_sync_client_works_as_well(self) -> None:
        def ask(url: str) -> str:
            with openai.OpenAI(base_url=f"{url}/api/v1", api_key="none") as client:
                stream = client.chat.completions.create(
                    model="demo/echo", messages=HELLO, stream=True
                )
                return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

        async with serving() as served:
            assert await asyncio.to_thread(ask, served.url) == TEXT

    async def test_a_function_call_makes_the_round(self, start: Start) -> None:
        proxy = await start()
        call_a_function(proxy.upstream)
        async with open_openai(proxy.url) as client:
            first = await client.chat.completions.create(
                model="demo/tools", messages=HELLO, tools=[WEATHER]
            )
            message = first.choices[0].message
            assert message.tool_calls is not None
            [call] = message.tool_calls
            assert call.type == "function"
            assert json.loads(call.function.arguments) == ASKED
            told: list[Any] = [
                *HELLO,
                message,
                {"role": "tool", "tool_call_id": call.id, "content": "rain"},
            ]
            last = await client.chat.completions.create(
                model="demo/tools", messages=told, tools=[WEATHER]
            )
        assert last.choices[0].message.content == "It rains."

    async def test_a_function_call_is_streamed(self, start: Start) -> None:
        proxy = await start()
        call_a_function(proxy.upstream)
        async with (
            open_openai(proxy.url) as client,
            client.chat.completions.stream(
                model="demo/tools", messages=HELLO, tools=[WEATHER]
            ) as stream,
        ):
            completion = await stream.get_final_completion()
        calls = completion.choices[0].message.tool_calls
        assert calls is not None
        assert json.loads(calls[0].function.arguments) == ASKED

    async def test_structured_output_is_read(self) -> None:
        class Place(BaseModel):
            city: str

        told: list[ChatCompletionMessageParam] = [{"role": "user", "content": json.dumps(ASKED)}]
        async with serving() as served, open_openai(served.url) as client:
            answer = await client.chat.completions.parse(
                model="demo/echo", messages=told, response_format=Place
            )
        assert answer.choices[0].message.parsed == Place.model_validate(ASKED)

    async def test_a_picture_goes_up(self) -> None:
        picture: ChatCompletionContentPartImageParam = {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="},
        }
        told: list[ChatCompletionMessageParam] = [
            {"role": "user", "content": [{"type": "text", "text": TEXT}, picture]}
        ]
        async with serving() as served, open_openai(served.url) as client:
            answer = await client.chat.completions.create(model="demo/echo", messages=told)
        assert answer.choices[0].message.content == TEXT

    async def test_embeddings_are_read_where_they_are_opted_in(self, start: Start) -> None:
        proxy = await start(ALLOWED_ENDPOINTS="POST /api/v1/embeddings")
        give_embeddings(proxy.upstream)
        async with open_openai(proxy.url) as client:
            answer = await client.embeddings.create(
                model="openai/text-embedding-3-small", input=TEXT, encoding_format="float"
            )
        assert answer.data[0].embedding == [0.0123, -0.0456, 0.0789]

    async def test_responses_are_read_and_streamed(self) -> None:
        async with serving() as served, open_openai(served.url) as client:
            whole = await client.responses.create(model="demo/echo", input=TEXT)
            stream = await client.responses.create(model="demo/echo", input=TEXT, stream=True)
            events = [event async for event in stream]
        pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert whole.output_text == "".join(pieces) == TEXT
        assert len(pieces) > 1
        assert events[-1].type == "response.completed"

    async def test_a_function_call_of_responses_makes_the_round(self, start: Start) -> None:
        proxy = await start()
        call_a_function(proxy.upstream)
        tool: Any = {"type": "function", "name": "get_weather", "parameters": SCHEMA}
        said: list[Any] = [{"role": "user", "content": TEXT}]
        async with open_openai(proxy.url) as client:
            first = await client.responses.create(model="demo/tools", input=said, tools=[tool])
            [call] = first.output
            assert call.type == "function_call"
            assert json.loads(call.arguments) == ASKED
            said += [
                call.model_dump(exclude_none=True),
                {"type": "function_call_output", "call_id": call.call_id, "output": "rain"},
            ]
            last = await client.responses.create(model="demo/tools", input=said, tools=[tool])
        assert last.output_text == "It rains."

    async def test_models_are_listed(self) -> None:
        async with (
            serving(ALLOWED_MODELS="demo/*,!demo/4*") as served,
            open_openai(served.url) as client,
        ):
            ids = [model.id async for model in client.models.list()]
            one = await client.models.with_raw_response.list()
        assert "demo/echo" in ids
        assert "demo/429" not in ids
        assert one.headers["content-type"].startswith("application/json")

    async def test_a_refused_model_is_a_typed_error_asked_once(self) -> None:
        async with (
            serving("serve", ALLOWED_MODELS="demo/echo") as served,
            Counting() as http,
            open_openai(served.url, http_client=http) as client,
        ):
            with pytest.raises(openai.PermissionDeniedError) as raised:
                await client.chat.completions.create(model="demo/chat", messages=HELLO)
            assert (await served.calls())["finished"] == 0
        error = raised.value
        assert (error.type, error.param) == ("model_not_allowed", "model")
        assert error.response.headers["x-keyproxy-code"] == "model_not_allowed"
        assert (error.request_id or "").startswith("req_")
        assert http.calls == 1

    async def test_a_long_wait_is_left_to_the_application(self) -> None:
        async with (
            serving(RATE_LIMIT="1/hour") as served,
            Counting() as http,
            open_openai(served.url, http_client=http) as client,
        ):
            await client.chat.completions.create(model="demo/echo", messages=HELLO)
            with pytest.raises(openai.RateLimitError) as raised:
                await client.chat.completions.create(model="demo/echo", messages=HELLO)
        headers = raised.value.response.headers
        assert headers["x-should-retry"] == "false"
        assert 60 < int(headers["retry-after"]) <= 3600
        assert http.calls == 2

    async def test_a_short_wait_is_waited_by_the_sdk(self) -> None:
        async with (
            serving(RATE_LIMIT="1/2 second") as served,
            Counting() as http,
            open_openai(served.url, http_client=http) as client,
        ):
            began = time.monotonic()
            for _ in range(2):
                answer = await client.chat.completions.create(model="demo/echo", messages=HELLO)
                assert answer.choices[0].message.content == TEXT
        assert http.calls == 3
        assert time.monotonic() - began > 1.5  # as told, not the SDK's own half a second

    async def test_the_upstreams_own_429_passes(self) -> None:
        async with serving() as served, open_openai(served.url, max_retries=0) as client:
            with pytest.raises(openai.RateLimitError) as raised:
                await client.chat.completions.create(model="demo/429", messages=HELLO)
        headers = raised.value.response.headers
        assert headers["retry-after"] == str(RETRY_AFTER_SECONDS)
        assert "x-keyproxy-code" not in headers

    async def test_out_of_credits_says_no_balance(self) -> None:
        async with serving() as served, open_openai(served.url) as client:
            with pytest.raises(openai.APIStatusError) as raised:
                await client.chat.completions.create(model="demo/402", messages=HELLO)
        assert raised.value.status_code == 402
        assert "27342" not in str(raised.value.body)

    async def test_a_wrong_base_url_is_put_right(self) -> None:
        async with serving() as served, open_openai(f"{served.url}/api/v1") as client:
            with pytest.raises(openai.NotFoundError, match="base URL ends in /api/v1"):
                await client.chat.completions.create(model="demo/echo", messages=HELLO)

    async def test_a_cut_stream_never_looks_whole(self) -> None:
        async with serving() as served, open_openai(served.url) as client:
            stream = await client.chat.completions.create(
                model="demo/cut", messages=HELLO, stream=True
            )
            first = await anext(aiter(stream))
            assert first.choices[0].delta.content
            with pytest.raises(openai.APIConnectionError):
                [chunk async for chunk in stream]

    async def test_an_error_inside_a_stream_is_raised(self) -> None:
        async with serving() as served, open_openai(served.url) as client:
            stream = await client.chat.completions.create(
                model="demo/midstream-error", messages=HELLO, stream=True
            )
            with pytest.raises(openai.APIError, match="disconnected"):
                [chunk async for chunk in stream]

    async def test_leaving_a_stream_reaches_the_upstream(self) -> None:
        async with serving(pace=1) as served, open_openai(served.url) as client:
            stream = await client.chat.completions.create(
                model="demo/long", messages=HELLO, stream=True
            )
            await anext(aiter(stream))
            await stream.close()
            assert (await served.calls(aborted=1))["open"] == 0

    async def test_a_timeout_and_a_cancelled_task_reach_the_upstream(self) -> None:
        async with serving(pace=1) as served, open_openai(served.url, max_retries=0) as client:
            # Only for the answer: a slow machine must not end it before it is sent.
            hasty = client.with_options(timeout=openai.Timeout(30, read=0.2))
            with pytest.raises(openai.APITimeoutError):
                await hasty.chat.completions.create(model="demo/hang", messages=HELLO)
            assert (await served.calls(aborted=1))["open"] == 0
            task = asyncio.create_task(
                client.chat.completions.create(model="demo/hang", messages=HELLO)
            )
            await served.calls(open=1)
            task.cancel()
            assert (await served.calls(aborted=2))["open"] == 0
            with pytest.raises(asyncio.CancelledError):
                await task

    @pytest.mark.parametrize(
        ("param", "fields"),
        [
            ("service_tier", {"service_tier": "priority"}),
            ("prompt_cache_options.ttl", {"prompt_cache_options": {"ttl": "24h"}}),
            ("n", {"n": 2}),
            ("tools", {"tools": [{"type": "openrouter:web_search"}]}),
            ("provider", {"extra_body": {"provider": {"only": ["openai/priority"]}}}),
        ],
    )
    async def test_what_costs_more_is_refused_by_name(
        self, param: str, fields: dict[str, Any]
    ) -> None:
        async with serving() as served, open_openai(served.url) as client:
            with pytest.raises(openai.PermissionDeniedError) as raised:
                await client.chat.completions.create(model="demo/echo", messages=HELLO, **fields)
            assert (await served.calls())["finished"] == 0
        assert (raised.value.type, raised.value.param) == ("field_not_allowed", param)

    async def test_a_providers_key_is_refused_by_name(self) -> None:
        async with serving() as served, open_openai(served.url) as client:
            keyed = client.with_options(api_key=f"sk-proj-{'x1' * 24}")
            with pytest.raises(openai.BadRequestError, match="carries a provider's key") as raised:
                await keyed.chat.completions.create(model="demo/echo", messages=HELLO)
        assert "x1x1" not in str(raised.value)


class TestAnthropic:
    async def test_an_answer_is_read(self) -> None:
        async with serving() as served, open_anthropic(served.url) as client:
            answer = await client.messages.create(
                model="demo/echo", max_tokens=64, messages=HELLO_ANTHROPIC
            )
        [block] = answer.content
        assert block.type == "text"
        assert block.text == TEXT
        assert answer.usage.output_tokens > 1

    async def test_a_stream_arrives_piece_by_piece(self) -> None:
        async with (
            serving() as served,
            open_anthropic(served.url) as client,
            client.messages.stream(
                model="demo/echo", max_tokens=64, messages=HELLO_ANTHROPIC
            ) as stream,
        ):
            pieces = [piece async for piece in stream.text_stream]
            final = await stream.get_final_message()
        assert "".join(pieces) == TEXT
        assert len(pieces) > 1
        assert final.stop_reason == "end_turn"

    async def test_the_sync_client_works_as_well(self) -> None:
        def ask(url: str) -> str:
            with (
                anthropic.Anthropic(base_url=f"{url}/api", api_key="none") as client,
                client.messages.stream(
                    model="demo/echo", max_tokens=64, messages=HELLO_ANTHROPIC
                ) as stream,
            ):
                return "".join(stream.text_stream)

        async with serving() as served:
            assert await asyncio.to_thread(ask, served.url) == TEXT

    async def test_its_headers_pass_and_its_key_does_not(self, start: Start) -> None:
        proxy = await start()
        call_a_function(proxy.upstream)
        async with open_anthropic(proxy.url) as client:
            await client.beta.messages.create(
                model="demo/tools",
                max_tokens=64,
                messages=[{"role": "user", "content": TEXT}],
                betas=["context-management-2025-06-27"],
            )
        [seen] = proxy.upstream.calls
        assert seen.headers["anthropic-beta"] == "context-management-2025-06-27"
        assert "anthropic-version" in seen.headers
        assert "x-api-key" not in seen.headers
        assert [name for name in seen.headers if name.lower().startswith("x-stainless")] == []

    @pytest.mark.parametrize("is_streaming", [False, True])
    async def test_a_function_call_makes_the_round(self, is_streaming: bool, start: Start) -> None:
        proxy = await start()
        call_a_function(proxy.upstream)
        said: dict[str, Any] = {
            "model": "demo/tools",
            "max_tokens": 64,
            "tools": [WEATHER_ANTHROPIC],
        }
        async with open_anthropic(proxy.url) as client:
            if is_streaming:
                async with client.messages.stream(messages=HELLO_ANTHROPIC, **said) as stream:
                    first: Any = await stream.get_final_message()
            else:
                first = await client.messages.create(messages=HELLO_ANTHROPIC, **said)
            [call] = first.content
            assert (call.type, call.input) == ("tool_use", ASKED)
            result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
            told: list[Any] = [
                *HELLO_ANTHROPIC,
                {"role": "assistant", "content": first.content},
                {"role": "user", "content": [result]},
            ]
            last = await client.messages.create(messages=told, **said)
        assert last.content[0].text == "It rains."

    @pytest.mark.parametrize("is_streaming", [False, True])
    async def test_a_tool_runner_goes_on_without_a_thread(
        self, is_streaming: bool, start: Start
    ) -> None:
        """It asks for one unasked: a conversation that the provider account would store."""
        proxy = await start()
        call_a_function(proxy.upstream)

        @anthropic.beta_async_tool
        async def get_weather(city: str) -> str:
            """The weather in a city."""
            return f"rain in {city}"

        async with Counting() as http, open_anthropic(proxy.url, http_client=http) as client:
            runner: Any = client.beta.messages.tool_runner(
                model="demo/tools",
                max_tokens=64,
                messages=[{"role": "user", "content": TEXT}],
                tools=[get_weather],
                stream=is_streaming,
            )
            if is_streaming:
                last = [await stream.get_final_message() async for stream in runner][-1]
            else:
                last = await runner.until_done()
        assert last.content[0].text == "It rains."
        first, second = (json.loads(call.body) for call in proxy.upstream.calls)
        assert "thread" not in first.keys() | second.keys()
        assert second["messages"][-1]["content"][0]["content"] == f"rain in {ASKED['city']}"
        assert http.calls == 3  # one was refused

    async def test_models_are_listed(self) -> None:
        async with (
            serving(ALLOWED_MODELS="demo/*,!demo/4*") as served,
            open_anthropic(served.url) as client,
        ):
            ids = [model.id async for model in client.models.list()]
        assert "demo/echo" in ids
        assert "demo/429" not in ids

    async def test_a_refused_model_is_a_typed_error_asked_once(self) -> None:
        async with (
            serving("serve", ALLOWED_MODELS="demo/echo") as served,
            Counting() as http,
            open_anthropic(served.url, http_client=http) as client,
        ):
            with pytest.raises(anthropic.PermissionDeniedError) as raised:
                await client.messages.create(
                    model="demo/chat", max_tokens=64, messages=HELLO_ANTHROPIC
                )
            assert (await served.calls())["finished"] == 0
        body: Any = raised.value.body
        assert body["error"]["type"] == "permission_error"
        assert body["error"]["error_type"] == "model_not_allowed"
        assert http.calls == 1

    async def test_a_long_wait_is_left_to_the_application(self) -> None:
        async with (
            serving(RATE_LIMIT="1/hour") as served,
            Counting() as http,
            open_anthropic(served.url, http_client=http) as client,
        ):
            said: dict[str, Any] = {"model": "demo/echo", "max_tokens": 64}
            await client.messages.create(messages=HELLO_ANTHROPIC, **said)
            with pytest.raises(anthropic.RateLimitError) as raised:
                await client.messages.create(messages=HELLO_ANTHROPIC, **said)
        assert raised.value.response.headers["x-should-retry"] == "false"
        assert http.calls == 2

    @pytest.mark.parametrize(
        ("model", "kind", "status"),
        [
            ("demo/402", anthropic.APIStatusError, 402),
            ("demo/403", anthropic.PermissionDeniedError, 403),
            ("demo/429", anthropic.RateLimitError, 429),
            ("demo/500", anthropic.InternalServerError, 500),
            ("demo/html", anthropic.InternalServerError, 502),
        ],
    )
    async def test_the_upstreams_errors_keep_their_types(
        self, model: str, kind: type[anthropic.APIStatusError], status: int
    ) -> None:
        async with serving() as served, open_anthropic(served.url, max_retries=0) as client:
            with pytest.raises(kind) as raised:
                await client.messages.create(model=model, max_tokens=64, messages=HELLO_ANTHROPIC)
        body: Any = raised.value.body
        assert (raised.value.status_code, body["type"]) == (status, "error")

    async def test_a_dearer_cache_is_refused_by_name(self) -> None:
        async with serving() as served, open_anthropic(served.url) as client:
            said: dict[str, Any] = {"model": "demo/echo", "max_tokens": 64}
            await client.messages.create(
                messages=HELLO_ANTHROPIC, cache_control={"type": "ephemeral"}, **said
            )
            with pytest.raises(anthropic.PermissionDeniedError, match=r"cache_control\.ttl"):
                await client.messages.create(
                    messages=HELLO_ANTHROPIC,
                    cache_control={"type": "ephemeral", "ttl": "1h"},
                    **said,
                )

    async def test_a_wrong_base_url_is_put_right(self) -> None:
        async with serving() as served, open_anthropic(f"{served.url}/api") as client:
            with pytest.raises(anthropic.NotFoundError, match="base URL to end in /api"):
                await client.messages.create(
                    model="demo/echo", max_tokens=64, messages=HELLO_ANTHROPIC
                )

    async def test_leaving_a_stream_reaches_the_upstream(self) -> None:
        async with serving(pace=1) as served, open_anthropic(served.url) as client:
            async with client.messages.stream(
                model="demo/long", max_tokens=4000, messages=HELLO_ANTHROPIC
            ) as stream:
                await anext(aiter(stream.text_stream))
            assert (await served.calls(aborted=1))["open"] == 0
