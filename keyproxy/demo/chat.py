"""``/chat/completions``: bare ``data:`` lines, usage on a last chunk, then ``[DONE]``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keyproxy.demo.shapes import BROKEN, DONE, PROCESSING, Answer, event


class Chat:
    """One answer in OpenAI's older shape."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def opening(self) -> Iterator[bytes]:
        yield PROCESSING
        yield PROCESSING

    def piece(self, text: str) -> bytes:
        return self._chunk(_choice(text))

    def closing(self) -> Iterator[bytes]:
        last = _choice("", self._finish_reason())
        yield self._chunk(last)
        yield self._chunk(last, service_tier="default", usage=self._usage())
        yield DONE

    def failing(self) -> Iterator[bytes]:
        error = {
            "code": 502,
            "message": BROKEN,
            "metadata": {"error_type": "provider_unavailable"},
        }
        yield self._chunk(
            {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}, error=error
        )
        yield DONE

    def whole(self) -> dict[str, Any]:
        reason = self._finish_reason()
        message = {
            "role": "assistant",
            "content": self.answer.text,
            "refusal": None,
            "reasoning": None,
        }
        choice = {
            "index": 0,
            "logprobs": None,
            "finish_reason": reason,
            "native_finish_reason": _native(reason),
            "message": message,
        }
        return {
            **self._head("chat.completion"),
            "system_fingerprint": None,
            "service_tier": "default",
            "choices": [choice],
            "usage": self._usage(),
        }

    def whole_failed(self) -> dict[str, Any]:
        choice = {
            "index": 0,
            "logprobs": None,
            "finish_reason": "error",
            "native_finish_reason": None,
            "error": {"code": 502, "message": BROKEN},
            "message": {"role": "assistant", "content": self.answer.text},
        }
        return {**self._head("chat.completion"), "choices": [choice]}

    def _chunk(self, choice: dict[str, Any], **more: object) -> bytes:
        head = self._head("chat.completion.chunk")
        usage = {"usage": more.pop("usage")} if "usage" in more else {}
        return event({**head, **more, "choices": [choice], **usage})

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.answer.id,
            "object": kind,
            "created": self.answer.created,
            "model": self.answer.model,
            "provider": "Demo",
        }

    def _finish_reason(self) -> str:
        return "length" if self.answer.is_truncated else "stop"

    def _usage(self) -> dict[str, Any]:
        prompt_cost, completion_cost = self.answer.costs()
        return {
            "prompt_tokens": self.answer.prompt_tokens,
            "completion_tokens": self.answer.completion_tokens,
            "total_tokens": self.answer.prompt_tokens + self.answer.completion_tokens,
            "cost": self.answer.cost(),
            "is_byok": False,
            "prompt_tokens_details": {
                "cached_tokens": 0,
                "cache_write_tokens": 0,
                "audio_tokens": 0,
                "video_tokens": 0,
            },
            "cost_details": {
                "upstream_inference_cost": self.answer.cost(),
                "upstream_inference_prompt_cost": prompt_cost,
                "upstream_inference_completions_cost": completion_cost,
            },
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "image_tokens": 0,
                "audio_tokens": 0,
            },
        }


def _choice(text: str, finish_reason: str | None = None) -> dict[str, Any]:
    return {
        "index": 0,
        "delta": {"content": text, "role": "assistant"},
        "finish_reason": finish_reason,
        "native_finish_reason": _native(finish_reason),
    }


def _native(finish_reason: str | None) -> str | None:
    return "completed" if finish_reason == "stop" else finish_reason
