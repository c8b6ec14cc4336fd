"""The cap on output length: filled in where a call names none, lowered where it names more. Pure.

Field names: OpenRouter's OpenAPI document (chat, completions, responses, messages), whose
reasoning tokens count as output.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from keyproxy.call import Style
from keyproxy.errors import Refusal

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


def imposed(style: Style, body: Mapping[str, Any], max_tokens: int | None) -> dict[str, Any]:
    """The top-level fields that must change, with their new values. Raises ``invalid_json``."""
    if max_tokens is None:
        return {}
    lengths = LENGTHS.get(style, ())
    present = [name for name in lengths if _count(name, body.get(name)) is not None]
    changes: dict[str, Any] = {name: max_tokens for name in present if body[name] > max_tokens}
    if lengths and not present:
        changes[lengths[0]] = max_tokens
    for outer, inner in BUDGETS.get(style, ()):
        asked = body.get(outer)
        if isinstance(asked, dict):
            budget = _count(f"{outer}.{inner}", asked.get(inner))
            if budget is not None and budget > max_tokens:
                changes[outer] = {**asked, inner: max_tokens}
    return changes


def _count(param: str, value: Any) -> int | None:
    """A number of tokens, or None where none is said."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Refusal("invalid_json", f"The field {param} must be a whole number.", param=param)
    return value
