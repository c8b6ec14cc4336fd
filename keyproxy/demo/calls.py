"""What the fake upstream remembers of its calls: how many, how they ended, what they cost."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from keyproxy.demo.shapes import Answer

KEPT_GENERATIONS = 1000


class Calls:
    """Counts calls: ``open`` now, ``finished`` as the model does it, ``aborted`` by the caller."""

    def __init__(self) -> None:
        self._counts = {"open": 0, "finished": 0, "aborted": 0}
        self._changed = asyncio.Event()
        self._generations: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def counts(self) -> dict[str, int]:
        return dict(self._counts)

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count one call; an exception means that its caller left."""
        self._add(open=1)
        ending = "aborted"
        try:
            yield
            ending = "finished"
        finally:
            self._add(**{"open": -1, ending: 1})

    async def reached(self, wanted: Mapping[str, int]) -> None:
        """Return once every count named in ``wanted`` is at least that high."""
        while any(self._counts[name] < least for name, least in wanted.items()):
            await self._changed.wait()

    @contextlib.contextmanager
    def booked(self, answer: Answer, *, is_streaming: bool) -> Iterator[None]:
        """Remember what ``answer`` cost in the end, cut short or not; the oldest are forgotten."""
        is_cancelled = True
        try:
            yield
            is_cancelled = False
        finally:
            self._generations[answer.id] = _generation(answer, is_streaming, is_cancelled)
            while len(self._generations) > KEPT_GENERATIONS:
                self._generations.popitem(last=False)

    def generation(self, generation_id: str) -> dict[str, Any] | None:
        return self._generations.get(generation_id)

    def _add(self, **changes: int) -> None:
        for name, change in changes.items():
            self._counts[name] += change
        self._changed.set()
        self._changed = asyncio.Event()


def _generation(answer: Answer, is_streaming: bool, is_cancelled: bool) -> dict[str, Any]:
    """A row of ``GET /generation``."""
    return {
        "id": answer.id,
        "model": answer.model,
        "total_cost": answer.cost(),
        "usage": answer.cost(),
        "streamed": is_streaming,
        "cancelled": is_cancelled,
        "provider_name": "Demo",
        "finish_reason": "length" if answer.is_truncated else "stop",
        "tokens_prompt": answer.prompt_tokens,
        "tokens_completion": answer.completion_tokens,
        "native_tokens_prompt": answer.prompt_tokens,
        "native_tokens_completion": answer.completion_tokens,
        "is_byok": False,
    }
