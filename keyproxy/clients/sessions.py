"""Anonymous sessions: a signed client id for a page without log-in, and its check.

Stateless, so that every replica with the same secret accepts it. No I/O; knows no HTTP, no
limits and no captcha. Whoever opens a session decides before whether it may be opened.

A session's text is ``kps_``, the claims, and an HMAC-SHA-256 (RFC 2104) over all before it and
the origin. The signature is compared before anything is decoded: what is decoded, we wrote.
"""

from __future__ import annotations

import base64
import hmac
import struct
import time
from collections.abc import Callable, Sequence
from secrets import token_bytes
from typing import NamedTuple

from keyproxy.clients.credentials import Holder
from keyproxy.dataclass import dataclass, field
from keyproxy.errors import Refusal
from keyproxy.key_forms import SESSION, Secret

MAX_TOKEN_CHARACTERS = 300
LIFETIME_SECONDS = 3600
GRACE_SECONDS = 300
"""How long after its end a session is still renewed: a laptop that slept keeps its client."""
LONGEST_SECONDS = 86_400
"""From the first opening to the end of the last renewal. Without a bound a copied session would
live for ever, and one captcha would buy a client for ever. A day, because limits and budgets per
day begin anew by then: who opens another session gains nothing that waiting would not bring."""

# A key of this purpose and version only: whatever else the secret signs is no session, and a
# form with other claims gets another label.
_PURPOSE = b"keyproxy session v1"
_SIGNATURE_CHARACTERS = 43
_CLAIMS = struct.Struct(">QQ16s")  # opened at, expires at, id; the app's name is what follows


@dataclass(frozen=True, slots=True)
class Session:
    """What a page is given; ``token`` is shown as its credential."""

    token: str = field(repr=False)
    expires_in_seconds: int
    client: Holder


class _Claims(NamedTuple):
    opened_at: int
    expires_at: int
    id: bytes
    app: str

    @property
    def client(self) -> Holder:
        return Holder(self.app, f"session-{self.id.hex()}")


class Sessions:
    """Opens, reads and renews sessions."""

    def __init__(
        self, secrets: Sequence[Secret], *, clock: Callable[[], float] = time.time
    ) -> None:
        """The first of ``secrets`` signs, all are accepted."""
        self._keys = tuple(
            hmac.digest(secret.reveal().encode(), _PURPOSE, "sha256") for secret in secrets
        )
        self._clock = clock

    def open(self, app: str, origin: str | None) -> Session:
        """A session of a new client. ``origin`` is what the page's calls will carry, or None."""
        now = int(self._clock())
        claims = _Claims(now, now + LIFETIME_SECONDS, token_bytes(16), app)
        return self._signed(claims, origin)

    def read(self, token: str, *origins: str | None) -> Holder:
        """Who shows ``token``, which was opened for one of ``origins``.

        Raises ``credential_invalid``, ``credential_expired``.
        """
        claims = self._verified(token, *origins)
        if self._clock() >= claims.expires_at:
            raise _expired("The session has ended.")
        return claims.client

    def renew(self, token: str, origin: str | None) -> Session:
        """The same client with a whole lifetime before it, so that renewing buys no limits anew.

        Raises ``credential_invalid``, and ``credential_expired`` once the session has ended for
        longer than the grace or would outlive the longest: a new one must be opened then.
        """
        claims = self._verified(token, origin)
        now = int(self._clock())
        expires_at = now + LIFETIME_SECONDS
        if now >= claims.expires_at + GRACE_SECONDS:
            raise _expired("The session ended too long ago to be renewed.")
        if expires_at > claims.opened_at + LONGEST_SECONDS:
            raise _expired("The session was opened too long ago to be renewed.")
        return self._signed(claims._replace(expires_at=expires_at), origin)

    def _signed(self, claims: _Claims, origin: str | None) -> Session:
        packed = _CLAIMS.pack(*claims[:3]) + claims.app.encode()
        body = SESSION.encode() + _written(packed)
        token = body + _signature(self._keys[0], body, origin)
        return Session(token.decode(), LIFETIME_SECONDS, claims.client)

    def _verified(self, token: str, *origins: str | None) -> _Claims:
        """What a token says, whether or not it has ended. Raises ``credential_invalid``."""
        if len(token) > MAX_TOKEN_CHARACTERS or not looks_like_session(token):
            raise _invalid()
        text = _bytes(token)
        body, given = text[:-_SIGNATURE_CHARACTERS], text[-_SIGNATURE_CHARACTERS:]
        # As text: two spellings of one base64 value are two signatures, of which one is ours.
        expected = (_signature(key, body, origin) for origin in origins for key in self._keys)
        if not any(hmac.compare_digest(signature, given) for signature in expected):
            raise _invalid()
        packed = _read(body[len(SESSION) :])
        opened_at, expires_at, client = _CLAIMS.unpack_from(packed)
        return _Claims(opened_at, expires_at, client, packed[_CLAIMS.size :].decode())


def looks_like_session(text: str) -> bool:
    """Whether a credential is meant to be a session, good or not."""
    return text.startswith(SESSION)


def _signature(key: bytes, body: bytes, origin: str | None) -> bytes:
    """Unambiguous: a body we wrote holds no NUL, and what follows the first is the origin."""
    bound = b"-" if origin is None else b"+" + _bytes(origin)
    return _written(hmac.digest(key, body + b"\0" + bound, "sha256"))


def _bytes(text: str) -> bytes:
    """Each text to its own bytes, undecodable header bytes (PEP 383) included."""
    return text.encode(errors="surrogatepass")


def _written(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _read(text: bytes) -> bytes:
    return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))


def _invalid() -> Refusal:
    return Refusal(
        "credential_invalid",
        "The session was not opened here, or not from this page's origin. Open a new one with"
        " POST /session.",
        hint="every replica needs the same KEYPROXY_SESSION_SECRET; to change it, put the new one"
        " before the old one and keep both until the old one's sessions have ended",
    )


def _expired(why: str) -> Refusal:
    return Refusal("credential_expired", f"{why} Open a new one with POST /session.")
