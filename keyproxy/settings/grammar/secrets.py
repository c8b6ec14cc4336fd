"""The form of secrets as files and variables hold them: provider keys, what signs sessions, a
captcha's secret key, client tokens; and where keys must not be. Nothing here repeats a value."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from keyproxy.dataclass import dataclass
from keyproxy.key_forms import KNOWN, Secret, key_in, owner
from keyproxy.settings.grammar import Unfit, shown

SHORTEST_KEY = 8
SHORTEST = 32
"""Characters of a secret that signs sessions; RFC 2104, 3: no shorter than the hash."""
_PLACEHOLDER = re.compile(
    r"\.\.\.|…|[<>]|\$[{(]|(?<![A-Za-z0-9])your|your[-_]|change-?me|change[-_]", re.IGNORECASE
)
_MOST_SESSION_SECRETS = 2
_FEWEST_DIFFERENT = 8  # 32 random hex digits have fewer once in 25 million
MAKING = "openssl rand -hex 32"
"""Prints a secret."""
# A comma or a line end, so that a file may hold one a line.
_BETWEEN = re.compile(r",[ \t]*|\r?\n")
OPENROUTER = "OpenRouter"
KEY = "OPENROUTER_API_KEY"
KEY_FILE = f"{KEY}_FILE"
KEYS_PAGE = "https://openrouter.ai/settings/keys"
# Beginnings of names that build tools copy into the page: Vite, Next, Create React App, Expo,
# Astro and SvelteKit, Nuxt, Gatsby, Vue CLI.
_BUNDLED = re.compile(r"(?:VITE|(?:NEXT_|EXPO_|NUXT_)?PUBLIC|REACT_APP|GATSBY|VUE_APP)_")
# Google writes keys that are meant for pages (Firebase, Maps) in the form of Gemini's.
_MEANT_FOR_PAGES = re.compile(r"FIREBASE|MAPS|PLACES|YOUTUBE|RECAPTCHA|FCM")
_WITHOUT_PREFIX = re.compile("|".join(name.upper() for name in KNOWN if not KNOWN[name].owner))
# What people write for OPENROUTER_API_KEY, without underscores.
_MISNAMED = re.compile(
    r"(?:KEYPROXY|MY)?OPENROUTER?(?:API)?(?:KEYS?|TOKEN|SECRET|SECRETKEY)?(?:FILE)?"
    r"|KEYPROXY(?:API)?KEY(?:FILE)?"
)
_TOKEN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_PAIRS = "name:sha256-hex pairs, comma separated or one a line (`keyproxy token` makes one)"


def keys(text: str) -> tuple[Secret, ...]:
    """Provider keys in their order, comma or newline separated."""
    parts = _parts(text)
    for number, part in enumerate(parts, 1):
        trouble = "is a placeholder" if is_no_key(part) else _trouble(part, SHORTEST_KEY)
        if re.match(r"bearer\b", part, re.IGNORECASE):
            trouble = "begins with Bearer (the key alone is wanted)"
        if trouble:
            which = "a value that" if len(parts) == 1 else f"a list whose key {number}"
            raise Unfit(
                "the key as the provider shows it, several by comma or one a line",
                found=f"{which} {trouble}",
            )
    return tuple(Secret(part) for part in dict.fromkeys(parts))


def keys_or_none(text: str) -> tuple[Secret, ...]:
    """As ``keys``, or the word ``none``."""
    return () if text.strip() == "none" else keys(text)


def is_no_key(text: str) -> bool:
    """Whether a text stands where a key should, such as ``sk-or-v1-xxxxxxxx``."""
    return bool(_PLACEHOLDER.search(text) or re.search("x{6,}", text, re.IGNORECASE))


def bundled_keys(environ: Mapping[str, str], own: Collection[Secret] = ()) -> list[str]:
    """Names of the variables that a build tool puts into the page and that hold a key.

    ``own`` are the configured keys, which are found whatever their shape.
    """
    return [
        name
        for name, value in environ.items()
        if _BUNDLED.match(name)
        and (_holds_key(name, value) or any(key.is_in(value) for key in own))
    ]


def misnamed(environ: Mapping[str, str]) -> str | None:
    """The variable that holds a key for OpenRouter, or its file's name, where nobody looks."""
    for name, value in environ.items():
        text = value.strip()
        if len(text) < SHORTEST_KEY or "://" in text or is_no_key(text):
            continue
        is_near = _MISNAMED.fullmatch(re.sub(r"[_-]", "", name).upper())
        is_ours = is_near or owner(text) == OPENROUTER
        if is_ours and not _BUNDLED.match(name):  # those are a fault of their own
            return name
    return None


def _holds_key(name: str, value: str) -> bool:
    if match := key_in(value):
        return not (owner(match.group()) == "Google" and _MEANT_FOR_PAGES.search(name))
    is_bare = re.fullmatch(r"[A-Za-z0-9]{32}", value.strip())
    return bool(is_bare and _WITHOUT_PREFIX.search(name))


def session_secret(text: str) -> tuple[Secret, ...]:
    """One secret, or two by comma or one a line: the first signs, both are accepted.

    So a secret is changed without ending a session: the new one is put before the old one,
    which is taken out once its last session has ended.
    """
    parts = _parts(text)
    trouble = next(filter(None, (_trouble(part, SHORTEST) for part in parts)), None)
    if len(parts) > _MOST_SESSION_SECRETS:
        trouble = f"holds {len(parts)} secrets"
    elif trouble is None and any(len(set(part)) < _FEWEST_DIFFERENT for part in parts):
        trouble = "repeats a few characters"
    if trouble:
        raise Unfit(
            f"at least {SHORTEST} random characters, as `{MAKING}` prints them; while the secret"
            " is being changed, two by comma, the new one first",
            found=f"a value that {trouble}",
            line=MAKING,
        )
    return tuple(Secret(part) for part in dict.fromkeys(parts))


def given_out(text: str) -> Secret:
    """A secret that somebody else may have made: a captcha's vendor, the receiver of alerts."""
    expected = "8 to 256 printable characters without a space, as they were given out"
    secret = _one(text, 8, expected)
    if len(secret.reveal()) > 256:
        raise Unfit(expected, found="a value that is longer than 256 characters")
    return secret


def admin_token(text: str) -> Secret:
    """What those who watch show."""
    expected = f"at least {SHORTEST} random characters, as `{MAKING}` prints them"
    return _one(text, SHORTEST, expected, MAKING)


def _one(text: str, shortest: int, expected: str, line: str | None = None) -> Secret:
    value = _without_line_end(text)
    if trouble := _trouble(value, shortest):
        raise Unfit(expected, found=f"a value that {trouble}", line=line)
    return Secret(value)


def _without_line_end(text: str) -> str:
    return re.sub(r"\r?\n\Z", "", text)


def _parts(text: str) -> list[str]:
    """The secrets of a list; one line end behind the last is dropped."""
    return _BETWEEN.split(_without_line_end(text))


def _trouble(secret: str, shortest: int) -> str | None:
    """What is wrong with a secret that a machine made, in half a sentence."""
    if not secret:
        return "is empty"
    if any(quote in secret for quote in "\"'`"):
        return "holds quotes (of a shell or an env file, not of the value)"
    if _PLACEHOLDER.search(secret):
        return "is a placeholder"
    if not re.fullmatch(r"[!-~]+", secret):
        return "holds a space, a control character or a letter beyond ASCII"
    return f"is shorter than {shortest} characters" if len(secret) < shortest else None


@dataclass(frozen=True, slots=True)
class ClientToken:
    """Who shows a certain client token; ``digest`` is its SHA-256, 32 bytes."""

    name: str
    digest: bytes

    @property
    def pair(self) -> str:
        """What a list of client tokens says of it."""
        return f"{self.name}:{self.digest.hex()}"


def client_tokens(text: str) -> tuple[ClientToken, ...]:
    """Client tokens, each name and each token once; ``off`` is none.

    A name and the SHA-256 of the token, never the token, as ``keyproxy token`` makes both. In a
    file there is one pair a line, and lines with # are remarks.
    """
    if text.strip() == "off":
        return ()
    lines = [line.partition("#")[0] for line in text.splitlines()]
    pairs = [_pair(item.strip()) for item in ",".join(lines).split(",") if item.strip()]
    names = [token.name for token in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise Unfit("each name once", found=f"a list with {shown(twice[0])} twice")
    if len({token.digest for token in pairs}) < len(pairs):
        raise Unfit("each token under one name", found="a list with one token under two names")
    return tuple(pairs)


def _pair(text: str) -> ClientToken:
    name, mark, digest = text.partition(":")
    if mark and _TOKEN_NAME.fullmatch(name) and _DIGEST.fullmatch(digest):
        return ClientToken(name, bytes.fromhex(digest))
    trouble = "an entry of another form"
    if mark and _TOKEN_NAME.fullmatch(name):
        trouble = f"an entry {shown(name)} without a SHA-256 (64 hexadecimal digits) behind it"
    # Whatever else stands there may be a token itself.
    raise Unfit(_PAIRS, found=trouble)
