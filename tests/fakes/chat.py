"""``/chat/completions`` as each vendor writes it: usage in six places."""

from __future__ import annotations

from collections.abc import Iterator

from tests.fakes.replies import ARGUMENTS, Piece, Reply, data, served
from tests.fakes.vendor import CREATED, Json


def chat_body(reply: Reply) -> Json:
    style = reply.vendor.chat
    message: Json = {"role": "assistant", "content": reply.text, **style.message}
    if reply.tool:
        message |= {"content": None, "tool_calls": [reply.call]}
    if reply.thought and style.reasoning:
        message[style.reasoning] = "".join(reply.thought)
        if reply.vendor.name == "openrouter":
            message["reasoning_details"] = [{"type": "reasoning.encrypted", "data": reply.seal}]
    usage = style.usage(reply.used, reply.cost)
    body: Json = {
        "id": reply.id,
        "object": "chat.completion",
        "created": CREATED,
        "model": served(reply.model),
        **style.extra,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": _finish(reply),
            }
        ],
        "usage": usage,
    }
    if style.usage_at == "x_groq":
        body["x_groq"] = {"id": "req_example"}
    if reply.vendor.name == "cerebras":
        body["time_info"] = _TIMES
    return body


_TIMES = {
    "queue_time": 0.0001,
    "prompt_time": 0.001,
    "completion_time": 0.003,
    "total_time": 0.005,
    "created": CREATED,
}


def _finish(reply: Reply) -> str:
    return "length" if reply.is_cut_short else "tool_calls" if reply.tool else "stop"


def chat_stream(reply: Reply, body: Json) -> Iterator[Piece]:
    style = reply.vendor.chat
    asked = bool((body.get("stream_options") or {}).get("include_usage"))
    if style.comment:
        yield 0, style.comment
    for made, chunk in _chunks(reply, asked):
        yield made, data(chunk)
    yield reply.used.completion, b"data: [DONE]\n\n"


def _chunks(reply: Reply, asked: bool) -> Iterator[tuple[int, Json]]:
    style, at = reply.vendor.chat, reply.vendor.chat.usage_at
    base = {
        "id": reply.id,
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": served(reply.model),
        **style.extra,
    }

    def chunk(delta: Json, finish: str | None = None, made: int | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        said: Json = {**base, "choices": [choice]}
        if at == "asked_every" and asked and made is not None:
            used = reply.so_far(made)
            said["usage"] = style.usage(used, used.cost(reply.model))
        elif at == "asked_chunk" and asked and reply.vendor.name == "openai":
            said["usage"] = None
        return said

    if style.opening is not None:
        opened = chunk(style.opening)
        yield 0, opened | ({"x_groq": {"id": "req_example"}} if at == "x_groq" else {})
    if style.reasoning:
        for piece in reply.thought:
            yield 0, chunk({**style.each, style.reasoning: piece})
    for made, delta in enumerate(_deltas(reply), 1):
        yield made, chunk({**style.each, **delta}, made=made)
    total = reply.used.completion
    usage = style.usage(reply.used, reply.cost)
    last = chunk(dict(style.ending), _finish(reply), total)
    if at == "x_groq":
        last["x_groq"] = {"id": "req_example", "usage": usage}
    elif at in ("last", "last_and_chunk"):
        last["usage"] = usage
        if reply.vendor.name == "cerebras":
            last["time_info"] = _TIMES
    yield total, last
    if at in ("last_and_chunk", "chunk") or (at == "asked_chunk" and asked):
        tier = {"service_tier": "default"} if reply.vendor.name == "openai" else {}
        yield total, {**base, "choices": [], **tier, "usage": usage}


def _deltas(reply: Reply) -> Iterator[Json]:
    if not reply.tool:
        yield from ({"content": word} for word in reply.words)
        return
    call = reply.call
    first = {"index": 0, **call, "function": {"name": reply.tool, "arguments": ""}}
    yield {"role": "assistant", "content": None, "tool_calls": [first]}
    for piece in ARGUMENTS:
        yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
