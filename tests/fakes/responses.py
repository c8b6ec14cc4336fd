"""``/responses``, whole and as events; and ``/embeddings``."""

from __future__ import annotations

from collections.abc import Iterator

from tests.fakes.replies import ARGUMENTS, Piece, Reply, data, served
from tests.fakes.vendor import CREATED, Json


def _items(reply: Reply) -> list[Json]:
    items: list[Json] = []
    if reply.thought:
        summary = [{"type": "summary_text", "text": "".join(reply.thought)}]
        sealed = {"encrypted_content": reply.seal}
        items.append({"type": "reasoning", "id": "rs_1", "summary": summary, **sealed})
    if reply.tool:
        call = reply.call
        items.append(
            {
                "type": "function_call",
                "id": "fc_1",
                "call_id": call["id"],
                "name": reply.tool,
                "arguments": call["function"]["arguments"],
                "status": "completed",
            }
        )
    else:
        text = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
        message = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant"}
        items.append({**message, "content": [text]})
    return items


def responses_body(reply: Reply) -> Json:
    used = reply.used
    output = used.completion + used.reasoning
    usage: Json = {
        "input_tokens": used.prompt,
        "input_tokens_details": {"cached_tokens": used.cached},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": used.reasoning},
        "total_tokens": used.prompt + output,
    }
    if reply.vendor.name == "openrouter":
        usage |= {"cost": float(reply.cost), "is_byok": False}
    if reply.vendor.name == "xai":
        usage |= {"cost_in_usd_ticks": int(reply.cost * 10**10)}
    return {
        "id": reply.id,
        "object": "response",
        "created_at": CREATED,
        "completed_at": CREATED + 1,
        "model": served(reply.model),
        "status": "incomplete" if reply.is_cut_short else "completed",
        "output": _items(reply),
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "temperature": 1.0,
        "top_p": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "metadata": {},
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "store": False,
        "service_tier": "default",
        "usage": usage,
    }


def responses_stream(reply: Reply, body: Json) -> Iterator[Piece]:
    for number, (made, event) in enumerate(_response_events(reply)):
        yield made, data({**event, "sequence_number": number}, event["type"])


def _response_events(reply: Reply) -> Iterator[tuple[int, Json]]:
    whole = responses_body(reply)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    yield 0, {"type": "response.created", "response": begun}
    yield 0, {"type": "response.in_progress", "response": begun}
    made = 0
    for index, item in enumerate(whole["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        added = {"type": "response.output_item.added", "output_index": index}
        if item["type"] == "message":
            yield made, {**added, "item": {**item, "status": "in_progress", "content": []}}
            part = {**item["content"][0], "text": ""}
            place |= {"content_index": 0}
            yield made, {"type": "response.content_part.added", **place, "part": part}
            for word in reply.words:
                made += 1
                kind = "response.output_text.delta"
                yield made, {"type": kind, "logprobs": [], **place, "delta": word}
            ended = {"text": reply.text, "logprobs": []}
            yield made, {"type": "response.output_text.done", **place, **ended}
            part = item["content"][0]
            yield made, {"type": "response.content_part.done", **place, "part": part}
        elif item["type"] == "function_call":
            yield made, {**added, "item": {**item, "status": "in_progress", "arguments": ""}}
            for piece in ("", *ARGUMENTS):
                made += 1
                kind = "response.function_call_arguments.delta"
                yield made, {"type": kind, **place, "delta": piece}
            kind = "response.function_call_arguments.done"
            yield made, {"type": kind, **place, "arguments": item["arguments"]}
        else:
            yield made, {**added, "item": item}
        yield made, {"type": "response.output_item.done", "output_index": index, "item": item}
    kind = "response.incomplete" if reply.is_cut_short else "response.completed"
    yield made, {"type": kind, "response": whole}


def embeddings_body(reply: Reply) -> Json:
    usage: Json = {"prompt_tokens": reply.used.prompt, "total_tokens": reply.used.prompt}
    if reply.vendor.name == "openrouter":
        usage["cost"] = float(reply.cost)
    vector = {"object": "embedding", "index": 0, "embedding": [0.0123, -0.0456, 0.0789]}
    return {
        "object": "list",
        "model": served(reply.model),
        "data": [vector],
        "usage": usage,
        **({"id": reply.id} if reply.vendor.name == "openrouter" else {}),
    }
