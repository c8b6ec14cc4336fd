"""From an end user's JWT to who that is: form, claims, key, signature, in this order.

Knows no HTTP. RFC 7519 and RFC 7515, used as RFC 8725 advises. The claims are looked at before a
key is, so that a JWT which would be refused anyway costs neither a signature check nor a look at
the issuer's key set; nothing is believed before the signature.
Checked ones are not remembered: a check takes 35 to 180 µs, a call as a whole about 1,000.
"""

from __future__ import annotations

import asyncio
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import aiohttp

from keyproxy.clients.jwks import Jwks, SignatureKey, shared_secret
from keyproxy.dataclass import dataclass
from keyproxy.errors import Refusal
from keyproxy.key_forms import Secret
from keyproxy.settings import Settings
from keyproxy.settings.grammar import shown
from keyproxy.settings.grammar.jwt import one_name
from keyproxy.strict_json.body import load

MAX_CHARACTERS = 8190  # what one line of a head may have
_MAX_HEADER = 2048
_MAX_KEY_ID = 256
_MAX_SUBJECT = 256
_MAX_APP = 64
# Year 10000. Later dates are milliseconds by mistake, and would make a JWT good for ever.
_LAST_DATE = 253_402_300_800
_FORM = re.compile(r"ey[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){2,4}")


@dataclass(frozen=True, slots=True)
class JwtRules:
    """What a JWT must say. ``app_claim``: the claim that names the app, whole or dotted."""

    algorithms: tuple[str, ...]
    issuer: str | None = None
    audiences: tuple[str, ...] = ()
    leeway_seconds: float = 30.0
    app_claim: str | None = None


@dataclass(frozen=True, slots=True)
class Claims:
    """What a checked JWT says. ``app``: the value of the configured claim."""

    subject: str
    app: str | None


@dataclass(eq=False, frozen=True, slots=True)
class Verifier:
    """One app's way to check JWTs. ``keys``: the issuer's one key, or its set."""

    rules: JwtRules
    keys: SignatureKey | Jwks
    clock: Callable[[], float] = time.time

    async def verify(self, token: str) -> Claims:
        """Who the JWT says its bearer is. Raises ``credential_invalid``, ``credential_expired``."""
        header, claims, signed, signature = _parts(token)
        algorithm, key_id = self._selectors(header)
        found = self._claims(claims)
        is_expired = self.clock() >= _date(claims, "exp") + self.rules.leeway_seconds
        keys: Sequence[SignatureKey] | None
        if isinstance(self.keys, SignatureKey):
            keys = [self.keys]
        else:
            keys = await self.keys.find(key_id, algorithm, may_refresh=not is_expired)
        if keys is None:
            _refuse("not checked, because the issuer's key set could not be loaded")
        if not keys:
            _refuse(f"no key with this kid and algorithm: {_short(key_id)}, {algorithm}")
        if not any(key.verifies(algorithm, signed, signature) for key in keys):
            _refuse("the signature is not one of this issuer's keys")
        if is_expired:
            raise Refusal(
                "credential_expired", "The credential has expired. Get a new one and call again."
            )
        return found

    def _selectors(self, header: Mapping[str, Any]) -> tuple[str, str | None]:
        """Algorithm and kid. Whatever else names or brings a key (jwk, jku, x5u …) is not read."""
        if "crit" in header or "b64" in header:
            _refuse("its header wants an extension (crit)")
        said, key_id = header.get("alg"), header.get("kid")
        algorithm = one_name(said) if isinstance(said, str) else ""
        if algorithm not in map(one_name, self.rules.algorithms):
            _refuse(f"its algorithm {_short(said)} is not in KEYPROXY_JWT_ALGORITHMS")
        if not (key_id is None or (isinstance(key_id, str) and len(key_id) <= _MAX_KEY_ID)):
            _refuse("its kid is no short text")
        return algorithm, key_id

    def _claims(self, claims: Mapping[str, Any]) -> Claims:
        rules = self.rules
        issuer = claims.get("iss")
        if not (issuer is None or isinstance(issuer, str)):
            _refuse("its iss is no text")
        if rules.issuer not in (None, issuer):
            _refuse(f"its issuer {_short(issuer)} is not KEYPROXY_JWT_ISSUER")
        if rules.audiences:
            audience: Any = claims.get("aud")
            named: list[Any] = audience if isinstance(audience, list) else [audience]
            if not all(isinstance(name, str) for name in named):
                _refuse("its aud is missing, or no text or list of texts")
            if not set(named) & set(rules.audiences):
                _refuse(f"its audience {_short(','.join(named))} is not in KEYPROXY_JWT_AUDIENCE")
        latest = self.clock() + rules.leeway_seconds
        for name in ("nbf", "iat"):
            if name in claims and _date(claims, name) > latest:
                _refuse(f"its {name} lies in the future; do both clocks run right?")
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT:
            _refuse(f"its sub is no text of 1 to {_MAX_SUBJECT} characters")
        if not subject.isprintable():
            _refuse("its sub holds characters that cannot be printed")
        return Claims(subject, self._app(claims))

    def _app(self, claims: Mapping[str, Any]) -> str | None:
        name = self.rules.app_claim
        if name is None:
            return None
        found: Any = claims
        # The whole name first: that of a namespaced claim is an address with dots in it.
        for part in [name] if name in claims else name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if found is None:
            return None
        if not isinstance(found, str) or not 0 < len(found) <= _MAX_APP or not found.isprintable():
            _refuse(f"its claim {name} (KEYPROXY_JWT_APP_CLAIM) is no short text")
        return found


class Verifiers:
    """The verifiers of all apps, one for each different question: apps that ask for the same JWTs
    have the same one, so that a claim can tell one of them from another (a paying tier from the
    usual one). Key sets are shared by address, and outlive a reload."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._sets: dict[str, Jwks] = {}

    def of(self, settings: Settings) -> dict[str, Verifier]:
        """The verifier of each app that asks for JWTs, by the app's name.

        Key sets begin to load, and those that no app asks for any more are forgotten. Raises
        ``SettingsFault`` for a secret that is none.
        """
        made: dict[tuple[JwtRules, Secret | str | None], Verifier] = {}
        found = {}
        for app in settings.all_apps:
            if app.client_auth == "jwt":
                source = app.jwt_secret or app.jwt_jwks_url
                rules = JwtRules(
                    app.jwt_algorithms,
                    app.jwt_issuer,
                    app.jwt_audiences or (),
                    app.jwt_leeway_seconds,
                    app.jwt_app_claim,
                )
                if (rules, source) not in made:
                    made[rules, source] = Verifier(rules, self._keys(app))
                found[app.name] = made[rules, source]
        named = {source for _, source in made}
        self._sets = {url: keys for url, keys in self._sets.items() if url in named}
        return found

    async def close(self) -> None:
        await asyncio.gather(*(keys.close() for keys in self._sets.values()))

    def _keys(self, app: Settings) -> SignatureKey | Jwks:
        if app.jwt_secret is not None:
            return shared_secret(app.jwt_secret)
        url = app.jwt_jwks_url or ""
        if url not in self._sets:
            self._sets[url] = Jwks.at(url, self._session)
            self._sets[url].start()
        return self._sets[url]


def looks_like_jwt(text: str) -> bool:
    """Whether ``text`` has the form of a JWT, encrypted ones included; no more than the form."""
    return len(text) <= MAX_CHARACTERS and _FORM.fullmatch(text) is not None


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    """Header, claims, the bytes that are signed, and the signature."""
    if len(token) > MAX_CHARACTERS:
        _refuse("it is too long")
    parts = token.split(".")
    if len(parts) == 5:
        _refuse("it is encrypted (JWE); the issuer must sign only")
    if len(parts) != 3:
        _refuse("it has not three parts")
    if len(parts[0]) > _MAX_HEADER:
        _refuse("its header is too long")
    try:
        header, claims = (load(_from_base64url(part))[0] for part in parts[:2])
        signature = _from_base64url(parts[2])
    except ValueError as error:
        _refuse("it is not well-formed", error)
    return header, claims, token.rpartition(".")[0].encode(), signature


def _from_base64url(text: str) -> bytes:
    """The bytes of ``text``, which is their only spelling (RFC 8725 2.4). Raises ``ValueError``."""
    raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    # The decoder passes over what it does not know, and over bits behind the last byte.
    if urlsafe_b64encode(raw).rstrip(b"=") != text.encode():
        raise ValueError("no base64url, or not its only spelling")
    return raw


def _date(claims: Mapping[str, Any], name: str) -> float:
    """A NumericDate (RFC 7519 2), which may have a fraction."""
    date = claims.get(name)
    if isinstance(date, bool) or not isinstance(date, (int, float)):
        _refuse(f"its {name} is missing or no number")
    if not 0 <= date < _LAST_DATE:
        _refuse(f"its {name} is no date in seconds")
    return date


def _short(value: Any) -> str:
    return shown(value) if isinstance(value, str) else "(no text)"


def _refuse(reason: str, cause: Exception | None = None) -> NoReturn:
    """One text for strangers whatever the reason, which is for the log."""
    raise Refusal(
        "credential_invalid", "The credential is not valid here.", hint=f"the JWT: {reason}"
    ) from cause
