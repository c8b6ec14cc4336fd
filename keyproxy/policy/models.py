"""Which models may be called: globs over full ids. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from keyproxy.errors import Refusal

_ID = re.compile(r"[A-Za-z0-9._~/:-]{1,200}")


class Models:
    """The operator's list. ``*`` crosses ``/``; ``!pattern`` excludes. Case counts for what is
    allowed, not for what is excluded: an upstream may know one model by both spellings."""

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = tuple(patterns)
        self._allowed = _any_of(p for p in patterns if not p.startswith("!"))
        self._excluded = _any_of((p[1:] for p in patterns if p.startswith("!")), re.I)
        shown = [pattern for pattern in patterns if not pattern.startswith("!")]
        self._summary = ", ".join(shown[:8]) + (", …" if len(shown) > 8 else "")

    def allows(self, model: str) -> bool:
        """Suffixes such as ``:free`` are part of the id; nothing is stripped or lower-cased."""
        if not _ID.fullmatch(model):
            return False
        return bool(self._allowed.fullmatch(model)) and not self._excluded.fullmatch(model)

    def check(self, model: str, param: str = "model") -> None:
        """Raises ``model_not_allowed``."""
        if not self.allows(model):
            raise Refusal(
                "model_not_allowed",
                f"The model {shortened(model)} may not be used here. Allowed: {self._summary}.",
                param=param,
                hint=f"KEYPROXY_ALLOWED_MODELS=…,{shortened(model)}",
            )


def _any_of(globs: Iterable[str], flags: int = 0) -> re.Pattern[str]:
    branches = [re.escape(glob).replace(r"\*", ".*") for glob in globs]
    return re.compile("|".join(f"(?:{branch})" for branch in branches) or r"(?!)", flags)


def shortened(value: str, length: int = 80) -> str:
    """Somebody else's text, cut and printable, for an error message."""
    text = "".join(char if char.isprintable() else "?" for char in value[:length])
    return text + ("…" if len(value) > length else "")
