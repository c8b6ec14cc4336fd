"""``keyproxy dev``, ``keyproxy serve`` and ``keyproxy demo``: run it until it is stopped."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from keyproxy.commands import line
from keyproxy.errors import SettingsFaults
from keyproxy.settings import Settings
from keyproxy.settings.sources import Sources

# `make run` passes ARGS on; the port behind ours is that of figures about us.
_BY_MAKE = "make run ARGS='--listen localhost:8486'"

_CAS = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # where OpenSSL looks first


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
    return load_server()(settings, sources, listen, why)


def load_server() -> Callable[[Settings, Sources, str, str | None], int]:
    """The server's ``run``, without what libraries load beside it: half of the time in all.

    aiohttp makes two contexts that read all CAs of the system; ours are ``transport.client``'s, and
    these trust nobody. structlog takes rich for tracebacks that we have written plainly.
    """
    environ, hidden = dict(os.environ), {"rich"} - sys.modules.keys()
    os.environ |= dict.fromkeys(_CAS, os.devnull)
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # the way to say: not there
    try:
        from keyproxy.server.process import run
    finally:
        for name in hidden:
            del sys.modules[name]
        for name in _CAS:
            del os.environ[name]
        os.environ |= environ
    return run
