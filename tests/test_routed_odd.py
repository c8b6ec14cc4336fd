"""Odd values in every field, before several providers: an answer or a refusal, never a fault."""

from __future__ import annotations

import random
from typing import Any

import pytest

from keyproxy.dialects import CHAT, MESSAGES, RESPONSES, Dialect
from tests.fakes import server
from tests.routed import proxy_before

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 10**30, "", "x", [], {}, [1], ["x"], [None], [[]]),
    *({"a": 1}, {"type": "x"}, [{}], [{"type": "x"}], {"effort": []}, {"order": "x"}, {"by": 1}),
    *([{"role": 1, "content": 2}], [{"role": "assistant", "content": [None], "reasoning": {}}]),
    *({"max_price": {"prompt": "x"}}, {"only": [""], "sort": {"by": []}}, {"effort": "low"}),
    [{"role": "assistant", "tool_calls": {}, "name": [], "audio": {}}],
]
OPEN = "provider,many,priority,fallbacks,web,cache-1h"


@pytest.mark.usefixtures("no_loose_ends")
@pytest.mark.parametrize("style", [CHAT, RESPONSES, MESSAGES], ids=lambda style: style.name)
async def test_odd_values_are_no_fault_of_ours(style: Dialect) -> None:
    draw = random.Random(style.name)
    names = [name for name in style.fields if name != "model"]
    async with (
        server.serving() as fakes,
        proxy_before(fakes, ALLOWED_FEATURES=OPEN, RATE_LIMIT="off") as proxy,
    ):
        for _ in range(400):
            body: dict[str, Any] = {"model": "openai/gpt-oss-120b"}
            body |= {name: draw.choice(ODD) for name in draw.sample(names, draw.randint(1, 5))}
            async with proxy.post(body, path=f"/api/v1{style.path}") as answer:
                told = await answer.read()
                assert answer.headers.get("X-Keyproxy-Code") != "internal_error", (body, told)
        assert fakes.strays() == []
