"""A refusal's hint as the operator reads it: the line in the notation of the right layer.

Rules write ``NAME=value``, or ``words: NAME=value``, with the whole new value; they know
neither files nor options. Words without a line pass as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from keyproxy.key_forms import LIKELY
from keyproxy.settings import Settings, lines
from keyproxy.settings.grammar.base import Unfit
from keyproxy.settings.table import row_of


def written(hint: str | None, app: Settings) -> str | None:
    """``hint`` to somebody who runs ``app``; None where nothing is left to say.

    A line that the setting would not take is left out, and so is one that repeats a secret.
    """
    parts = hint and lines.taken_apart(hint)
    if not parts:
        return hint
    words, variable, value = parts
    line = None
    if _is_value(variable, value) and not _lacks_secret(app, value):
        line = lines.line(variable, value, app.places.get(variable, ""))
    if line is None:
        return words.removesuffix(": ") or None
    return words + line


def _lacks_secret(app: Settings, value: str) -> bool:
    """Whether sessions could not be signed, which a single line cannot cure."""
    return value == "session" and app.mode == "serve" and not app.session_secrets


def _is_value(variable: str, value: str) -> bool:
    row = row_of(variable)
    if row is None or row.is_secret or LIKELY.search(value):
        return False
    entries = value.split(row.separator) if row.separator else [value]
    # Models that are excluded are no list of their own.
    return all(_is_entry(row.parse, entry.removeprefix("!")) for entry in entries)


@lru_cache(maxsize=1024)  # a list of patterns takes a millisecond, and refusals come in floods
def _is_entry(parse: Callable[[str], Any], text: str) -> bool:
    try:
        parse(text)
    except Unfit:
        return False
    return True
