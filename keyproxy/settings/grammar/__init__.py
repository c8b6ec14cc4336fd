"""How the text of a setting is read: one small parser per kind of value.

Knows no variable names, no modes and no files. A parser returns the value or raises
``Unfit``; what that says is shown to the operator, so it never holds a secret. Here is what
every parser uses, and how the bytes of a file become a text.
"""

from __future__ import annotations

import codecs
import difflib
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from keyproxy.dataclass import KW_ONLY, dataclass
from keyproxy.key_forms import SHAPE, STARS

Value = TypeVar("Value")

# Wider, for what is shown: nothing that could be a secret is repeated, wherever it was put.
# The last but one: any long run that is not the name of a variable; the last: user:password@.
_MASKED = re.compile(
    rf"{SHAPE}|sk[-_][\w-]{{8,}}|(?-i:(?=[A-Z_]{{0,100}}[0-9a-z]))\w{{24,}}|(?<=//)[^/@\s]*@",
    re.ASCII | re.IGNORECASE,
)
_SHOWN_CHARACTERS = 80
_TYPE_ANEW = "that line typed anew, in a file saved as UTF-8"
_POWERSHELL = "(Windows PowerShell's > and >> write UTF-16: use Add-Content -Encoding ascii)"

# UTF-16 of plain letters is valid UTF-8, with a zero byte beside each.
_ODD_LINES = (
    ("\0", "zero bytes, as UTF-16 does", f"{_TYPE_ANEW} {_POWERSHELL}"),
    ("[\udc80-\udcff]", "letters in another encoding", _TYPE_ANEW),
    ("\ufeff", "an invisible byte order mark", _TYPE_ANEW),
)


@dataclass(eq=False)
class Unfit(ValueError):
    """A text that is no value.

    To paste: ``value`` is a text that would be one, ``line`` a whole line that cures it.
    ``where`` it stands in a file: ``, line 3`` behind its name, or nothing.
    """

    expected: str
    _: KW_ONLY
    found: str | None = None
    value: str | None = None
    line: str | None = None
    where: str = ""


class NotInstalled(Unfit):
    """A value that needs what is not installed. Its line is of our own making, whatever it holds:
    a path, a commit."""


def mask(text: str) -> str:
    """``text`` with everything that could be a secret replaced by stars."""
    return _MASKED.sub(STARS, text)


def shown(text: str) -> str:
    """``text`` in quotes, shortened, with everything masked that could be a secret."""
    masked = mask(text)
    if len(masked) > _SHOWN_CHARACTERS:
        masked = masked[:_SHOWN_CHARACTERS] + "…"
    return repr(masked)


def nearest(name: str, known: Iterable[str], otherwise: str, cutoff: float = 0.6) -> str:
    """What to expect in place of an unknown name: the one that is like it, or ``otherwise``."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=cutoff)
    return f"{close[0]} perhaps?" if close else otherwise


def matching(pattern: str, expected: str) -> Callable[[str], str]:
    """A parser of texts that fit an expression as a whole, and are their own values."""
    fits = re.compile(pattern, re.ASCII).fullmatch

    def parse(text: str) -> str:
        if not fits(text):
            raise Unfit(expected)
        return text

    return parse


def or_off(parse: Callable[[str], Value]) -> Callable[[str], Value | None]:
    """A parser that takes ``off``, which is None, beside what ``parse`` takes."""
    return lambda text: None if text == "off" else parse(text)


def each(
    parse: Callable[[str], Value], separator: str = ",", none: str | None = None
) -> Callable[[str], tuple[Value, ...]]:
    """A parser of lists of what ``parse`` takes, each once, in their order.

    ``none``: the word for no entry, where that is an answer. The fault is that of the first entry
    that is wrong, with all that are wrong alike; to paste is the whole list, in which each wrong
    one is what its own fault would paste, "" being without it.
    """

    def parse_all(text: str) -> tuple[Value, ...]:
        if text == none:
            return ()
        values: list[Value] = []
        cured: list[str | None] = []
        troubles: list[Unfit] = []
        entries = [entry.strip() for entry in text.split(separator) if entry.strip()]
        for entry in entries or [""]:
            try:
                values.append(parse(entry))
                cured.append(entry)
            except Unfit as unfit:
                unfit.found = unfit.found or shown(entry)
                troubles.append(unfit)
                cured.append(unfit.value)
        if not troubles:
            return tuple(dict.fromkeys(values))
        first = troubles[0]
        alike = [unfit.found or "" for unfit in troubles if unfit.expected == first.expected]
        first.found = ", ".join(alike)
        first.value = None if None in cured else separator.join(filter(None, cured)) or none
        raise first

    return parse_all


def text_in(content: bytes) -> str:
    """The bytes of a file as text, each line end of any system as ``\n``.

    Windows PowerShell 5 writes UTF-16 behind whatever a file holds (``>>``), and editors add byte
    order marks: one of UTF-8 in front says nothing and is dropped. Raises ``Unfit`` for the first
    line that cannot be read, which is not repeated: it may be a secret.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Unfit(f"the file saved as UTF-8 {_POWERSHELL}", found="no UTF-8 text: it is UTF-16")
    text = content.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
    lines = re.split(r"\r\n?|\n", text)
    for number, line in enumerate(lines, 1):
        for mark, reason, expected in _ODD_LINES:
            if re.search(mark, line):
                found = f"no UTF-8 text: it holds {reason}"
                raise Unfit(expected, found=found, where=f", line {number}")
    return "\n".join(lines)
