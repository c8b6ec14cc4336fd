"""The names of variables: known, not in this version, injected by platforms, unknown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from keyproxy.errors import SettingsFault

PREFIX = "KEYPROXY_"

# Names reserved for features that this version does not have, with the values that ask for
# nothing, so that one configuration serves this version and a later one.
NOT_IN_THIS_VERSION: Mapping[str, tuple[str, ...]] = {
    "KEYPROXY_ADMIN": ("off",),
    "KEYPROXY_ADMIN_TOKEN_FILE": ("off",),
    "KEYPROXY_ADMIN_HOSTS": ("off",),
}

# What Kubernetes and Docker links set in each container for a service called keyproxy,
# keyproxy-web … (Kubernetes: Service, "environment variables").
_INJECTED = re.compile(
    r"KEYPROXY_(?:\w+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)",
    re.ASCII,
)
# Meant for us, and read by nobody: KEY_PROXY_LISTEN, keyproxy_listen, KEYPROX_LISTEN.
_MISSPELT = re.compile(r"key_?prox[yi]?_", re.IGNORECASE)
_INJECTED_ADDRESS = re.compile(r"KEYPROXY_(?:\w+_)?PORT", re.ASCII)


def is_injected(name: str, value: str) -> bool:
    """Whether a container platform set this, not a person."""
    if _INJECTED.fullmatch(name):
        return True
    return bool(_INJECTED_ADDRESS.fullmatch(name)) and "://" in value


def name_faults(environ: Mapping[str, str], known: Iterable[str]) -> list[SettingsFault]:
    """A fault for each KEYPROXY_ variable that this version cannot obey, and for near misses."""
    names = set(known)
    return [
        fault
        for name, value in sorted(environ.items())
        if _MISSPELT.match(name) and name not in names and value.strip()
        if (fault := _name_fault(name, value.strip(), names)) is not None
    ]


def _name_fault(name: str, value: str, known: set[str]) -> SettingsFault | None:
    nothing = NOT_IN_THIS_VERSION.get(name)
    if nothing is not None:
        if value in nothing:
            return None
        return SettingsFault(
            name,
            found="set, and this version does not have it",
            expected=f"unset or {' or '.join(nothing)}",
        )
    if is_injected(name, value):
        return None
    if not name.startswith(PREFIX):
        close = difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.85)
        if not close:
            return None
        return SettingsFault(name, found="not a setting", expected=f"{close[0]} perhaps?")
    return SettingsFault(name, found="not a setting", expected=nearest(name, known))


def nearest(name: str, known: Iterable[str]) -> str:
    """What to expect in place of an unknown name."""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"{close[0]} perhaps?" if close else "one of the names in docs/settings.md"
