"""Whose JWT is taken, and that no other is: tables of bad input, and a hunt for more."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from keyproxy.clients.jwks import Jwks, SignatureKey, public_key, shared_secret
from keyproxy.clients.jwt import (
    MAX_CHARACTERS,
    Claims,
    JwtRules,
    Verifier,
    looks_like_jwt,
)
from keyproxy.errors import Refusal, SettingsFault
from keyproxy.key_forms import Secret
from keyproxy.settings.grammar.jwt import PUBLIC, SHARED
from tests.conftest import Clock
from tests.jwt_issuer import NOW, SECRET, assembled, b64, claims, jwk, private_key, signed

ISSUER = "https://auth.example/"
RULES = JwtRules(("HS256",))


class Keys(Jwks):
    """Public keys at hand; notes whether a newer set was worth asking for."""

    def __init__(self, *keys: SignatureKey) -> None:
        self.keys = keys
        self.asked: list[bool] = []

    async def find(
        self, key_id: str | None, algorithm: str, *, may_refresh: bool = True
    ) -> Sequence[SignatureKey] | None:
        self.asked.append(may_refresh)
        return [key for key in self.keys if algorithm in key.algorithms] if self.keys else None


def with_secret(rules: JwtRules = RULES) -> Verifier:
    return Verifier(rules, shared_secret(Secret(SECRET)), clock=Clock(NOW))


def with_keys(*keys: SignatureKey, **rules: Any) -> Verifier:
    rules = {"algorithms": ("RS256", "ES256")} | rules
    return Verifier(JwtRules(**rules), Keys(*keys), clock=Clock(NOW))


async def refused(verifier: Verifier, token: str, code: str = "credential_invalid") -> str:
    """Assert that ``token`` is refused in the one text for strangers; the hint for the log."""
    with pytest.raises(Refusal) as caught:
        await verifier.verify(token)
    refusal = caught.value
    assert (refusal.code, refusal.status) == (code, 401)
    if code == "credential_invalid":
        assert refusal.message == "The credential is not valid here."
        assert refusal.hint is not None
        assert refusal.hint.isprintable()
        assert len(refusal.hint) < 300
    return refusal.hint or ""


async def test_a_good_jwt_says_who_its_bearer_is() -> None:
    token = signed(claims(iss=ISSUER))
    assert await with_secret().verify(token) == Claims("user-1", None)


@pytest.mark.parametrize("algorithm", sorted(SHARED))
async def test_every_shared_algorithm_works(algorithm: str) -> None:
    token = signed(claims(), algorithm=algorithm)
    assert (await with_secret(JwtRules((algorithm,))).verify(token)).subject == "user-1"


KINDS = {"RS": "2048", "PS": "2048", "ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


@pytest.mark.parametrize("algorithm", PUBLIC)
async def test_every_public_algorithm_works(algorithm: str) -> None:
    kind = KINDS.get(algorithm) or KINDS.get(algorithm[:2]) or "Ed25519"
    key = private_key(kind)
    verifier = with_keys(public_key(jwk(algorithm, key)), algorithms=(algorithm,))
    assert (await verifier.verify(signed(claims(), key, algorithm))).subject == "user-1"
    other = signed(claims(), private_key(kind, "other"), algorithm)
    assert "signature" in await refused(verifier, other)


@pytest.mark.parametrize("in_rules", ["EdDSA", "Ed25519"])
@pytest.mark.parametrize("in_set", ["EdDSA", "Ed25519", None])
@pytest.mark.parametrize("in_token", ["EdDSA", "Ed25519"])
async def test_both_names_of_an_algorithm_are_one(
    in_rules: str, in_set: str | None, in_token: str
) -> None:
    """RFC 9864: issuers go over to the name that says the curve, each at a time of its own."""
    key = private_key("Ed25519")
    header = json.dumps({"alg": in_token, "typ": "JWT"}).encode()
    token = assembled(header, json.dumps(claims()).encode(), "EdDSA", key)
    verifier = with_keys(public_key(jwk("EdDSA", key) | {"alg": in_set}), algorithms=(in_rules,))
    assert (await verifier.verify(token)).subject == "user-1"
    others = with_keys(public_key(jwk("EdDSA", key)), algorithms=("ES256", "RS256"))
    assert "not in KEYPROXY_JWT_ALGORITHMS" in await refused(others, token)
    other = with_keys(
        public_key(jwk("EdDSA", private_key("Ed25519", "other"))), algorithms=(in_rules,)
    )
    assert "signature" in await refused(other, token)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ({"iss": "https://evil.example/"}, "'https://evil.example/' is not KEYPROXY_JWT_ISSUER"),
        ({"iss": ISSUER.rstrip("/")}, "KEYPROXY_JWT_ISSUER"),
        ({"iss": None}, "KEYPROXY_JWT_ISSUER"),
        ({"iss": [ISSUER]}, "iss is no text"),
        ({"aud": "other"}, "'other' is not in KEYPROXY_JWT_AUDIENCE"),
        ({"aud": ["other", "third"]}, "KEYPROXY_JWT_AUDIENCE"),
        ({"aud": []}, "KEYPROXY_JWT_AUDIENCE"),
        ({"aud": None}, "aud is missing"),
        ({"aud": ["mine", 7]}, "aud is missing, or no text"),
        ({"aud": {"mine": 1}}, "aud is missing, or no text"),
        ({"exp": None}, "exp is missing"),
        ({"exp": str(NOW + 60)}, "exp is missing or no number"),
        ({"exp": True}, "exp is missing or no number"),
        ({"exp": -1}, "no date in seconds"),
        ({"exp": (NOW + 60) * 1000}, "no date in seconds"),
        ({"exp": 1e300}, "no date in seconds"),
        ({"exp": 10**31}, "no date in seconds"),
        ({"exp": 10**70}, "not well-formed"),
        ({"exp": float("nan")}, "not well-formed"),
        ({"exp": float("inf")}, "not well-formed"),
        ({"nbf": NOW + 31}, "nbf lies in the future"),
        ({"iat": NOW + 31}, "iat lies in the future"),
        ({"nbf": "now"}, "nbf is missing or no number"),
        ({"sub": None}, "sub is no text"),
        ({"sub": ""}, "sub is no text"),
        ({"sub": 7}, "sub is no text"),
        ({"sub": ["user-1"]}, "sub is no text"),
        ({"sub": "u" * 257}, "sub is no text of 1 to 256"),
        ({"sub": "user\n1"}, "cannot be printed"),
        ({"sub": "user\u202e1"}, "cannot be printed"),
        ({"sub": "user\ud8001"}, "not well-formed"),
        ({"plan": 7}, "no short text"),
        ({"plan": ["pro"]}, "no short text"),
        ({"plan": "p" * 65}, "no short text"),
    ],
)
async def test_a_signed_jwt_with_wrong_claims_is_refused(said: dict[str, Any], hint: str) -> None:
    """Under a verifier that wants everything there is to want."""
    rules = JwtRules(("HS256",), ISSUER, ("mine", "also-mine"), app_claim="plan")
    good = claims(iss=ISSUER, aud="also-mine")
    assert await with_secret(rules).verify(signed(good)) == Claims("user-1", None)
    bad = {name: value for name, value in (good | said).items() if value is not None}
    token = assembled(b'{"alg":"HS256"}', json.dumps(bad).encode())
    assert hint in await refused(with_secret(rules), token)


@pytest.mark.parametrize(
    ("exp", "code"),
    [
        (NOW + 1, None),
        (NOW, None),
        (NOW - 29.5, None),
        (NOW - 30, "credential_expired"),
        (NOW - 3600, "credential_expired"),
        (0, "credential_expired"),
    ],
)
async def test_an_expired_jwt_is_told_so_after_the_leeway(exp: float, code: str | None) -> None:
    token = signed(claims(exp=exp))
    if code is None:
        assert (await with_secret().verify(token)).subject == "user-1"
    else:
        await refused(with_secret(), token, code)


@pytest.mark.parametrize("name", ["nbf", "iat"])
async def test_an_issuers_clock_may_be_ahead_by_the_leeway(name: str) -> None:
    token = signed(claims(**{name: NOW + 30}))
    assert (await with_secret().verify(token)).subject == "user-1"
    strict = JwtRules(("HS256",), leeway_seconds=0)
    assert "clocks" in await refused(with_secret(strict), token)


async def test_what_expired_and_is_also_wrong_is_not_worth_renewing() -> None:
    rules = JwtRules(("HS256",), ISSUER)
    await refused(with_secret(rules), signed(claims(exp=NOW - 900, iss="https://evil.example/")))
    await refused(with_secret(), signed(claims(exp=NOW - 900), "another-secret-" * 5))


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "HS384", "hs256", "RS256"])
async def test_an_algorithm_that_is_not_pinned_is_refused(name: str) -> None:
    header, payload = b64(json.dumps({"alg": name}).encode()), b64(json.dumps(claims()).encode())
    signature = signed(claims()).rpartition(".")[2]
    for token in (f"{header}.{payload}.", f"{header}.{payload}.{signature}"):
        await refused(with_secret(), token)


async def test_a_key_that_fits_more_algorithms_is_used_with_pinned_ones_only() -> None:
    assert "HS384" in await refused(with_secret(), signed(claims(), algorithm="HS384"))
    key = private_key("2048")
    verifier = with_keys(public_key(jwk("RS256", key)))
    for algorithm in ("RS384", "RS512", "PS256"):
        assert algorithm in await refused(verifier, signed(claims(), key, algorithm))


@pytest.mark.parametrize("header", [{}, {"alg": None}, {"alg": ["HS256"]}, {"alg": 7}])
async def test_a_header_without_an_algorithm_is_refused(header: dict[str, Any]) -> None:
    token = assembled(json.dumps(header).encode(), json.dumps(claims()).encode())
    assert "KEYPROXY_JWT_ALGORITHMS" in await refused(with_secret(), token)


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("algorithms", [("RS256",), ("HS256",), ("RS256", "HS256")])
async def test_a_public_key_is_never_taken_for_a_secret(
    encoding: Encoding, algorithms: tuple[str, ...]
) -> None:
    """The attacker signs with HS256 and the published key as the secret (RFC 8725 2.1)."""
    key = private_key("2048")
    published = key.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)

    head = f"{b64(json.dumps({'alg': 'HS256'}).encode())}.{b64(json.dumps(claims()).encode())}"
    signature = hmac.digest(published, head.encode(), hashlib.sha256)
    verifier = with_keys(public_key(jwk("RS256", key)), algorithms=algorithms)
    await refused(verifier, f"{head}.{b64(signature)}")


async def test_a_key_of_one_type_checks_no_signature_of_another() -> None:
    ec = public_key(jwk("ES256", private_key("P-256")))
    rsa = signed(claims(), private_key("2048"), "RS256")
    assert "no key with this kid" in await refused(with_keys(ec), rsa)
    assert not ec.verifies("RS256", b"", b"")
    only = public_key(jwk("RS256", private_key("2048"), alg="RS512"))
    assert "no key with this kid" in await refused(with_keys(only), rsa)


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": True},
    ],
)
async def test_extensions_of_the_header_are_refused(header: dict[str, Any]) -> None:
    raw = json.dumps({"alg": "HS256"} | header).encode()
    token = assembled(raw, json.dumps(claims()).encode())
    assert "crit" in await refused(with_secret(), token)


async def test_keys_that_a_jwt_brings_along_are_not_read() -> None:
    evil = private_key("2048", "evil")
    own = with_keys(public_key(jwk("RS256", private_key("2048"))))
    for name, value in (
        ("jwk", jwk("RS256", evil)),
        ("jku", "http://127.0.0.1:9/jwks.json"),
        ("x5u", "http://127.0.0.1:9/chain.pem"),
        ("x5c", ["MIIB"]),
    ):
        header = {"alg": "RS256", name: value}
        token = assembled(json.dumps(header).encode(), json.dumps(claims()).encode(), "RS256", evil)
        assert "signature" in await refused(own, token)


def _nested(depth: int) -> bytes:
    return b'{"sub":' + b"[" * depth + b"]" * depth + b"}"


GOOD_HEADER, GOOD_CLAIMS = b'{"alg":"HS256"}', json.dumps(claims()).encode()


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        (b'{"alg":"HS256","alg":"none"}', GOOD_CLAIMS),
        (b'{"alg":"none","alg":"HS256"}', GOOD_CLAIMS),
        (GOOD_HEADER, b'{"sub":"a","sub":"b","exp":1800003600}'),
        (GOOD_HEADER, b'{"sub":"a","su\\u0062":"b","exp":1800003600}'),
        (GOOD_HEADER, b'{"sub":"a","exp":1800003600,"x":{"y":1,"y":2}}'),
        (b'["HS256"]', GOOD_CLAIMS),
        (b'"HS256"', GOOD_CLAIMS),
        (b"HS256", GOOD_CLAIMS),
        (b"\xff\xfe", GOOD_CLAIMS),
        (b'\xef\xbb\xbf{"alg":"HS256"}', GOOD_CLAIMS),
        ('{"alg":"HS256"}'.encode("utf-16"), GOOD_CLAIMS),
        (GOOD_HEADER, GOOD_CLAIMS + b"{}"),
        (GOOD_HEADER, GOOD_CLAIMS.replace(b"1800003600", b"NaN")),
        (GOOD_HEADER, GOOD_CLAIMS.replace(b"1800003600", b"-Infinity")),
        (GOOD_HEADER, GOOD_CLAIMS.replace(b"1800003600", b"1e999")),
        (GOOD_HEADER, GOOD_CLAIMS.replace(b"1800003600", b"9" * 5000)),
        (GOOD_HEADER, b"null"),
        (GOOD_HEADER, _nested(2900)),
        (b'{"alg":"HS256","kid":7}', GOOD_CLAIMS),
        (b'{"alg":"HS256","kid":"' + b"k" * 257 + b'"}', GOOD_CLAIMS),
        (b'{"alg":"HS256","x":"' + b"x" * 2048 + b'"}', GOOD_CLAIMS),
    ],
)
async def test_what_readers_may_disagree_about_is_refused(header: bytes, payload: bytes) -> None:
    """Each with a good signature: the form alone refuses it."""
    await refused(with_secret(), assembled(header, payload))


async def test_odd_spellings_of_the_parts_are_refused() -> None:
    good = signed(claims())
    head, body, signature = good.split(".")
    for token in (
        "",
        ".",
        "..",
        "a.b.c",
        f"{head}.{body}",
        f"{head}.{body}.",
        f"{head}..{signature}",
        f".{body}.{signature}",
        f"{good}=",
        f"{head}=.{body}.{signature}",
        f"{good} ",
        f" {good}",
        f"{good}\n",
        f"{head}.{body}.{signature}.x",
        good.replace(".", "\u2024"),
        f"{head}.{body}.{signature[:-1]}\ud800",
        f"{head}.{body}.{signature}==",
        f"{head}.{body[:4]}*{body[4:]}.{signature}",
        f"{head}.{body}.{signature[:-1]}é",
        f"{head}.{body}.{signature[:-1]}{chr(ord(signature[-1]) + 1)}",
        f"{head}.{body}.+/{signature[2:]}",
    ):
        await refused(with_secret(), token)


async def test_an_encrypted_jwt_is_refused_by_name() -> None:
    token = f"{b64(b'{}')}.a.b.c.d"
    assert "JWE" in await refused(with_secret(), token)


async def test_a_jwt_longer_than_a_line_of_a_head_is_refused_unread() -> None:
    fits = signed(claims(x="x" * 5800))
    assert len(fits) < MAX_CHARACTERS
    assert (await with_secret().verify(fits)).subject == "user-1"
    assert "too long" in await refused(with_secret(), signed(claims(x="x" * 6200)))
    assert "too long" in await refused(with_secret(), "." * 10_000_000)


async def test_a_jwt_that_is_refused_anyway_asks_for_no_keys() -> None:
    key = private_key("P-256")
    keys = Keys(public_key(jwk("ES256", key)))
    rules = JwtRules(("ES256",), ISSUER, ("mine",))
    verifier = Verifier(rules, keys, clock=Clock(NOW))
    for said in ({"iss": "https://evil.example/"}, {"aud": "other"}, {"sub": ""}, {"nbf": 2**40}):
        bad = claims(**({"iss": ISSUER, "aud": "mine"} | said))
        await refused(verifier, signed(bad, key, "ES256"))
    assert keys.asked == []
    expired = signed(claims(iss=ISSUER, aud="mine", exp=NOW - 900), key, "ES256")
    await refused(verifier, expired, "credential_expired")
    assert keys.asked == [False]


async def test_without_any_key_the_log_says_so() -> None:
    token = signed(claims(), private_key("2048"), "RS256")
    assert "could not be loaded" in await refused(with_keys(), token)


@pytest.mark.parametrize(
    ("said", "name", "app"),
    [
        ({"plan": "pro"}, "plan", "pro"),
        ({"app_metadata": {"plan": "pro"}}, "app_metadata.plan", "pro"),
        ({"a": {"b": {"c": "pro"}}}, "a.b.c", "pro"),
        ({"https://myapp.example/plan": "pro"}, "https://myapp.example/plan", "pro"),
        ({"a.b": "whole", "a": {"b": "path"}}, "a.b", "whole"),
        ({"a.b": None, "a": {"b": "path"}}, "a.b", "path"),
        ({}, "app_metadata.plan", None),
        ({"app_metadata": "pro"}, "app_metadata.plan", None),
        ({"app_metadata": {"plan": None}}, "app_metadata.plan", None),
        ({"plan": "pro"}, None, None),
    ],
)
async def test_a_claim_names_the_app(said: dict[str, Any], name: str, app: str | None) -> None:
    verifier = with_secret(JwtRules(("HS256",), app_claim=name))
    assert (await verifier.verify(signed(claims(**said)))).app == app


async def test_the_hint_repeats_nothing_long_and_the_message_nothing() -> None:
    secret = "sk-or-v1-" + "0123456789abcdef" * 4
    rules = JwtRules(("HS256",), ISSUER)
    for value in (secret, "x" * 5000, "a\x1b[31m\n"):
        hint = await refused(with_secret(rules), signed(claims(iss=value)))
        assert secret not in hint


@pytest.mark.parametrize(
    ("text", "is_jwt"),
    [
        (signed(claims()), True),
        (f"{b64(b'{}x')}.a.b.c.d", False),
        ("eyJhbGciOiJkaXIifQ..a.b.c", True),
        ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", True),
        ("kp_0123456789abcdef", False),
        ("a.b.c", False),
        ("eyJ", False),
        ("eyJ.eyJ.é", False),
        ("eyJ" + "." * 9000, False),
    ],
)
def test_the_form_tells_a_jwt_from_other_credentials(text: str, is_jwt: bool) -> None:
    assert looks_like_jwt(text) is is_jwt


@pytest.mark.parametrize(
    "secret",
    [
        '{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}',
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
    ],
)
def test_what_is_no_secret_is_a_fault_that_does_not_repeat_it(secret: str) -> None:
    with pytest.raises(SettingsFault) as caught:
        shared_secret(Secret(secret))
    assert secret not in str(caught.value)


def test_the_extra_is_loaded_on_first_use_only() -> None:
    code = "import sys, keyproxy.clients.jwt, keyproxy.clients.jwks, keyproxy.settings.grammar.jwt;"
    code += "print(sorted({'jwt', 'cryptography'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_settings_and_keys_know_the_same_algorithms() -> None:
    kinds = {"2048": "RS256", "P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
    keys = [public_key(jwk(name, private_key(kind))) for kind, name in kinds.items()]
    keys.append(public_key(jwk("EdDSA", private_key("Ed25519"))))
    assert {name for key in keys for name in key.algorithms} == set(PUBLIC)


ES_KEY = private_key("P-256")
RULES_BOTH = ((("HS256",), signed(claims())), (("ES256",), signed(claims(), ES_KEY, "ES256")))
LETTERS = "".join(chr(c) for c in range(33, 127)) + "\x00\n é\U0001f511"


def _never_verifies(token: str, index: int) -> None:
    algorithms, good = RULES_BOTH[index]
    if token == good:
        return
    keys = shared_secret(Secret(SECRET)) if index == 0 else Keys(public_key(jwk("ES256", ES_KEY)))
    verifier = Verifier(JwtRules(algorithms), keys, clock=Clock(NOW))
    with pytest.raises(Refusal) as caught:
        asyncio.run(verifier.verify(token))
    assert caught.value.code == "credential_invalid"


@given(st.integers(0, 1), st.data())
def test_a_changed_jwt_never_verifies_and_never_breaks_anything(index: int, data: Any) -> None:
    token = RULES_BOTH[index][1]
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(token)))
        end = data.draw(st.integers(start, min(len(token), start + 8)))
        token = token[:start] + data.draw(st.text(LETTERS, max_size=8)) + token[end:]
    _never_verifies(token, index)


@given(st.text())
@example("\ud800.\ud800.\ud800")
def test_no_text_breaks_anything(text: str) -> None:
    looks_like_jwt(text)
    _never_verifies(text, 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk"]), JSON),
    st.dictionaries(st.sampled_from(["sub", "exp", "nbf", "iat", "iss", "aud", "a", "a.b"]), JSON),
)
def test_no_signed_claims_break_anything(header: dict[str, Any], said: dict[str, Any]) -> None:
    """An issuer may write what it likes; whoever is let through has a name that can be shown."""
    rules = JwtRules(("HS256",), audiences=("mine",), app_claim="a.b")
    raw = json.dumps(header | {"alg": "HS256"}).encode()
    token = assembled(raw, json.dumps({"exp": NOW + 9, "aud": "mine"} | said).encode())
    with suppress(Refusal):
        found = asyncio.run(with_secret(rules).verify(token))
        assert found.subject
        assert found.subject.isprintable()
