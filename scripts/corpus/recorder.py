"""A server on loopback that writes down what clients ask for and answers so that they go on.

``python scripts/corpus/recorder.py PORT FOLDER``: a call to ``/<client>/api/v1/…`` becomes a line
of ``FOLDER/<client>.jsonl``. While no result of a tool is in the body it calls the first tool,
then it answers in text, or as the asked schema says, so that tool loops send their later turns.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

STYLES = {
    "chat/completions": "chat",
    "responses": "responses",
    "messages": "messages",
    "completions": "completions",
    "embeddings": "embeddings",
    "images/generations": "images",
    "images": "images",
    "audio/speech": "speech",
    "rerank": "rerank",
}
USAGE = {
    "prompt_tokens": 14,
    "completion_tokens": 6,
    "total_tokens": 20,
    "cost": 0.000088,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
THOUGHT = "They want a short answer."


def sample(schema: Any, depth: int = 0) -> Any:
    """Some value that fits a JSON schema."""
    if not isinstance(schema, dict) or depth > 6:
        return "x"
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    for either in ("anyOf", "oneOf", "allOf"):
        if either in schema:
            return sample(schema[either][0], depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        inner = schema.get("properties", {})
        return {name: sample(inner[name], depth + 1) for name in inner}
    if kind == "array":
        return [sample(schema.get("items"), depth + 1)]
    return {"integer": 3, "number": 1.5, "boolean": True, "null": None}.get(kind, "Lima")


def wanted(body: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The tool to call now and its arguments, or nothing."""
    told = json.dumps(body.get("messages", body.get("input", "")))
    done = ('"role": "tool"', '"tool_result"', '_output"', '"role": "function"')
    if any(mark in told for mark in done) or body.get("tool_choice") == "none":
        return None
    for tool in body.get("tools") or ():
        inner = tool.get("function", tool)
        schema = inner.get("parameters") or inner.get("input_schema")
        if "name" in inner and tool.get("type", "custom") in ("function", "custom"):
            return inner["name"], sample(schema or {"type": "object"})
    return None


def text_for(body: dict[str, Any]) -> str:
    form = body.get("response_format") or (body.get("text") or {}).get("format")
    form = form or (body.get("output_config") or {}).get("format") or body.get("output_format")
    if isinstance(form, dict):
        schema = (form.get("json_schema") or form).get("schema")
        if schema is not None or form.get("type") == "json_object":
            return json.dumps(sample(schema or {"type": "object"}))
    return "It rains."


def chat(body: dict[str, Any]) -> tuple[Any, list[Any]]:
    call, message = wanted(body), {"role": "assistant", "content": text_for(body), "refusal": None}
    message["reasoning"] = THOUGHT
    message["reasoning_details"] = [
        {"type": "reasoning.summary", "summary": THOUGHT, "format": "openai-responses-v1",
         "index": 0},
        {"type": "reasoning.encrypted", "data": "Z0FBQUFB", "id": "rs_1", "index": 0,
         "format": "openai-responses-v1"},
    ]  # fmt: skip
    if call:
        function = {"name": call[0], "arguments": json.dumps(call[1])}
        called = [{"id": "call_1", "type": "function", "index": 0, "function": function}]
        message |= {"content": None, "tool_calls": called}
    else:
        citation = {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
        message["annotations"] = [{"type": "url_citation", "url_citation": citation}]
    end = {"finish_reason": "tool_calls" if call else "stop", "native_finish_reason": "stop"}
    top = {"id": "gen-1", "model": body.get("model"), "provider": "OpenAI", "created": 1790981416}
    top |= {"system_fingerprint": None}
    one = {"index": 0, "logprobs": None}
    whole = top | {
        "object": "chat.completion",
        "choices": [one | end | {"message": message}],
        "usage": USAGE,
    }
    piece = top | {"object": "chat.completion.chunk"}
    events = [
        piece | {"choices": [one | {"delta": message, "finish_reason": None}]},
        piece | {"choices": [one | end | {"delta": {"role": "assistant", "content": ""}}]},
        piece | {"choices": [], "usage": USAGE},
    ]
    return whole, events


def responses(body: dict[str, Any]) -> tuple[Any, list[Any]]:
    call = wanted(body)
    output: list[Any] = [
        {"type": "reasoning", "id": "rs_1", "encrypted_content": "Z0FBQUFB", "status": "completed",
         "summary": [{"type": "summary_text", "text": THOUGHT}]},
    ]  # fmt: skip
    part = {"type": "output_text", "text": text_for(body), "annotations": [], "logprobs": []}
    if call:
        output.append(
            {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": call[0],
             "arguments": json.dumps(call[1]), "status": "completed"}
        )  # fmt: skip
    else:
        output.append(
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
             "content": [part]}
        )  # fmt: skip
    usage = {
        "input_tokens": 14,
        "output_tokens": 6,
        "total_tokens": 20,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    whole = {
        "id": "resp_1", "object": "response", "created_at": 1790981416, "status": "completed",
        "model": body.get("model"), "output": output, "usage": usage, "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {}, "tools": [],
        "parallel_tool_calls": True, "tool_choice": "auto", "temperature": 1.0, "top_p": 1.0,
        "text": {"format": {"type": "text"}},
        "reasoning": {"effort": None, "summary": None},
    }  # fmt: skip
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    events: list[Any] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(output):
        at = {"output_index": index, "item_id": item["id"]}
        empty = item | {"status": "in_progress"}
        empty |= {"content": []} if "content" in item else {}
        empty |= {"summary": []} if "summary" in item else {}
        empty |= {"arguments": ""} if "arguments" in item else {}
        events.append({"type": "response.output_item.added", "output_index": index, "item": empty})
        if "content" in item:
            at |= {"content_index": 0}
            empty_part = part | {"text": ""}
            kind = "response.content_part"
            events.append(at | {"type": f"{kind}.added", "part": empty_part})
            kind = "response.output_text"
            events.append(at | {"type": f"{kind}.delta", "delta": part["text"], "logprobs": []})
            events.append(at | {"type": f"{kind}.done", "text": part["text"], "logprobs": []})
            events.append(at | {"type": "response.content_part.done", "part": part})
        elif "arguments" in item:
            kind, said = "response.function_call_arguments", item["arguments"]
            events.append(at | {"type": f"{kind}.delta", "delta": said})
            events.append(at | {"type": f"{kind}.done", "arguments": said, "name": item["name"]})
        else:
            at |= {"summary_index": 0}
            kind, summary = "response.reasoning_summary", item["summary"][0]
            events.append(at | {"type": f"{kind}_part.added", "part": summary | {"text": ""}})
            events.append(at | {"type": f"{kind}_text.delta", "delta": THOUGHT})
            events.append(at | {"type": f"{kind}_text.done", "text": THOUGHT})
            events.append(at | {"type": f"{kind}_part.done", "part": summary})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": "response.completed", "response": whole})
    return whole, [event | {"sequence_number": n} for n, event in enumerate(events)]


def messages(body: dict[str, Any]) -> tuple[Any, list[Any]]:
    call = wanted(body)
    content: list[Any] = [
        {"type": "thinking", "thinking": THOUGHT, "signature": "EqQBCgIYAhIM"},
        {"type": "redacted_thinking", "data": "EmwKAhgBEgy3"},
    ]
    if (body.get("thinking") or {"type": "disabled"})["type"] == "disabled":
        content = []
    if call:
        content.append({"type": "text", "text": "I look it up."})
        content.append({"type": "tool_use", "id": "toolu_1", "name": call[0], "input": call[1]})
    else:
        content.append({"type": "text", "text": text_for(body)})
    end = {"stop_reason": "tool_use" if call else "end_turn", "stop_sequence": None}
    usage = {
        "input_tokens": 14,
        "output_tokens": 6,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "service_tier": "standard",
    }
    top = {"id": "msg_1", "type": "message", "role": "assistant", "model": body.get("model")}
    whole = top | {"content": content, "usage": usage} | end
    begun = whole | {"content": [], "stop_reason": None}
    events: list[Any] = [{"type": "message_start", "message": begun}]
    for index, block in enumerate(content):
        at, empty, deltas = {"index": index}, dict(block), []
        if block["type"] == "text":
            empty["text"], deltas = "", [{"type": "text_delta", "text": block["text"]}]
        elif block["type"] == "thinking":
            empty |= {"thinking": "", "signature": ""}
            deltas = [
                {"type": "thinking_delta", "thinking": block["thinking"]},
                {"type": "signature_delta", "signature": block["signature"]},
            ]
        elif block["type"] == "tool_use":
            empty["input"] = {}
            said = json.dumps(block["input"])
            deltas = [{"type": "input_json_delta", "partial_json": said}]
        events.append(at | {"type": "content_block_start", "content_block": empty})
        events += [at | {"type": "content_block_delta", "delta": delta} for delta in deltas]
        events.append(at | {"type": "content_block_stop"})
    events.append({"type": "message_delta", "delta": end, "usage": {"output_tokens": 6}})
    events.append({"type": "message_stop"})
    return whole, events


ANSWERS = {"chat": chat, "responses": responses, "messages": messages}
OTHERS: dict[str, Any] = {
    "completions": {
        "id": "gen-1",
        "object": "text_completion",
        "created": 1,
        "model": "x",
        "choices": [{"index": 0, "text": "It rains.", "finish_reason": "stop", "logprobs": None}],
        "usage": USAGE,
    },
    "embeddings": {
        "object": "list",
        "model": "x",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}],
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    },
    "images": {"created": 1, "data": [{"b64_json": "AAAA"}]},
    "rerank": {"id": "gen-1", "results": [{"index": 0, "relevance_score": 0.9}]},
}


async def answer(request: web.Request) -> web.StreamResponse:
    client, _, path = request.match_info["rest"].partition("/")
    path = path.removeprefix("api/").removeprefix("v1/").rstrip("/")
    if request.method == "GET" or path not in STYLES:
        return web.json_response({"object": "list", "data": []}, status=200 if not path else 404)
    style, body = STYLES[path], await request.json()
    line = {"style": style, "agent": request.headers.get("User-Agent", ""), "body": body}
    if "anthropic-beta" in request.headers:
        line["beta"] = request.headers["anthropic-beta"]
    with (request.app[FOLDER] / f"{client}.jsonl").open("a") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
    if style not in ANSWERS:
        return web.json_response(OTHERS.get(style, {}))
    if body.get("thread"):  # the SDK's own runners go on without
        details = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
        error = {"type": "permission_error", "message": "No threads.", "details": details}
        return web.json_response({"type": "error", "error": error}, status=403)
    whole, events = ANSWERS[style](body)
    if not body.get("stream"):
        return web.json_response(whole)
    lines = []
    for event in events:
        name = f"event: {event['type']}\n" if "type" in event else ""
        lines.append(f"{name}data: {json.dumps(event)}\n\n")
    if style == "chat":
        lines.append("data: [DONE]\n\n")
    return web.Response(body="".join(lines).encode(), content_type="text/event-stream")


FOLDER: web.AppKey[Path] = web.AppKey("folder", Path)

if __name__ == "__main__":
    app = web.Application(client_max_size=64 << 20)
    app[FOLDER] = Path(sys.argv[2])
    app.router.add_route("*", "/{rest:.*}", answer)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
