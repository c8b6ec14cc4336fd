"""The form of provider keys: what a key variable may hold, and where a key must not be.

Nothing here repeats a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from keyproxy.key_forms import LIKELY, owner
from keyproxy.settings.grammar.base import Unfit
from keyproxy.values import Secret

KEY = "OPENROUTER_API_KEY"
KEY_FILE = f"{KEY}_FILE"
_SHORTEST = 8
# A comma or a line end, so that a key file may hold one key a line.
_BETWEEN = re.compile(r",[ \t]*|\r?\n")
_PLACEHOLDER = re.compile(
    r"\.\.\.|…|[<>]|\$\{|(?<![A-Za-z0-9])your|x{6,}|change-?me", re.IGNORECASE
)

# Beginnings of names that build tools copy into the page: Vite, Next, Create React App, Expo,
# Astro and SvelteKit, Nuxt, Gatsby, Vue CLI.
_BUNDLED = (
    "VITE_",
    "NEXT_PUBLIC_",
    "REACT_APP_",
    "EXPO_PUBLIC_",
    "PUBLIC_",
    "NUXT_PUBLIC_",
    "GATSBY_",
    "VUE_APP_",
)
# Google writes keys that are meant for pages (Firebase, Maps) in the form of Gemini's.
_MEANT_FOR_PAGES = re.compile(r"FIREBASE|MAPS|PLACES|YOUTUBE|RECAPTCHA|FCM")
_WITHOUT_PREFIX = re.compile(r"MISTRAL|DEEPINFRA")
OPENROUTER = "OpenRouter"
# What people write for OPENROUTER_API_KEY, without underscores.
_MISNAMED = re.compile(
    r"(?:KEYPROXY|MY)?OPENROUTER?(?:API)?(?:KEYS?|TOKEN|SECRET|SECRETKEY)?(?:FILE)?"
    r"|KEYPROXY(?:API)?KEY(?:FILE)?"
)


def keys(text: str) -> tuple[Secret, ...]:
    """Keys in their order, comma or newline separated; one trailing newline is dropped."""
    parts = _BETWEEN.split(re.sub(r"\r?\n\Z", "", text))
    for number, part in enumerate(parts, 1):
        trouble = _trouble(part)
        if trouble:
            which = "a value that" if len(parts) == 1 else f"a list whose key {number} "
            raise Unfit(
                "the key as the provider shows it, several by comma or one a line",
                found=f"{which.rstrip()} {trouble}",
            )
    return tuple(Secret(part) for part in dict.fromkeys(parts))


def _trouble(key: str) -> str | None:
    if not key:
        return "is empty"
    if re.match(r"bearer\b", key, re.IGNORECASE):
        return "begins with Bearer (the key alone is wanted)"
    if any(quote in key for quote in "\"'`"):
        return "holds quotes (of a shell or an env file, not of the key)"
    if _PLACEHOLDER.search(key):
        return "is a placeholder"
    if not re.fullmatch(r"[!-~]+", key):
        return "holds a space, a control character or a letter beyond ASCII"
    if len(key) < _SHORTEST:
        return f"is shorter than {_SHORTEST} characters"
    return None


def bundled_keys(environ: Mapping[str, str], own: Iterable[Secret] = ()) -> list[str]:
    """Names of the variables that a build tool puts into the page and that hold a key.

    ``own`` are the configured keys, which are found whatever their shape.
    """
    known = tuple(own)
    return [
        name
        for name, value in environ.items()
        if name.startswith(_BUNDLED)
        and (_holds_key(name, value) or any(key.is_in(value) for key in known))
    ]


def foreign_issuer(key: Secret) -> str | None:
    """Who gives out keys that begin as ``key`` does, if that is not OpenRouter."""
    name = owner(key.reveal())
    return None if name == OPENROUTER else name


def is_of_openrouter(key: Secret) -> bool:
    """Whether ``key`` begins as OpenRouter's keys do."""
    return owner(key.reveal()) == OPENROUTER


def misnamed(environ: Mapping[str, str]) -> str | None:
    """The variable that holds a key for OpenRouter, or its file's name, where nobody looks."""
    for name, value in environ.items():
        text = value.strip()
        if len(text) < _SHORTEST or "://" in text or _PLACEHOLDER.search(text):
            continue
        is_near = _MISNAMED.fullmatch(re.sub(r"[_-]", "", name).upper())
        is_ours = is_near or owner(text) == OPENROUTER
        if is_ours and not name.startswith(_BUNDLED):  # those are a fault of their own
            return name
    return None


def _holds_key(name: str, value: str) -> bool:
    if match := LIKELY.search(value):
        return not (owner(match.group()) == "Google" and _MEANT_FOR_PAGES.search(name))
    is_bare = re.fullmatch(r"[A-Za-z0-9]{32}", value.strip())
    return bool(is_bare and _WITHOUT_PREFIX.search(name))
