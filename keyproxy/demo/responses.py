"""``/responses``: typed events without ``event:`` names, usage in the completed response."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keyproxy.demo.shapes import DONE, Answer, event

ITEM_ID = "msg_tmp_demo0000000001"
COMMENT = b": \n\n"


class Responses:
    """One answer in OpenAI's newer shape. Events are numbered, so a shape serves one stream."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._sequence_number = 0

    def opening(self) -> Iterator[bytes]:
        yield from [COMMENT] * 6
        yield self._event("response.created", response=self._response("in_progress"))
        yield self._event("response.in_progress", response=self._response("in_progress"))
        item = {**self._item("in_progress"), "content": []}
        yield self._event("response.output_item.added", output_index=0, item=item)
        yield self._part_event("response.content_part.added", part=_part(""))

    def piece(self, text: str) -> bytes:
        place = {"output_index": 0, "item_id": ITEM_ID, "content_index": 0}
        return self._event("response.output_text.delta", logprobs=[], **place, delta=text)

    def closing(self) -> Iterator[bytes]:
        text = self.answer.text
        status = self._status()
        yield self._part_event("response.output_text.done", text=text, logprobs=[])
        yield self._part_event("response.content_part.done", part=_part(text))
        item = self._item("completed")
        yield self._event("response.output_item.done", output_index=0, item=item)
        yield self._event(f"response.{status}", response=self._response(status))
        yield DONE

    def failing(self) -> Iterator[bytes]:
        yield self._event(
            "response.failed", response=self.whole_failed(), error_type="provider_unavailable"
        )

    def whole(self) -> dict[str, Any]:
        return self._response(self._status())

    def whole_failed(self) -> dict[str, Any]:
        return self._response("failed")

    def _status(self) -> str:
        return "incomplete" if self.answer.is_truncated else "completed"

    def _event(self, kind: str, **fields: object) -> bytes:
        number = self._sequence_number
        self._sequence_number += 1
        return event({"type": kind, **fields, "sequence_number": number})

    def _part_event(self, kind: str, **fields: object) -> bytes:
        place = {"output_index": 0, "item_id": ITEM_ID, "content_index": 0}
        return self._event(kind, **place, **fields)

    def _response(self, status: str) -> dict[str, Any]:
        has_ended = status in ("completed", "incomplete")
        error = {"code": "server_error", "message": "Provider returned error"}
        return {
            "id": self.answer.id,
            "object": "response",
            "created_at": self.answer.created,
            "model": self.answer.model,
            "status": status,
            "completed_at": self.answer.created + 2 if has_ended else None,
            "output": [self._item("completed")] if has_ended else [],
            "error": error if status == "failed" else None,
            "incomplete_details": (
                {"reason": "max_output_tokens"} if status == "incomplete" else None
            ),
            "instructions": None,
            "metadata": {},
            "temperature": None,
            "top_p": None,
            "frequency_penalty": 0,  # OpenRouter's own SDK wants both
            "presence_penalty": 0,
            "max_output_tokens": self.answer.max_tokens,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "store": False,
            "service_tier": "auto",
            "usage": self._usage() if has_ended else None,
        }

    def _item(self, status: str) -> dict[str, Any]:
        return {
            "type": "message",
            "id": ITEM_ID,
            "status": status,
            "role": "assistant",
            "content": [_part(self.answer.text)],
        }

    def _usage(self) -> dict[str, Any]:
        prompt_cost, completion_cost = self.answer.costs()
        return {
            "input_tokens": self.answer.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": self.answer.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.answer.prompt_tokens + self.answer.completion_tokens,
            "cost": self.answer.cost(),
            "is_byok": False,
            "cost_details": {
                "upstream_inference_cost": self.answer.cost(),
                "upstream_inference_input_cost": prompt_cost,
                "upstream_inference_output_cost": completion_cost,
            },
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
