"""JWTs as the services of docs/jwt.md make them: their claims, our keys, a real key set.

The claim sets follow the services' documentation: Supabase "JWT Claims Reference", Clerk
"Session tokens" (version 2), Auth0 "Access token profiles", Firebase "Verify ID tokens" and
"DecodedAppCheckToken".
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from keyproxy.clients.jwks import Jwks, shared_secret
from keyproxy.clients.jwt import Claims, JwtRules, Verifier
from keyproxy.errors import Refusal
from keyproxy.settings.consistency import jwt_faults
from keyproxy.settings.grammar import jwt as grammar
from tests import jwt_issuer
from tests.conftest import Clock
from tests.jwt_issuer import NOW, SECRET, asking_for_jwts, jwk, key_set, private_key, signed

DOCS = Path(__file__).parents[1] / "docs" / "jwt.md"
RSA, EC = private_key("2048"), private_key("P-256")
TIMES = {"iat": NOW - 60, "exp": NOW + 3600}
USER = "11111111-2222-4333-8444-555555555555"

SUPABASE: dict[str, Any] = TIMES | {
    "iss": "https://abcdefghijklmnopqrst.supabase.co/auth/v1",
    "aud": "authenticated",
    "sub": USER,
    "role": "authenticated",
    "aal": "aal1",
    "session_id": "66666666-7777-4888-9999-000000000000",
    "email": "ada@example.com",
    "phone": "",
    "is_anonymous": False,
    "amr": [{"method": "password", "timestamp": NOW - 60}],
    "app_metadata": {"provider": "email", "providers": ["email"], "plan": "pro"},
    "user_metadata": {"plan": "i-wrote-this-myself"},
}
SUPABASE_ANON_KEY = {
    "iss": "supabase",
    "ref": "abcdefghijklmnopqrst",
    "role": "anon",
    "iat": NOW - 60,
    "exp": NOW + 315_360_000,
}
CLERK: dict[str, Any] = {
    "azp": "https://app.example",
    "exp": NOW + 60,
    "fva": [7, -1],
    "iat": NOW,
    "iss": "https://clerk.app.example",
    "jti": "a0123456789b0123456789",
    "nbf": NOW - 10,
    "metadata": {"plan": "pro"},
    "sid": "sess_0123456789abcdefghijklmnopq",
    "sub": "user_0123456789abcdefghijklmnopq",
    "v": 2,
}
AUTH0: dict[str, Any] = TIMES | {
    "iss": "https://myapp.eu.auth0.com/",
    "sub": "auth0|0123456789abcdef01234567",
    "aud": ["https://llm.myapp.example", "https://myapp.eu.auth0.com/userinfo"],
    "azp": "0123456789abcdefghijklmnopqrstuv",
    "scope": "openid profile email",
    "https://myapp.example/plan": "pro",
}
FIREBASE: dict[str, Any] = TIMES | {
    "iss": "https://securetoken.google.com/my-project",
    "aud": "my-project",
    "auth_time": NOW - 60,
    "user_id": "AbCdEfGhIjKlMnOpQrStUvWxYz01",
    "sub": "AbCdEfGhIjKlMnOpQrStUvWxYz01",
    "email": "ada@example.com",
    "email_verified": True,
    "plan": "pro",
    "firebase": {"identities": {"email": ["ada@example.com"]}, "sign_in_provider": "password"},
}
APP_CHECK: dict[str, Any] = TIMES | {
    "iss": "https://firebaseappcheck.googleapis.com/123456789012",
    "aud": ["projects/123456789012", "projects/my-project"],
    "sub": "1:123456789012:web:0123456789abcdef",
    "jti": "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGH",
}


class Service:
    """An issuer with an RSA and an EC key, and the settings of a recipe."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._jwks = Jwks.at(grammar.jwks_url(url), session)

    async def verify(self, token: str, **said: str) -> Claims:
        """``said``: the recipe's lines, in small letters and without KEYPROXY_JWT_."""
        algorithms = said.get("algorithms")
        rules = JwtRules(
            grammar.algorithms(algorithms) if algorithms else grammar.default_algorithms("https"),
            grammar.issuer(said["issuer"]) if "issuer" in said else None,
            grammar.audiences(said["audience"]) if "audience" in said else (),
            app_claim=grammar.claim(said.get("app_claim", "off")),
        )
        assert not list(
            jwt_faults(
                asking_for_jwts(None, "https://…", rules.issuer, rules.audiences, rules.algorithms)
            )
        )
        return await Verifier(rules, self._jwks, clock=Clock(NOW)).verify(token)

    async def refuses(self, token: str, **said: str) -> str:
        with pytest.raises(Refusal) as caught:
            await self.verify(token, **said)
        assert caught.value.code == "credential_invalid"
        return caught.value.hint or ""


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    raw = key_set(jwk("RS256", RSA, "rsa-1", alg="RS256"), jwk("ES256", EC, "ec-1", alg="ES256"))
    async with jwt_issuer.serving(raw) as issuer, aiohttp.ClientSession() as session:
        yield Service(issuer.url, session)


def rs256(said: dict[str, Any]) -> str:
    return signed(said, RSA, "RS256", kid="rsa-1")


SUPABASE_LINES = {
    "issuer": "https://abcdefghijklmnopqrst.supabase.co/auth/v1",
    "audience": "authenticated",
    "algorithms": "ES256",
    "app_claim": "app_metadata.plan",
}


PARSERS: dict[str, Callable[[str], Any]] = {
    "JWKS_URL": grammar.jwks_url,
    "SECRET_FILE": str,
    "ISSUER": grammar.issuer,
    "AUDIENCE": grammar.audiences,
    "ALGORITHMS": grammar.algorithms,
    "APP_CLAIM": grammar.claim,
}


def test_every_recipe_in_the_documentation_is_one_that_starts() -> None:
    recipes = re.findall(r"(?ms)^```sh\n(.*?)^```", DOCS.read_text())
    assert len(recipes) == 6
    for recipe in recipes:
        first, *lines = [line for line in recipe.splitlines() if not line.startswith("#")]
        assert first == "KEYPROXY_CLIENT_AUTH=jwt"
        said: dict[str, Any] = {}
        for line in lines:
            name, _, text = line.removeprefix("KEYPROXY_JWT_").partition("=")
            said[name] = PARSERS[name](text)
        secret = grammar.secret(SECRET) if "SECRET_FILE" in said else None
        url = said.get("JWKS_URL")
        algorithms = said.get("ALGORITHMS", grammar.default_algorithms(url))
        issuer, audiences = said.get("ISSUER"), said.get("AUDIENCE", ())
        app = asking_for_jwts(secret, url, issuer, audiences, algorithms)
        assert list(jwt_faults(app)) == []


async def test_supabase_with_signing_keys(service: Service) -> None:
    token = signed(SUPABASE, EC, "ES256", kid="ec-1")
    found = await service.verify(token, **SUPABASE_LINES)
    assert found == Claims(USER, "pro")


async def test_supabase_with_the_legacy_secret_and_not_its_public_anon_key() -> None:
    rules = JwtRules(("HS256",), audiences=("authenticated",), app_claim="app_metadata.plan")
    secret = shared_secret(grammar.secret(SECRET))
    verifier = Verifier(rules, secret, clock=Clock(NOW))
    assert (await verifier.verify(signed(SUPABASE))).subject == USER
    for lax in (rules, JwtRules(("HS256",))):
        with pytest.raises(Refusal):
            await Verifier(lax, secret, clock=Clock(NOW)).verify(signed(SUPABASE_ANON_KEY))


async def test_clerk(service: Service) -> None:
    lines = {
        "issuer": "https://clerk.app.example",
        "algorithms": "RS256",
        "app_claim": "metadata.plan",
    }
    found = await service.verify(rs256(CLERK), **lines)
    assert found == Claims(CLERK["sub"], "pro")
    other = rs256(CLERK | {"iss": "https://clerk.other.example"})
    assert "issuer" in await service.refuses(other, **lines)


async def test_auth0(service: Service) -> None:
    lines = {
        "issuer": "https://myapp.eu.auth0.com/",
        "audience": "https://llm.myapp.example",
        "app_claim": "https://myapp.example/plan",
    }
    found = await service.verify(rs256(AUTH0), **lines)
    assert found == Claims("auth0|0123456789abcdef01234567", "pro")
    id_token = AUTH0 | {"aud": AUTH0["azp"]}
    assert "audience" in await service.refuses(rs256(id_token), **lines)
    slashless = lines | {"issuer": "https://myapp.eu.auth0.com"}
    assert "issuer" in await service.refuses(rs256(AUTH0), **slashless)


FIREBASE_LINES = {
    "issuer": "https://securetoken.google.com/my-project",
    "audience": "my-project",
    "algorithms": "RS256",
    "app_claim": "plan",
}


async def test_firebase_auth_and_no_other_project_of_the_same_keys(service: Service) -> None:
    found = await service.verify(rs256(FIREBASE), **FIREBASE_LINES)
    assert found == Claims(FIREBASE["sub"], "pro")
    other = FIREBASE | {"iss": "https://securetoken.google.com/evil", "aud": "evil"}
    assert "issuer" in await service.refuses(rs256(other), **FIREBASE_LINES)
    only_audience = {"audience": "my-project"}
    assert "audience" in await service.refuses(rs256(other), **only_audience)


async def test_firebase_app_check(service: Service) -> None:
    lines = {
        "issuer": "https://firebaseappcheck.googleapis.com/123456789012",
        "audience": "projects/my-project",
        "algorithms": "RS256",
    }
    found = await service.verify(rs256(APP_CHECK), **lines)
    assert found == Claims("1:123456789012:web:0123456789abcdef", None)
    assert "issuer" in await service.refuses(rs256(FIREBASE), **lines)
    assert "issuer" in await service.refuses(rs256(APP_CHECK), **FIREBASE_LINES)
