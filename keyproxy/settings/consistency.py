"""Whether what an app asks of its callers can be shown at all. Pure.

Asked once all values are known, because the answer may stand in another app.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyproxy.errors import SettingsFault
from keyproxy.settings.grammar import jwt
from keyproxy.settings.grammar.keys import issuer
from keyproxy.settings.grammar.network import is_openrouter
from keyproxy.settings.grammar.sessions import MAKING
from keyproxy.settings.lines import of_app
from keyproxy.settings.setting import Mode

Values = Mapping[str, Any]
_KEY = "OPENROUTER_API_KEY"
TEST_SECRETS = frozenset(
    {*(f"{n}x0000000000000000000000000000000AA" for n in "123"), "0x" + "0" * 40}
)
"""What Turnstile's and hCaptcha's documents give out for tests."""


def credential_faults(
    mode: Mode, default: Values, apps: Mapping[str, Values], said_total: bool
) -> list[SettingsFault]:
    """A fault for everything without which no caller could get in, or anybody at any cost.

    Values are by field name. ``said_total``: whether a total budget was spoken of.
    """
    found = []
    if _lacks_tokens(default) and not any(app.get("client_tokens") for app in apps.values()):
        found.append(_without_tokens())
    found += [of_app(_without_tokens(), name) for name, app in apps.items() if _lacks_tokens(app)]
    found += jwt_faults(default)
    found += [of_app(fault, name) for name, app in apps.items() for fault in jwt_faults(app)]
    asks_for_sessions = any(
        values.get("client_auth") == "session" for values in (default, *apps.values())
    )
    # One person's sessions may end with the process; those of many replicas must agree.
    if asks_for_sessions and mode == "serve" and default.get("session_secrets", "") is None:
        found.append(_without_secret())
    tables = {"": default, **{f" in apps.{name}": values for name, values in apps.items()}}
    open_to_all = [where for where, each in tables.items() if each.get("client_auth") == "none"]
    if mode == "serve" and open_to_all and not said_total:
        found.append(
            SettingsFault(
                "KEYPROXY_TOTAL_BUDGET",
                expected="what all callers together may cost, in USD, since anybody may call"
                f" (KEYPROXY_CLIENT_AUTH is none{open_to_all[0]}); off is an answer",
                paste="KEYPROXY_TOTAL_BUDGET=5/day",
            )
        )
    if default.get("captcha") is not None and default.get("captcha_secret", "") is None:
        found.append(_without_captcha_secret(default["captcha"]))
    secret = default.get("captcha_secret")
    if mode == "serve" and secret is not None and secret.reveal() in TEST_SECRETS:
        found.append(
            SettingsFault(
                "KEYPROXY_CAPTCHA_SECRET",
                found="one that its vendor gives out for tests, which says yes to anything",
                expected="the secret key of your own site",
            )
        )
    return found


def foreign_key_faults(values: Values, said: Mapping[str, str]) -> list[SettingsFault]:
    """A fault where a key of another provider would go to OpenRouter.

    ``said``: the variables that gave the app its key.
    """
    found = [issuer(key) for key in values.get("keys", ())]
    owner = next(filter(None, found), None)
    if owner is None or not is_openrouter(values.get("upstream", "")):
        return []
    is_file = not said.get(_KEY, "").strip()
    number = f"a list whose number {found.index(owner) + 1} is " if len(found) > 1 else ""
    return [
        SettingsFault(
            f"{_KEY}_FILE" if is_file else _KEY,
            found=f"{number}a key of {owner}'s, and calls go to OpenRouter",
            expected="a key of OpenRouter's, from https://openrouter.ai/settings/keys",
            paste=f"{_KEY}=sk-or-v1-…",
        )
    ]


def jwt_faults(values: Values) -> list[SettingsFault]:
    """What is wrong with an app's settings for JWTs, where it asks for them."""
    names = ("jwt_secret", "jwt_jwks_url", "jwt_issuer", "jwt_audiences", "jwt_algorithms")
    if values.get("client_auth") != "jwt" or any(name not in values for name in names):
        return []
    secret, url, issuer, audiences, algorithms = (values[name] for name in names)
    return jwt.faults(secret, url, issuer, audiences or (), algorithms)


def _lacks_tokens(values: Values) -> bool:
    return values.get("client_auth") == "token" and values.get("client_tokens") == ()


def _without_tokens() -> SettingsFault:
    return SettingsFault(
        "KEYPROXY_CLIENT_TOKENS",
        expected="at least one client token, since KEYPROXY_CLIENT_AUTH is token;"
        " `keyproxy token NAME` makes one and prints the line",
        paste="keyproxy token phone",
    )


def _without_secret() -> SettingsFault:
    return SettingsFault(
        "KEYPROXY_SESSION_SECRET",
        expected="a random text of 32 characters or more, the same in every replica, since"
        " KEYPROXY_CLIENT_AUTH is session (or KEYPROXY_SESSION_SECRET_FILE)",
        paste=f"KEYPROXY_SESSION_SECRET=$({MAKING})",
    )


def _without_captcha_secret(vendor: str) -> SettingsFault:
    return SettingsFault(
        "KEYPROXY_CAPTCHA_SECRET",
        expected=f"the secret key that {vendor} shows beside the site key, since KEYPROXY_CAPTCHA"
        f" is {vendor} (or KEYPROXY_CAPTCHA_SECRET_FILE)",
    )
