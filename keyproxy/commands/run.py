"""``keyproxy dev``, ``keyproxy serve`` and ``keyproxy demo``: run it until it is stopped."""

from __future__ import annotations

from collections.abc import Sequence

from keyproxy.commands import line
from keyproxy.errors import SettingsFaults
from keyproxy.settings.sources import Sources

# `make run` passes ARGS on; the port behind ours is that of figures about us.
_BY_MAKE = "make run ARGS='--listen localhost:8486'"


def dev(arguments: Sequence[str]) -> int:
    """Beside a web app, for one person."""
    parser = line.parser("dev", "Loopback only, comfortable defaults, a chat page at /.")
    parser.add_argument(
        "--or-demo", action="store_true", help="run the demo when no key is set anywhere"
    )
    given = line.parse(parser, arguments, ["dev"])
    sources = given.sources("dev")
    if not given.flags.or_demo:
        return _run(sources)
    if (reason := sources.why_no_key()) is None:
        return _run(sources, _BY_MAKE)
    return _run(given.sources("demo"), _BY_MAKE, f"this is the demo: {reason}")


def serve(arguments: Sequence[str]) -> int:
    """For others; nothing is assumed."""
    return _run(line.parse(line.parser("serve"), arguments, ["serve"]).sources("serve"))


def demo(arguments: Sequence[str]) -> int:
    """Against a built-in fake upstream."""
    parser = line.parser("demo", "A chat page is at /.")
    return _run(line.parse(parser, arguments, ["demo"]).sources("demo"))


def _run(sources: Sources, listen: str = "--listen", why: str | None = None) -> int:
    """``listen`` is how another port is chosen; ``why`` it is the demo, where nobody asked."""
    try:
        settings = sources.read()
    except SettingsFaults as faults:
        return line.report(sources.mode, faults)
    from keyproxy.server import process  # the whole server; --help need not load it

    return process.run(settings, sources, listen, why)
