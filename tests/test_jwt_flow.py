"""Users with JWTs, through real sockets: the issuer's key set is behind a real server."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from keyproxy.__main__ import main
from keyproxy.settings.sources import Sources
from tests.conftest import KEY, SERVE, Proxy, Start, refused
from tests.jwt_issuer import SECRET, Issuer, jwk, key_set, private_key, serving, signed

PAGE = {"Origin": "https://app.example"}
AUDIENCE = "my-project"
OURS = {"CLIENT_AUTH": "jwt", "JWT_AUDIENCE": AUDIENCE, "RATE_LIMIT": "2/minute"}


def claims(subject: str = "user-1", **more: Any) -> dict[str, Any]:
    now = int(time.time())
    return {"sub": subject, "aud": AUDIENCE, "iat": now, "exp": now + 3600, **more}


def shared(subject: str = "user-1", **more: Any) -> str:
    return signed(claims(subject, **more))


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with serving() as fake:
        fake.raw = key_set(jwk("ES256", private_key("P-256", "one"), "one"))
        yield fake


async def status(proxy: Proxy, token: str, **headers: str) -> int:
    head = {**PAGE, "Authorization": f"Bearer {token}", **headers}
    async with proxy.post(headers=head) as answer:
        return int(answer.status)


async def test_each_user_is_a_client(start: Start) -> None:
    proxy = await start("serve", **OURS, JWT_SECRET=SECRET)
    found = [await status(proxy, shared(user)) for user in ("a", "a", "a", "b")]
    assert found == [200, 200, 429, 200]
    for seen in proxy.upstream.calls:
        assert seen.headers.getall("Authorization") == [f"Bearer {KEY}"]


async def test_a_key_set_is_loaded_and_used(start: Start, issuer: Issuer) -> None:
    proxy = await start("serve", **OURS, JWT_JWKS_URL=issuer.url)
    token = signed(claims(), private_key("P-256", "one"), "ES256", kid="one")
    assert await status(proxy, token) == 200
    async with proxy.post(headers={**PAGE, "x-api-key": token}) as answer:
        assert answer.status == 200
    assert issuer.asked == 1


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"exp": 1}, "credential_expired"),
        ({"aud": "another"}, "credential_invalid"),
        ({"nbf": 4_000_000_000}, "credential_invalid"),
        ({"sub": ""}, "credential_invalid"),
    ],
)
async def test_what_a_jwt_says_wrongly_never_reaches_the_upstream(
    start: Start, said: dict[str, Any], code: str
) -> None:
    proxy = await start("serve", **OURS, JWT_SECRET=SECRET)
    token = shared(**said)
    async with proxy.post(headers={**PAGE, "Authorization": f"Bearer {token}"}) as answer:
        error = await refused(answer, 401, code)
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE["Origin"]
    assert token[:20] not in str(error)
    assert proxy.upstream.calls == []


async def test_a_flood_of_bad_jwts_costs_one_look_at_the_key_set(
    start: Start, issuer: Issuer
) -> None:
    proxy = await start("serve", **OURS, JWT_JWKS_URL=issuer.url)
    good = signed(claims(), private_key("P-256", "one"), "ES256", kid="one")
    assert await status(proxy, good) == 200
    other = private_key("P-256", "other")
    for number in range(40):
        token = signed(claims(), other, "ES256", kid=f"unknown-{number}")
        assert await status(proxy, token) == (401 if number < 30 else 429)
    assert issuer.asked <= 2
    assert len(proxy.upstream.calls) == 1
    assert await status(proxy, good) == 200


async def test_without_a_jwt_a_page_is_told_what_is_wanted(start: Start) -> None:
    proxy = await start("serve", **OURS, JWT_SECRET=SECRET)
    async with proxy.post(headers=PAGE) as answer:
        error = await refused(answer, 401, "credential_missing")
    assert "JWT" in error["message"]
    async with proxy.post(headers={**PAGE, "x-api-key": "none"}) as answer:
        await refused(answer, 401, "credential_invalid")
    assert proxy.upstream.calls == []


TIERS = f"""
client_auth = "jwt"
jwt_secret = "{SECRET}"
jwt_app_claim = "app_metadata.plan"
rate_limit = "1/minute"

[apps.pro]
rate_limit = "3/minute"

[apps.partner]
jwt_secret = "{SECRET[::-1]}"
allowed_models = "anthropic/*"

[apps.open]
allowed_origins = "https://open.example"
client_auth = "none"
"""


@pytest.fixture
async def tiers(start: Start, tmp_path: Path) -> Proxy:
    (tmp_path / "keyproxy.toml").write_text(TIERS)
    said = {f"KEYPROXY_{name}": text for name, text in SERVE.items() if name != "CLIENT_AUTH"}
    environ = {**said, "OPENROUTER_API_KEY": KEY, "KEYPROXY_LISTEN": "127.0.0.1:0"}
    settings = Sources("serve", {}, environ, tmp_path).read()
    proxy = await start("serve")
    proxy.service.apply(settings.kept(upstream=proxy.upstream.base_url))
    return proxy


async def test_a_paying_tier_is_an_app_with_larger_limits(tiers: Proxy) -> None:
    usual, paying = shared("a"), shared("b", app_metadata={"plan": "pro"})
    assert [await status(tiers, usual) for _ in range(2)] == [200, 429]
    assert [await status(tiers, paying) for _ in range(4)] == [200, 200, 200, 429]


@pytest.mark.parametrize("plan", ["gold", "partner", "open", "default"])
async def test_a_claim_opens_no_app_that_takes_other_credentials(tiers: Proxy, plan: str) -> None:
    """The user stays in the app that took the JWT."""
    token = shared("a", app_metadata={"plan": plan})
    assert [await status(tiers, token) for _ in range(2)] == [200, 429]


async def test_another_issuers_users_belong_to_another_app(tiers: Proxy) -> None:
    theirs = signed(claims("a"), SECRET[::-1])
    async with tiers.post(headers={"Authorization": f"Bearer {theirs}"}) as answer:
        await refused(answer, 403, "model_not_allowed")  # of the partner's list
    assert tiers.upstream.calls == []


async def test_where_nothing_is_asked_for_a_strangers_jwt_is_passed_over(tiers: Proxy) -> None:
    stranger = signed(claims(), "made-up-secret-of-somebody-else-0123456789")
    assert await status(tiers, stranger, Origin="https://open.example") == 200
    assert await status(tiers, stranger) == 401
    assert len(tiers.upstream.calls) == 1


async def test_key_sets_outlive_a_reload(start: Start, issuer: Issuer) -> None:
    proxy = await start("serve", **OURS, JWT_JWKS_URL=issuer.url)
    token = signed(claims(), private_key("P-256", "one"), "ES256", kid="one")
    assert await status(proxy, token) == 200
    proxy.service.apply(proxy.service.settings)
    assert await status(proxy, token) == 200
    assert issuer.asked == 1


def test_explain_says_who_a_jwt_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"OPENROUTER_API_KEY={KEY}\n")
    (tmp_path / "call.json").write_text('{"model": "openai/gpt-4o", "messages": []}')
    said = ["--client-auth", "jwt", "--body", "call.json"]
    monkeypatch.setenv("KEYPROXY_JWT_SECRET", SECRET)
    assert main(["explain", *said, "--credential", shared("user-7")]) == 0
    assert "user-7 of the app default" in capsys.readouterr().out
    assert main(["explain", *said, "--credential", shared(exp=1)]) == 1
    assert "credential_expired" in capsys.readouterr().out
