"""What an operator should write: where something is no fault and looks like a mistake, a line
each; and where a call was refused, the refusal's hint in the notation of the right layer. Pure.

Rules write a hint as ``NAME=value``, or ``words: NAME=value``, with the whole new value; they know
neither files nor options. Words without a line pass as they are.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from keyproxy.call import BASE
from keyproxy.key_forms import key_in
from keyproxy.settings import KNOWN_ENDPOINTS, Settings, lines
from keyproxy.settings.grammar import Unfit, mask
from keyproxy.settings.grammar.network import is_openrouter
from keyproxy.settings.grammar.plain import expression
from keyproxy.settings.grammar.secrets import OPENROUTER
from keyproxy.settings.lines import is_safe
from keyproxy.settings.providers import is_short
from keyproxy.settings.table import row_of

# The paths of calls, which people copy into the base address.
_ENDPOINTS = sorted(
    {name.partition(f" {BASE}")[2] for name in KNOWN_ENDPOINTS if "{" not in name},
    key=len,
    reverse=True,
)

_LONGEST, _MOST = 200, 5_000


def odd(settings: Settings) -> list[str]:
    """What is odd in the settings themselves, a line each; nothing of a key is repeated."""
    odds = list(_idle(settings))
    if settings.mode == "demo":
        return odds
    is_used = any(each.name == "openrouter" for each in settings.providers)
    if not is_used and "KEYPROXY_UPSTREAM" in settings.places:
        odds.append("KEYPROXY_UPSTREAM has no effect: it is OpenRouter's address, and not used")
    if (base := _better(settings.upstream)) != settings.upstream:
        odds.append(
            f"KEYPROXY_UPSTREAM={settings.upstream} looks like no whole base address: calls go to"
            f" {settings.upstream}/chat/completions; write KEYPROXY_UPSTREAM={base}"
        )
    keys = [key for app in settings.all_apps for key in app.keys]
    if is_openrouter(settings.upstream) and any(key.owner != OPENROUTER for key in keys):
        odds.append("a key does not begin with sk-or-, as OpenRouter's keys do")
    for provider in settings.providers:
        if any(map(is_short, provider.keys)):
            odds.append(f"a key of {provider.name} is too short for answers to be searched for it")
    return odds


def _idle(settings: Settings) -> Iterator[str]:
    """What is set and has no effect, a line each."""
    asked = {app.client_auth for app in settings.all_apps}
    for name, auth, value in (
        ("KEYPROXY_CAPTCHA", "session", settings.captcha),
        ("KEYPROXY_SESSION_SECRET", "session", settings.session_secrets),
        ("KEYPROXY_JWT_SECRET", "jwt", settings.jwt_secret),
        ("KEYPROXY_JWT_JWKS_URL", "jwt", settings.jwt_jwks_url),
    ):
        if value is not None and auth not in asked:
            yield f"{name} has no effect: no app has the client auth {auth}"
    for name in ("KEYPROXY_ADMIN_HOSTS", "KEYPROXY_ADMIN_TOKEN", "KEYPROXY_ADMIN_TOKEN_FILE"):
        if not settings.admin and name in settings.places:
            yield f"{name} has no effect: KEYPROXY_ADMIN is off"
    for app in settings.all_apps:
        if app.client_tokens and app.client_auth != "token":
            whose = f"the client tokens of the app {app.name}"
            yield f"{whose} open nothing: its client auth is {app.client_auth}"
    hops, proxies = settings.trusted_hops, settings.trusted_proxies
    header = settings.client_address_header and "KEYPROXY_CLIENT_ADDRESS_HEADER"
    if header and not hops and not proxies:
        yield f"{header} is never believed, since KEYPROXY_TRUSTED_PROXIES names nobody"
    unread = [name for name in (proxies and "KEYPROXY_TRUSTED_PROXIES", header) if name]
    if hops and unread:
        yield f"KEYPROXY_TRUSTED_HOPS counts alone; {', '.join(unread)} is not read"


def _better(base: str) -> str:
    """The base address that ``base`` is meant to be."""
    if is_openrouter(base):
        return f"https://{urlsplit(base).netloc}{BASE}"
    for endpoint in _ENDPOINTS:
        base = base.removesuffix(endpoint)
    return base if urlsplit(base).path else f"{base}/v1"


def is_worth_a_look(settings: Settings) -> bool:
    """Whether a whole id is named, or a part of one: what is mistaken most."""
    return any(
        app.model_aliases or any("*" not in each or "/" not in each for each in named)
        for app in settings.all_apps
        for named in [[each for each in app.allowed_models if not each.startswith("*")]]
    )


def unlisted(settings: Settings, listed: Collection[str]) -> list[str]:
    """What in the lists of models and aliases is none of ``listed``, the upstream's own names."""
    if not listed:
        return []
    # Somebody else's names: bounded, since globs are tried on them, and fit for a terminal.
    fit = sorted(name for name in listed if len(name) <= _LONGEST and name.isprintable())[:_MOST]
    text = "\n".join(fit)
    # What is written down for pasting must be one name, and neither a list nor a pattern.
    single = "\n".join(name for name in fit if is_safe(name) and "*" not in name)
    advice: list[str] = []
    for app in settings.all_apps:
        where = "" if app is settings else f" of [apps.{app.name}]"
        for pattern in app.allowed_models:
            name = pattern.removeprefix("!")
            mark = pattern.removesuffix(name)
            if not _matches(name, text, is_exclusion=bool(mark)):
                write = " or ".join(f"{mark}{each}" for each in _instead(name, single))
                trouble = f"{mask(pattern)} matches no model of the upstream's list"
                advice.append(f"KEYPROXY_ALLOWED_MODELS{where}: {trouble}; {_advice(write)}")
        for alias, model in app.model_aliases:
            if not _matches(model, text):
                write = "".join(f"{alias}={each}" for each in _instead(model, single)[:1])
                trouble = f"{alias}={mask(model)} stands for no model of the upstream's list"
                advice.append(f"KEYPROXY_MODEL_ALIASES{where}: {trouble}; {_advice(write)}")
    return list(dict.fromkeys(advice))


def _advice(write: str) -> str:
    return f"write {write}" if write else "GET /api/v1/models says which there are"


def _matches(pattern: str, text: str, *, is_exclusion: bool = False) -> bool:
    """Whether a line of ``text`` is meant, with or without what routes it (``:nitro``)."""
    flags = re.M | re.I if is_exclusion else re.M
    return any(
        re.search(f"^{expression(each)}$", text, flags)
        for each in (pattern, pattern.partition(":")[0])
    )


def _instead(pattern: str, text: str) -> list[str]:
    """What to write in the place of a pattern that matches nothing: an id, a glob, or nothing."""
    name, mark, variants = pattern.partition(":")
    if same := re.search(f"^{expression(name)}$", text, re.M | re.I):
        return [(name.lower() if "*" in name else same[0]) + mark + variants]
    if "/" not in name and (owned := re.search(f"^.*/{expression(name)}$", text, re.M | re.I)):
        author, tail = owned[0].rsplit("/", 1)
        tail = name.lower() if "*" in name else tail
        return [f"{author}/{tail}{mark}{variants}", f"*/{tail}{mark}{variants}"]
    return difflib.get_close_matches(name, text.split("\n"), n=1, cutoff=0.75)


def written_hint(hint: str | None, app: Settings) -> str | None:
    """``hint`` to somebody who runs ``app``; None where nothing is left to say.

    A line that the setting would not take is left out, and so is one that repeats a secret.
    """
    parts = hint and lines.taken_apart(hint)
    if not parts:
        return hint
    words, variable, value = parts
    # Sessions that could not be signed are no single line's to cure.
    lacks_secret = value == "session" and app.mode == "serve" and not app.session_secrets
    line = None
    if _is_value(variable, value) and not lacks_secret:
        line = lines.line(variable, value, app.places.get(variable, ""))
    return words.removesuffix(": ") or None if line is None else words + line


def _is_value(variable: str, value: str) -> bool:
    row = row_of(variable)
    if row is None or row.is_secret or key_in(value):
        return False
    entries = value.split(row.separator) if row.separator else [value]
    # Models that are excluded are no list of their own.
    return all(_is_entry(row.parse, entry.removeprefix("!")) for entry in entries)


@lru_cache(maxsize=1024)  # a list of patterns takes a millisecond, and refusals come in floods
def _is_entry(parse: Callable[[str], Any], text: str) -> bool:
    try:
        parse(text)
    except Unfit:
        return False
    return True
