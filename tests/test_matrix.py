"""Nine providers, their dialects, and what people ask of them: the vendor's bytes, or a reason.

Each provider alone, as the program runs it: calls arrive by OpenRouter's ids and go up by the
vendor's own, and a second turn sends back the answer of the first as clients do.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from keyproxy.server.service import running
from tests.fakes.configured import settings_for
from tests.fakes.fake import Fake
from tests.fakes.server import Fakes, serving
from tests.fakes.shapes import ORGANISATION, USER
from tests.fakes.vendors import VENDORS

PATHS = {
    "chat": "/api/v1/chat/completions",
    "responses": "/api/v1/responses",
    "messages": "/api/v1/messages",
    "embeddings": "/api/v1/embeddings",
}
ENDPOINTS = ",".join(f"POST {path}" for path in PATHS.values())
PIXEL = "iVBORw0KGgo="
SAID = [{"role": "user", "content": "Grüße"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS: dict[str, Any] = {
    "chat": {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}},
    "responses": {"type": "function", "name": "get_weather", "parameters": SCHEMA},
    "messages": {"name": "get_weather", "input_schema": SCHEMA},
}
IMAGES: dict[str, Any] = {
    "chat": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    "responses": {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"},
    "messages": {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
    },
}
PRIVATE = (ORGANISATION, USER)
USUAL_HEAD = {"host", "content-type", "content-length", "accept", "accept-encoding", "user-agent"}
RANKING = {"http-referer", "x-title", "x-openrouter-title", "x-openrouter-categories"}
HEADS = {
    "openrouter": {"authorization", "anthropic-version", *RANKING},
    "anthropic": {"authorization", "x-api-key", "anthropic-version"},
    "deepinfra": {"authorization", "anthropic-version"},
    "xai": {"authorization", "x-grok-conv-id"},
}
"""What else may stand in the head of a call, where it is not the bearer's key alone."""


@dataclass
class Caller:
    """Calls to one keyproxy, with one provider behind it."""

    url: str
    session: aiohttp.ClientSession
    fake: Fake

    def body(self, dialect: str, **more: Any) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model(dialect)}
        if dialect in ("chat", "messages"):
            body["messages"] = SAID
        else:
            body["input"] = "Grüße"
        return body | ({"max_tokens": 4000} if dialect == "messages" else {}) | more

    def model(self, dialect: str, *, reads_images: bool = False) -> str:
        is_embedding = dialect == "embeddings"
        models = self.fake.vendor.models
        fit = [m for m in models if (m.dialects is not None) == is_embedding] or models
        return next((m for m in fit if m.reads_images or not reads_images), fit[0]).canonical

    async def call(self, dialect: str, body: dict[str, Any]) -> tuple[int, bytes, str]:
        """Status, body, and what was told of what went up."""
        url = self.url + PATHS[dialect]
        async with self.session.post(url, json=body) as answer:
            said = await answer.read()
            heads = " ".join(f"{name}: {value}" for name, value in answer.headers.items())
            assert not any(private in heads + said.decode() for private in PRIVATE)
            return answer.status, said, answer.headers.get("X-Keyproxy-Removed", "")

    async def answered(self, dialect: str, body: dict[str, Any]) -> Any:
        """The JSON, or the bytes of a stream, which are the fake's to the byte."""
        status, said, _ = await self.call(dialect, body)
        assert status == 200, (self.fake.vendor.name, dialect, body, said)
        bill = self.fake.bills[-1]
        assert said == bytes(bill.said)
        assert bill.seen is self.fake.calls[-1]
        names = {name.lower() for name in bill.seen.headers} - USUAL_HEAD
        assert names <= HEADS.get(self.fake.vendor.name, {"authorization"})
        return said if body.get("stream") else json.loads(said)


@asynccontextmanager
async def calling(
    name: str, directory: Path, fakes: Fakes, **variables: str
) -> AsyncIterator[Caller]:
    said = {
        "LISTEN": "127.0.0.1:0",
        "LEDGER": "off",
        "ALLOWED_ENDPOINTS": ENDPOINTS,
        "RATE_LIMIT": "off",
        "TOTAL_BUDGET": "off",
        "TITLE": "Ours",
        "REFERER": "https://app.example",
    }
    said = {f"KEYPROXY_{name}": value for name, value in (said | variables).items()}
    async with (
        running(settings_for(fakes, directory, **said)) as service,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
    ):
        yield Caller(f"http://{service.addresses[0]}", session, fakes[name])


def results(dialect: str, answer: Any) -> Iterator[dict[str, Any]]:
    """The answer as a client sends it back, and what the function said."""
    if dialect == "chat":
        message = answer["choices"][0]["message"]
        yield message
        [call] = message["tool_calls"]
        yield {"role": "tool", "tool_call_id": call["id"], "content": "rain"}
    elif dialect == "messages":
        yield {"role": "assistant", "content": answer["content"]}
        told = [
            {"type": "tool_result", "tool_use_id": block["id"], "content": "rain"}
            for block in answer["content"]
            if block["type"] == "tool_use"
        ]
        yield {"role": "user", "content": told}
    else:
        for item in answer["output"]:
            yield item
            if item["type"] == "function_call":
                yield {
                    "type": "function_call_output",
                    "call_id": item["call_id"],
                    "output": "rain",
                }


WRITING = [
    (name, dialect)
    for name, vendor in VENDORS.items()
    for dialect in vendor.paths
    if dialect != "embeddings"
]


@pytest.mark.parametrize(("name", "dialect"), WRITING)
async def test_what_a_vendor_answers_arrives_to_the_byte(
    name: str, dialect: str, tmp_path: Path
) -> None:
    async with serving(name) as fakes, calling(name, tmp_path, fakes) as caller:
        place = "input" if dialect == "responses" else "messages"
        await caller.answered(dialect, caller.body(dialect))
        stream = await caller.answered(dialect, caller.body(dialect, stream=True))
        assert "Grüße".encode() in stream
        asked = caller.body(dialect, tools=[TOOLS[dialect]], **{place: SAID})
        first = await caller.answered(dialect, asked)
        again = asked | {place: [*SAID, *results(dialect, first)]}
        last = await caller.answered(dialect, again)
        assert "get_weather" not in json.dumps(last)
        calling_stream = await caller.answered(dialect, asked | {"stream": True})
        assert b"get_weather" in calling_stream
        assert fakes.strays() == []
        assert caller.fake.stored == []


@pytest.mark.parametrize(("name", "dialect"), WRITING)
async def test_images_go_where_they_are_read(name: str, dialect: str, tmp_path: Path) -> None:
    async with serving(name) as fakes, calling(name, tmp_path, fakes) as caller:
        text = {"type": "input_text" if dialect == "responses" else "text", "text": "What is it?"}
        said = [{"role": "user", "content": [text, IMAGES[dialect]]}]
        body = caller.body(dialect, **{"input" if dialect == "responses" else "messages": said})
        body["model"] = caller.model(dialect, reads_images=True)
        if any(model.reads_images for model in caller.fake.vendor.models):
            await caller.answered(dialect, body)
            return
        status, said_no, _ = await caller.call(dialect, body)
        assert (status, caller.fake.calls) == (404, [])
        assert b"input of this kind" in said_no


EMBEDDING = [name for name, vendor in VENDORS.items() if "embeddings" in vendor.paths]


@pytest.mark.parametrize("name", EMBEDDING)
async def test_embeddings_arrive(name: str, tmp_path: Path) -> None:
    async with serving(name) as fakes, calling(name, tmp_path, fakes) as caller:
        answer = await caller.answered("embeddings", caller.body("embeddings"))
        assert answer["data"][0]["embedding"]


UNSPOKEN = [
    (name, dialect)
    for name, vendor in VENDORS.items()
    for dialect in PATHS
    if dialect not in vendor.paths
]


@pytest.mark.parametrize(("name", "dialect"), UNSPOKEN)
async def test_what_a_vendor_does_not_speak_is_refused_with_a_reason(
    name: str, dialect: str, tmp_path: Path
) -> None:
    async with serving(name) as fakes, calling(name, tmp_path, fakes) as caller:
        body = caller.body(dialect) | {"model": caller.model("chat")}
        status, said, _ = await caller.call(dialect, body)
        assert (status, caller.fake.calls) == (404, [])
        assert b"no_provider_qualifies" in said
        assert b"endpoint" in said
