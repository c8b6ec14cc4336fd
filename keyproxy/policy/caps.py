"""Caps that are imposed: filled in where a call names none, lowered where it names more. Pure.

What is lowered still agrees with itself: reasoning gets fewer tokens than the answer that holds
it, and where too few would be left the call is refused. Field names: OpenRouter's OpenAPI
document (chat, completions, responses, messages), whose reasoning tokens count as output.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from keyproxy.dialects import DIALECTS
from keyproxy.errors import Refusal
from keyproxy.policy.models import is_router
from keyproxy.policy.spelling import show
from keyproxy.settings.grammar.plain import USUAL_MAX_TOKENS
from keyproxy.strict_json.body import whole_number

HIGHEST_EFFORTS = frozenset({"xhigh", "max"})
"""They leave next to nothing for the answer (OpenRouter: 95 % of the output cap, with ``high``
80 %)."""
NO_LIMIT = -1
"""What several clients send as a length or count that has no bound."""
MIN_REASONING = 1024
"""Tokens that Anthropic's models reason with at least, where a call gives a number; also the
least that its tool ``advisor`` may write."""
MAX_TOOL_CALLS = 10  # of server tools, each at a price; OpenRouter's own default is 30

_BUDGETS = frozenset(place for dialect in DIALECTS for place in dialect.budgets)
PLACES = {
    dialect: frozenset(dialect.lengths)
    | {place[0] for place in (*dialect.budgets, *dialect.efforts)}
    for dialect in DIALECTS
}
"""Top-level fields in which something can be that is capped."""
SETTING_LENGTHS = frozenset(name for dialect in DIALECTS for name in dialect.lengths) | {
    name for _, name in _BUDGETS
}
REASONING = frozenset(name for name, _ in _BUDGETS)
"""Names of what holds a length that is a part of the answer's length."""
SETTING_EFFORTS = frozenset(place[-1] for dialect in DIALECTS for place in dialect.efforts)
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


def bounded(param: str, name: str, value: Any, max_tokens: int | None) -> Any:
    """What the caps leave of the value of a setting called ``name``, one of ``BOUNDED``.

    Raises ``invalid_json`` for a length or count that is no number.
    """
    if name in SETTING_EFFORTS:
        is_lowered = max_tokens is not None and isinstance(value, str) and value in HIGHEST_EFFORTS
        return "high" if is_lowered else value
    is_length = name in SETTING_LENGTHS
    most = max_tokens if is_length else SETTING_COUNTS[name]
    asked = count(param, value)
    if most is None or asked is None or (0 < asked <= most) or (asked == 0 and not is_length):
        return value
    return most


def least_reasoning(field: str, models: Iterable[str]) -> int:
    """How many tokens one of ``models`` needs to reason at all; more if that is Anthropic's, or
    the field is."""
    if field == "budget_tokens":
        return MIN_REASONING
    names = [model.lower().removeprefix("~") for model in models]
    is_anthropic = any(name.startswith(("anthropic/", "claude")) for name in names)
    is_anybody = any(is_router(name.partition(":")[0]) for name in names)
    return MIN_REASONING if is_anthropic or is_anybody else 1


def too_short(param: str, asked: Any, max_tokens: int, least: int) -> Refusal:
    """The refusal of a length of which ``least`` tokens are needed and the cap leaves fewer."""
    place = param.rpartition(".")[0] or param
    said = f"is {show(asked)}" if asked is not None else "is left open"
    return Refusal(
        "field_not_allowed",
        f"The field {param} {said} and needs {least} tokens at least, but an answer may have only"
        f" {max_tokens} here, its reasoning included. Leave {place} out of the call.",
        param=param,
        hint=f"KEYPROXY_MAX_TOKENS={USUAL_MAX_TOKENS}",
    )


def count(param: str, value: Any) -> int | None:
    """How many tokens, calls or results, or None where none is said. Raises ``invalid_json``."""
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
