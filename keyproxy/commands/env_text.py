"""The text of a ``.env`` file that a person can go on with: each line below what it means.

Meanings come from the settings table. Texts in and out; nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from keyproxy.console import MOST_COLUMNS, wrapped
from keyproxy.key_forms import STARS
from keyproxy.settings import lines
from keyproxy.settings.setting import Setting


@dataclass(frozen=True, slots=True)
class Said:
    """One setting and its value. ``note``: what is to be known here, beyond its meaning; where
    ``is_example``, the line is a comment that shows what could be said."""

    setting: Setting
    value: str
    note: str = ""
    is_example: bool = False

    @property
    def line(self) -> str:
        """``NAME=value``. A path may hold letters that no shell would take as they are."""
        name, quote = self.setting.variable, '"' if "'" in self.value else "'"
        return lines.line(name, self.value) or f"{name}={quote}{self.value}{quote}"

    @property
    def shown(self) -> str:
        """The line for a screen."""
        return f"{self.setting.variable}={STARS}" if self.setting.is_secret else self.line


def env_text(heading: str, says: Iterable[Said]) -> str:
    """``heading``, then each setting below what it means."""
    return "\n".join([*_comment(heading), *(f"\n{_block(said)}" for said in says), ""])


def _block(said: Said) -> str:
    meaning = said.setting.meaning.replace("`", "")
    meaning = f"{meaning[0].upper()}{meaning[1:]}. {said.note}".rstrip()
    return "\n".join([*_comment(meaning), "#" * said.is_example + said.line])


def _comment(words: str) -> list[str]:
    return wrapped(words, MOST_COLUMNS, "# ", "# ")


def compared(
    present: Mapping[str, str], says: Iterable[Said]
) -> tuple[Sequence[Said], Sequence[tuple[str, Said]]]:
    """What a file with the variables ``present`` lacks, and what it says otherwise, each with the
    variable that does. A value and a file that holds it answer one question."""
    missing, other = [], []
    for said in says:
        name = said.setting.variable
        twin = name.removesuffix("_FILE") if name.endswith("_FILE") else f"{name}_FILE"
        found = next((each for each in (name, twin) if present.get(each, "").strip()), None)
        if found is not None and present[found] != said.value:
            other.append((found, said))
        elif found is None and not (name in present and not said.value):
            missing.append(said)
    return [said for said in missing if not said.is_example], other
