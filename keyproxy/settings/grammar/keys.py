"""Provider keys: whose they are, where they must not be, and where they are looked for in vain.

Nothing here repeats a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from keyproxy.key_forms import LIKELY, Secret, owner
from keyproxy.settings.grammar.secrets import SHORTEST_KEY, is_no_key

KEY = "OPENROUTER_API_KEY"
KEY_FILE = f"{KEY}_FILE"
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
        if len(text) < SHORTEST_KEY or "://" in text or is_no_key(text):
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
