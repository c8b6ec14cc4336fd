"""``keyproxy explain``: which step would refuse a call, and which setting decides.

A dry run: nothing is sent and nothing is counted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from keyproxy.commands import line
from keyproxy.errors import SettingsFaults
from keyproxy.settings import Secret, Settings


def main(arguments: Sequence[str]) -> int:
    parser = line.parser("explain", "Exit code 0: it would be sent, 1: refused, 2: settings.")
    parser.option("--body", "FILE", "the JSON body; default: stdin")
    parser.flag("--serve", "by the rules of keyproxy serve")
    parser.flag("--json", "as one JSON object")
    parser.flag("--all", "a table of example calls instead")
    parser.option("--origin", "ORIGIN", "the page's origin; none is no page")
    parser.option("--host", "HOST", "the Host it calls; default: an allowed one")
    parser.option("--credential", "TEXT", "what the client sends as Authorization: Bearer")
    parser.option("--app", "NAME", "as a client of this app, whatever credential it wants")
    parser.option("--method", "METHOD", "default: POST with a body, else GET")
    parser.option("--path", "PATH", "default: /api/v1/chat/completions")
    given = line.parse(parser, arguments, ["dev", "serve"])
    flags = given.flags
    try:
        settings = given.sources("serve").read() if flags.serve else _or_demo(given)
    except SettingsFaults as faults:
        return line.report("explain", faults)
    if flags.app and flags.app not in {app.name for app in settings.all_apps}:
        parser.error(f"--app: one of {', '.join(app.name for app in settings.all_apps)}")
    fields = {"Host": flags.host or _host(settings)}
    if flags.origin and flags.origin != "none":
        fields["Origin"] = flags.origin
    if flags.credential:
        fields["Authorization"] = f"Bearer {flags.credential}"
    import asyncio  # --help need not load it, nor the rules

    from keyproxy.commands import explained
    from keyproxy.dry_run import Asked

    if flags.all:
        work = partial(explained.print_table, fields=fields, app=flags.app)
        return asyncio.run(explained.with_kit(settings, work))
    try:
        body = _read(flags.body)
    except OSError as error:
        parser.error(f"the body cannot be read ({error.strerror})")
    target = flags.path or explained.CHAT
    method = flags.method or explained.usual_method(target, body)
    asked = Asked(method.upper(), target, body, fields, flags.app)
    show = explained.print_json if flags.json else explained.print_steps
    return asyncio.run(explained.with_kit(settings, partial(show, asked=asked)))


def _or_demo(given: line.Given) -> Settings:
    """The settings of ``dev``, or where no key is set those of the demo, which needs none."""
    sources = given.sources("dev")
    if (reason := sources.why_no_key()) is None:
        return sources.read()
    from keyproxy.demo.upstream import DEMO_KEY

    print(f"keyproxy explain: as for keyproxy demo: {reason}\n", file=sys.stderr)
    return given.sources("demo").read().kept(keys=(Secret(DEMO_KEY),))


def _read(name: str | None) -> bytes | None:
    """The body in a file, or what is piped in; None where there is none."""
    if name not in (None, "-"):
        return Path(name).read_bytes() or None
    if name is None and sys.stdin.isatty():
        return None
    return sys.stdin.buffer.read() or None


def _host(settings: Settings) -> str:
    """An allowed Host to ask by, so that one need not be typed."""
    plain = [host for host in settings.allowed_hosts if "*" not in host and host != "any-ip"]
    host = plain[0] if plain else "127.0.0.1"
    is_direct = settings.mode == "dev" and ":" not in host
    return f"{host}:{settings.listen[0].port}" if is_direct else host
