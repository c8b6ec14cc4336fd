"""Credentials in a call's head: client tokens, a provider's key, an SDK's dummy."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from keyproxy.clients import credentials
from keyproxy.clients.credentials import Tokens
from keyproxy.settings.advice import odd
from keyproxy.settings.grammar.secrets import ClientToken
from tests.conftest import CHAT, KEY, Proxy, Start, refused
from tests.program import Program, started

TOKEN, STORED = credentials.make_token("phone")
PAIR = f"phone:{STORED.digest.hex()}"
OTHER, OTHER_STORED = credentials.make_token("ci")
ASKING = {"CLIENT_AUTH": "token", "CLIENT_TOKENS": f"{PAIR},ci:{OTHER_STORED.digest.hex()}"}
SECRET = "kU3v9xQ2" * 5
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "x-goog-api-key"])
@pytest.mark.parametrize(
    "key", [KEY, "sk-ant-api03-" + "a" * 40, "sk-proj-" + "A1" * 20, "gsk_" + "a" * 52]
)
async def test_a_providers_key_from_a_page_is_refused_by_name(
    proxy: Proxy, name: str, key: str
) -> None:
    async with proxy.post(
        headers={name: f"Bearer {key}" if name == "Authorization" else key}
    ) as answer:
        error = await refused(answer, 400, "provider_key_sent")
    assert "rotate it" in error["message"]
    assert key not in str(error)
    assert proxy.upstream.calls == []


@pytest.mark.parametrize(
    "value", ["none", "Bearer none", "Bearer sk-local", "Bearer dummy-key", ""]
)
async def test_a_made_up_key_of_an_sdk_is_ignored(proxy: Proxy, value: str) -> None:
    async with proxy.post(headers={"Authorization": value}) as answer:
        assert answer.status == 200


async def test_letters_within_a_jwt_are_no_providers_key(start: Start) -> None:
    """One signature in some thousand holds them."""
    proxy = await start("serve")
    token = f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.a_b-sk-{'Ab1' * 14}"
    async with proxy.post(headers={"Authorization": f"Bearer {token}"}) as answer:
        assert answer.status == 200


MADE_UP = [
    {"Authorization": "Bearer none"},
    {"x-api-key": "my-own-key"},
    {"Authorization": "Bearer kps_made-up"},
    {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."},
    {"Authorization": "Bearer first-key", "x-api-key": "second-key"},
    {},
]


@pytest.mark.parametrize("headers", MADE_UP)
async def test_a_made_up_key_is_told_how_to_open_a_session(
    start: Start, headers: dict[str, str]
) -> None:
    """Who puts any text into an SDK's field for a key reads no hint of the log."""
    proxy = await start("serve", **(ASKING | {"CLIENT_AUTH": "session", "SESSION_SECRET": SECRET}))
    async with proxy.post(headers=headers) as answer:
        code = "credential_invalid" if headers else "credential_missing"
        error = await refused(answer, 401, code)
    assert "POST /session" in error["message"]
    assert not any(value.split()[-1] in error["message"] for value in headers.values())
    assert proxy.upstream.calls == []


async def test_tokens_open_nothing_where_they_are_not_asked_for(
    start: Start, tmp_path: Path
) -> None:
    proxy = await start("serve", **(ASKING | {"CLIENT_AUTH": "session", "SESSION_SECRET": SECRET}))
    async with proxy.post(headers=BEARER) as answer:
        await refused(answer, 401, "credential_invalid")
    assert proxy.upstream.calls == []
    [warning] = odd(proxy.service.settings)
    assert "open nothing" in warning


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "X-Goog-Api-Key"])
async def test_a_client_token_is_taken_from_wherever_an_sdk_puts_it(
    start: Start, name: str
) -> None:
    proxy = await start("serve", **ASKING)
    value = f"Bearer {TOKEN}" if name == "Authorization" else TOKEN
    async with proxy.post(headers={name: value}) as answer:
        assert answer.status == 200
    [seen] = proxy.upstream.calls
    assert TOKEN not in str(seen.headers)
    assert seen.headers.getall("Authorization") == [f"Bearer {KEY}"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "credential_missing"),
        ({"Authorization": ""}, "credential_missing"),
        ({"Authorization": "Bearer"}, "credential_missing"),
        ({"Authorization": f"Basic {TOKEN}"}, "credential_missing"),
        ({"Cookie": f"token={TOKEN}"}, "credential_missing"),
        ({"Authorization": "Bearer none"}, "credential_invalid"),
        ({"Authorization": f"Bearer {TOKEN[:-1]}"}, "credential_invalid"),
        ({"Authorization": f"Bearer {TOKEN}x"}, "credential_invalid"),
        ({"Authorization": f"Bearer {TOKEN.upper()}"}, "credential_invalid"),
        ({"Authorization": f"Bearer {STORED.digest.hex()}"}, "credential_invalid"),
        ({"x-api-key": "\u00fc" * 20}, "credential_invalid"),
        ({**BEARER, "x-api-key": OTHER}, "credential_invalid"),
        ({**BEARER, "x-api-key": "none"}, "credential_invalid"),
    ],
)
async def test_without_a_known_token_nothing_reaches_the_upstream(
    start: Start, headers: dict[str, str], code: str
) -> None:
    proxy = await start("serve", **ASKING)
    async with proxy.post(headers=headers) as answer:
        error = await refused(answer, 401, code)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.headers["x-should-retry"] == "false"
    assert TOKEN[:12] not in str(error)
    assert proxy.upstream.calls == []


async def test_the_same_token_twice_is_one_credential(start: Start) -> None:
    """Anthropic's SDK sends both headers when both of its options are set."""
    proxy = await start("serve", **ASKING)
    async with proxy.post(headers={**BEARER, "x-api-key": TOKEN}) as answer:
        assert answer.status == 200


async def test_a_page_reads_why_its_credential_was_refused(start: Start) -> None:
    proxy = await start("serve", **ASKING)
    origin = {"Origin": "https://app.example"}
    async with proxy.post(headers=origin) as answer:
        await refused(answer, 401, "credential_missing")
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
    asking = {**origin, "Access-Control-Request-Method": "POST"}
    async with proxy.session.options(proxy.url + CHAT, headers=asking) as answer:
        assert answer.status == 204
    assert proxy.upstream.calls == []


async def test_the_messages_path_answers_in_its_own_shape(start: Start) -> None:
    proxy = await start("serve", **ASKING)
    async with proxy.post(path="/api/v1/messages") as answer:
        error = await refused(answer, 401, "credential_missing")
    assert (error["type"], error["error_type"]) == ("authentication_error", "credential_missing")
    assert proxy.upstream.calls == []


async def test_each_token_is_a_client_with_limits_of_its_own(start: Start) -> None:
    proxy = await start("serve", **ASKING, RATE_LIMIT="1/minute")
    statuses = []
    for token in (TOKEN, TOKEN, OTHER):
        async with proxy.post(headers={"x-api-key": token}) as answer:
            statuses.append(answer.status)
    assert statuses == [200, 429, 200]
    assert len(proxy.upstream.calls) == 2


@pytest.mark.parametrize(
    ("bad", "code", "most"),
    [
        ({"Authorization": "Bearer guess"}, "credential_invalid", 30),
        ({}, "credential_missing", 300),
    ],
)
async def test_failed_attempts_are_limited_by_address_and_good_tokens_are_not(
    start: Start, bad: dict[str, str], code: str, most: int
) -> None:
    proxy = await start("serve", **ASKING, RATE_LIMIT="off")
    for _ in range(most):
        async with proxy.post(headers=bad) as answer:
            await refused(answer, 401, code)
    async with proxy.post(headers=bad) as answer:
        await refused(answer, 429, "rate_limited")
        assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert proxy.upstream.calls == []
    async with proxy.post(headers=BEARER) as answer:
        assert answer.status == 200


def test_a_token_is_known_by_its_hash_alone() -> None:
    known = Tokens([("default", STORED), ("mobile", OTHER_STORED)])
    assert known.holder(TOKEN) == credentials.Holder("default", "phone")
    assert known.holder(OTHER) == credentials.Holder("mobile", "ci")
    alike = ClientToken("twin", STORED.digest[:8] + bytes(24))
    assert Tokens([("default", alike)]).holder(TOKEN) is None
    for text in ("", TOKEN.lower(), "\udcff", "x" * 10_000):
        assert known.holder(text) is None


async def test_a_revoked_token_ends_with_the_next_call(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# who may call\n{PAIR}\nci:{OTHER_STORED.digest.hex()}  # the build\n")
    variables = {
        "KEYPROXY_CLIENT_AUTH": "token",
        "KEYPROXY_CLIENT_TOKENS_FILE": str(file),
        "KEYPROXY_UPSTREAM": "http://127.0.0.1:9/api/v1",
    }
    async with started("dev", tmp_path, **variables) as program:
        assert await status(program, TOKEN) == 502
        file.write_text(f"ci:{OTHER_STORED.digest.hex()}\n")
        program.signal(signal.SIGHUP)
        await program.said("settings reloaded")
        assert await status(program, TOKEN) == 401
        assert await status(program, OTHER) == 502


async def status(program: Program, token: str) -> int:
    """The status of a call to a ``program`` whose upstream does not answer."""
    host, port = program.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = b'{"model":"openai/gpt-4o-mini","messages":[]}'
    writer.write(
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"x-api-key: {token}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
        + body
    )
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])
