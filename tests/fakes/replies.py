"""What a fake model says to a body, and what that uses."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from tests.fakes.vendor import Json, Model, Used, Vendor

PIECES = ("Grüße", " aus", " Köln", " 🙂", " 你好", "!")
THOUGHT = ("Hm,", " also")
ARGUMENTS = ('{"ci', 'ty":"K', 'öln"', "}")
_LENGTHS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
Piece = tuple[int, bytes]
"""How many tokens were made by then, and bytes of a stream."""


@dataclass(frozen=True)
class Reply:
    """One answer. ``tool``: the name of the function it calls instead of speaking."""

    vendor: Vendor
    model: Model
    id: str
    words: tuple[str, ...]
    thought: tuple[str, ...]
    tool: str | None
    used: Used
    is_cut_short: bool

    @classmethod
    def to(
        cls, body: Json, vendor: Vendor, model: Model, id: str, tokens: int, cached: int
    ) -> Reply:
        """What is said to ``body``: some ``tokens``, if that many were asked for."""
        prompt = prompt_tokens(body)
        tool = None if _is_told(body) else _function(body)
        thought = THOUGHT if _asks_for_reasoning(body) else ()
        most = min([body[name] for name in _LENGTHS if type(body.get(name)) is int], default=10**6)
        spoken = len(ARGUMENTS) + 1 if tool else tokens
        hidden = min(model.thinks, max(most - spoken, 0))
        shown = min(spoken, most)
        used = Used(prompt, min(cached, prompt), shown, hidden + len(thought))
        words = tuple(itertools.islice(itertools.cycle(PIECES), shown))
        return cls(vendor, model, id, words, thought, tool, used, shown < spoken)

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def cost(self) -> Decimal:
        return self.used.cost(self.model)

    def so_far(self, tokens: int) -> Used:
        """What was used by the time that this many tokens had been made."""
        shown = min(tokens, self.used.completion)
        return self.used._replace(completion=shown)

    @property
    def seal(self) -> str:
        """What only its issuer takes back."""
        return f"sealed-by-{self.vendor.name}"

    @property
    def call(self) -> Json:
        function = {"name": self.tool, "arguments": "".join(ARGUMENTS)}
        return {"id": f"call_{self.vendor.name}_1", "type": "function", "function": function}


def prompt_tokens(body: Json) -> int:
    """Four letters make one, as the vendors count roughly; an image is 258."""
    places = ("messages", "input", "system", "instructions", "tools", "prompt")
    texts, images = 0, 0
    for value in _values([body[name] for name in places if name in body]):
        texts += len(value)
        images += value.startswith(("data:image", "https://"))
    return 8 + texts // 4 + 258 * images


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value if len(value) < 20_000 or not value.startswith("data:") else value[:100]
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _values(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner)


def _function(body: Json) -> str | None:
    for tool in body.get("tools") or []:
        name = tool.get("function", tool).get("name")
        if isinstance(name, str):
            return name
    return None


def _is_told(body: Json) -> bool:
    """Whether what a function said stands in the conversation."""
    messages = body.get("messages") or body.get("input") or []
    if isinstance(messages, str):
        return False
    marks = ("tool", "tool_result", "function_call_output")
    return any(
        each.get("role") == "tool" or each.get("type") in marks
        for message in messages
        for each in (message, *(_parts(message)))
    )


def _parts(message: Json) -> list[Json]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _asks_for_reasoning(body: Json) -> bool:
    thinking = body.get("thinking")
    return bool(
        body.get("reasoning")
        or body.get("reasoning_effort")
        or (isinstance(thinking, dict) and thinking.get("type") == "enabled")
    )


def data(event: Json, name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    return f"{head}data: {text}\n\n".encode()


def served(model: Model) -> str:
    """What answers call a model: at OpenAI a dated snapshot of it."""
    return f"{model.id}-2026-09-29" if model.id.startswith("gpt-6") else model.id


def embedded(reply: Reply) -> Reply:
    """Nothing is written for it."""
    return replace(reply, used=Used(reply.used.prompt, 0, 0, 0), words=(), is_cut_short=False)
