"""The form of the secret that signs anonymous sessions. Nothing here repeats a value."""

from __future__ import annotations

import re

from keyproxy.settings.grammar.base import Unfit
from keyproxy.values import Secret

SHORTEST = 32  # RFC 2104, 3: no shorter than the hash, which has 32 bytes
_MOST = 2
_FEWEST_DIFFERENT = 8  # 32 random hex digits have fewer once in 25 million
MAKING = "openssl rand -hex 32"
"""Prints a secret."""
_BETWEEN = re.compile(r",[ \t]*|\r?\n")
# None of these is in what openssl prints.
_PLACEHOLDER = re.compile(r"\.\.\.|…|[<>]|\$[{(]|change[-_]|your[-_]", re.IGNORECASE)


def session_secret(text: str) -> tuple[Secret, ...]:
    """One secret, or two by comma or one a line: the first signs, both are accepted.

    So a secret is changed without ending a session: the new one is put before the old one,
    which is taken out once its last session has ended. One trailing newline is dropped.
    """
    parts = _BETWEEN.split(re.sub(r"\r?\n\Z", "", text))
    trouble = next(filter(None, map(_trouble, parts)), None)
    if len(parts) > _MOST:
        trouble = f"holds {len(parts)} secrets"
    if trouble:
        raise Unfit(
            f"at least {SHORTEST} random characters, as `{MAKING}` prints them; while the secret"
            " is being changed, two by comma, the new one first",
            found=f"a value that {trouble}",
            line=MAKING,
        )
    return tuple(Secret(part) for part in dict.fromkeys(parts))


def _trouble(secret: str) -> str | None:
    if not secret:
        return "is empty"
    if any(quote in secret for quote in "\"'`"):
        return "holds quotes (of a shell or an env file, not of the secret)"
    if _PLACEHOLDER.search(secret):
        return "is a placeholder"
    if not re.fullmatch(r"[!-~]+", secret):
        return "holds a space, a control character or a letter beyond ASCII"
    if len(secret) < SHORTEST:
        return f"is shorter than {SHORTEST} characters"
    if len(set(secret)) < _FEWEST_DIFFERENT:
        return "repeats a few characters"
    return None
