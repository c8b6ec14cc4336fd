"""What a call shows of who makes it: the one credential in its head, and no provider's key.

SDKs send what they were given as key in one of three headers, each in its own, and most insist
on sending something; so where nobody asks, whatever is sent is passed over.

Client tokens are long random texts that only their hashes are kept of. A token has 256 bits of
chance, so a plain SHA-256 of it is as good as it gets: there is nothing to guess that salt or
slowness would protect (NIST SP 800-63B 5.1.2.2, look-up secrets).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable, Sequence

from multidict import CIMultiDictProxy, istr

from keyproxy import key_forms
from keyproxy.call import CREDENTIAL_FIELDS
from keyproxy.dataclass import dataclass
from keyproxy.errors import Refusal
from keyproxy.settings import ClientToken, Secret

_FIELDS = tuple(map(istr, CREDENTIAL_FIELDS))
_RANDOM_BYTES = 32
NOT_ACCEPTED = "The credential of this call is not accepted here"
"""One text, whatever is wrong with a credential."""
_BEARER = re.compile(r"bearer +(\S.*)", re.I | re.S)


def shown(
    headers: CIMultiDictProxy[str], keys: Collection[Secret] = frozenset()
) -> tuple[str, ...]:
    """Each different credential of a head; other schemes than Bearer are not ours. ``keys``: those
    of ours that have no form by which anybody would know them.

    Raises ``provider_key_sent``.
    """
    found: dict[str, None] = {}
    for name in _FIELDS:
        for value in headers.getall(name) if name in headers else ():
            if key_forms.is_whole_in(value):
                raise _of_key(name)
            text = value.strip()
            if name == "Authorization":
                match = _BEARER.fullmatch(text)
                text = match[1] if match else ""
            if text and keys and Secret(text) in keys:
                raise _of_key(name)
            if text:
                found[text] = None
    return tuple(found)


def _of_key(name: str) -> Refusal:
    return Refusal(
        "provider_key_sent",
        f"The {name} header carries a provider's key. Remove it from the page or "
        "app and rotate it: whoever could load the page has it. No key is needed here.",
        param=name,
    )


def refusal(shown: Sequence[str], wanted: str) -> Refusal:
    """The refusal of a call that shows nothing, or two different credentials, or one that is
    nobody's, where ``wanted`` is asked for."""
    if not shown:
        return Refusal(
            "credential_missing",
            f"This address wants {wanted}, as `Authorization: Bearer …` or `x-api-key`. An SDK"
            " sends it when it is given as its API key.",
        )
    if len(shown) > 1:
        return Refusal(
            "credential_invalid",
            "This call shows two different credentials, and this address wants one:"
            f" {wanted}. An SDK sends what it was given as its API key beside what a page adds.",
            hint="two different credentials",
        )
    return Refusal(
        "credential_invalid",
        f"{NOT_ACCEPTED}: this address wants {wanted}.",
        hint=f"not {wanted}",
    )


def make_token(name: str) -> tuple[str, ClientToken]:
    """A new token, to be shown once, and what is stored of it."""
    token = key_forms.CLIENT_TOKEN + secrets.token_urlsafe(_RANDOM_BYTES)
    return token, ClientToken(name, digest(token))


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose a credential is: the client's id, within its app."""

    app: str
    id: str


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
        if not self._holders:
            return None
        shown = digest(text)
        for known, holder in self._holders.get(shown[:8], ()):
            if hmac.compare_digest(known, shown):
                return holder
        return None
