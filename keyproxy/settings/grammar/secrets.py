"""The form of secrets as files and variables hold them: provider keys, what signs sessions, a
captcha's secret key. Nothing here repeats a value."""

from __future__ import annotations

import re

from keyproxy.key_forms import Secret
from keyproxy.settings.grammar.base import Unfit

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


def is_no_key(text: str) -> bool:
    """Whether a text stands where a key should, such as ``sk-or-v1-xxxxxxxx``."""
    return bool(_PLACEHOLDER.search(text) or re.search("x{6,}", text, re.IGNORECASE))


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


def captcha_secret(text: str) -> Secret:
    """A captcha's secret key as its vendor gave it out."""
    value = _without_line_end(text)
    trouble = _trouble(value, 8) or ("is longer than 256 characters" if len(value) > 256 else None)
    if trouble:
        raise Unfit(
            "8 to 256 printable characters without a space, as they were given out",
            found=f"a value that {trouble}",
        )
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
