"""``keyproxy`` on the command line: finds the command and hands over to its module."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import cast

from keyproxy import __version__

COMMANDS: Mapping[str, str] = {
    "dev": "run it beside a web app on this computer",
    "serve": "run it for others; it lists what must be said",
    "demo": "try it with a built-in fake upstream: no key, no internet, no settings",
    "check": "are the settings right, does the key work?",
    "explain": "which step would refuse a call, and what to change",
    "usage": "what was spent, by day, app, client, model or status",
    "token": "make a client token; only its hash is stored",
    "ping": "health check of a running keyproxy, for images",
}
_ALL = [f"  keyproxy {name:<7} {summary}" for name, summary in COMMANDS.items()]
_FIRST = _ALL[:5]  # what a person wants; the last is for images
_HELP = f"""usage: keyproxy COMMAND [OPTIONS]

Holds an LLM provider key and serves the API key-free to web and mobile front ends.

{chr(10).join(_ALL)}

options:
  -h, --help     show this; keyproxy COMMAND --help shows the options of a command
  --version      show the version
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    first, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if first in COMMANDS:
        command = import_module(f"keyproxy.commands.{first}")
        return cast("Callable[[Sequence[str]], int]", command.main)(rest)
    if first == "":
        print("\n".join(_FIRST))
    elif first in {"-h", "--help"}:
        print(_HELP, end="")
    elif first == "--version":
        print(f"keyproxy {__version__}")
    else:
        # Not repeated: it may be a key in the wrong place.
        print(
            f"keyproxy: not a command; one of {', '.join(COMMANDS)} (see keyproxy --help)",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
