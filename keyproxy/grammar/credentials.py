"""Whether what an app asks of its callers can be shown at all. Pure.

Asked once all values are known, because the answer may stand in another app.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyproxy.errors import SettingsFault


def credential_faults(
    default: Mapping[str, Any], apps: Mapping[str, Mapping[str, Any]]
) -> list[SettingsFault]:
    """A fault for each app that no caller could ever reach. Values are by field name."""
    found = []
    if _needs_tokens(default) and not any(app.get("client_tokens") for app in apps.values()):
        found.append(_without_tokens())
    found += [_without_tokens().of_app(name) for name, app in apps.items() if _needs_tokens(app)]
    return found


def _needs_tokens(values: Mapping[str, Any]) -> bool:
    return values.get("client_auth") == "token" and values.get("client_tokens") == ()


def _without_tokens() -> SettingsFault:
    return SettingsFault(
        "KEYPROXY_CLIENT_TOKENS",
        expected="at least one client token, since KEYPROXY_CLIENT_AUTH is token;"
        " `keyproxy token NAME` makes one and prints the line",
        paste="KEYPROXY_CLIENT_TOKENS=phone:<its SHA-256>",
    )
