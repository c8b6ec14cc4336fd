"""``/messages``, whole and as events with names."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.fakes.replies import ARGUMENTS, Piece, Reply, data, served
from tests.fakes.vendor import Json


def _messages_usage(reply: Reply, output: int) -> Json:
    used = reply.used
    said: Json = {
        "input_tokens": used.prompt - used.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": used.cached,
        "output_tokens": output,
    }
    if reply.vendor.name == "openrouter" and output == used.completion + used.reasoning:
        said |= {"cost": float(reply.cost), "is_byok": False}
    return said


def _blocks(reply: Reply) -> list[Json]:
    blocks: list[Json] = []
    if reply.thought:
        text = "".join(reply.thought)
        blocks.append({"type": "thinking", "thinking": text, "signature": reply.seal})
    if reply.tool:
        given = json.loads("".join(ARGUMENTS))
        id = f"toolu_{reply.vendor.name}_1"
        blocks.append({"type": "tool_use", "id": id, "name": reply.tool, "input": given})
    else:
        blocks.append({"type": "text", "text": reply.text, "citations": None})
    return blocks


def _message(reply: Reply) -> Json:
    return {
        "id": reply.id,
        "type": "message",
        "role": "assistant",
        "model": served(reply.model),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _stop_reason(reply: Reply) -> str:
    return "max_tokens" if reply.is_cut_short else "tool_use" if reply.tool else "end_turn"


def messages_body(reply: Reply) -> Json:
    output = reply.used.completion + reply.used.reasoning
    told = {"content": _blocks(reply), "stop_reason": _stop_reason(reply)}
    usage = _messages_usage(reply, output) | {"service_tier": "standard"}
    return {**_message(reply), **told, "usage": usage}


_EMPTY: dict[str, Json] = {
    "thinking": {"thinking": "", "signature": ""},
    "tool_use": {"input": {}},
    "text": {"text": ""},
}


def messages_stream(reply: Reply, body: Json) -> Iterator[Piece]:
    for made, event in _message_events(reply):
        yield made, data(event, event["type"])


def _message_events(reply: Reply) -> Iterator[tuple[int, Json]]:
    details = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}
    begun = _messages_usage(reply, 1)
    begun |= {"cache_creation": details, "service_tier": "standard"}
    yield 0, {"type": "message_start", "message": {**_message(reply), "usage": begun}}
    yield 0, {"type": "ping"}
    made = 0
    for index, block in enumerate(_blocks(reply)):
        kind = block["type"]
        started = {**block, **_EMPTY[kind]}
        yield made, {"type": "content_block_start", "index": index, "content_block": started}
        for counts, delta in _block_deltas(reply, kind):
            made += counts
            yield made, {"type": "content_block_delta", "index": index, "delta": delta}
        yield made, {"type": "content_block_stop", "index": index}
    usage = _messages_usage(reply, reply.used.completion + reply.used.reasoning)
    ended = {"stop_reason": _stop_reason(reply), "stop_sequence": None}
    yield made, {"type": "message_delta", "delta": ended, "usage": usage}
    yield made, {"type": "message_stop"}


def _block_deltas(reply: Reply, kind: str) -> Iterator[tuple[int, Json]]:
    if kind == "thinking":
        for piece in reply.thought:
            yield 0, {"type": "thinking_delta", "thinking": piece}
        yield 0, {"type": "signature_delta", "signature": reply.seal}
    elif kind == "tool_use":
        yield 1, {"type": "input_json_delta", "partial_json": ""}
        for piece in ARGUMENTS:
            yield 1, {"type": "input_json_delta", "partial_json": piece}
    else:
        for word in reply.words:
            yield 1, {"type": "text_delta", "text": word}
