"""The keys that JWTs are signed with, and the checking of a signature. The only user of PyJWT.

PyJWT is the extra ``jwt`` and is imported on first use, so that keyproxy starts without it. A
key is bound to algorithms by its own type, whatever a JWT or a setting says (RFC 8725 3.1), so
that a public key is never taken for a shared secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from keyproxy.errors import SettingsFault
from keyproxy.key_forms import Secret
from keyproxy.settings.consistency import without_jwt_extra
from keyproxy.settings.grammar.jwt import SHARED, one_name

if TYPE_CHECKING:
    from jwt.algorithms import Algorithm

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_PUBLIC: Mapping[tuple[str, str | None], tuple[str, ...]] = {
    ("RSA", None): _RSA,
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
_PUBLIC_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_PRIVATE_MEMBERS = ("d", "p", "q", "k")
_RSA_BITS = (2048, 8192)  # RFC 7518 3.3; larger ones would hold everybody up
_MAX_MEMBER = 2048  # characters; the modulus of 8,192 bits has 1,366
_MAX_ID = 256


@dataclass(eq=False, frozen=True, slots=True)
class SignatureKey:
    """A key that checks signatures made with ``algorithms`` and no others."""

    _value: Any = field(repr=False)
    algorithms: frozenset[str]
    id: str | None = None

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's over ``signed``."""
        if algorithm not in self.algorithms:
            return False
        return _engine(algorithm).verify(signed, self._value, signature)


def require_extra() -> None:
    """Raises ``SettingsFault`` where the extra ``keyproxy[jwt]`` is not installed."""
    try:
        from jwt.algorithms import has_crypto
    except ImportError:
        has_crypto = False
    if not has_crypto:
        raise without_jwt_extra()


class SharedSecret:
    """The key of an issuer that signs with a secret it shares with us, for the algorithms that
    it is long enough for."""

    def __init__(self, secret: Secret) -> None:
        """Raises ``SettingsFault`` for a secret that cannot be one, as a public key, a certificate
        or a JWK cannot, and without the extra."""
        require_extra()
        from jwt.exceptions import InvalidKeyError

        raw = secret.reveal().encode()
        algorithms = frozenset(name for name, least in SHARED.items() if len(raw) >= least)
        try:
            self._keys = (SignatureKey(_engine("HS256").prepare_key(raw), algorithms),)
        except InvalidKeyError as error:
            raise SettingsFault(
                "KEYPROXY_JWT_SECRET",
                found="set (not shown), and it is a key of another kind",
                expected="the secret that the issuer signs with",
            ) from error

    async def find(
        self, key_id: str | None, algorithm: str, *, may_refresh: bool
    ) -> Sequence[SignatureKey]:
        """The one key, whatever names it."""
        return self._keys


def public_key(jwk: Mapping[str, Any]) -> SignatureKey:
    """The key in a member of a key set (RFC 7517). Raises ``ValueError`` that says why not."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from jwt.exceptions import PyJWTError

    kind, algorithms = _kind(jwk)
    key_id = jwk.get("kid")
    if not (key_id is None or (isinstance(key_id, str) and 0 < len(key_id) <= _MAX_ID)):
        raise ValueError("its kid is no short text")
    members = {"kty": kind} | {name: jwk.get(name) for name in _PUBLIC_MEMBERS[kind]}
    if not all(isinstance(text, str) and len(text) <= _MAX_MEMBER for text in members.values()):
        raise ValueError("it is not whole")
    engine = _engine(algorithms[0])
    try:
        value = engine.prepare_key(engine.from_jwk(members))
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError) as error:
        raise ValueError("it cannot be read") from error
    if kind == "RSA" and not _RSA_BITS[0] <= value.key_size <= _RSA_BITS[1]:
        raise ValueError(f"it has {value.key_size} bits")
    return SignatureKey(value, frozenset(algorithms), key_id)


def _kind(jwk: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The type of a public key for signatures, and the algorithms it may be used with."""
    kind, curve, algorithm = jwk.get("kty"), jwk.get("crv"), jwk.get("alg")
    if not isinstance(kind, str) or not (curve is None or isinstance(curve, str)):
        raise ValueError("its type is unknown")
    known = _PUBLIC.get((kind, None if kind == "RSA" else curve))
    if known is None:
        raise ValueError("it is a shared secret" if kind == "oct" else "its type is unknown")
    if any(name in jwk for name in _PRIVATE_MEMBERS):
        raise ValueError("it is a private key, and public by now")
    use, operations = jwk.get("use"), jwk.get("key_ops")  # null says no more than nothing
    is_to_verify = operations is None or (isinstance(operations, list) and "verify" in operations)
    if use not in (None, "sig") or not is_to_verify:
        raise ValueError("it is not for signatures")
    if algorithm is None:
        return kind, known
    if not isinstance(algorithm, str) or one_name(algorithm) not in known:
        raise ValueError("its algorithm does not fit its type")
    return kind, (one_name(algorithm),)


@cache
def _engine(algorithm: str) -> Algorithm:
    require_extra()
    from jwt import get_algorithm_by_name

    return get_algorithm_by_name(algorithm)
