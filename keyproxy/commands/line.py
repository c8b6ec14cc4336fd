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
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from keyproxy.errors import SettingsFaults
from keyproxy.settings import CONFIG, rows
from keyproxy.settings.grammar import mask
from keyproxy.settings.setting import SAY_IT, Mode, Setting, spoken

if TYPE_CHECKING:
    from rich.console import Console

MOST_COLUMNS = 100
"""Of what goes to no terminal."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and never repeats a value."""

    def error(self, message: str) -> NoReturn:
        # argparse quotes what was typed; a key may have been typed in the wrong place.
        if "ignored explicit argument" in message:
            message = message.split("ignored")[0] + "takes no value"
        text = re.sub(r": '.*?'(?= \(|$)", "", mask(message))
        self.exit(2, f"{self.prog}: {text} (see {self.prog} --help)\n")


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line said: variable -> text, the ``--env-file``, and flags."""

    options: Mapping[str, str]
    env_file: Path | None
    flags: argparse.Namespace


def parser(command: str, description: str) -> Parser:
    """An empty parser of one command."""
    return Parser(
        prog=f"keyproxy {command}".rstrip(),
        description=description,
        allow_abbrev=False,
        formatter_class=functools.partial(argparse.HelpFormatter, max_help_position=30),
    )


def add_settings(parser: Parser, modes: Sequence[Mode]) -> None:
    """Options that mirror the settings, with the defaults of ``modes``."""
    parser.usage = f"{parser.prog} [OPTIONS]"  # forty of them would fill the screen
    groups: dict[str, argparse._ArgumentGroup] = {}
    for setting in rows().values():
        if setting.is_secret and setting.file:
            continue  # a secret itself: arguments are visible to everybody on the machine
        if setting is CONFIG:
            continue  # below
        if "demo" in modes and setting.is_upstream:
            continue
        group = groups.get(setting.group)
        if group is None:
            group = groups[setting.group] = parser.add_argument_group(setting.group)
        _add(group, setting, modes)
    add_files(parser)


def add_files(parser: Parser) -> None:
    """Options that name the files which settings are read from."""
    group = parser.add_argument_group(CONFIG.group)
    _add(group, CONFIG, ["dev", "serve"])
    group.add_argument(
        "--env-file",
        metavar="FILE",
        type=Path,
        help="read this file instead of .env.local and .env of the working directory",
    )


def _add(group: argparse._ArgumentGroup, setting: Setting, modes: Sequence[Mode]) -> None:
    group.add_argument(
        setting.option,
        dest=setting.variable,
        metavar=setting.metavar,
        help=_help(setting, modes).replace("%", "%%"),
    )


def _help(setting: Setting, modes: Sequence[Mode]) -> str:
    defaults = {mode: _default(setting, mode) for mode in modes}
    if len(set(defaults.values())) == 1:
        default = defaults[modes[0]]
    else:
        default = ", ".join(f"{text} in {mode}" for mode, text in defaults.items())
    return f"{setting.meaning.replace('`', '')} [{setting.variable}; default: {default}]"


def _default(setting: Setting, mode: Mode) -> str:
    default = setting.default(mode)
    return "it must be said" if default is SAY_IT else spoken(default)


def parse(parser: Parser, arguments: Sequence[str]) -> Given:
    """What was given. An unknown option or a stray word ends the process with exit code 2."""
    namespace, extra = parser.parse_known_args(arguments)
    if extra:
        parser.error(_unknown(parser, extra[0]))
    variables = {setting.variable for setting in rows().values()}
    options = {
        name: value
        for name, value in vars(namespace).items()
        if name in variables and value is not None
    }
    return Given(options, getattr(namespace, "env_file", None), namespace)


def _unknown(parser: Parser, text: str) -> str:
    name = text.split("=")[0]
    if name == "--openrouter-api-key":
        return (
            "a key on the command line can be read by everybody on this machine;"
            " use --openrouter-api-key-file, or the variable OPENROUTER_API_KEY"
        )
    if not re.fullmatch(r"--[a-z]{2,}(-[a-z]+)*|-[A-Za-z]", name) or len(name) > 40:
        return "an argument was not understood (not shown)"
    known = [each for action in parser._actions for each in action.option_strings]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; {close[0]} perhaps?" if close else ""
    return f"unknown option {name}{hint}"


def wrapped(text: str, columns: int | None) -> str:
    """``text`` in lines of at most so many columns, where its words let it; None: as it is."""
    if columns is None:
        return text
    return textwrap.fill(text, columns, break_long_words=False, break_on_hyphens=False)


def report(command: str, faults: SettingsFaults) -> int:
    """Print every fault on stderr, each with the line to paste; the exit code."""
    count = len(faults.faults)
    what = "one setting is" if count == 1 else f"{count} settings are"
    print(f"keyproxy {command}: {what} missing or wrong", file=sys.stderr)
    columns = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    for fault in faults.faults:
        text, *pasted = str(fault).splitlines()  # what is pasted is never broken
        print("", wrapped(text, columns), *pasted, sep="\n", file=sys.stderr)
    return 2


def console(columns: int = MOST_COLUMNS) -> Console:
    """Standard output as wide as its terminal, else of ``columns``. A text is printed as it is,
    whoever wrote it: nothing in it is markup."""
    from rich.console import Console  # 60 ms that --help need not wait for

    width = None if sys.stdout.isatty() else columns
    return Console(width=width, highlight=False, markup=False, emoji=False)


def print_columns(rows: Iterable[Sequence[str]], indent: int = 0) -> None:
    """Rows of texts in columns; where they are too wide, texts are broken between words."""
    from rich.table import Table  # as above
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*map(Text, row))
    out = console()
    with out.capture() as captured:
        out.print(table, width=out.width - indent)
    for text in captured.get().splitlines():
        print(f"{'':{indent}}{text}".rstrip())
