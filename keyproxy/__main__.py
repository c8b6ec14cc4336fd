"""``keyproxy`` on the command line: finds the command and hands over to its module."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from keyproxy import __version__
from keyproxy.commands import COMMANDS

_LINES = [f"  keyproxy {name:<7}  {summary}" for name, (_, summary) in COMMANDS.items()]
_FIRST = "\n".join(_LINES[:5])  # which of these one wants
_HELP = "\n".join(
    [
        "usage: keyproxy COMMAND [OPTIONS]\n",
        "Holds an LLM provider key and serves the API key-free to web and mobile front ends.\n",
        *_LINES,
        "\noptions:",
        "  -h, --help     show this; keyproxy COMMAND --help shows the options of a command",
        "  --version      show the version",
    ]
)
_ENDED_BY_SIGPIPE = 141  # as a shell says it
_INSTEAD = {
    "": _FIRST,
    "-h": _HELP,
    "--help": _HELP,
    "--version": f"keyproxy {__version__}",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        try:
            return _run(sys.argv[1:] if arguments is None else arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read along has seen enough: keyproxy calls | head
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _ENDED_BY_SIGPIPE


def _run(arguments: Sequence[str]) -> int:
    first, *rest = arguments or [""]
    if first in COMMANDS:
        module, _, function = COMMANDS[first][0].partition(":")
        code: int = getattr(import_module(f"keyproxy.commands.{module}"), function)(rest)
        return code
    if first in _INSTEAD:
        print(_INSTEAD[first])
        return 0
    # Not repeated: it may be a key in the wrong place.
    print(
        f"keyproxy: not a command; one of {', '.join(COMMANDS)} (see keyproxy --help)",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())
