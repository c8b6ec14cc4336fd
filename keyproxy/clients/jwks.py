"""The keys that JWTs are signed with: a shared secret, or an issuer's key set (RFC 7517), fetched,
kept, renewed; and the checking of a signature. Knows no claims and trusts no answer.

Calls wait for the issuer only when there is nothing to go by, and never for long; what callers
send decides about at most one fetch in ``RETRY_SECONDS``. Every app with the same address shares a
set, which is kept over a reload.

The only user of PyJWT, which is the extra ``jwt`` and is imported on first use, so that keyproxy
starts without it; settings that ask for JWTs without it are a fault. A key is bound to algorithms
by its own type, whatever a JWT or a setting says (RFC 8725 3.1), so that a public key is never
taken for a shared secret.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import aiohttp
import structlog

from keyproxy.dataclass import dataclass, field
from keyproxy.errors import SettingsFault
from keyproxy.key_forms import Secret
from keyproxy.settings.grammar.jwt import SHARED, one_name
from keyproxy.strict_json.body import load
from keyproxy.transport.fetch import Refreshed, Whole, fetch

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
FETCH_SECONDS = 5.0
"""How long a call waits where there is no set at all."""
WAIT_SECONDS = 2.0
"""How long a call waits for a newer set while there is an older one."""
RETRY_SECONDS = 30.0
FIRST_RETRY_SECONDS = 10.0
"""While no set was ever had, nobody can call: asked more often."""
SHORTEST_FRESH_SECONDS = 300.0
USUAL_FRESH_SECONDS = 600.0  # what edges keep a set where nothing is said (Supabase)
LONGEST_FRESH_SECONDS = 86_400.0
STALE_SECONDS = 86_400.0
"""An old set is better than none while the issuer is away; a day is what keys overlap."""
MAX_BYTES = 256 * 1024
MAX_KEYS = 64
MAX_TRIED = 8
"""Keys tried for one JWT that names none: a signature costs up to 0.3 ms."""
_RENEWED_AT = 0.8  # of its lifetime, so that nobody waits for the next one
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=([0-9]{1,9})", re.IGNORECASE)
_log = structlog.get_logger("keyproxy.clients")


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


def shared_secret(secret: Secret) -> SignatureKey:
    """The key of an issuer that signs with a secret it shares with us, for the algorithms that it
    is long enough for.

    Raises ``SettingsFault`` for a secret that cannot be one, as a public key, a certificate or a
    JWK cannot.
    """
    from jwt.exceptions import InvalidKeyError

    raw = secret.reveal().encode()
    algorithms = frozenset(name for name, least in SHARED.items() if len(raw) >= least)
    try:
        return SignatureKey(_engine("HS256").prepare_key(raw), algorithms)
    except InvalidKeyError as error:
        raise SettingsFault(
            "KEYPROXY_JWT_SECRET",
            found="set (not shown), and it is a key of another kind",
            expected="the secret that the issuer signs with",
        ) from error


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
    from jwt import get_algorithm_by_name

    return get_algorithm_by_name(algorithm)


class _KeySet(NamedTuple):
    raw: bytes
    keys: tuple[SignatureKey, ...]
    fresh_seconds: float


@dataclass(eq=False)
class Jwks:
    """The keys of one issuer. ``name`` stands in the log."""

    fetch: Callable[[], Awaitable[Whole]]
    name: str
    clock: Callable[[], float] = time.monotonic
    fetch_seconds: float = FETCH_SECONDS
    wait_seconds: float = WAIT_SECONDS

    def __post_init__(self) -> None:
        self._set = Refreshed(self._load, STALE_SECONDS, clock=self.clock)

    @classmethod
    def at(
        cls, url: str, session: aiohttp.ClientSession, *, fetch_seconds: float = FETCH_SECONDS
    ) -> Self:
        """The key set behind ``url``, fetched over ``session``."""
        get = partial(fetch, session, url, max_bytes=MAX_BYTES)
        return cls(get, url.partition("?")[0], fetch_seconds=fetch_seconds)

    async def find(
        self, key_id: str | None, algorithm: str, *, may_refresh: bool = True
    ) -> Sequence[SignatureKey] | None:
        """Keys that may have made a signature; none when there is no such, and None without a set,
        so that no JWT can be checked. Never raises.

        ``may_refresh``: whether a kid that is not in the set is a reason to ask for a newer one.
        """
        await self._renew()
        known = self._set.value
        if known is not None and may_refresh and not _is_known(known.keys, key_id):
            self._set.begin(RETRY_SECONDS)
            await self._set.wait(self.wait_seconds)
            known = self._set.value
        if known is None:
            return None
        fitting = [key for key in known.keys if algorithm in key.algorithms]
        if key_id is not None:
            named = [key for key in fitting if key.id == key_id]
            fitting = named or [key for key in fitting if key.id is None]
        return fitting[:MAX_TRIED]

    def start(self) -> None:
        """Begin to load the set, so that the first caller need not wait for it."""
        self._set.begin(FIRST_RETRY_SECONDS)

    async def close(self) -> None:
        """End what is under way."""
        await self._set.close()

    async def _renew(self) -> None:
        """Ask for a newer set when it is time; wait where this one is past its time or none."""
        known, age = self._set.value, self._set.age_seconds
        if known is None:
            self._set.begin(FIRST_RETRY_SECONDS)
            await self._set.wait(self.fetch_seconds)
            return
        if age >= known.fresh_seconds * _RENEWED_AT:
            self._set.begin(RETRY_SECONDS)
        if age >= known.fresh_seconds:
            await self._set.wait(self.wait_seconds)

    async def _load(self) -> _KeySet:
        known = self._set.value
        try:
            async with asyncio.timeout(self.fetch_seconds):
                answer = await self.fetch()
            if answer.status != 200:
                raise ValueError(f"the answer's status is {answer.status}")
            if answer.raw is None:
                raise ValueError("the answer is too large")
            if known is not None and answer.raw == known.raw:
                keys = known.keys
            else:
                # In a thread: a large set takes some milliseconds.
                keys, passed_over = await asyncio.to_thread(read_keys, answer.raw)
                _log.info("key set loaded", url=self.name, keys=len(keys), passed_over=passed_over)
        except Exception as error:  # whatever goes wrong there, what we have stays
            reason = str(error) if isinstance(error, ValueError) else type(error).__name__
            left = ": no JWT can be checked" if known is None else "; the last one stays in use"
            _log.warning(f"the key set could not be loaded{left}", url=self.name, reason=reason)
            raise
        return _KeySet(answer.raw, keys, _fresh_seconds(keys, answer.headers))


def read_keys(raw: bytes) -> tuple[tuple[SignatureKey, ...], dict[str, int]]:
    """The usable keys of a set, and why how many others were passed over.

    Raises ``ValueError`` for what is no key set or has no usable key.
    """
    try:
        members = load(raw)[0].get("keys")
    except ValueError as error:
        raise ValueError(f"the answer is no JSON object: {error}") from error
    if not isinstance(members, list):
        raise ValueError("the answer has no list of keys")
    keys, passed_over = [], Counter[str]()
    for member in members[:MAX_KEYS]:
        try:
            keys.append(public_key(member if isinstance(member, dict) else {}))
        except ValueError as error:
            passed_over[str(error)] += 1
    if len(members) > MAX_KEYS:
        passed_over[f"beyond the first {MAX_KEYS}"] = len(members) - MAX_KEYS
    if not keys:
        raise ValueError(f"no usable key among {len(members)}: {', '.join(passed_over)}")
    return tuple(keys), dict(passed_over)


def _is_known(keys: Sequence[SignatureKey], key_id: str | None) -> bool:
    """A newer set would help only a JWT that names a key when all keys here have names."""
    return key_id is None or any(key.id is None or key.id == key_id for key in keys)


def _fresh_seconds(keys: Sequence[SignatureKey], headers: Mapping[str, str]) -> float:
    if any(key.id is None for key in keys):
        return SHORTEST_FRESH_SECONDS  # without a kid nothing tells that a key was replaced
    max_age = _MAX_AGE.search(headers.get("Cache-Control", ""))
    seconds = float(max_age[1]) if max_age else USUAL_FRESH_SECONDS
    return min(max(seconds, SHORTEST_FRESH_SECONDS), LONGEST_FRESH_SECONDS)
