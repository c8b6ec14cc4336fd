"""``keyproxy ping``: the health check of images. Loads no HTTP client, so that it is quick.

Reads the settings where the others do; what else is wrong with them, those say.
"""

from __future__ import annotations

import contextlib
import http.client
import sys
from collections.abc import Sequence
from dataclasses import replace

from keyproxy.commands import line
from keyproxy.settings import ROWS, Address
from keyproxy.settings.grammar import Unfit
from keyproxy.settings.setting import spoken

TIMEOUT_SECONDS = 3.0  # below the five seconds after which the image's health check gives up

_EVERYWHERE = {
    "": ("127.0.0.1", "::1"),
    "localhost": ("127.0.0.1", "::1"),
    "0.0.0.0": ("127.0.0.1",),  # noqa: S104  # looked up, not bound
    "::": ("::1", "127.0.0.1"),
}


def main(arguments: Sequence[str]) -> int:
    listen = ROWS["listen"]
    parser = line.parser("ping", "Exit code 0: yes, 1: no.")
    parser.flag("--ready", "ask /readyz instead of /healthz")
    line.add_setting(parser, replace(listen, meaning="where it listens"), ["dev"])
    line.add_files(parser)
    given = line.parse(parser, arguments)
    found = given.sources("dev").look()
    text, place = found.said(listen.variable)
    if not text and found.unread:
        parser.error(str(found.unread[0]))  # it may say where, and another keyproxy may be here
    try:
        addresses = listen.parse(text or spoken(listen.dev))
    except Unfit as unfit:
        parser.error(f"{listen.variable} ({place or 'environment'}): expected {unfit.expected}")
    return _ask(addresses[0], "/readyz" if given.flags.ready else "/healthz")


def _ask(address: Address, path: str) -> int:
    trouble = "no answer"
    for host in _EVERYWHERE.get(address.host, (address.host,)):
        asking = http.client.HTTPConnection(host, address.port, timeout=TIMEOUT_SECONDS)
        try:
            with contextlib.closing(asking):
                asking.request("GET", path)
                status = asking.getresponse().status
        except ConnectionRefusedError:
            trouble = "nothing listens there"
        except (OSError, http.client.HTTPException) as error:
            trouble = f"no answer ({type(error).__name__})"
        else:
            if status == 200:
                print(f"{path} on port {address.port}: ok")
                return 0
            trouble = f"status {status}"
    print(f"{path} on port {address.port}: {trouble}", file=sys.stderr)
    return 1
