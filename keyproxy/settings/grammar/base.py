"""What every parser uses: the one way to say no, and what may be shown of a text."""

from __future__ import annotations

import re

from keyproxy.key_forms import SHAPE

# Wider, for what is shown: nothing that could be a secret is repeated, wherever it was put.
# The last but one: any long run that is not the name of a variable; the last: user:password@.
_MASKED = re.compile(
    rf"{SHAPE}|sk[-_][\w-]{{8,}}|(?-i:(?=[A-Z_]*[0-9a-z]))\w{{24,}}|(?<=//)[^/@\s]*@",
    re.ASCII | re.IGNORECASE,
)
_SHOWN_CHARACTERS = 80


class Unfit(ValueError):
    """A text that is no value.

    To paste: ``value`` is a text that would be one, ``line`` a whole line that cures it.
    """

    def __init__(
        self,
        expected: str,
        *,
        found: str | None = None,
        value: str | None = None,
        line: str | None = None,
    ) -> None:
        super().__init__(expected)
        self.expected = expected
        self.found = found
        self.value = value
        self.line = line


class NotInstalled(Unfit):
    """A value that needs what is not installed. Its line is of our own making, whatever it holds:
    a path, a commit."""


def mask(text: str) -> str:
    """``text`` with everything that could be a secret replaced by stars."""
    return _MASKED.sub("***", text)


def shown(text: str) -> str:
    """``text`` in quotes, shortened, with everything masked that could be a secret."""
    masked = mask(text)
    if len(masked) > _SHOWN_CHARACTERS:
        masked = masked[:_SHOWN_CHARACTERS] + "…"
    return repr(masked)


def items(text: str, separator: str = ",") -> list[str]:
    """The entries of a list, stripped, without the empty one a trailing comma leaves."""
    return [item.strip() for item in text.split(separator) if item.strip()]
