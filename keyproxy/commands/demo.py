"""``keyproxy demo``: run it against a built-in fake upstream."""

from __future__ import annotations

from collections.abc import Sequence

from keyproxy.commands import line
from keyproxy.commands.line import Given
from keyproxy.errors import SettingsFaults
from keyproxy.settings.sources import Sources

SUMMARY = "run it against a built-in fake upstream; needs no key, no internet, no settings"


def main(arguments: Sequence[str]) -> int:
    parser = line.parser("demo", f"{SUMMARY}. A chat page is at /.")
    line.add_settings(parser, ["demo"])
    return start(line.parse(parser, arguments))


def start(given: Given, listen: str | None = None, why: str | None = None) -> int:
    """Run the demo with what was given; the exit code.

    ``listen`` is how another port is chosen; ``why`` is said, where nobody asked for the demo.
    """
    sources = Sources.of_process("demo", given.options, given.env_file)
    try:
        settings = sources.read()
    except SettingsFaults as faults:
        return line.report("demo", faults)
    from keyproxy.server.process import (  # the whole server; --help need not load it
        LISTEN,
        run_demo,
    )

    return run_demo(settings, sources, listen or LISTEN, why)
