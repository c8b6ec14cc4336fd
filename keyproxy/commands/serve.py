"""``keyproxy serve``: run it for others; nothing is assumed."""

from __future__ import annotations

from collections.abc import Sequence

from keyproxy.commands import line
from keyproxy.errors import SettingsFaults
from keyproxy.settings.sources import Sources

SUMMARY = "run it for others; nothing is assumed, it lists what must be said"


def main(arguments: Sequence[str]) -> int:
    parser = line.parser("serve", f"{SUMMARY}.")
    line.add_settings(parser, ["serve"])
    given = line.parse(parser, arguments)
    sources = Sources.of_process("serve", given.options, given.env_file)
    try:
        settings = sources.read()
    except SettingsFaults as faults:
        return line.report("serve", faults)
    from keyproxy.server.process import run  # the whole server; --help need not load it

    return run(settings, sources)
