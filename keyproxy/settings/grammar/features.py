"""The words of KEYPROXY_ALLOWED_FEATURES, and the names that KEYPROXY_EXTRA_FIELDS may hold."""

from __future__ import annotations

import re

from keyproxy.dialects import DIALECTS
from keyproxy.features import CLOSED_FIELDS, OPENED_BY, TOOL, WORDS, is_closed_tool
from keyproxy.settings.grammar import Unfit, each

_TOOL_TYPE = re.compile(r"[a-z][a-z0-9_.:-]{0,63}")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_OWN_TOOLS = frozenset(kind for dialect in DIALECTS for kind in dialect.own_tools)


def _word(word: str) -> str:
    if word in WORDS:
        return word
    kind = word.removeprefix(TOOL)
    if kind == word or not _TOOL_TYPE.fullmatch(kind):
        expected = f"words of {', '.join(WORDS)}, or {TOOL} with one type of tool such as"
        expected += " tools:openrouter:datetime"
    elif kind in _OWN_TOOLS:
        expected = f"no word for {kind}: tools that the caller runs itself are open"
    elif is_closed_tool(kind):
        expected = f"no {kind}: it reads or changes what the account stores, runs commands, or"
        expected += " calls any address, and is never open"
    else:
        return word
    raise Unfit(expected, value="")


def _field(name: str) -> str:
    if words := OPENED_BY.get(name):
        expected = f"no {name} here: the word of KEYPROXY_ALLOWED_FEATURES={words[0]} opens it"
    elif reason := CLOSED_FIELDS.get(name):
        expected = f"no {name}: {reason}, so it is never open"
    elif any(name in dialect.fields for dialect in DIALECTS):
        expected = f"no {name}: it has its rule in the table of docs/features.md"
    elif not _FIELD.fullmatch(name):
        expected = "plain lower-case names of top-level fields such as trace, or off"
    elif "model" in name or "preset" in name:
        expected = "names that choose no model"
    else:
        return name
    raise Unfit(expected, value="")


features = each(_word, none="off")
"""Feature words, each once; ``off`` is none."""

extra_fields = each(_field, none="off")
"""Names of top-level body fields, each once; ``off`` is none."""
