"""``POST /session`` and the calls that follow, through real sockets."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from keyproxy.clients.captcha import Captcha
from tests.conftest import KEY, Proxy, Start, refused
from tests.siteverify import SECRET as CAPTCHA_SECRET
from tests.siteverify import serving

PAGE = {"Origin": "https://app.example"}
SECRET = "kU3v9xQ2" * 5
ASKING = {"CLIENT_AUTH": "session", "SESSION_SECRET": SECRET, "RATE_LIMIT": "2/minute"}


async def opened(proxy: Proxy, token: str | None = None, **headers: str) -> dict[str, Any]:
    head = {**PAGE, **headers}
    if token is not None:
        head["Authorization"] = f"Bearer {token}"
    async with proxy.session.post(f"{proxy.url}/session", headers=head) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Access-Control-Allow-Origin"] == head["Origin"]
        found: dict[str, Any] = await answer.json()
        return found


async def status(proxy: Proxy, token: str, origin: str | None = PAGE["Origin"]) -> int:
    head = {"Authorization": f"Bearer {token}"} | ({} if origin is None else {"Origin": origin})
    async with proxy.post(headers=head) as answer:
        return int(answer.status)


async def test_a_page_opens_a_session_and_calls_with_it(start: Start) -> None:
    proxy = await start("serve", **ASKING)
    found = await opened(proxy)
    assert (found["token_type"], found["expires_in"]) == ("Bearer", 3600)
    assert await status(proxy, found["token"]) == 200
    [seen] = proxy.upstream.calls
    assert seen.headers.getall("Authorization") == [f"Bearer {KEY}"]
    assert found["token"] not in str(seen)


async def test_pages_behind_one_address_are_clients_of_their_own(start: Start) -> None:
    proxy = await start("serve", **ASKING)
    one, two = (await opened(proxy))["token"], (await opened(proxy))["token"]
    assert [await status(proxy, one) for _ in range(3)] == [200, 200, 429]
    assert await status(proxy, two) == 200


async def test_renewing_buys_no_second_bucket(start: Start) -> None:
    proxy = await start("serve", **ASKING)
    token = (await opened(proxy))["token"]
    assert [await status(proxy, token) for _ in range(2)] == [200, 200]
    renewed = (await opened(proxy, token))["token"]
    assert await status(proxy, renewed) == 429
    assert len(proxy.upstream.calls) == 2


async def test_the_log_says_whose_session_was_opened(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy = await start("serve", **ASKING)
    token = (await opened(proxy))["token"]
    out = capsys.readouterr().out
    assert "app=default" in out
    assert "client=session-" in out
    assert token not in out


async def test_every_replica_with_the_secret_accepts_a_session(start: Start) -> None:
    one = await start("serve", **ASKING)
    two = await start("serve", **ASKING)
    other = await start("serve", **(ASKING | {"SESSION_SECRET": SECRET[::-1]}))
    token = (await opened(one))["token"]
    assert [await status(each, token) for each in (two, other)] == [200, 401]


async def test_a_session_is_bound_to_its_origin(start: Start) -> None:
    origins = "https://app.example,https://other.example"
    proxy = await start("serve", **ASKING, ALLOWED_ORIGINS=origins)
    token = (await opened(proxy))["token"]
    assert await status(proxy, token, "https://other.example") == 401
    assert await status(proxy, token, None) == 401
    assert proxy.upstream.calls == []


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_session_serves_its_own_pages_gets(start: Start, scheme: str) -> None:
    """Browsers send no Origin with a same-origin GET; a web server in front may speak TLS."""
    host = "page.example:8080"
    own = f"{scheme}://{host}"
    proxy = await start("serve", **ASKING, ALLOWED_HOSTS=f"127.0.0.1,{host}", ALLOWED_ORIGINS=own)
    token = (await opened(proxy, Origin=own))["token"]
    head = {"Authorization": f"Bearer {token}"}
    for name, expected in ((host, 200), ("127.0.0.1", 401)):
        async with proxy.get("/api/v1/models", headers={**head, "Host": name}) as answer:
            assert answer.status == expected
    proxy.service.kit.opening.sessions._clock = lambda: time.time() + 3601
    async with proxy.get("/api/v1/models", headers={**head, "Host": host}) as answer:
        await refused(answer, 401, "credential_expired")


async def test_without_a_session_nothing_reaches_the_upstream(start: Start) -> None:
    proxy = await start("serve", **ASKING)
    async with proxy.post(headers=PAGE) as answer:
        error = await refused(answer, 401, "credential_missing")
    assert "POST /session" in error["message"]
    async with proxy.post(headers={**PAGE, "x-api-key": "kps_none"}) as answer:
        await refused(answer, 401, "credential_invalid")
    assert proxy.upstream.calls == []


async def test_an_ended_session_is_told_from_a_wrong_one(start: Start) -> None:
    proxy = await start("serve", **ASKING)
    proxy.service.kit.opening.sessions._clock = lambda: 1.0
    token = (await opened(proxy))["token"]
    proxy.service.kit.opening.sessions._clock = lambda: 3601.0
    async with proxy.post(headers={**PAGE, "Authorization": f"Bearer {token}"}) as answer:
        await refused(answer, 401, "credential_expired")
    assert proxy.upstream.calls == []


async def test_new_sessions_are_limited_by_address_and_renewals_are_not(start: Start) -> None:
    proxy = await start("serve", **ASKING, SESSION_RATE_LIMIT="2/hour")
    token = (await opened(proxy))["token"]
    await opened(proxy)
    async with proxy.session.post(f"{proxy.url}/session", headers=PAGE) as answer:
        await refused(answer, 429, "rate_limited")
        assert answer.headers["Retry-After"] == "3600"
        assert answer.headers["RateLimit"] == '"session-3600";r=0;t=3600'
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE["Origin"]
    await opened(proxy, token)


async def test_a_session_is_renewed_only_so_often(start: Start) -> None:
    proxy = await start("serve", **ASKING)
    token, other = [(await opened(proxy))["token"] for _ in range(2)]
    for _ in range(30):
        await opened(proxy, token)
    headers = {**PAGE, "Authorization": f"Bearer {token}"}
    async with proxy.session.post(f"{proxy.url}/session", headers=headers) as answer:
        await refused(answer, 429, "rate_limited")
        assert 0 < int(answer.headers["Retry-After"]) <= 60
        assert answer.headers["RateLimit"].startswith('"renewal-60";r=0;t=')
    await opened(proxy, other)


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", ""])
async def test_a_foreign_page_opens_no_session(start: Start, origin: str) -> None:
    proxy = await start("serve", **ASKING)
    async with proxy.session.post(f"{proxy.url}/session", headers={"Origin": origin}) as answer:
        await refused(answer, 403, "origin_not_allowed")


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("GET", "/session", 405, "method_not_allowed"),
        ("DELETE", "/session", 405, "method_not_allowed"),
        ("POST", "/session?x=1", 400, "query_not_allowed"),
        ("POST", "/session/", 404, "endpoint_not_allowed"),
        ("POST", "/sess%69on", 404, "endpoint_not_allowed"),
        ("POST", "/api/v1/session", 404, "endpoint_not_allowed"),
        ("POST", "//session", 404, "endpoint_not_allowed"),
    ],
)
async def test_only_the_exact_request_opens_a_session(
    start: Start, method: str, target: str, status: int, code: str
) -> None:
    proxy = await start("serve", **ASKING)
    token = (await opened(proxy))["token"]
    raw = await proxy.raw(
        f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: {token}\r\n"
        "Origin: https://app.example\r\nConnection: close\r\n\r\n".encode()
    )
    assert f"HTTP/1.1 {status} ".encode() in raw
    assert f"X-Keyproxy-Code: {code}".encode() in raw


async def test_there_are_no_sessions_where_none_are_asked_for(start: Start) -> None:
    proxy = await start("serve")
    async with proxy.session.post(f"{proxy.url}/session", headers=PAGE) as answer:
        await refused(answer, 404, "endpoint_not_allowed")


async def test_a_session_survives_a_reload_in_dev(start: Start) -> None:
    """There, the secret is the process's own."""
    proxy = await start(CLIENT_AUTH="session")
    page = "http://localhost:3000"
    token = (await opened(proxy, Origin=page))["token"]
    proxy.service.apply(proxy.service.settings)
    assert await status(proxy, token, page) == 200


async def test_a_page_opens_sessions_after_a_preflight(start: Start) -> None:
    proxy = await start("serve", **ASKING)
    asking = {**PAGE, "Access-Control-Request-Method": "POST"}
    asking["Access-Control-Request-Headers"] = "content-type"
    async with proxy.session.options(f"{proxy.url}/session", headers=asking) as answer:
        assert answer.status == 204


async def test_a_captcha_stands_before_a_new_session(start: Start) -> None:
    proxy = await start("serve", **ASKING)
    async with serving() as vendor:
        kit, url = proxy.service.kit, f"{proxy.url}/session"
        captcha = Captcha("turnstile", CAPTCHA_SECRET, proxy.session, url=vendor.url)
        opening = dataclasses.replace(kit.opening, captcha=captcha)
        proxy.service.assembly.kit = dataclasses.replace(kit, opening=opening)
        for sent in (None, {}, {"captcha": ""}, {"captcha": "wrong"}, {"token": "made-up.1"}):
            async with proxy.session.post(url, json=sent, headers=PAGE) as answer:
                await refused(answer, 403, "captcha_failed")
        async with proxy.session.post(url, json={"captcha": 1}, headers=PAGE) as answer:
            await refused(answer, 400, "invalid_json")
        async with proxy.session.post(url, json={"captcha": "made-up.1"}) as answer:
            await refused(answer, 403, "captcha_failed")  # solved anywhere
        for name in ("captcha", "cf-turnstile-response"):
            solved = {name: f"made-up.{name}"}
            async with proxy.session.post(url, json=solved, headers=PAGE) as answer:
                assert answer.status == 200
                token = (await answer.json())["token"]
        count = len(vendor.asked)
        await opened(proxy, token)  # renewed without another captcha
        assert len(vendor.asked) == count


async def test_a_body_that_is_no_small_json_opens_nothing(start: Start) -> None:
    proxy = await start("serve", **ASKING)
    url = f"{proxy.url}/session"
    for data, kind, expected in (
        (b"x=1", "application/x-www-form-urlencoded", (415, "unsupported_media_type")),
        (b'{"a":1,"a":2}', "application/json", (400, "invalid_json")),
        (b" " * 20_000, "application/json", (413, "body_too_large")),
    ):
        headers = {**PAGE, "Content-Type": kind}
        async with proxy.session.post(url, data=data, headers=headers) as answer:
            await refused(answer, *expected)
