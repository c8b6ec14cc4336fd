"""Several apps behind one address: who belongs to which, and what holds for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from keyproxy.clients import credentials
from keyproxy.errors import SettingsFaults
from keyproxy.settings import Rate, Settings
from keyproxy.settings.sources import Sources
from tests.conftest import KEY, SERVE, Proxy, Start
from tests.conftest import settings as settings_of

OTHER_KEY = "sk-or-v1-other-" + "fedcba9876543210" * 3
TOKEN, STORED = credentials.make_token("ios")
APPS = f"""
[apps.mobile]
allowed_origins = ["capacitor://localhost", "https://m.example"]
client_auth = "token"
client_tokens = ["ios:{STORED.digest.hex()}"]
allowed_models = ["openai/gpt-4o-mini"]
rate_limit = "1/minute"
max_tokens = 100
openrouter_api_key = "{OTHER_KEY}"
title = "Mobile"

[apps.admin]
allowed_origins = "https://admin.example"
allowed_models = "anthropic/*"
max_in_flight = 1
"""
BASE = {
    "OPENROUTER_API_KEY": KEY,
    "KEYPROXY_LISTEN": "127.0.0.1:0",
    "KEYPROXY_RATE_LIMIT": "off",
    "KEYPROXY_TITLE": "Default",
    **{f"KEYPROXY_{name}": text for name, text in SERVE.items()},
}


def read(directory: Path, toml: str = APPS, **variables: str) -> Settings:
    (directory / "keyproxy.toml").write_text(toml)
    environ: Mapping[str, str] = {**BASE, **variables}
    return Sources("serve", {}, environ, directory).read()


def faults(directory: Path, toml: str, **variables: str) -> str:
    with pytest.raises(SettingsFaults) as caught:
        read(directory, toml, **variables)
    return str(caught.value)


@pytest.fixture
async def proxy(start: Start, tmp_path: Path) -> Proxy:
    """With the three apps in force; ``apply`` is what a reload does."""
    proxy = await start("serve")
    settings = read(tmp_path)
    proxy.service.apply(settings.kept(upstream=proxy.upstream.base_url))
    return proxy


async def asked(
    proxy: Proxy, model: str, origin: str | None = None, token: str | None = None
) -> Any:
    headers = {} if origin is None else {"Origin": origin}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    async with proxy.post({"model": model, "messages": []}, headers=headers) as answer:
        body = await answer.json()
        return answer.status, body.get("error", {}).get("type")


def test_an_app_has_what_it_says_and_else_what_the_default_app_has(tmp_path: Path) -> None:
    default = read(tmp_path)
    mobile, admin = default.apps
    assert [app.name for app in default.all_apps] == ["default", "mobile", "admin"]
    assert (mobile.rate_limit, admin.rate_limit) == ((Rate(1, 60),), ())
    assert (mobile.address_rate_limit, admin.address_rate_limit) == ((Rate(10, 60),), ())
    assert (mobile.title, admin.title) == ("Mobile", "Default")
    assert (mobile.client_auth, admin.client_auth) == ("token", "none")
    assert [key.reveal() for app in default.all_apps for key in app.keys] == [KEY, OTHER_KEY, KEY]
    assert default.all_keys == (*default.keys, *mobile.keys)
    assert mobile.upstream == default.upstream


def test_one_app_without_credentials_is_reason_enough_to_ask_for_a_total(tmp_path: Path) -> None:
    said = {
        "KEYPROXY_CLIENT_AUTH": "token",
        "KEYPROXY_CLIENT_TOKENS": f"ios:{STORED.digest.hex()}",
        "KEYPROXY_TOTAL_BUDGET": "",
    }
    text = faults(tmp_path, "[apps.demo]\nclient_auth = 'none'", **said)
    assert "KEYPROXY_TOTAL_BUDGET is not set" in text
    assert "(KEYPROXY_CLIENT_AUTH is none in apps.demo)" in text
    own = f"[apps.demo]\nclient_tokens = ['ios:{STORED.digest.hex()}']"
    assert read(tmp_path, own, **said).total_budget == ()


def test_client_tokens_are_never_handed_down(tmp_path: Path) -> None:
    said = {
        "KEYPROXY_CLIENT_AUTH": "token",
        "KEYPROXY_CLIENT_TOKENS": f"ios:{STORED.digest.hex()}",
    }
    text = faults(tmp_path, "[apps.admin]\ntitle = 'x'", **said)
    assert "apps.admin.client_tokens is not set" in text


def test_a_key_of_an_apps_own_takes_the_place_of_the_default_apps_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    variables = {"OPENROUTER_API_KEY": "", "OPENROUTER_API_KEY_FILE": "key"}
    settings = read(tmp_path, **variables)
    assert [app.keys[0].reveal() for app in settings.all_apps] == [KEY, OTHER_KEY, KEY]


def test_faults_of_all_apps_come_together(tmp_path: Path) -> None:
    toml = "[apps.a]\nrate_limit = 'x'\n[apps.b]\nmax_tokens = 'x'\nallowed_models = '!x'"
    text = faults(tmp_path, toml, KEYPROXY_MAX_BODY="x")
    for variable in ("KEYPROXY_MAX_BODY", "apps.a.rate_limit", "apps.b.max_tokens"):
        assert variable in text
    assert 'allowed_models = ["*", "!x"]' in text


@pytest.mark.parametrize(
    ("origin", "model", "expected"),
    [
        (None, "openai/gpt-4o", (200, None)),
        ("https://app.example", "openai/gpt-4o", (200, None)),
        ("https://app.example", "anthropic/claude", (403, "model_not_allowed")),
        ("https://admin.example", "anthropic/claude", (200, None)),
        ("https://admin.example", "openai/gpt-4o", (403, "model_not_allowed")),
        ("https://m.example", "openai/gpt-4o-mini", (401, "credential_missing")),
        ("https://elsewhere.example", "openai/gpt-4o", (403, "origin_not_allowed")),
    ],
)
async def test_an_app_is_chosen_by_origin_else_it_is_the_default_app(
    proxy: Proxy, origin: str | None, model: str, expected: tuple[int, str | None]
) -> None:
    assert await asked(proxy, model, origin) == expected
    assert len(proxy.upstream.calls) == (expected[0] == 200)


async def test_a_credential_goes_before_the_origin(proxy: Proxy) -> None:
    assert await asked(proxy, "openai/gpt-4o-mini", "https://m.example", TOKEN) == (200, None)
    [seen] = proxy.upstream.calls
    assert seen.headers["Authorization"] == f"Bearer {OTHER_KEY}"
    assert seen.headers["X-Title"] == "Mobile"
    assert b'"max_tokens": 100' in seen.body


async def test_a_native_app_is_known_by_its_token_alone(proxy: Proxy) -> None:
    assert await asked(proxy, "openai/gpt-4o", None, TOKEN) == (403, "model_not_allowed")
    assert await asked(proxy, "openai/gpt-4o-mini", None, TOKEN) == (429, "rate_limited")
    assert proxy.upstream.calls == []


@pytest.mark.parametrize("origin", ["https://app.example", "https://admin.example"])
async def test_a_token_on_a_page_of_another_app_is_refused(proxy: Proxy, origin: str) -> None:
    found = await asked(proxy, "openai/gpt-4o-mini", origin, TOKEN)
    assert found == (403, "origin_not_allowed")
    assert proxy.upstream.calls == []


async def test_preflights_of_every_apps_pages_are_answered(proxy: Proxy) -> None:
    for origin, status in (
        ("https://m.example", 204),
        ("capacitor://localhost", 204),
        ("https://admin.example", 204),
        ("https://elsewhere.example", 403),
    ):
        asking = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        url = f"{proxy.url}/api/v1/chat/completions"
        async with proxy.session.options(url, headers=asking) as answer:
            assert answer.status == status
    assert proxy.upstream.calls == []


async def test_no_answer_to_one_app_holds_the_key_of_another(proxy: Proxy) -> None:
    """The upstream has both; what it was sent for one app it may repeat to the other."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"choices": [], "said": OTHER_KEY})

    proxy.upstream.answer = answer
    async with proxy.post() as cut:
        assert cut.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await cut.read()


async def test_clients_of_two_apps_are_counted_apart(proxy: Proxy) -> None:
    """One address, anonymous in the default app; the name of a token can be any text."""
    assert await asked(proxy, "openai/gpt-4o-mini", None, TOKEN) == (200, None)
    assert await asked(proxy, "openai/gpt-4o-mini", None, TOKEN) == (429, "rate_limited")
    assert await asked(proxy, "openai/gpt-4o-mini") == (200, None)
    assert len(proxy.upstream.calls) == 2


async def test_the_catalogue_shows_each_app_its_own_models(proxy: Proxy) -> None:
    shown = {}
    for origin in ("https://app.example", "https://admin.example"):
        async with proxy.get("/api/v1/models", headers={"Origin": origin}) as answer:
            shown[origin] = {row["id"].split("/")[0] for row in (await answer.json())["data"]}
    assert shown == {"https://app.example": {"openai"}, "https://admin.example": {"anthropic"}}


async def test_a_rejected_key_of_one_app_leaves_the_others_working(proxy: Proxy) -> None:

    async def by_key(request: web.Request) -> web.StreamResponse:
        is_other = OTHER_KEY in request.headers.get("Authorization", "")
        return web.json_response({"error": {"code": 401}}, status=401 if is_other else 200)

    proxy.upstream.answer = proxy.upstream.key_answer = by_key
    found = await asked(proxy, "openai/gpt-4o-mini", None, TOKEN)
    assert found == (502, "upstream_key_rejected")
    status, _ = await asked(proxy, "openai/gpt-4o-mini")
    assert status == 200


async def test_the_log_says_which_app_and_client(
    proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    await asked(proxy, "openai/gpt-4o-mini", "https://m.example", TOKEN)
    out = capsys.readouterr().out
    assert "mobile" in out
    assert "ios" in out
    assert TOKEN not in out


def test_settings_of_the_whole_process_hold_for_every_app(tmp_path: Path) -> None:
    settings = read(tmp_path).kept(idle_timeout_seconds=7.0)
    assert {app.idle_timeout_seconds for app in settings.all_apps} == {7.0}
    assert replace(settings, apps=()) != settings


def test_an_app_needs_no_environment_of_its_own(tmp_path: Path) -> None:
    """Simple set-ups never see TOML."""
    assert settings_of("serve", **SERVE).apps == ()
