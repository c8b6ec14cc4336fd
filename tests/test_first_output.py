"""Whether an answer has begun to say something, or tells of an error first."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keyproxy.dialects import CHAT
from keyproxy.routing.first_output import FirstOutput, Seen


def chunk(delta: Any, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": None} | more
    return {"id": "x", "object": "chat.completion.chunk", "choices": [choice]}


def event(body: Any) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def watched(*pieces: bytes | None, is_event_stream: bool = True) -> Seen | None:
    reader = FirstOutput(CHAT, is_event_stream=is_event_stream)
    found = None
    for piece in pieces:
        assert found is None, "it was known before"
        found = reader.watch(piece)
    return found


@pytest.mark.parametrize(
    "body",
    [
        chunk({"role": "assistant", "content": ""}),
        chunk({"role": "assistant", "content": None, "refusal": None}),
        {"type": "message_start", "message": {}},
        {"type": "ping"},
        {"type": "response.created", "response": {"error": None}},
    ],
)
def test_what_says_nothing_yet(body: Any) -> None:
    assert watched(b": OPENROUTER PROCESSING\n\n", event(body)) is None


@pytest.mark.parametrize(
    "body",
    [
        chunk({"content": "x"}),
        chunk({"reasoning": "x"}),
        chunk({"tool_calls": [{"index": 0}]}),
        chunk({}, finish_reason="stop"),
        {"type": "content_block_delta", "delta": {"text": "x"}},
        {"type": "response.output_text.delta", "delta": "x"},
        {"unknown": 1},
        [1],
    ],
)
def test_what_is_output(body: Any) -> None:
    assert watched(event(body)) == Seen("output")


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": 502, "message": "x"}, "choices": []},
        chunk({"content": ""}, finish_reason="error"),
        {"type": "error", "error": {"type": "overloaded_error"}},
    ],
)
def test_an_error_before_any_output(body: Any) -> None:
    assert watched(event(body)) == Seen("error", body)
    assert watched(event(chunk({"content": "x"})) + event(body)) == Seen("output")


@pytest.mark.parametrize(
    "body",
    [
        {"type": "response.failed", "response": {"error": {"code": "x"}}},
        {"type": "response.failed", "error": None, "response": {"error": {"code": "x"}}},
        chunk({"content": ""}, finish_reason="error", error={"code": "x"}),
    ],
)
def test_an_error_further_within_is_told_as_one(body: Any) -> None:
    assert watched(event(body)) == Seen("error", {"error": {"code": "x"}})


def test_events_may_come_in_any_pieces() -> None:
    for end in (b"\n\n", b"\r\n\r\n"):
        data = b"data: {}".replace(b"{}", json.dumps(chunk({"content": "x"})).encode()) + end
        for cut in range(1, len(data) - 1):
            assert watched(data[:cut], data[cut:]) == Seen("output")
        silent = event(chunk({"role": "assistant"})).replace(b"\n\n", end) * 3
        assert watched(*(bytes([byte]) for byte in silent + data)) == Seen("output")


def test_what_is_not_understood_is_output() -> None:
    assert watched(b"data: nothing\n\n") == Seen("output")
    assert watched(b"x" * 70_000) == Seen("output")
    assert watched(b": still here\n\n", None) == Seen("output")


def test_a_whole_answer_is_looked_at_when_it_is_there() -> None:
    error = {"error": {"code": 429}}
    raw = json.dumps(error).encode()
    assert watched(raw[:5], raw[5:], None, is_event_stream=False) == Seen("error", error)
    assert watched(b"{}", None, is_event_stream=False) == Seen("output")
    assert watched(b"[" * 5000, None, is_event_stream=False) == Seen("output")
    assert watched(b"x" * 70_000, is_event_stream=False) == Seen("output")
