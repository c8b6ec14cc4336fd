"""What may be set for JWTs, and which values do not go together."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from keyproxy.errors import SettingsFaults
from keyproxy.installation import line_for
from keyproxy.key_forms import Secret
from keyproxy.settings.consistency import jwt_faults
from keyproxy.settings.grammar import Unfit, jwt
from tests.conftest import settings
from tests.jwt_issuer import SECRET, asking_for_jwts

JWKS_URL = "https://auth.example/.well-known/jwks.json"


@pytest.mark.parametrize(
    "text", [SECRET, f"{SECRET}\n", f"{SECRET}\r\n", "ü" * 8 + "0123456789ab" * 2]
)
def test_a_secret_is_kept_without_its_last_line_end(text: str) -> None:
    assert jwt.secret(text).reveal() == text.rstrip()


@pytest.mark.parametrize(
    "text",
    [
        "only-31-bytes-0123456789-abcdef",
        "a" * 64,
        "ab" * 32,
        f" {SECRET}",
        f"{SECRET} ",
        f"{SECRET}\n\n",
        f"{SECRET[:20]}\n{SECRET[20:]}",
        "your-super-secret-jwt-token-with-at-least-32-characters-long",
        "<the secret of the issuer, from its dashboard>",
        "change-me-change-me-change-me-0123456789",
        "$(cat /run/secrets/the-issuers-own-secret)",
        "-----BEGIN PUBLIC KEY-----MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC7 made-up@example",
        '{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlh"}',
    ],
)
def test_what_is_no_secret_is_a_fault_that_does_not_repeat_it(text: str) -> None:
    with pytest.raises(Unfit) as caught:
        jwt.secret(text)
    said = f"{caught.value.expected} {caught.value.found} {caught.value.value}"
    assert text.strip() not in said
    assert caught.value.found is not None


@pytest.mark.parametrize(
    "text",
    [
        JWKS_URL,
        "https://auth.example:8443/keys?tenant=a",
        "http://localhost:9999/jwks.json",
        "http://127.0.0.1/jwks.json",
        "http://[::1]:54321/auth/v1/.well-known/jwks.json",
    ],
)
def test_the_address_of_a_key_set(text: str) -> None:
    assert jwt.jwks_url(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "auth.example/jwks.json",
        "http://auth.example/jwks.json",
        "http://localhost.evil.example/jwks.json",
        "data:application/json,{}",
        "ftp://auth.example/jwks.json",
        "https://user:password@auth.example/jwks.json",
        "https://auth.example/jwks.json#x",
        "https://auth.example:0/jwks.json",
        "https://auth.example:x/jwks.json",
        "https://auth.example/a b",
        "https://",
        "https://[::1/jwks.json",
    ],
)
def test_what_is_no_address_of_a_key_set(text: str) -> None:
    with pytest.raises(Unfit) as caught:
        jwt.jwks_url(text)
    assert "password" not in (caught.value.found or "")


def test_a_key_set_in_clear_is_cured_by_https() -> None:
    with pytest.raises(Unfit) as caught:
        jwt.jwks_url("http://auth.example/jwks.json")
    assert caught.value.value == "https://auth.example/jwks.json"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RS256", ("RS256",)),
        ("RS256, ES256,RS256", ("RS256", "ES256")),
        ("HS256,HS512", ("HS256", "HS512")),
        ("EdDSA", ("EdDSA",)),
        ("Ed25519", ("EdDSA",)),
        ("Ed25519,ES256, EdDSA", ("EdDSA", "ES256")),
    ],
)
def test_algorithms(text: str, expected: tuple[str, ...]) -> None:
    assert jwt.algorithms(text) == expected


@pytest.mark.parametrize(
    ("text", "why", "cure"),
    [
        ("none", "anybody could write", None),
        ("RS256,None", "anybody could write", None),
        ("HS256,RS256", "could be taken for the secret", None),
        ("rs256,es256", "comma-separated names", "RS256,ES256"),
        ("eddsa", "comma-separated names", "EdDSA"),
        ("ed25519", "comma-separated names", "Ed25519"),
        ("Ed448", "comma-separated names", None),
        ("ESP256", "comma-separated names", None),
        ("HS256,Ed25519", "could be taken for the secret", None),
        ("RS257", "comma-separated names", None),
        ("ES256K", "comma-separated names", None),
        (",", "comma-separated names", None),
    ],
)
def test_wrong_algorithms(text: str, why: str, cure: str | None) -> None:
    with pytest.raises(Unfit, match=why) as caught:
        jwt.algorithms(text)
    assert caught.value.value == cure


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
def test_without_the_extra_the_fault_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    find: Any = importlib.util.find_spec
    monkeypatch.setattr(
        "keyproxy.settings.consistency.find_spec",
        lambda name: None if name == missing else find(name),
    )
    with pytest.raises(SettingsFaults, match="what checks JWTs is not installed") as caught:
        settings("dev", CLIENT_AUTH="jwt", JWT_SECRET=SECRET)
    assert [fault.paste for fault in caught.value.faults] == [line_for("jwt")]


@pytest.mark.parametrize(("text", "seconds"), [("30s", 30), ("5m", 300), ("off", 0), ("0", 0)])
def test_leeway(text: str, seconds: float) -> None:
    assert jwt.leeway(text) == seconds


@pytest.mark.parametrize("text", ["6m", "301", "-1", "soon"])
def test_wrong_leeway(text: str) -> None:
    with pytest.raises(Unfit):
        jwt.leeway(text)


@pytest.mark.parametrize("text", ["plan", "app_metadata.plan", "https://myapp.example/plan"])
def test_the_claim_of_the_app(text: str) -> None:
    assert jwt.claim(text) == text
    assert jwt.claim("off") is None


@pytest.mark.parametrize("text", ["user_metadata.plan", "unsafe_metadata.tier", "user_metadata"])
def test_a_claim_that_users_write_themselves_is_a_fault(text: str) -> None:
    with pytest.raises(Unfit, match="users can change"):
        jwt.claim(text)


def test_issuer_and_audiences_are_taken_letter_by_letter() -> None:
    assert jwt.issuer("https://myapp.eu.auth0.com/") == "https://myapp.eu.auth0.com/"
    assert jwt.audiences("projects/1, projects/my-app,") == ("projects/1", "projects/my-app")


@pytest.mark.parametrize("text", ["a,b", "a b", "ü", "x" * 513])
def test_what_is_no_issuer(text: str) -> None:
    with pytest.raises(Unfit):
        jwt.issuer(text)
    with pytest.raises(Unfit):
        jwt.audiences(f"{text[:1] * 600},{text}")


@pytest.mark.parametrize(
    ("values", "variable"),
    [
        ({}, "KEYPROXY_JWT_JWKS_URL"),
        ({"secret": SECRET, "jwks_url": JWKS_URL}, "KEYPROXY_JWT_JWKS_URL"),
        ({"secret": SECRET, "algorithms": ("RS256",)}, "KEYPROXY_JWT_ALGORITHMS"),
        ({"jwks_url": JWKS_URL, "audiences": ("a",), "algorithms": ("HS256",)},
         "KEYPROXY_JWT_ALGORITHMS"),
        ({"secret": SECRET[:40], "algorithms": ("HS256", "HS384")}, "KEYPROXY_JWT_SECRET"),
        ({"secret": SECRET[:63], "algorithms": ("HS512",)}, "KEYPROXY_JWT_SECRET"),
        ({"jwks_url": JWKS_URL}, "KEYPROXY_JWT_AUDIENCE"),
        ({"secret": SECRET}, None),
        ({"secret": SECRET[:64], "algorithms": ("HS512",)}, None),
        ({"jwks_url": JWKS_URL, "audiences": ("a",)}, None),
        ({"jwks_url": JWKS_URL, "issuer": "https://auth.example/"}, None),
    ],
)  # fmt: skip
def test_what_does_not_go_together(values: dict[str, Any], variable: str | None) -> None:
    said: dict[str, Any] = {"jwks_url": None, "issuer": None, "audiences": ()} | values
    said.setdefault("algorithms", jwt.default_algorithms(said["jwks_url"]))
    said["secret"] = Secret(values["secret"]) if "secret" in values else None
    found = list(jwt_faults(asking_for_jwts(**said)))
    assert [fault.variable for fault in found] == ([variable] if variable else [])
    assert all(SECRET[:40] not in str(fault) for fault in found)


def test_the_fault_says_why_a_signature_alone_is_not_enough() -> None:
    [fault] = jwt_faults(asking_for_jwts(None, JWKS_URL, None, (), ("RS256",)))
    assert "Firebase's and Google's are those of every project" in str(fault)
