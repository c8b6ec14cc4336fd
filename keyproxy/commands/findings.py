"""What ``keyproxy check`` found: how grave it is, in words, and its cure; as text and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Literal

from keyproxy.console import printable
from keyproxy.dataclass import dataclass
from keyproxy.errors import SettingsFault

Grade = Literal["fine", "warning", "error"]
_GRADES: tuple[Grade, ...] = ("warning", "error")


@dataclass(frozen=True, slots=True)
class Finding:
    """``about`` names what was looked at: a setting, ``git``, ``clock``, ``key sk-or-…``."""

    about: str
    grade: Grade
    text: str
    cure: str | None = None

    @classmethod
    def of_line(cls, about: str, line: str) -> Finding:
        """A line that says its grade itself: ``error: …``, ``warning: …``, else all is fine."""
        told = (each for each in _GRADES if line.startswith(f"{each}: "))
        grade: Grade = next(told, "fine")
        text, _, cure = line.removeprefix(f"{grade}: ").partition("; ")
        return cls(about, grade, text, cure or None)

    @classmethod
    def of_fault(cls, fault: SettingsFault) -> Finding:
        """A fault of the settings; its lines to paste are the cure."""
        found = "is not set" if fault.found is None else f"is {fault.found}"
        text = f"{fault.variable} {found}; expected: {fault.expected}"
        return cls(fault.variable, "error", text, fault.paste)

    def __str__(self) -> str:
        text = self.text if self.cure is None else f"{self.text}; {self.cure}"
        text = text if self.grade == "fine" else f"{self.grade}: {text}"
        return "\n".join(map(printable, text.split("\n")))


def exit_code(findings: Iterable[Finding]) -> int:
    """1 where anything is an error."""
    return int(any(each.grade == "error" for each in findings))


def as_json(code: int, findings: Sequence[Finding], **more: object) -> str:
    """One object: the exit code, ``more``, and all findings with their cures."""
    document = {"exit_code": code, **more, "findings": [asdict(each) for each in findings]}
    return json.dumps(document, indent=2, ensure_ascii=False)
