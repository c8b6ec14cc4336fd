"""Changes to files that ``init`` shows before it makes them: new ones, or lines behind the last.

What is there is never written anew. A ``.env`` file is one that a person can go on with: each line
below what it means.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from keyproxy.commands import git
from keyproxy.console import MOST_COLUMNS, printable, wrapped
from keyproxy.dataclass import dataclass
from keyproxy.errors import SettingsFaults
from keyproxy.key_forms import STARS
from keyproxy.settings import lines
from keyproxy.settings.grammar import mask, text_in
from keyproxy.settings.layers import of_env_file
from keyproxy.settings.setting import Setting
from keyproxy.settings.sources import fault_of_file, read_file
from keyproxy.settings.table import row_of


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


@dataclass(frozen=True, slots=True)
class Change:
    """``added`` is a new file's text, or what is put behind the end of one that exists.

    ``shown``: lines for a screen, without secrets. ``kept``: what the file says otherwise, and
    goes on saying. A private file is its owner's alone.
    """

    path: Path
    added: str
    is_new: bool
    shown: Sequence[str]
    kept: Sequence[str] = ()
    is_private: bool = True

    def make(self) -> None:
        """Raises ``OSError``; also where a new file has come to be meanwhile."""
        if not self.is_new:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(self.added)
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = 0o600 if self.is_private else 0o666
        opened = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(opened, "w", encoding="utf-8", newline="") as file:
            file.write(self.added)


def env_file(path: Path, heading: str, says: Sequence[Said]) -> Change:
    """The file that says all of ``says``. Raises ``SettingsFaults`` for one that cannot be read."""
    text = text_of_file(path)
    if text is None:
        shown = [said.shown for said in says if not said.is_example]
        return Change(path, env_text(heading, says), True, shown)
    present = of_env_file(path.name, text).variables
    missing, kept = list[Said](), list[str]()
    for said in says:
        name = said.setting.variable
        # A value and a file that holds it answer one question.
        twin = name.removesuffix("_FILE") if name.endswith("_FILE") else f"{name}_FILE"
        found = next((each for each in (name, twin) if present.get(each, "").strip()), None)
        if found is not None and present[found] != said.value:
            kept += (f"- {found}={_fit_to_show(found, present[found])}", f"+ {said.shown}")
        elif found is None and not said.is_example and not (name in present and not said.value):
            missing.append(said)
    added = _end(text) + "\n" + env_text(heading, missing) if missing else ""
    return Change(path, added, False, [f"+ {said.shown}" for said in missing], kept)


def _fit_to_show(variable: str, value: str) -> str:
    row = row_of(variable)
    return printable(mask(value)) if row and not row.is_secret else STARS


def text_of_file(path: Path) -> str | None:
    """The text of a file; None where there is none. Raises ``SettingsFaults``."""
    try:
        return text_in(read_file(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SettingsFaults([fault_of_file(path.name, error)]) from error


def _end(text: str) -> str:
    return "" if not text or text.endswith("\n") else "\n"


def ignoring(directory: Path, names: Sequence[str]) -> Iterator[Change]:
    """What keeps files of these names out of commits and images."""
    for ignoring in (".gitignore", ".dockerignore"):
        path = directory / ignoring
        text = text_of_file(path)
        is_git = ignoring == ".gitignore"
        lacking = [
            name
            for name in names
            if not (is_git and git.is_ignored(directory / name))
            and not _is_matched(text or "", name)
        ]
        if lacking:
            added = _end(text or "") + "".join(f"{name}\n" for name in lacking)
            shown = [f"+ {name}" for name in lacking]
            yield Change(path, added, text is None, shown, is_private=False)


def _is_matched(text: str, name: str) -> bool:
    """Whether the patterns of an ignore file match a name; the last that does counts."""
    is_matched = False
    for line in text.splitlines():
        pattern = line.strip().removeprefix("!").removeprefix("/").removeprefix("**/")
        if fnmatchcase(name, pattern):
            is_matched = not line.strip().startswith("!")
    return is_matched
