"""``keyproxy dev``, ``keyproxy serve`` and ``keyproxy demo``: run it until it is stopped."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import sys
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from keyproxy.commands import line
from keyproxy.errors import SettingsFault, SettingsFaults
from keyproxy.settings import Settings
from keyproxy.settings.grammar.network import networks
from keyproxy.settings.sources import Sources

# `make run` passes ARGS on; the port behind ours is that of figures about us.
_BY_MAKE = "make run ARGS='--listen localhost:8486'"

_CAS = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # where OpenSSL looks first


def dev(arguments: Sequence[str]) -> int:
    """Beside a web app, for one person."""
    parser = line.parser("dev", "Loopback only, comfortable defaults, a chat page at /.")
    parser.flag("--or-demo", "run the demo when no key is set anywhere")
    lan = (
        "listen at one private address of this computer, too, for devices that were paired by the"
        " code it prints [default: the address that leads out]"
    )
    parser.option("--lan", "ADDRESS", lan, nargs="?", const="")
    given = line.parse(parser, arguments, ["dev"])
    sources, lan = given.sources("dev"), given.flags.lan
    if not given.flags.or_demo:
        return _run(sources, lan=lan)
    if (reason := sources.why_no_key()) is None:
        return _run(sources, _BY_MAKE, lan=lan)
    return _run(given.sources("demo"), _BY_MAKE, f"this is the demo: {reason}", lan)


def serve(arguments: Sequence[str]) -> int:
    """For others; nothing is assumed."""
    return _run(line.parse(line.parser("serve"), arguments, ["serve"]).sources("serve"))


def demo(arguments: Sequence[str]) -> int:
    """Against a built-in fake upstream."""
    parser = line.parser(
        "demo",
        "A chat page is at /. The models demo/slow, demo/429, demo/cut and others do what a page"
        " must cope with (docs/frameworks.md).",
    )
    return _run(line.parse(parser, arguments, ["demo"]).sources("demo"))


def _run(
    sources: Sources,
    listen: str = "--listen",
    why: str | None = None,
    lan: str | None = None,
) -> int:
    """``listen`` is how another port is chosen; ``why`` it is the demo, where nobody asked.
    ``lan``: the private address to listen at, "" for the one that leads out."""
    try:
        settings = sources.read()
        address = None if lan is None else lan_address(settings, lan)
    except SettingsFaults as faults:
        return line.report(sources.mode, faults)
    run = load_server()
    if address is None:
        return run(settings, sources, listen, why)
    from keyproxy.pairing import Pairing

    return run(settings, sources, listen, why, Pairing(address))


def lan_address(settings: Settings, said: str) -> IPv4Address | IPv6Address:
    """The one private address of this computer to listen at. Raises ``SettingsFaults``."""
    if settings.mode == "dev" and not settings.total_budget:
        raise _fault("KEYPROXY_TOTAL_BUDGET", "off", "a budget with --lan, such as 5/day")
    if said:
        try:
            address = ip_address(said)
        except ValueError:
            raise _fault("--lan", "no address", "an address of this computer") from None
        if not is_private(address):
            what = "one private address: 10.…, 172.16.… to 172.31.…, 192.168.… or fd…"
            raise _fault("--lan", str(address), what)
        return address
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))  # sends nothing: it asks the routing table
            address = ip_address(probe.getsockname()[0])
            if is_private(address):
                return address
    what = "a private address of this computer; none leads out of it, so name one: --lan=192.168.…"
    raise _fault("--lan", "without an address", what)


def is_private(address: IPv4Address | IPv6Address) -> bool:
    return any(address in network for network in networks("private"))


def _fault(name: str, found: str, expected: str) -> SettingsFaults:
    return SettingsFaults([SettingsFault(name, found=found, expected=expected)])


def load_server() -> Callable[..., int]:
    """The server's ``run``, without what libraries load beside it: half of the time in all.

    What is loaded stays: nothing is garbage until ``server.memory`` lets it be looked for.
    aiohttp makes two contexts that read all CAs of the system; ours are ``transport.client``'s, and
    these trust nobody. structlog takes rich for tracebacks that we have written plainly.
    """
    gc.disable()
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
