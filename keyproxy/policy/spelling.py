"""What a caller wrote: as a careless JSON reader might take it, and as a refusal shows it. Pure.

Names are read without case, in one width.
Sources: Unicode TR15 (NFKC) and TR21 (case folding); Go's encoding/json folds U+017F and U+212A.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from functools import lru_cache
from typing import Any

from keyproxy.errors import Refusal

# Names that decide: another spelling of them beside them would be read differently elsewhere.
_DECIDING = frozenset(
    {"type", "id", "tools", "allowed_tools", "parameters", "cache_control", "ttl"}
)
_LONGEST_NAME = 32  # "prompt_cache_breakpoint" has 23 characters; none folds into fewer


def plain(name: str) -> str:
    """A key as a careless reader might take it: folded, where that could make a known name.

    Character by character, and only as far as the result is ASCII: whole names made to be slow
    to normalise cost seconds.
    """
    if name.isascii():
        return name.lower()
    if len(name) > _LONGEST_NAME:
        return name
    folded = ""
    for character in name:
        part = _folded(character)
        if not part.isascii():
            return name
        folded += part
    return folded


@lru_cache(maxsize=4096)
def _folded(character: str) -> str:
    return unicodedata.normalize("NFKC", character).casefold()


def near(name: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``name`` was meant to be, by a slip of the keys or in camelCase.

    Two letters may be missing or too many, or one another: ``min_tokens`` means something else
    than ``max_tokens``. Long names cost nothing: they are not looked at.
    """
    if len(name) > _LONGEST_NAME or not name.isascii():
        return None
    written = name.lower().replace("-", "_")
    for meant in get_close_matches(written, known, n=3, cutoff=0.8):
        edits = SequenceMatcher(None, written, meant, autojunk=False).get_opcodes()
        # Letters that are not in place, on either side.
        if sum(e[2] - e[1] + e[4] - e[3] for e in edits if e[0] != "equal") <= 2:
            return meant
    return None


def check(param: str, value: Mapping[str, Any]) -> None:
    """Raises ``field_not_allowed`` where a name only looks like one of those that decide."""
    for name in value:
        if name not in _DECIDING and (meant := plain(name)) in _DECIDING:
            raise not_allowed(param, f"holds the name {shortened(name, 40)}", meant)


def shortened(value: str, length: int = 80) -> str:
    """Somebody else's text, cut and printable, for an error message."""
    text = value[:length]
    if not text.isprintable():
        text = "".join(char if char.isprintable() else "?" for char in text)
    return text + ("…" if len(value) > length else "")


def show(value: Any) -> str:
    """A value of the caller's in JSON's words, short enough for a message."""
    if isinstance(value, str):
        return shortened(repr(value[:50]), 40)  # whole, it may be 20 MB
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    words = {None: "null", True: "true", False: "false"}
    is_word = value is None or isinstance(value, bool)
    return words[value] if is_word else shortened(repr(value), 40)


def not_allowed(
    param: str, found: str, instead: str | None = None, *, hint: str | None = None
) -> Refusal:
    """The refusal "The field ``param`` ``found``, which is not open here"."""
    advice = f"Allowed: {instead}." if instead else "Leave it out of the call."
    return Refusal(
        "field_not_allowed",
        f"The field {param} {found}, which is not open here. {advice}",
        param=param,
        hint=hint,
    )
