"""What the three dialects of an answer share: the answer itself, and how an event is written.

One module each speaks ``chat``, ``responses`` and ``messages``. They turn one ``Answer`` into
the bytes OpenRouter would send (event order, field names and the place of ``usage`` as captured
in October 2026). Pure: no sockets, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from keyproxy.dataclass import dataclass
from keyproxy.demo.failures import encode
from keyproxy.demo.models import COMPLETION_PRICE, PROMPT_PRICE

PROCESSING = b": OPENROUTER PROCESSING\n\n"
DONE = b"data: [DONE]\n\n"
BROKEN = "Provider disconnected unexpectedly"


@dataclass(slots=True)
class Answer:
    """One answer as it grows; ``text`` and ``completion_tokens`` tell what was made so far."""

    id: str
    created: int
    model: str
    prompt_tokens: int
    max_tokens: int | None = None
    text: str = ""
    completion_tokens: int = 0
    is_truncated: bool = False

    def costs(self) -> tuple[float, float]:
        """USD for what went in and for what came out."""
        prompt = self.prompt_tokens * PROMPT_PRICE
        return float(prompt), float(self.completion_tokens * COMPLETION_PRICE)

    def cost(self) -> float:
        prompt = self.prompt_tokens * PROMPT_PRICE
        return float(prompt + self.completion_tokens * COMPLETION_PRICE)


class Shape(Protocol):
    """A stream is ``opening``, any number of ``piece``, then ``closing`` or ``failing``."""

    answer: Answer

    def __init__(self, answer: Answer) -> None: ...
    def opening(self) -> Iterator[bytes]: ...
    def piece(self, text: str) -> bytes: ...
    def closing(self) -> Iterator[bytes]: ...
    def failing(self) -> Iterator[bytes]: ...
    def whole(self) -> dict[str, Any]: ...
    def whole_failed(self) -> dict[str, Any]: ...


def event(value: object, name: str | None = None) -> bytes:
    """One server-sent event, named as on ``/messages`` or bare."""
    head = b"" if name is None else f"event: {name}\n".encode()
    return head + b"data: " + encode(value) + b"\n\n"
