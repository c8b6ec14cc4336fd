"""``/messages``: Anthropic's named events, no ``[DONE]``, no cost in the stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keyproxy.demo.shapes import PROCESSING, Answer, event


class Messages:
    """One answer in Anthropic's shape."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def opening(self) -> Iterator[bytes]:
        yield PROCESSING
        message = {
            **self._head(),
            "content": [],
            "stop_reason": None,
            "stop_details": None,
            "stop_sequence": None,
            "provider": "Demo",
            "usage": self._usage(output_tokens=1),
        }
        yield self._event("message_start", message=message)
        yield self._event("ping")
        yield self._event("content_block_start", index=0, content_block=_block(""))

    def piece(self, text: str) -> bytes:
        delta = {"type": "text_delta", "text": text}
        return self._event("content_block_delta", index=0, delta=delta)

    def closing(self) -> Iterator[bytes]:
        yield self._event("content_block_stop", index=0)
        delta = {
            "container": None,
            "stop_details": None,
            "stop_reason": self._stop_reason(),
            "stop_sequence": None,
        }
        usage = {
            "cache_creation_input_tokens": None,
            "cache_read_input_tokens": None,
            "input_tokens": self.answer.prompt_tokens,
            "output_tokens": self.answer.completion_tokens,
            "output_tokens_details": None,
            "server_tool_use": None,
        }
        yield self._event("message_delta", delta=delta, usage=usage)
        yield self._event("message_stop")

    def failing(self) -> Iterator[bytes]:
        yield event(self.whole_failed(), "error")

    def whole(self) -> dict[str, Any]:
        cost = self.answer.cost()
        return {
            **self._head(),
            "content": [_block(self.answer.text)],
            "stop_reason": self._stop_reason(),
            "stop_details": None,
            "stop_sequence": None,
            "provider": "Demo",
            "usage": {
                **self._usage(self.answer.completion_tokens),
                "cost": cost,
                "is_byok": False,
                "cost_details": {"upstream_inference_cost": cost},
            },
        }

    def whole_failed(self) -> dict[str, Any]:
        return {
            "type": "error",
            "error": {
                "type": "overloaded_error",
                "message": "Provider returned error",
                "error_type": "provider_overloaded",
            },
            "request_id": self.answer.id,
        }

    def _event(self, kind: str, **fields: object) -> bytes:
        return event({"type": kind, **fields}, kind)

    def _head(self) -> dict[str, Any]:
        return {
            "id": self.answer.id,
            "type": "message",
            "role": "assistant",
            "container": None,
            "model": self.answer.model,
        }

    def _stop_reason(self) -> str:
        return "max_tokens" if self.answer.is_truncated else "end_turn"

    def _usage(self, output_tokens: int) -> dict[str, Any]:
        return {
            "input_tokens": self.answer.prompt_tokens,
            "output_tokens": output_tokens,
            "cache_creation": None,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "inference_geo": None,
            "output_tokens_details": None,
            "server_tool_use": None,
            "service_tier": "standard",
        }


def _block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text, "citations": None}
