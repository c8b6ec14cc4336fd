"""``GET /generation?id=``: what the upstream says afterwards that a call has cost. Pure.

OpenRouter's OpenAPI document, "Get request and usage metadata for a generation": the total cost,
native token counts and whether it was cancelled. It answers 404 for some minutes after the call.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from keyproxy.call import Usage
from keyproxy.price import MAX_COST

ID = re.compile(r"gen-[A-Za-z0-9_-]{8,100}")
MAX_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Generation:
    """What is known of a call in the end. Money is USD."""

    cost: Decimal
    upstream_cost: Decimal
    is_byok: bool
    tokens: Usage
    model: str | None

    @property
    def counted(self) -> Decimal:
        """What budgets count: with a key of one's own at the provider, its bill on top."""
        return self.cost + (self.upstream_cost if self.is_byok else 0)


def read(raw: bytes) -> Generation | None:
    """The generation in an answer; None for one that says no cost which can be true."""
    try:
        body = json.loads(raw, parse_float=Decimal, parse_int=Decimal, parse_constant=str)
    except (ValueError, RecursionError, InvalidOperation):
        return None
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, dict) or (cost := _money(data.get("total_cost"))) is None:
        return None
    model = data.get("model")
    return Generation(
        cost=cost,
        upstream_cost=_money(data.get("upstream_inference_cost")) or Decimal(0),
        is_byok=data.get("is_byok") is True,
        tokens=Usage(
            input_tokens=_count(data, "native_tokens_prompt", "tokens_prompt"),
            output_tokens=_count(data, "native_tokens_completion", "tokens_completion"),
            cached_tokens=_count(data, "native_tokens_cached"),
            reasoning_tokens=_count(data, "native_tokens_reasoning"),
        ),
        model=model if isinstance(model, str) and len(model) <= 200 else None,
    )


def _money(value: Any) -> Decimal | None:
    if not isinstance(value, Decimal) or not value.is_finite() or not 0 <= value <= MAX_COST:
        return None
    return value


def _count(data: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = data.get(name)
        if isinstance(value, Decimal) and 0 <= value < 2**53 and value == value.to_integral_value():
            return int(value)
    return None
