"""Which top-level body fields each dialect takes, and what the rule of each means: closed.

A field that is not named here is refused, because upstreams add fields without notice and
several select another model or add cost. Pure; the field names are those of the providers'
published schemas: every one in the SDKs of OpenAI, Anthropic and OpenRouter of 29 November 2026
stands in ``dialects`` or in ``features``, which tests/schemas.json shows and scripts/schema-fields
finds out again. The table for people is docs/features.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from keyproxy.dialects import DIALECTS, Dialect, names
from keyproxy.errors import Refusal
from keyproxy.features import CLOSED_FIELDS, NAMED_FIELDS
from keyproxy.policy import rules, spelling, tools
from keyproxy.policy.check import Check, Rule
from keyproxy.policy.conversation import conversation
from keyproxy.policy.opened import Features
from keyproxy.policy.spelling import shortened

RULES: Mapping[str, Rule] = MappingProxyType(
    {**rules.RULES, **tools.RULES, "conversation": conversation}
)
"""What the words mean that stand beside the fields of a dialect."""

FIELDS: Mapping[Dialect, Mapping[str, Rule]] = MappingProxyType(
    {dialect: {name: RULES[word] for name, word in dialect.fields.items()} for dialect in DIALECTS}
)
"""Each dialect's fields with their rules."""

_PLAIN = re.compile(r"[a-z][a-z0-9_]{0,63}")
# Objects that are as good as absent while they are empty; `web_search_options: {}` starts a search.
_MAY_BE_EMPTY = names("extra_body extra_headers metadata provider")


def said(body: Mapping[str, Any]) -> dict[str, Any]:
    """``body`` without the fields that ask for nothing: null, an empty list, an empty text.

    SDKs write what was not asked for in these forms. A name that only some readers take for
    another one is kept, whatever it holds, and so is ``model``, which no call goes without.
    """
    return {
        name: value
        for name, value in body.items()
        if value or value is False or not _asks_for_nothing(name, value)
    }


def _asks_for_nothing(name: str, value: Any) -> bool:
    if name == "model" or not _PLAIN.fullmatch(name):
        return False
    if value is None:
        return True
    if name == "thread" or (name == "stop_server_tools_when" and value == []):
        return False  # any thread is one; no stop conditions may stand for "never stop"
    return value == "" or value == [] or (value == {} and name in _MAY_BE_EMPTY)


def check(inspection: Check, body: Mapping[str, Any]) -> None:
    """Every field of ``body`` is open, and within the caps; those that are not are set so.

    Models that fields beside ``model`` and ``models`` name are allowed and gathered. Raises
    ``field_not_allowed``, ``model_not_allowed`` or ``invalid_json`` for the first field that is
    not open in this dialect, or not with this value.
    """
    table = FIELDS[inspection.dialect]
    features = inspection.policy.features
    for name, value in body.items():
        inspect = table[name] if name in table else None  # noqa: SIM401  # calls nothing
        if inspect is rules.anything or (not value and _asks_for_nothing(name, value)):
            continue
        if inspect is not None:
            inspection.place = name
            inspect(inspection, name, value)
        elif name in CLOSED_FIELDS or name not in features.extra_fields:
            raise _unknown(inspection.dialect, name, features)


def _unknown(dialect: Dialect, name: str, features: Features) -> Refusal:
    shown = shortened(name, 40)
    reason = CLOSED_FIELDS.get(name)
    is_unknown = not reason and not any(name in each.fields for each in DIALECTS)
    can_be_slip = is_unknown and name not in NAMED_FIELDS
    meant = spelling.near(name, dialect.fields) if can_be_slip else None
    if meant is not None:
        message = f"The field {shown} is not allowed here: did you mean {meant}?"
    else:
        why = f": {reason}" if reason else ""
        message = f"The field {shown} is not allowed here{why}. Leave it out of the call."
    is_plain = bool(_PLAIN.fullmatch(name)) and not ("model" in name or "preset" in name)
    return Refusal(
        "field_not_allowed",
        message,
        param=shown,
        hint=features.extra_line(name) if is_unknown and is_plain and not meant else None,
        details=dialect.details.get(name),
    )
