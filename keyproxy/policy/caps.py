"""Caps that are imposed: filled in where a call names none, lowered where it names more. Pure.

Field names: OpenRouter's OpenAPI document (chat, completions, responses, messages), whose
reasoning tokens count as output.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from keyproxy.call import Style
from keyproxy.errors import Refusal
from keyproxy.policy.models import show
from keyproxy.values import whole_number

LENGTHS: Mapping[Style, tuple[str, ...]] = MappingProxyType(
    {
        Style.CHAT: ("max_tokens", "max_completion_tokens"),
        Style.COMPLETIONS: ("max_tokens",),
        Style.RESPONSES: ("max_output_tokens",),
        Style.MESSAGES: ("max_tokens",),
    }
)
"""Each style's output-length fields; the first is filled in where none is present."""

BUDGETS: Mapping[Style, tuple[tuple[str, str], ...]] = MappingProxyType(
    {
        Style.CHAT: (("reasoning", "max_tokens"),),
        Style.RESPONSES: (("reasoning", "max_tokens"),),
        Style.MESSAGES: (("thinking", "budget_tokens"),),
    }
)
"""Fields within fields that ask for thinking of a certain length."""


EFFORTS: Mapping[Style, tuple[tuple[str, ...], ...]] = MappingProxyType(
    {
        Style.CHAT: (("reasoning_effort",), ("reasoning", "effort"), ("verbosity",)),
        Style.RESPONSES: (("reasoning", "effort"), ("text", "verbosity")),
        Style.MESSAGES: (("output_config", "effort"),),
    }
)
"""Fields that say how hard to think; the highest words leave next to nothing for the answer
(OpenRouter: 95 % of the output cap, with ``high`` 80 %)."""

HIGHEST_EFFORTS = frozenset({"xhigh", "max"})
NO_LIMIT = -1
"""What several clients send as a length or count that has no bound."""
MIN_THINKING = 1024
MAX_TOOL_CALLS = 10  # of server tools, each at a price; OpenRouter's own default is 30

SETTING_LENGTHS = frozenset(
    {"max_tokens", "max_completion_tokens", "max_output_tokens", "budget_tokens"}
)
SETTING_EFFORTS = frozenset({"effort", "reasoning_effort", "verbosity"})
SETTING_COUNTS: Mapping[str, int] = MappingProxyType(
    {
        "max_uses": MAX_TOOL_CALLS,
        "max_tool_calls": MAX_TOOL_CALLS,
        "step_count": MAX_TOOL_CALLS,
        "max_results": 20,  # what one search engine takes; some are paid by the result
        "max_total_results": 50,  # OpenRouter's default
    }
)
"""Names of settings of tools, plugins and messages, wherever they stand in them."""
BOUNDED = SETTING_LENGTHS | SETTING_EFFORTS | SETTING_COUNTS.keys()


def imposed(
    style: Style, body: Mapping[str, Any], max_tokens: int | None, has_server_tools: bool = False
) -> dict[str, Any]:
    """The top-level fields that must change, with their new values. Raises ``invalid_json``.

    ``has_server_tools``: the operator opened tools that run upstream.
    """
    changes: dict[str, Any] = {}
    if max_tokens is not None:
        _cap_lengths(changes, style, body, max_tokens)
        _cap_thinking(changes, style, body, max_tokens)
    if has_server_tools and style is Style.RESPONSES:
        asked = _count("max_tool_calls", body.get("max_tool_calls"))
        if asked is None or not 0 <= asked <= MAX_TOOL_CALLS:
            changes["max_tool_calls"] = MAX_TOOL_CALLS
    return changes


def bounded(param: str, name: str, value: Any, max_tokens: int | None) -> Any:
    """What the caps leave of the value of a setting called ``name``, one of ``BOUNDED``.

    Raises ``invalid_json`` for a length or count that is no number.
    """
    if name in SETTING_EFFORTS:
        is_lowered = max_tokens is not None and isinstance(value, str) and value in HIGHEST_EFFORTS
        return "high" if is_lowered else value
    is_length = name in SETTING_LENGTHS
    most = max_tokens if is_length else SETTING_COUNTS[name]
    asked = _count(param, value)
    if most is None or asked is None or (0 < asked <= most) or (asked == 0 and not is_length):
        return value
    return most


def _cap_lengths(
    changes: dict[str, Any], style: Style, body: Mapping[str, Any], max_tokens: int
) -> None:
    lengths = LENGTHS.get(style, ())
    asked = {name: _count(name, body.get(name)) for name in lengths}
    present = {name: length for name, length in asked.items() if length is not None}
    # 0 may be read as no cap at all.
    changes |= {
        name: max_tokens for name, length in present.items() if not 0 < length <= max_tokens
    }
    if lengths and not present:
        changes[lengths[0]] = max_tokens


def _cap_thinking(
    changes: dict[str, Any], style: Style, body: Mapping[str, Any], max_tokens: int
) -> None:
    for outer, inner in BUDGETS.get(style, ()):
        asked = body.get(outer)
        if isinstance(asked, dict):
            budget = _count(f"{outer}.{inner}", asked.get(inner))
            if budget is None:
                continue
            if outer == "thinking":
                changes |= _thinking(asked, budget, body.get("max_tokens"), max_tokens)
            elif budget > max_tokens:
                changes[outer] = {**asked, inner: max_tokens}
    for outer, *rest in EFFORTS.get(style, ()):
        asked = changes.get(outer, body.get(outer))
        if not rest:
            if isinstance(asked, str) and asked in HIGHEST_EFFORTS:
                changes[outer] = "high"
        elif isinstance(asked, dict) and str(asked.get(rest[0])) in HIGHEST_EFFORTS:
            changes[outer] = {**asked, rest[0]: "high"}


def _thinking(
    asked: dict[str, Any], budget: int, length: int | None, max_tokens: int
) -> dict[str, Any]:
    """Anthropic wants a budget of 1,024 at least and below the length of the answer."""
    most = min(length or max_tokens, max_tokens) - 1
    if budget <= most:
        return {}
    if most < MIN_THINKING:
        return {"thinking": {"type": "disabled"}}
    return {"thinking": {**asked, "budget_tokens": most}}


def _count(param: str, value: Any) -> int | None:
    """How many tokens, calls or results, or None where none is said."""
    if value is None:
        return None
    count = whole_number(value)
    if count is None or count < NO_LIMIT:
        raise Refusal(
            "invalid_json",
            f"The field {param} is {show(value)}; it must be a whole number from 0 up, or -1 for"
            " no limit.",
            param=param,
        )
    return count
