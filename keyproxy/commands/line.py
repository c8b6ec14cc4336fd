"""The command line: options from the settings table, refusals in one line, faults in full, columns.

Nothing typed is repeated that could be a key.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn

from keyproxy.commands import COMMANDS
from keyproxy.console import MOST_COLUMNS, printable, wrapped
from keyproxy.dataclass import dataclass
from keyproxy.errors import SettingsFaults
from keyproxy.settings import CONFIG, ROWS
from keyproxy.settings.grammar import mask
from keyproxy.settings.setting import Mode, Setting, spoken
from keyproxy.settings.sources import Sources


class _Help(argparse.HelpFormatter):
    """Breaks no value at its hyphens, for it is to be typed as it stands."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrapped(text, width)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and never repeats a value."""

    def error(self, message: str) -> NoReturn:
        # argparse quotes what was typed; a key may have been typed in the wrong place.
        if "ignored explicit argument" in message:
            message = message.split("ignored")[0] + "takes no value"
        text = re.sub(r": '.*?'(?= \(|$)", "", mask(message))
        self.exit(2, f"{self.prog}: {text} (see {self.prog} --help)\n")

    def flag(self, name: str, meaning: str) -> None:
        """An option that is said or not."""
        self.add_argument(name, action="store_true", help=meaning)

    def option(self, name: str, metavar: str, meaning: str, **more: Any) -> None:
        """An option with a value. ``more``: as in ``add_argument``."""
        self.add_argument(name, metavar=metavar, help=meaning, **more)


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line said: variable -> text, the ``--env-file``, and flags."""

    options: Mapping[str, str]
    env_file: Path | None
    flags: argparse.Namespace

    def sources(self, mode: Mode) -> Sources:
        """Where the settings of this process come from."""
        return Sources.of_process(mode, self.options, self.env_file)


def parser(command: str, more: str = "") -> Parser:
    """An empty parser of one command, which is described by its summary and ``more``."""
    _, summary = COMMANDS[command]
    return Parser(
        prog=f"keyproxy {command}",
        description=f"{summary[0].upper()}{summary[1:]}. {more}".rstrip(),
        allow_abbrev=False,
        formatter_class=functools.partial(_Help, max_help_position=30),
    )


def _add_settings(parser: Parser, modes: Sequence[Mode]) -> None:
    """Options that mirror the settings, with the defaults of ``modes``."""
    parser.usage = f"{parser.prog} [OPTIONS]"  # forty of them would fill the screen
    # Arguments are visible to everybody on the machine: no secret itself is one.
    rows = [row for row in ROWS.values() if not _is_given_by_file(row) and row is not CONFIG]
    for title, of_group in groupby(rows, key=lambda row: row.group):
        group = parser.add_argument_group(title)
        for row in of_group:
            if not ("demo" in modes and row.is_upstream):
                add_setting(group, row, modes)
    add_files(parser)


def add_files(parser: Parser) -> None:
    """Options that name the files which settings are read from."""
    group = parser.add_argument_group(CONFIG.group)
    add_setting(group, CONFIG, ["dev", "serve"])
    group.add_argument(
        "--env-file",
        metavar="FILE",
        type=Path,
        help="read this file instead of .env.local and .env of the working directory",
    )


def _is_given_by_file(setting: Setting) -> bool:
    return setting.is_secret and setting.file is not None


def add_setting(group: argparse._ActionsContainer, setting: Setting, modes: Sequence[Mode]) -> None:
    """The option of one setting, with its meaning and the defaults of ``modes``."""
    defaults = {mode: spoken(setting.default(mode)) for mode in modes}
    default = defaults[modes[0]]
    if len(set(defaults.values())) > 1:
        default = ", ".join(f"{text} in {mode}" for mode, text in defaults.items())
    text = f"{setting.meaning.replace('`', '')} [{setting.variable}; default: {default}]"
    group.add_argument(
        setting.option,
        dest=setting.variable,
        metavar=setting.metavar,
        help=text.replace("%", "%%"),
    )


def parse(parser: Parser, arguments: Sequence[str], modes: Sequence[Mode] = ()) -> Given:
    """What was given, settings of ``modes`` included. An unknown option or a stray word ends the
    process with exit code 2."""
    if modes and arguments:  # without any, forty options would be made for nothing
        _add_settings(parser, modes)
    namespace, extra = parser.parse_known_args(arguments)
    if extra:
        parser.error(_unknown(parser, extra[0].partition("=")[0]))
    variables = {setting.variable for setting in ROWS.values()}
    options = {
        name: value
        for name, value in vars(namespace).items()
        if name in variables and value is not None
    }
    return Given(options, getattr(namespace, "env_file", None), namespace)


def _unknown(parser: Parser, name: str) -> str:
    for setting in filter(_is_given_by_file, ROWS.values()):
        if name == setting.option:
            return (
                "a secret on the command line can be read by everybody on this machine;"
                f" use {name}-file, or the variable {setting.variable}"
            )
    if not re.fullmatch(r"--[a-z]{2,}(-[a-z]+)*|-[A-Za-z]", name) or len(name) > 40:
        return "an argument was not understood (not shown)"
    known = [option for action in parser._actions for option in action.option_strings]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; {close[0]} perhaps?" if close else ""
    return f"unknown option {name}{hint}"


def fail(command: str, text: str) -> int:
    """Say why nothing was done; the exit code."""
    print(f"keyproxy {command}: {text}", file=sys.stderr)
    return 1


def report(command: str, faults: SettingsFaults) -> int:
    """Print every fault on stderr, each with the line to paste; the exit code."""
    count = len(faults.faults)
    what = "one setting is" if count == 1 else f"{count} settings are"
    print(f"keyproxy {command}: {what} missing or wrong", file=sys.stderr)
    columns = shutil.get_terminal_size().columns if sys.stderr.isatty() else sys.maxsize
    for fault in faults.faults:
        text, *pasted = map(printable, str(fault).split("\n"))  # what is pasted is never broken
        print("", *wrapped(text, columns), *pasted, sep="\n", file=sys.stderr)
    return 2


def print_columns(rows: Iterable[Sequence[str]], indent: int = 0) -> None:
    """Rows of texts in columns; where they are too wide, texts are broken between words."""
    from rich.console import Console  # 60 ms that --help need not wait for
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    for column in table.columns:
        column.overflow = "fold"  # a long name is shown whole, too
    width = None if sys.stdout.isatty() else MOST_COLUMNS
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(table, width=console.width - indent)
    for text in captured.get().splitlines():
        print(" " * indent + text.rstrip())
