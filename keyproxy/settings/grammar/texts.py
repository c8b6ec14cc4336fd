"""The bytes of a settings file as text, or which line is unreadable, why, and the cure.

Windows PowerShell 5 writes UTF-16 behind whatever a file holds (``>>``), and editors add byte
order marks. Nothing here repeats what stands there: it may be a secret.
"""

from __future__ import annotations

import codecs
import re

from keyproxy.settings.grammar.base import Unfit

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TYPE_ANEW = "that line typed anew, in a file saved as UTF-8"
_POWERSHELL = "(Windows PowerShell's > and >> write UTF-16: use Add-Content -Encoding ascii)"


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
    """The text, each line end of any system as ``\\n``. Raises ``NoText``.

    One byte order mark of UTF-8 in front says nothing and is dropped.
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
