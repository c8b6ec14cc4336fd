"""``keyproxy dev``: run it beside a web app on this computer."""

from __future__ import annotations

from collections.abc import Sequence

from keyproxy.commands import demo, line
from keyproxy.errors import SettingsFaults
from keyproxy.settings.sources import Sources

SUMMARY = "run it beside a web app on this computer, for one person"

# `make run` passes ARGS on; the port behind ours is that of figures about us.
_BY_MAKE = "make run ARGS='--listen localhost:8486'"


def main(arguments: Sequence[str]) -> int:
    parser = line.parser(
        "dev", f"{SUMMARY}: loopback only, comfortable defaults, a chat page at /."
    )
    parser.add_argument(
        "--or-demo", action="store_true", help="run the demo when no key is set anywhere"
    )
    line.add_settings(parser, ["dev"])
    given = line.parse(parser, arguments)
    sources = Sources.of_process("dev", given.options, given.env_file)
    if given.flags.or_demo and not sources.has_key():
        return demo.start(given, _BY_MAKE, f"this is the demo: {sources.why_no_key()}")
    try:
        settings = sources.read()
    except SettingsFaults as faults:
        return line.report("dev", faults)
    from keyproxy.server.process import LISTEN, run  # the whole server; --help need not load it

    return run(settings, sources, _BY_MAKE if given.flags.or_demo else LISTEN)
