"""keyproxy before the demo upstream, as an SDK finds it; and an upstream that calls a function."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from keyproxy.demo import upstream
from keyproxy.server.service import running
from tests.conftest import SERVE, settings
from tests.fake_upstream import FakeUpstream, event_stream

TEXT = "Grüße aus Köln 🙂 你好"
ASKED = {"city": "Köln"}
"""What ``demo/tools`` wants to know of ``get_weather``."""
_WIRE = Path(__file__).parent / "wire"


@dataclass(frozen=True)
class Served:
    """``url`` is keyproxy's; SDKs of OpenAI's kind add ``/api/v1``, Anthropic's ``/api``."""

    url: str
    upstream_url: str

    async def calls(self, **wanted: int) -> dict[str, int]:
        """What the upstream counted of its calls, once it is at least ``wanted``."""
        url = self.upstream_url.removesuffix("/api/v1") + "/demo/calls"
        timeout = aiohttp.ClientTimeout(total=10)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, params=wanted) as answer,
        ):
            counts: dict[str, int] = await answer.json()
            return counts


@asynccontextmanager
async def serving(mode: str = "dev", *, pace: float = 0, **variables: str) -> AsyncIterator[Served]:
    """The demo upstream behind keyproxy with these settings; ``pace`` 0 answers at once."""
    async with upstream.running(pace=pace) as base:
        said = {"OPENROUTER_API_KEY": upstream.DEMO_KEY, "UPSTREAM": base, "RATE_LIMIT": "off"}
        said |= (SERVE if mode == "serve" else {}) | variables
        async with running(settings(mode, **said)) as service:
            yield Served(f"http://{service.addresses[0]}", base)


def call_a_function(upstream: FakeUpstream, *before: dict[str, Any]) -> None:
    """From now on the model asks for the weather; told the result, it is done.

    ``before``: items of /responses that come before the call of the function.
    """

    async def answer(request: web.Request) -> web.StreamResponse:
        asked = json.loads(upstream.calls[-1].body)
        style = request.path.rpartition("/")[2].replace("completions", "chat")
        if _has_result(asked) and not (asked.get("stream") and style == "messages"):
            return web.json_response(_done(style))
        if before:
            whole = json.loads((_WIRE / f"{style}-tools.json").read_bytes())
            return web.json_response({**whole, "output": [*before, *whole["output"]]})
        if not asked.get("stream"):
            return web.json_response(body=(_WIRE / f"{style}-tools.json").read_bytes())
        response = await event_stream(request)
        if _has_result(asked):
            await response.write(_done_stream())
            return response
        await response.write((_WIRE / f"{style}-tools.sse").read_bytes())
        return response

    upstream.answer = answer


def give_embeddings(upstream: FakeUpstream) -> None:
    """From now on every answer is one of the upstream's embeddings."""
    raw = (Path(__file__).parent.parent / "wire" / "embeddings.json").read_bytes()

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(body=raw)

    upstream.answer = answer


def _has_result(asked: dict[str, Any]) -> bool:
    messages = asked.get("messages") or asked["input"]
    return any(
        message.get("role") == "tool"
        or message.get("type") == "function_call_output"
        or any(part["type"] == "tool_result" for part in _parts(message))
        for message in messages
    )


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _done(style: str) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads((_WIRE / f"{style}-tools.json").read_bytes())
    if style == "chat":
        choice = whole["choices"][0]
        choice["message"] = {"role": "assistant", "content": "It rains.", "refusal": None}
        choice["finish_reason"] = "stop"
    elif style == "messages":
        whole["content"] = [{"type": "text", "text": "It rains.", "citations": None}]
        whole["stop_reason"] = "end_turn"
    else:
        part = {"type": "output_text", "text": "It rains.", "annotations": [], "logprobs": []}
        message = {"type": "message", "id": "msg_tmp_1", "status": "completed", "role": "assistant"}
        whole["output"] = [{**message, "content": [part]}]
    return whole


def _done_stream() -> bytes:
    """The last answer to /messages, as events."""
    whole = _done("messages")
    [part] = whole["content"]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {**part, "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": part["text"]},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None},
            "usage": whole["usage"],
        },
        {"type": "message_stop"},
    ]
    return "".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events
    ).encode()
