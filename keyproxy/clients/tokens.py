"""Client tokens: long random texts that only their hashes are kept of. Pure.

A token has 256 bits of chance, so a plain SHA-256 of it is as good as it gets: there is nothing
to guess that salt or slowness would protect (NIST SP 800-63B 5.1.2.2, look-up secrets).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from keyproxy.key_forms import CLIENT_TOKEN
from keyproxy.settings.grammar.secrets import ClientToken

_RANDOM_BYTES = 32


def make(name: str) -> tuple[str, ClientToken]:
    """A new token, to be shown once, and what is stored of it."""
    token = CLIENT_TOKEN + secrets.token_urlsafe(_RANDOM_BYTES)
    return token, ClientToken(name, digest(token))


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True, slots=True)
class Holder:
    """Who shows a token, and in which app."""

    app: str
    name: str


class Tokens:
    """The client tokens of all apps."""

    def __init__(self, tokens: Iterable[tuple[str, ClientToken]]) -> None:
        """``tokens``: each with the name of its app."""
        self._holders: dict[bytes, list[tuple[bytes, Holder]]] = {}
        for app, token in tokens:
            of_beginning = self._holders.setdefault(token.digest[:8], [])
            of_beginning.append((token.digest, Holder(app, token.name)))

    def holder(self, text: str) -> Holder | None:
        """Whose token ``text`` is.

        Hashes are compared, as bytes and in constant time. The first eight bytes choose which: a
        caller cannot steer them, so how long that takes tells nothing about any token.
        """
        shown = digest(text)
        for known, holder in self._holders.get(shown[:8], ()):
            if hmac.compare_digest(known, shown):
                return holder
        return None
