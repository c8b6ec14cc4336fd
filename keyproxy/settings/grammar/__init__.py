"""How the text of a setting is read: one small parser per kind of value.

Knows no variable names, no modes and no files. A parser returns the value or raises
``Unfit``; what that says is shown to the operator, so it never holds a secret. Here is what
every parser uses, and how the bytes of a file become a text.
"""

from __future__ import annotations

import codecs
import re

from keyproxy.key_forms import SHAPE

# Wider, for what is shown: nothing that could be a secret is repeated, wherever it was put.
# The last but one: any long run that is not the name of a variable; the last: user:password@.
_MASKED = re.compile(
    rf"{SHAPE}|sk[-_][\w-]{{8,}}|(?-i:(?=[A-Z_]*[0-9a-z]))\w{{24,}}|(?<=//)[^/@\s]*@",
    re.ASCII | re.IGNORECASE,
)
_SHOWN_CHARACTERS = 80
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TYPE_ANEW = "that line typed anew, in a file saved as UTF-8"
_POWERSHELL = "(Windows PowerShell's > and >> write UTF-16: use Add-Content -Encoding ascii)"


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


class NoText(Unfit):
    """``reason`` is half a sentence; ``line_number``: the first line that cannot be read, None
    where none of them can."""

    def __init__(self, reason: str, expected: str, line_number: int | None = None) -> None:
        super().__init__(expected, found=f"no UTF-8 text: {reason}")
        self.line_number = line_number

    @property
    def where(self) -> str:
        """``, line 3`` behind the name of the file, or nothing."""
        return "" if self.line_number is None else f", line {self.line_number}"


def text_in(content: bytes) -> str:
    """The bytes of a file as text, each line end of any system as ``\\n``. Raises ``NoText``.

    Windows PowerShell 5 writes UTF-16 behind whatever a file holds (``>>``), and editors add byte
    order marks: one of UTF-8 in front says nothing and is dropped. Nothing that stands there is
    repeated: it may be a secret.
    """
    if content.startswith(_UTF16):
        raise NoText("it is UTF-16", f"the file saved as UTF-8 {_POWERSHELL}")
    number = None
    try:
        text = re.sub(r"\r\n?", "\n", content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        number = _number(content, error.start)
    # UTF-16 of plain letters is valid UTF-8, with a zero byte beside each.
    zero = content.find(b"\0")
    if zero > -1 and (number is None or _number(content, zero) <= number):
        reason = "it holds zero bytes, as UTF-16 does"
        raise NoText(reason, f"{_TYPE_ANEW} {_POWERSHELL}", _number(content, zero))
    if number is not None:
        raise NoText("it holds letters in another encoding", _TYPE_ANEW, number)
    if (mark := text.find("\ufeff")) > -1:
        reason = "it holds an invisible byte order mark"
        raise NoText(reason, _TYPE_ANEW, text.count("\n", 0, mark) + 1)
    return text


def _number(content: bytes, at: int) -> int:
    """The number of the line that the byte ``at`` stands in, from 1."""
    return len(re.findall(rb"\r\n?|\n", content[:at])) + 1
