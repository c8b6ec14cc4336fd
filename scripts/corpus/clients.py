"""Runs Python clients against the recorder: ``python clients.py BASE [CASE …]``.

Each function asks as the client's own examples do, later turns of a conversation included. A
client that is not installed, or refuses, is named and left out.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

BASE = sys.argv[1]
MINI, SONNET = "openai/gpt-4o-mini", "anthropic/claude-sonnet-4"
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5Erk"
    "Jggg=="
)
ASK = [{"role": "user", "content": "Will it rain?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Weather", "parameters": SCHEMA},
}
FLAT = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}
os.environ |= {"OPENAI_API_KEY": "none", "ANTHROPIC_API_KEY": "none", "OPENROUTER_API_KEY": "none"}


class Report(BaseModel):
    """The weather."""

    sky: str
    degrees: float
    tags: list[str] = []


def weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: which one
    """
    return f"rain in {city}"


def url(client: str) -> str:
    return f"{BASE}/{client}/api/v1"


def tried(run: Callable[[], Any]) -> Any:
    try:
        made = run()
        return asyncio.run(made) if inspect.isawaitable(made) else made
    except Exception as error:
        place = inspect.stack()[1]
        print(f"{place.function}:{place.lineno}", repr(error)[:200], file=sys.stderr)


def openai_python() -> None:
    import openai

    ai = openai.OpenAI(base_url=url("openai-python"), api_key="none", max_retries=0)
    chat, hear = ai.chat.completions, ai.responses
    m: Any = {"model": MINI}
    first = chat.create(**m, messages=ASK, tools=[TOOL]).choices[0].message
    told = [*ASK, first, {"role": "tool", "tool_call_id": "call_1", "content": "rain"}]
    second = chat.create(**m, messages=told, tools=[TOOL]).choices[0].message
    chat.create(**m, messages=[*told, second, *ASK], tools=[TOOL])
    chat.create(**m, messages=[*told, second.model_dump(), *ASK])
    chat.create(**m, messages=[*ASK, second.model_dump(exclude_none=True), *ASK])
    for more in (
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"temperature": 0.2, "top_p": 0.9, "seed": 7, "stop": "END", "user": "u1"},
        {"stop": ["END"], "logit_bias": {"50256": -100}, "logprobs": True, "top_logprobs": 2},
        {"frequency_penalty": 0.1, "presence_penalty": 0.1, "max_tokens": 100, "n": 1},
        {"max_completion_tokens": 100, "reasoning_effort": "low", "verbosity": "low"},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "text"}, "modalities": ["text"]},
        {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
        {"tools": [TOOL], "tool_choice": {
            "type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [
                {"type": "function", "function": {"name": "weather"}}]}}},
        {"tools": [{"type": "custom", "custom": {"name": "run", "description": "Run it"}}]},
        {"tools": [{"type": "custom", "custom": {"name": "run", "format": {
            "type": "grammar", "grammar": {"syntax": "regex", "definition": "[a-z]+"}}}}],
            "tool_choice": {"type": "custom", "custom": {"name": "run"}}},
        {"metadata": {"a": "b"}, "store": False, "service_tier": "auto"},
        {"prompt_cache_key": "k", "safety_identifier": "s", "service_tier": "flex"},
        {"prediction": {"type": "content", "content": "a = 1"}},
        {"extra_body": {"usage": {"include": True}, "reasoning": {"effort": "high"}}},
        {"extra_body": {"reasoning": {"max_tokens": 1024, "exclude": True}}},
        {"extra_body": {"reasoning": {"enabled": True}, "models": ["openai/gpt-4o"]}},
        {"extra_body": {"provider": {"order": ["openai"], "allow_fallbacks": False}}},
        {"extra_body": {"transforms": ["middle-out"]}},
        {"extra_body": {"plugins": [{"id": "web"}]}},
        {"extra_body": {"plugins": [{"id": "file-parser", "pdf": {"engine": "pdf-text"}}]}},
        {"extra_body": {"top_k": 40, "min_p": 0.1, "repetition_penalty": 1.1, "top_a": 0.2}},
        {"extra_body": {"session_id": "s1", "trace": {"trace_id": "t"}}},
        {"web_search_options": {}},
        {"prompt_cache_retention": "24h"},
        {"prompt_cache_retention": "in_memory"},
        {"audio": {"voice": "alloy", "format": "wav"}, "modalities": ["text", "audio"]},
        {"functions": [TOOL["function"]], "function_call": "auto"},
    ):  # fmt: skip
        tried(lambda more=more: list(chat.create(**m, messages=ASK, **more)))
    parts = {
        "image": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        "address": {"type": "image_url", "image_url": {"url": "https://a.example/a.png",
                                                       "detail": "low"}},
        "sound": {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        "pdf": {"type": "file", "file": {"filename": "a.pdf",
                                         "file_data": "data:application/pdf;base64,JVBERi0="}},
        "video": {"type": "video_url", "video_url": {"url": "https://a.example/a.mp4"}},
        "cached": {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}},
    }  # fmt: skip
    for part in parts.values():
        content = [{"type": "text", "text": "What is it?"}, part]
        tried(lambda c=content: chat.create(**m, messages=[{"role": "user", "content": c}]))
    roles = [{"role": "developer", "content": "Be short."}, *ASK]
    chat.create(**m, messages=roles)
    chat.create(**m, messages=[{"role": "system", "content": [parts["cached"]]}, *ASK])
    chat.create(**m, messages=[*ASK, {"role": "assistant", "content": "Yes", "name": "bot"}])
    refused = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    chat.create(**m, messages=[*ASK, refused, *ASK])
    tried(lambda: chat.parse(**m, messages=ASK, response_format=Report))
    tried(lambda: chat.parse(**m, messages=ASK, tools=[openai.pydantic_function_tool(Report)]))
    with chat.stream(**m, messages=ASK, response_format=Report) as stream:
        stream.until_done()
    got = hear.create(**m, input=ASK, tools=[FLAT], store=False)
    told = [*ASK, *got.output,
            {"type": "function_call_output", "call_id": "call_1", "output": "rain"}]  # fmt: skip
    last = hear.create(**m, input=told, tools=[FLAT], store=False)
    hear.create(**m, input=[*told, *last.output, *ASK], tools=[FLAT], store=False)
    hear.create(**m, input=[*ASK, *[item.model_dump() for item in last.output], *ASK])
    for more in (
        {},
        {"instructions": "Be short.", "max_output_tokens": 100, "temperature": 0.2},
        {"reasoning": {"effort": "low", "summary": "auto"}, "text": {"verbosity": "low"}},
        {"include": ["reasoning.encrypted_content"], "store": False, "stream": True},
        {"text": {"format": {"type": "json_object"}}, "truncation": "auto"},
        {"text": {"format": {"type": "json_schema", "name": "r", "schema": SCHEMA}}},
        {"tools": [FLAT], "tool_choice": {"type": "function", "name": "weather"}},
        {"tools": [FLAT], "tool_choice": "required", "parallel_tool_calls": False},
        {"tools": [{"type": "custom", "name": "run"}], "max_tool_calls": 3},
        {"tools": [{"type": "web_search"}], "include": ["web_search_call.action.sources"]},
        {"tools": [{"type": "image_generation"}]},
        {"tools": [{"type": "image_generation", "model": "openai/gpt-image-1"}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
        {"tools": [{"type": "mcp", "server_label": "a", "server_url": "https://a.example"}]},
        {"previous_response_id": "resp_1"},
        {"background": False, "service_tier": "auto", "metadata": {}, "top_logprobs": 0},
        {"store": True},
        {"prompt": {"id": "pmpt_1"}},
        {"conversation": "conv_1"},
        {"user": "u1", "prompt_cache_key": "k", "safety_identifier": "s"},
        {"prompt_cache_retention": "24h"},
        {"context_management": [{"type": "compaction", "compact_threshold": 100000}]},
    ):
        tried(lambda more=more: list(hear.create(**m, input="Will it rain?", **more)))
    for part in (
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"},
        {"type": "input_file", "filename": "a.pdf",
         "file_data": "data:application/pdf;base64,JVBERi0="},
        {"type": "input_file", "file_url": "https://a.example/a.pdf"},
        {"type": "input_file", "file_id": "file-1"},
    ):  # fmt: skip
        content = [{"type": "input_text", "text": "What is it?"}, part]
        tried(lambda c=content: hear.create(**m, input=[{"role": "user", "content": c}]))
    tried(lambda: hear.parse(**m, input=ASK, text_format=Report))
    tried(lambda: ai.completions.create(**m, prompt="Once", max_tokens=5, suffix="end"))
    tried(lambda: ai.completions.create(**m, prompt=["Once"], echo=True, best_of=1, stream=True))
    tried(lambda: ai.embeddings.create(**m, input=["a", "b"], dimensions=8))
    tried(lambda: ai.embeddings.create(**m, input=[[1, 2], [3]], encoding_format="float"))
    tried(lambda: ai.audio.speech.create(**m, input="Hello", voice="alloy", speed=1.0))


def anthropic_python() -> None:
    import anthropic
    from anthropic import beta_tool

    ai = anthropic.Anthropic(base_url=f"{BASE}/anthropic-python/api", api_key="none")
    call: Any = {"model": SONNET, "max_tokens": 2048}
    tool = {"name": "weather", "description": "Weather", "input_schema": SCHEMA}
    cached = {"cache_control": {"type": "ephemeral"}}
    ask: Any = ASK
    send = ai.messages.create
    think = {"type": "enabled", "budget_tokens": 1024}
    first = send(**call, messages=ask, tools=[tool], thinking=think)
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}
    told = [*ask, {"role": "assistant", "content": first.content},
            {"role": "user", "content": [result]}]  # fmt: skip
    last = send(**call, messages=told, tools=[tool], thinking=think)
    dumped = [block.model_dump() for block in last.content]
    send(**call, messages=[*told, {"role": "assistant", "content": dumped}, *ask], tools=[tool])
    shown = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    for more in (
        {"system": "Be short.", "extra_body": {"temperature": 0.2, "top_k": 5, "top_p": 0.9}},
        {"system": [{"type": "text", "text": "long"} | cached], "stop_sequences": ["END"]},
        {"tools": [tool | cached], "tool_choice": {"type": "auto",
                                                   "disable_parallel_tool_use": True}},
        {"tools": [tool | {"type": "custom", "strict": True}], "tool_choice": {"type": "any"}},
        {"tools": [tool], "tool_choice": {"type": "tool", "name": "weather"}},
        {"tools": [tool | {"defer_loading": True, "input_examples": [{"city": "Lima"}]}]},
        {"tools": [tool | {"eager_input_streaming": True}], "stream": True},
        {"metadata": {"user_id": "u1"}, "service_tier": "auto"},
        {"service_tier": "standard_only", "thinking": {"type": "disabled"}},
        {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}},
        {"thinking": {"type": "adaptive", "display": "summarized"}, "stream": True},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"cache_control": {"type": "ephemeral"}},
        {"cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"inference_geo": "us"},
        {"container": "c1"},
        {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]},
        {"tools": [{"type": "bash_20250124", "name": "bash"}]},
        {"tools": [{"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}]},
        {"tools": [{"type": "memory_20250818", "name": "memory"}]},
        {"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]},
        {"tools": [{"type": "tool_search_tool_regex_20251119",
                    "name": "tool_search_tool_regex"}, tool | {"defer_loading": True}]},
    ):  # fmt: skip
        tried(lambda more=more: list(send(**call, messages=ask, **more)))
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    for part in (
        shown,
        {"type": "image", "source": {"type": "url", "url": "https://a.example/a.png"}},
        {"type": "document", "source": pdf, "title": "A", "context": "B",
         "citations": {"enabled": True}} | cached,
        {"type": "document", "source": {"type": "url", "url": "https://a.example/a.pdf"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}},
        {"type": "document", "source": {"type": "content", "content": [
            {"type": "text", "text": "x"}]}},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "search_result", "source": "https://a.example", "title": "A",
         "content": [{"type": "text", "text": "x"}], "citations": {"enabled": True}},
        {"type": "text", "text": "long"} | cached,
    ):  # fmt: skip
        content = [part, {"type": "text", "text": "What is it?"}]
        tried(lambda c=content: send(**call, messages=[{"role": "user", "content": c}]))
    for answer in (
        result | {"content": [{"type": "text", "text": "rain"}, shown]},
        result | {"content": [], "is_error": True} | cached,
        result | {"content": [{"type": "tool_reference", "tool_name": "weather"}]},
    ):
        told[-1] = {"role": "user", "content": [answer, {"type": "text", "text": "And then?"}]}
        tried(lambda: send(**call, messages=told, tools=[tool]))
    tried(lambda: send(**call, messages=[*ask, {"role": "assistant", "content": "It"}]))
    tried(lambda: ai.messages.parse(**call, messages=ask, output_format=Report))
    with ai.messages.stream(**call, messages=ask, tools=[tool]) as stream:
        stream.get_final_message()
    beta = ai.beta.messages
    made = beta_tool(weather)
    tried(lambda: beta.tool_runner(**call, messages=ask, tools=[made]).until_done())
    tried(lambda: beta.tool_runner(
        **call, messages=ask, tools=[made], thinking=think).until_done())  # fmt: skip
    tried(lambda: [list(s) for s in beta.tool_runner(
        **call, messages=ask, tools=[made], stream=True)])  # fmt: skip
    clear = {"type": "clear_tool_uses_20250919", "keep": {"type": "tool_uses", "value": 3}}
    for more in (
        {"context_management": {"edits": [clear]}, "betas": ["context-management-2025-06-27"]},
        {"context_management": {"edits": [{"type": "compact_20260112"}]},
         "betas": ["compact-2026-01-12"]},
        {"mcp_servers": [{"type": "url", "url": "https://a.example", "name": "a"}]},
        {"speed": "fast", "betas": ["fast-mode-2026-02-01"]},
        {"betas": ["interleaved-thinking-2025-05-14"], "thinking": think, "tools": [tool]},
        {"output_config": {"effort": "high", "task_budget": {"type": "tokens", "total": 20000}},
         "betas": ["task-budgets-2026-03-13"]},
        {"tools": [{"type": "computer_20251124", "name": "computer", "display_width_px": 800,
                    "display_height_px": 600}], "betas": ["computer-use-2025-11-24"]},
    ):  # fmt: skip
        tried(lambda more=more: beta.create(**call, messages=ask, **more))


def openai_agents() -> None:
    import agents
    import openai

    agents.set_tracing_disabled(True)
    tool = agents.function_tool(weather)
    kinds = {"chat": agents.OpenAIChatCompletionsModel, "responses": agents.OpenAIResponsesModel}
    for name, kind in kinds.items():
        client = openai.AsyncOpenAI(base_url=url(f"openai-agents-python-{name}"), api_key="none")
        model = kind(model=MINI, openai_client=client)
        other = agents.Agent(name="Other", instructions="Help.", model=model)
        reasoning: Any = {"effort": "low"}
        kept = agents.ModelSettings(
            temperature=0.2, tool_choice="required", parallel_tool_calls=False, store=False,
            max_tokens=300, reasoning=reasoning, metadata={"a": "b"}, include_usage=True,
        )  # fmt: skip
        for more in (
            {"tools": [tool]},
            {"handoffs": [other]},
            {"output_type": Report},
            {"tools": [tool], "model_settings": kept},
        ):
            agent = agents.Agent(name="Weather", instructions="Be short.", model=model, **more)

            async def go(agent: Any = agent) -> None:
                first = await agents.Runner.run(agent, "Will it rain?", max_turns=3)
                await agents.Runner.run(agent, [*first.to_input_list(), *ASK], max_turns=3)
                streamed = agents.Runner.run_streamed(agent, "Will it rain?", max_turns=3)
                async for _ in streamed.stream_events():
                    pass

            tried(go)


def langchain() -> None:
    from langchain_anthropic import ChatAnthropic
    from langchain_core.messages import HumanMessage, SystemMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings
    from langchain_openrouter import ChatOpenRouter

    made = tool(weather)

    def open_ai(name: str, **more: Any) -> Any:
        return ChatOpenAI(model=MINI, base_url=url(name), max_retries=0, **more)

    place = f"{BASE}/langchain-python-anthropic/api"
    think = {"type": "enabled", "budget_tokens": 1024}
    chat, hear = "langchain-python-openai-chat", "langchain-python-openai-responses"
    models: list[Any] = [
        open_ai(chat),
        open_ai(chat, streaming=True, stream_usage=True, temperature=0.1, max_tokens=100, n=1),
        open_ai(chat, logprobs=True, top_p=0.9, seed=7, stop=["END"], reasoning_effort="low"),
        open_ai(chat, extra_body={"transforms": ["middle-out"], "usage": {"include": True}}),
        open_ai(hear, use_responses_api=True),
        open_ai(hear, use_responses_api=True, store=False, output_version="responses/v1",
                include=["reasoning.encrypted_content"], reasoning={"effort": "low"}),
        ChatAnthropic(model=SONNET, base_url=place, max_retries=0, max_tokens=4096),
        ChatAnthropic(model=SONNET, base_url=place, max_retries=0, thinking=think,
                      max_tokens=4096),
        ChatOpenRouter(model=SONNET, base_url=url("langchain-python-openrouter")),
        ChatOpenRouter(model=SONNET, base_url=url("langchain-python-openrouter"),
                       reasoning={"effort": "low"}, max_tokens=400),
    ]  # fmt: skip
    asked: Any = [SystemMessage("Be short."), HumanMessage("Will it rain?")]
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    for model in models:
        tried(lambda model=model: list(model.stream(asked)))

        def loop(model: Any = model) -> None:
            bound = model.bind_tools([made])
            first = bound.invoke(asked)
            done = [made.invoke(call) for call in first.tool_calls]
            second = bound.invoke([*asked, first, *done])
            bound.invoke([*asked, first, *done, second, HumanMessage("And then?")])

        tried(loop)
        tried(lambda model=model: model.with_structured_output(Report).invoke(asked))
        tried(lambda model=model: model.with_structured_output(
            Report, method="function_calling").invoke(asked))  # fmt: skip
        tried(lambda model=model: model.invoke([HumanMessage(
            [{"type": "text", "text": "What is it?"}, picture])]))  # fmt: skip
    tried(lambda: OpenAIEmbeddings(base_url=url(chat)).embed_query("rain"))


def litellm() -> None:
    import litellm as lite

    def ask(name: str, model: str, **more: Any) -> Any:
        return lite.completion(
            model=model, api_base=url(name) if model[:10] != "anthropic/" else f"{BASE}/{name}/api",
            api_key="none", num_retries=0, **({"messages": ASK} | more),
        )  # fmt: skip

    for name, model in (
        ("litellm-openrouter", f"openrouter/{SONNET}"),
        ("litellm-openai", f"openai/{MINI}"),
        ("litellm-anthropic", "anthropic/claude-sonnet-4-5"),
    ):
        for more in (
            {},
            {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": 100},
            {"response_format": Report},
            {"reasoning_effort": "low", "max_tokens": 4096},
            {"temperature": 0.1, "top_p": 0.9, "stop": ["END"], "user": "u1"},
            {"extra_body": {"transforms": ["middle-out"]}},
            {"messages": [{"role": "system", "content": [
                {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}, *ASK]},
        ):  # fmt: skip
            tried(lambda n=name, m=model, more=more: list(ask(n, m, **more)))

        def loop(name: str = name, model: str = model, **more: Any) -> None:
            first = ask(name, model, tools=[TOOL], **more).choices[0].message
            told = [*ASK, first, {"role": "tool", "tool_call_id": first.tool_calls[0].id,
                                  "name": "weather", "content": "rain"}]  # fmt: skip
            second = ask(name, model, tools=[TOOL], messages=told, **more).choices[0].message
            ask(name, model, tools=[TOOL], messages=[*told, second, *ASK], **more)
            ask(name, model, messages=[*told, second.model_dump(), *ASK], tools=[TOOL])

        tried(loop)
        tried(lambda loop=loop: loop(reasoning_effort="low", max_tokens=4096))
        tried(lambda n=name: lite.responses(model=f"openai/{MINI}", api_base=url(n), input="x"))


def pydantic_ai() -> None:
    import pydantic_ai as pai
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.anthropic import AnthropicProvider
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.openrouter import OpenRouterProvider

    def at(name: str) -> Any:
        return OpenAIProvider(base_url=url(f"pydantic-ai-{name}"), api_key="none")

    import anthropic
    import openai

    place = anthropic.AsyncAnthropic(base_url=f"{BASE}/pydantic-ai-anthropic/api", api_key="none")
    route = openai.AsyncOpenAI(base_url=url("pydantic-ai-openrouter"), api_key="none")
    models: list[Any] = [
        OpenAIChatModel(MINI, provider=at("openai-chat")),
        OpenAIResponsesModel(MINI, provider=at("openai-responses")),
        AnthropicModel("claude-sonnet-4-5", provider=AnthropicProvider(anthropic_client=place)),
        OpenAIChatModel(SONNET, provider=OpenRouterProvider(openai_client=route)),
    ]
    try:
        from pydantic_ai.models.openrouter import OpenRouterModel

        models.append(OpenRouterModel(SONNET, provider=OpenRouterProvider(openai_client=route)))
    except ImportError:
        pass
    settings: Any = {
        "temperature": 0.1, "max_tokens": 4096, "parallel_tool_calls": False, "seed": 7,
        "openai_reasoning_effort": "low", "openai_reasoning_summary": "auto",
        "anthropic_thinking": {"type": "enabled", "budget_tokens": 1024},
        "openrouter_reasoning": {"effort": "low"}, "openrouter_usage": {"include": True},
        "anthropic_metadata": {"user_id": "u1"}, "anthropic_cache_instructions": True,
    }  # fmt: skip
    picture = pai.BinaryContent(b"\x89PNG", media_type="image/png")
    document = pai.BinaryContent(b"%PDF-", media_type="application/pdf")
    for model in models:
        for more in (
            {"tools": [weather]},
            {"tools": [weather], "model_settings": settings},
            {"output_type": Report},
            {"output_type": pai.NativeOutput(Report)},
            {"output_type": pai.PromptedOutput(Report)},
        ):
            agent: Any = pai.Agent(model, system_prompt="Be short.", retries=0, **more)

            async def go(agent: Any = agent) -> None:
                first = await agent.run("Will it rain?")
                await agent.run("And then?", message_history=first.all_messages())
                async with agent.run_stream("Will it rain?") as streamed:
                    await streamed.get_output()

            tried(go)
        tried(lambda m=model: pai.Agent(m).run(["What is it?", picture]))
        tried(lambda m=model: pai.Agent(m).run(["What is it?", document]))


def instructor() -> None:
    import anthropic
    import instructor as ins
    import openai

    ai = openai.OpenAI(base_url=url("instructor"), api_key="none", max_retries=0)
    for mode in ("TOOLS", "TOOLS_STRICT", "JSON", "JSON_SCHEMA", "MD_JSON", "PARALLEL_TOOLS",
                 "RESPONSES_TOOLS", "OPENROUTER_STRUCTURED_OUTPUTS", "FUNCTIONS"):  # fmt: skip
        if hasattr(ins.Mode, mode):
            tried(lambda mode=mode: ins.from_openai(ai, mode=ins.Mode[mode]).chat.completions
                  .create(model=MINI, messages=ASK, response_model=Report))  # fmt: skip
    claude = anthropic.Anthropic(base_url=f"{BASE}/instructor/api", api_key="none")
    for mode in ("ANTHROPIC_TOOLS", "ANTHROPIC_JSON"):
        tried(lambda mode=mode: ins.from_anthropic(claude, mode=ins.Mode[mode]).messages.create(
            model=SONNET, max_tokens=100, messages=ASK, response_model=Report))  # fmt: skip


def smolagents() -> None:
    import smolagents as smol

    model = smol.OpenAIServerModel(model_id=MINI, api_base=url("smolagents"), api_key="none")
    tried(lambda: smol.ToolCallingAgent(tools=[smol.tool(weather)], model=model, max_steps=2)
          .run("Will it rain?"))  # fmt: skip
    tried(lambda: smol.CodeAgent(tools=[smol.tool(weather)], model=model, max_steps=2).run("x"))


def haystack() -> None:
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage
    from haystack.tools import Tool

    tool = Tool(name="weather", description="Weather", parameters=SCHEMA, function=weather)
    made = OpenAIChatGenerator(model=MINI, api_base_url=url("haystack"), tools=[tool])
    ask = [ChatMessage.from_system("Be short."), ChatMessage.from_user("Will it rain?")]

    def go(**more: Any) -> None:
        [first] = made.run(ask, **more)["replies"]
        done = [ChatMessage.from_tool("rain", origin=call) for call in first.tool_calls]
        made.run([*ask, first, *done], **more)

    tried(go)
    tried(lambda: go(generation_kwargs={"temperature": 0.1, "max_tokens": 100}))
    tried(lambda: made.run(ask, streaming_callback=print))


def autogen() -> None:
    from autogen_core.models import UserMessage
    from autogen_core.tools import FunctionTool
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    info: Any = {"vision": True, "function_calling": True, "json_output": True,
                 "family": "unknown", "structured_output": True}  # fmt: skip
    made = OpenAIChatCompletionClient(
        model=MINI, base_url=url("autogen"), api_key="none", model_info=info
    )
    ask = [UserMessage(content="Will it rain?", source="user")]
    tried(lambda: made.create(ask, tools=[FunctionTool(weather, description="Weather")]))
    tried(lambda: made.create(ask, json_output=Report))


def semantic_kernel() -> None:
    import openai
    from semantic_kernel import Kernel
    from semantic_kernel.connectors.ai import FunctionChoiceBehavior
    from semantic_kernel.connectors.ai import open_ai as sk
    from semantic_kernel.contents import ChatHistory
    from semantic_kernel.functions import kernel_function

    class Weather:
        @kernel_function(description="Weather")
        def weather(self, city: str) -> str:
            return "rain"

    client = openai.AsyncOpenAI(base_url=url("semantic-kernel"), api_key="none")
    made = sk.OpenAIChatCompletion(ai_model_id=MINI, async_client=client)
    kernel = Kernel()
    kernel.add_plugin(Weather(), "w")
    history = ChatHistory(system_message="Be short.")
    history.add_user_message("Will it rain?")
    settings = sk.OpenAIChatPromptExecutionSettings(
        function_choice_behavior=FunctionChoiceBehavior.Auto()
    )
    tried(lambda: made.get_chat_message_contents(history, settings, kernel=kernel))
    tried(lambda: made.get_chat_message_contents(
        history, sk.OpenAIChatPromptExecutionSettings(response_format=Report)))  # fmt: skip


def llama_index() -> None:
    from llama_index.core.llms import ChatMessage
    from llama_index.core.tools import FunctionTool
    from llama_index.llms.openai_like import OpenAILike
    from llama_index.llms.openrouter import OpenRouter

    tool = FunctionTool.from_defaults(weather)
    ask = [ChatMessage(role="user", content="Will it rain?")]
    for made in (
        OpenRouter(model=MINI, api_base=url("llama-index"), api_key="none", context_window=8000),
        OpenAILike(model=MINI, api_base=url("llama-index"), api_key="none", is_chat_model=True,
                   is_function_calling_model=True),
    ):  # fmt: skip
        tried(lambda made=made: made.chat(ask))
        tried(lambda made=made: list(made.stream_chat(ask)))
        tried(lambda made=made: made.complete("Will it rain?"))

        def loop(made: Any = made) -> None:
            first = made.chat_with_tools([tool], chat_history=ask).message
            done = ChatMessage(
                role="tool", content="rain", additional_kwargs={"tool_call_id": "call_1"}
            )
            made.chat_with_tools([tool], chat_history=[*ask, first, done])

        tried(loop)
        tried(lambda made=made: made.structured_predict(Report, _prompt("Will it rain?")))


def _prompt(text: str) -> Any:
    from llama_index.core.prompts import PromptTemplate

    return PromptTemplate(text)


def dspy() -> None:
    import dspy as ds

    made = ds.LM(f"openai/{MINI}", api_base=url("dspy"), api_key="none", cache=False)
    with ds.context(lm=made):
        tried(lambda: ds.Predict("question -> answer")(question="Will it rain?"))
        tried(lambda: ds.ReAct("question -> answer", tools=[weather])(question="Will it rain?"))


def agno() -> None:
    from agno.agent import Agent
    from agno.models.openai import OpenAIResponses
    from agno.models.openrouter import OpenRouter

    for model in (
        OpenRouter(id=MINI, api_key="none", base_url=url("agno")),
        OpenRouter(id=MINI, api_key="none", base_url=url("agno"), models=["openai/gpt-4o"]),
        OpenAIResponses(id=MINI, api_key="none", base_url=url("agno")),
    ):
        agent = Agent(model=model, tools=[weather], telemetry=False)
        tried(lambda agent=agent: agent.run("Will it rain?"))
        tried(lambda agent=agent: list(agent.run("Will it rain?", stream=True)))
        tried(lambda model=model: Agent(model=model, output_schema=Report, telemetry=False)
              .run("Will it rain?"))  # fmt: skip


def strands() -> None:
    from strands import Agent, tool
    from strands.models.anthropic import AnthropicModel
    from strands.models.openai import OpenAIModel

    chat: Any = OpenAIModel(
        client_args={"base_url": url("strands"), "api_key": "none"}, model_id=MINI
    )
    claude = AnthropicModel(
        client_args={"base_url": f"{BASE}/strands/api", "api_key": "none"},
        model_id=SONNET, max_tokens=1000,
    )  # fmt: skip
    for model in (chat, claude):
        agent = Agent(model=model, tools=[tool(weather)], callback_handler=None)
        tried(lambda agent=agent: [agent("Will it rain?"), agent("And then?")])
        tried(lambda agent=agent: agent.structured_output(Report, "Will it rain?"))


def openrouter_sdk() -> None:
    from openrouter import OpenRouter

    with OpenRouter(api_key="none", server_url=url("openrouter-sdk-python")) as router:
        for more in ({}, {"stream": True}, {"tools": [TOOL]}, {"reasoning": {"effort": "low"}}):
            tried(lambda more=more: router.chat.send(model=MINI, messages=ASK, **more))
        tried(lambda: router.beta.responses.send(model=MINI, input="Will it rain?"))
        tried(lambda: router.beta.responses.send(model=MINI, input=ASK, instructions="Be short."))


def camel() -> None:
    from camel.agents import ChatAgent
    from camel.models import ModelFactory
    from camel.types import ModelPlatformType

    made = ModelFactory.create(
        model_platform=ModelPlatformType.OPENROUTER, model_type=MINI, url=url("camel"),
        api_key="none",
    )  # fmt: skip
    tried(lambda: ChatAgent("Be short.", model=made, tools=[weather]).step("Will it rain?"))
    tried(lambda: ChatAgent("Be short.", model=made).step("x", response_format=Report))


def griptape() -> None:
    from griptape.drivers.prompt.openai import OpenAiChatPromptDriver
    from griptape.structures import Agent

    made = OpenAiChatPromptDriver(model=MINI, base_url=url("griptape"), api_key="none")
    tried(lambda: Agent(prompt_driver=made).run("Will it rain?"))
    tried(lambda: Agent(prompt_driver=made, output_schema=Report).run("Will it rain?"))


def magentic() -> None:
    from magentic import OpenaiChatModel, UserMessage

    made = OpenaiChatModel(MINI, base_url=url("magentic"), api_key="none", temperature=0.1)
    tried(lambda: made.complete([UserMessage("Will it rain?")]))
    tried(lambda: made.complete([UserMessage("x")], functions=[weather], output_types=[Report]))


def crewai() -> None:
    from crewai import LLM

    made = LLM(model=f"openai/{MINI}", base_url=url("crewai"), api_key="none", temperature=0.1)
    tried(lambda: made.call("Will it rain?"))
    tried(lambda: made.call(ASK, tools=[TOOL], available_functions={"weather": weather}))


CASES = [
    openai_python, anthropic_python, openai_agents, langchain, litellm, pydantic_ai, instructor,
    smolagents, haystack, autogen, semantic_kernel, llama_index, dspy, agno, strands,
    openrouter_sdk, camel, griptape, magentic, crewai,
]  # fmt: skip

if __name__ == "__main__":
    importlib.import_module("warnings").simplefilter("ignore")
    for case in CASES:
        if len(sys.argv) == 2 or case.__name__ in sys.argv[2:]:
            tried(case)
