"""Pages: which hosts and origins are ours, preflights, and what a page may read."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import cache
from io import StringIO
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from keyproxy.browser import EXPOSED_HEADERS, MAX_REQUESTED_HEADERS, Browser, HostRules, OriginRules
from keyproxy.errors import Refusal
from keyproxy.limits.admit import Admission
from keyproxy.server.assembly import browser_of
from keyproxy.settings import Settings
from keyproxy.settings.advice import written_hint
from keyproxy.upstream.openrouter import OPENROUTER
from keyproxy.upstream.providers import PROVIDERS
from tests.conftest import BODY, CHAT, Proxy, Start, refused
from tests.conftest import settings as made
from tests.examples import examples
from tests.fake_upstream import event_stream
from tests.raw import only_answer, refused_raw, request

PAGE = "http://localhost:5173"
DEV_HOSTS = ("localhost", "*.localhost", "any-ip", "host.docker.internal")

# Measured by running the SDKs in a browser-like environment (anthropic 0.x and tracing: by source).
REQUESTED_HEADERS = {
    "openai-7.57": "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,"
    "x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,"
    "x-stainless-runtime-version",
    "openai-7.57-all-options": "authorization,content-type,openai-organization,openai-project,"
    "x-stainless-arch,x-stainless-helper-method,x-stainless-lang,x-stainless-os,"
    "x-stainless-package-version,x-stainless-poll-helper,x-stainless-retry-count,"
    "x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout",
    "anthropic-1.12": "anthropic-beta,anthropic-dangerous-direct-browser-access,anthropic-version,"
    "authorization,content-type,user-agent,x-stainless-arch,x-stainless-helper,"
    "x-stainless-helper-method,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
    "x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout",
    "anthropic-0.x": "anthropic-beta,anthropic-dangerous-direct-browser-access,anthropic-version,"
    "content-type,x-api-key,x-stainless-arch,x-stainless-lang,x-stainless-os,"
    "x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,"
    "x-stainless-runtime-version,x-stainless-timeout",
    "openrouter-sdk-1.3.19": "authorization,content-type,http-referer,x-openrouter-categories,"
    "x-openrouter-metadata,x-openrouter-title",
    "openrouter-ai-sdk-provider-3.1": "authorization,content-type,http-referer,user-agent,"
    "x-openrouter-title,x-provider-api-keys",
    "ai-sdk-openai-4": "authorization,content-type,user-agent",
    "google-genai-2.32": "content-type,user-agent,x-goog-api-client,x-goog-api-key",
    "tracing": "authorization,baggage,content-type,sentry-trace,traceparent,tracestate",
}


@pytest.mark.parametrize(
    ("entries", "value", "is_allowed"),
    [
        (DEV_HOSTS, "localhost", True),
        (DEV_HOSTS, "localhost:8484", True),
        (DEV_HOSTS, "LOCALHOST:8484", True),
        (DEV_HOSTS, "app.localhost:3000", True),
        (DEV_HOSTS, "127.0.0.1:8484", True),
        (DEV_HOSTS, "192.168.1.5", True),
        (DEV_HOSTS, "[::1]:8484", True),
        (DEV_HOSTS, "[fe80::1]", True),
        (DEV_HOSTS, "host.docker.internal:8484", True),
        (DEV_HOSTS, "evil.example", False),
        (DEV_HOSTS, "evil.example:8484", False),
        (DEV_HOSTS, "localhost.evil.example", False),
        (DEV_HOSTS, "evillocalhost", False),
        (DEV_HOSTS, "localhost.", False),
        (DEV_HOSTS, "127.0.0.1.nip.io", False),
        (DEV_HOSTS, "any-ip", False),
        (DEV_HOSTS, "*.localhost", False),
        (DEV_HOSTS, "0.0.0.0", False),
        (DEV_HOSTS, "[::]", False),
        (DEV_HOSTS, "[::ffff:127.0.0.1]", False),
        (DEV_HOSTS, "2130706433", False),
        (DEV_HOSTS, "127.1", False),
        (DEV_HOSTS, "0x7f.1", False),
        (DEV_HOSTS, "0177.0.0.1", False),
        (DEV_HOSTS, "[::1", False),
        (DEV_HOSTS, "::1", False),
        (DEV_HOSTS, "[::1%25eth0]", False),
        (DEV_HOSTS, "user@localhost", False),
        (DEV_HOSTS, "localhost:", False),
        (DEV_HOSTS, "localhost:x", False),
        (DEV_HOSTS, "localhost:123456", False),
        (DEV_HOSTS, "localhost/#@evil.example", False),
        (DEV_HOSTS, "localhost, evil.example", False),
        (DEV_HOSTS, " localhost", False),
        (DEV_HOSTS, "", False),
        (DEV_HOSTS, "localh\u00f6st", False),
        (DEV_HOSTS, "locAlho\u017ft", False),
        (("api.example",), "api.example", True),
        (("api.example",), "api.example:444", True),
        (("api.example",), "127.0.0.1", False),
        (("api.example",), "localhost", False),
        (("api.example",), "apixexample", False),
        (("api.example:443",), "api.example:443", True),
        (("api.example:443",), "api.example", False),
        (("api.example:443",), "api.example:8443", False),
        (("*.mine.example",), "a.mine.example", True),
        (("*.mine.example",), "a.b.mine.example:1", True),
        (("*.mine.example",), "mine.example", False),
        (("*.mine.example",), "evilmine.example", False),
        (("[::1]",), "[::1]:9", True),
    ],
)
def test_hosts(entries: tuple[str, ...], value: str, is_allowed: bool) -> None:
    assert HostRules(entries).allows(value) is is_allowed


@pytest.mark.parametrize(
    ("entries", "origin", "is_allowed"),
    [
        (("https://app.example",), "https://app.example", True),
        (("https://app.example",), "http://app.example", False),
        (("https://app.example",), "https://app.example:443", False),
        (("https://app.example",), "https://app.example:8443", False),
        (("https://app.example",), "https://app.example.evil.example", False),
        (("https://app.example",), "https://evilapp.example", False),
        (("https://app.example",), "https://app.example/", False),
        (("https://app.example",), "https://APP.example", False),
        (("https://app.example",), "https://appxexample", False),
        (("https://app.example",), "https://evil@app.example", False),
        (("https://app.example",), "https://sub.app.example", False),
        (("https://app.example",), "https://app.example, https://evil.example", False),
        (("https://app.example",), "https://app.example https://evil.example", False),
        (("https://app.example",), " https://app.example", False),
        (("https://app.example",), "null", False),
        (("https://app.example",), "", False),
        (("https://app.example",), "*", False),
        (("null",), "null", True),
        (("null",), "NULL", False),
        (("capacitor://localhost",), "capacitor://localhost", True),
        (("chrome-extension://abcdef",), "chrome-extension://abcdef", True),
        (("localhost",), "http://localhost", True),
        (("localhost",), "http://localhost:3000", True),
        (("localhost",), "https://localhost:3000", True),
        (("localhost",), "http://app.localhost:3000", True),
        (("localhost",), "http://127.0.0.1:5173", True),
        (("localhost",), "http://[::1]:5173", True),
        (("localhost",), "capacitor://localhost", True),
        (("localhost",), "tauri://localhost", True),
        (("localhost",), "localhost", False),
        (("localhost",), "null", False),
        (("localhost",), "http://localhost.evil.example", False),
        (("localhost",), "http://evillocalhost", False),
        (("localhost",), "http://localhost:3000.evil.example", False),
        (("localhost",), "http://localhost@evil.example", False),
        (("localhost",), "http://127.0.0.1.nip.io", False),
        (("localhost",), "http://0.0.0.0:3000", False),
        (("localhost",), "http://2130706433", False),
        (("localhost",), "http://127.1", False),
        (("localhost",), "http://[::ffff:127.0.0.1]", False),
        (("localhost",), "http://192.168.1.5:3000", False),
        (("localhost",), "http://localhost:3000\n", False),
        (("https://*.mine.example",), "https://a.mine.example", True),
        (("https://*.mine.example",), "https://mine.example", False),
        (("https://*.mine.example",), "https://.mine.example", False),
        (("https://*.mine.example",), "https://a.b.mine.example", False),
        (("https://*.mine.example",), "http://a.mine.example", False),
        (("https://*.mine.example",), "https://a.mine.example:444", False),
        (("https://*.mine.example",), "https://a.mine.example.evil.example", False),
        (("https://*.mine.example",), "https://evil.example/.mine.example", False),
        (("https://*.mine.example",), "https://evil.example#.mine.example", False),
        (("https://*.mine.example",), "https://a.minexexample", False),
        (("https://myapp-*-team.vercel.app",), "https://myapp-git-main-team.vercel.app", True),
        (("https://myapp-*-team.vercel.app",), "https://myapp--team.vercel.app", False),
        (("https://myapp-*-team.vercel.app",), "https://evil-myapp-x-team.vercel.app", False),
        (("https://myapp-*-team.vercel.app",), "https://myapp-x.evil-team.vercel.app", False),
        (("*",), "https://anything.example", True),
        (("*",), "http://[::1]:3000", True),
        (("*",), "null", True),
        (("*",), "file://", True),
        (("*",), "*", False),
        (("*",), "", False),
        (("*",), "https://a,https://b", False),
        (("*",), "https://a b", False),
        (("*",), "\udcff\udcfe", False),
        (("*",), "https://\u00e9", False),
        (("app://-",), "app://-", True),
        (("app://-",), "app://-:80", False),
        (("app://-",), "app://--", False),
        (("app://-",), "app://", False),
        (("app://-",), "APP://-", False),
        (("app://-",), "xapp://-", False),
        (("app://.",), "app://.", True),
        (("app://.",), "app://x", False),
        (("file://",), "file://", True),
        (("file://",), "file:///", False),
        (("file://",), "file://x", False),
        (("file://",), "null", False),
        (("safari-web-extension://AB-CD",), "safari-web-extension://AB-CD", True),
        (("safari-web-extension://AB-CD",), "safari-web-extension://ab-cd", False),
        (("moz-extension://*",), "moz-extension://0f3c-9A", True),
        (("moz-extension://*",), "moz-extension://", False),
        (("moz-extension://*",), "moz-extension://*", False),
        (("moz-extension://*",), "moz-extension://a:1", False),
        (("moz-extension://*",), "moz-extension://a/b", False),
        (("moz-extension://*",), "moz-extension://a\n", False),
        (("moz-extension://*",), "xmoz-extension://a", False),
        (("moz-extension://*",), "chrome-extension://a", False),
        (("moz-extension://*",), "https://a", False),
        (("vscode-webview://*",), "vscode-webview://1hjq5mdo0", True),
        ((), "https://app.example", False),
        ((), "null", False),
    ],
)  # fmt: skip
def test_origins(entries: tuple[str, ...], origin: str, is_allowed: bool) -> None:
    assert OriginRules(entries).allows(origin) is is_allowed


@given(st.text(max_size=40))
@examples(100)
def test_nothing_around_an_allowed_origin_or_host_is_allowed(text: str) -> None:
    origins = OriginRules(["https://app.example", "https://*.mine.example", "localhost"])
    hosts = HostRules(["api.example"])
    if text:
        assert not origins.allows("https://app.example" + text)
        assert not origins.allows(text + "https://app.example")
        assert not hosts.allows(text + "api.example")
    if not text.startswith(":"):
        assert hosts.allows("api.example" + text) is (text == "")


@given(st.lists(st.text(max_size=70), max_size=80))
@examples(100)
def test_a_preflight_reflects_plain_names_only(names: list[str]) -> None:
    head = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": ",".join(names),
    }
    answer: Mapping[str, str] = {}
    with contextlib.suppress(Refusal):
        answer = Browser(DEV_HOSTS, ["localhost"]).preflight(CIMultiDictProxy(CIMultiDict(head)))
    reflected = answer.get("Access-Control-Allow-Headers", "").split(", ")
    assert len(reflected) <= MAX_REQUESTED_HEADERS
    assert all(name.isascii() and name.isprintable() and " " not in name for name in reflected)


def preflight(
    proxy: Proxy, path: str = CHAT, origin: str = PAGE, headers: str = "content-type", **more: str
) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    fields = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": headers,
    }
    return proxy.session.options(proxy.url + path, headers=fields | more)


def assert_readable(answer: aiohttp.ClientResponse, origin: str = PAGE) -> None:
    """The page of ``origin``, and no other, may read this answer."""
    assert answer.headers.getall("Access-Control-Allow-Origin") == [origin]
    exposed = answer.headers["Access-Control-Expose-Headers"].lower().split(",")
    assert set(exposed) == {name.lower() for name in (*EXPOSED_HEADERS, *OPENROUTER.passed)}
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "origin" in vary(answer)


def test_nothing_that_may_pass_down_is_a_field_that_we_write() -> None:
    """It would stand in the answer twice."""
    ours = {*EXPOSED_HEADERS, "X-Content-Type-Options", "Vary", "Date", "Connection"}
    ours |= {"Content-Type", "Cache-Control", "Content-Length", "Transfer-Encoding"}
    written = {name.lower() for name in ours - {"Retry-After"}}  # in an error of our own
    for provider in PROVIDERS.values():
        assert written.isdisjoint(map(str.lower, provider.passed))


def vary(answer: aiohttp.ClientResponse) -> set[str]:
    return {name.strip() for name in ",".join(answer.headers.getall("Vary")).lower().split(",")}


def unreadable(answer: aiohttp.ClientResponse) -> bool:
    return not any(name.lower().startswith("access-control-") for name in answer.headers)


@pytest.mark.parametrize("sdk", REQUESTED_HEADERS)
@pytest.mark.parametrize("path", [CHAT, "/api/v1/messages", "/no/such/path"])
async def test_every_sdks_preflight_is_answered(proxy: Proxy, sdk: str, path: str) -> None:
    async with preflight(proxy, path, headers=REQUESTED_HEADERS[sdk]) as answer:
        assert (answer.status, await answer.read()) == (204, b"")
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        allowed = answer.headers["Access-Control-Allow-Headers"].split(", ")
        assert allowed == REQUESTED_HEADERS[sdk].split(",")
        assert answer.headers["Access-Control-Allow-Methods"] == "GET, POST"
        assert answer.headers["Access-Control-Max-Age"] == "7200"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        names = {"origin", "access-control-request-method", "access-control-request-headers"}
        assert vary(answer) == names
    assert proxy.upstream.calls == []


async def test_a_preflight_grants_no_private_network_access(proxy: Proxy) -> None:
    asked = {
        "Access-Control-Request-Private-Network": "true",
        "Access-Control-Request-Local-Network": "true",
    }
    async with preflight(proxy, **asked) as answer:
        assert answer.status == 204
        assert not any("network" in name.lower() for name in answer.headers)


async def test_a_preflight_takes_nothing_from_the_rate_limit(start: Start) -> None:
    proxy = await start(RATE_LIMIT="1/hour")
    for _ in range(5):
        async with preflight(proxy) as answer:
            assert answer.status == 204
    async with proxy.post() as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        "a b", "a,b c", "x:y", "x;y", "é", '"x"', "x" * 65, "(x)",
        ",".join(f"x-{n}" for n in range(MAX_REQUESTED_HEADERS + 1)),
    ],
)  # fmt: skip
async def test_a_preflight_for_odd_names_is_refused(proxy: Proxy, headers: str) -> None:
    async with preflight(proxy, headers=headers) as answer:
        await refused(answer, 400, "bad_request")
        assert unreadable(answer)


@pytest.mark.parametrize("headers", ["", " , ,", "x" * 64, ",".join(f"x-{n}" for n in range(64))])
async def test_a_preflight_within_bounds_is_answered(proxy: Proxy, headers: str) -> None:
    async with preflight(proxy, headers=headers) as answer:
        assert answer.status == 204


async def test_a_refused_preflight_names_the_setting_for_the_developer(proxy: Proxy) -> None:
    async with preflight(proxy, origin="https://my.dev.example") as answer:
        error = await refused(answer, 403, "origin_not_allowed")
        assert unreadable(answer)
    assert "KEYPROXY_ALLOWED_ORIGINS=localhost,https://my.dev.example" in error["message"]


FOREIGN = ["https://evil.example", "http://localhost.evil.example", "null", "file://", "*"]


@pytest.mark.parametrize("origin", FOREIGN)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_foreign_page_is_refused_before_anything_is_spent(
    proxy: Proxy, origin: str, method: str
) -> None:
    path = CHAT if method == "POST" else "/api/v1/models"
    body = b"{}" if method == "POST" else None
    async with proxy.session.request(
        method, proxy.url + path, data=body, headers={"Origin": origin}
    ) as answer:
        await refused(answer, 403, "origin_not_allowed")
        assert unreadable(answer)
        assert "origin" in vary(answer)
    assert proxy.upstream.calls == []
    assert proxy.upstream.catalogue == []


async def test_strangers_are_not_told_the_setting(start: Start) -> None:
    proxy = await start("serve")
    async with proxy.post(headers={"Origin": "https://evil.example"}) as answer:
        error = await refused(answer, 403, "origin_not_allowed")
    assert "KEYPROXY" not in error["message"]
    assert "app.example" not in error["message"]
    assert proxy.upstream.calls == []


@pytest.mark.parametrize(
    "fields",
    [
        (f"Origin: {PAGE}", "Origin: https://evil.example"),
        ("Origin: https://evil.example", f"Origin: {PAGE}"),
        (f"Origin: {PAGE}", f"Origin: {PAGE}"),
        ("Origin:",),
        ("Origin: \t",),
        (b"Origin: http://localhost:3000\xff",),
    ],
)
async def test_anything_but_one_listed_origin_is_refused(
    proxy: Proxy, fields: tuple[str | bytes, ...]
) -> None:
    data = request("POST", CHAT, *fields, "Connection: close")
    await refused_raw(proxy, data, 403, "origin_not_allowed")


async def test_a_simple_request_of_a_foreign_page_is_refused(proxy: Proxy) -> None:
    """What ``fetch(url, {mode: "no-cors", body})`` sends without asking first."""
    fields = {"Content-Type": "text/plain;charset=UTF-8", "Origin": "https://evil.example"}
    async with proxy.post(headers=fields) as answer:
        await refused(answer, 403, "origin_not_allowed")
    assert proxy.upstream.calls == []


@pytest.mark.parametrize(
    ("site", "status"),
    [("cross-site", 403), ("same-site", 200), ("same-origin", 200), ("none", 200), ("odd", 200)],
)
async def test_a_cross_site_request_needs_an_origin(proxy: Proxy, site: str, status: int) -> None:
    async with proxy.post(headers={"Sec-Fetch-Site": site}) as answer:
        assert answer.status == status
    assert len(proxy.upstream.calls) == (status == 200)


async def test_a_listed_page_may_be_of_another_site(proxy: Proxy) -> None:
    fields = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
    async with proxy.post(headers=fields) as answer:
        assert answer.status == 200
        assert_readable(answer)


HOSTS = [
    "evil.example", "evil.example:8484", "", "localhost.evil.example", "127.0.0.1.nip.io",
    "0.0.0.0:8484", "user@localhost", "any-ip", "openrouter.ai",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("target", [CHAT, "/api/v1/models", "/no/such/path"])
async def test_a_name_made_to_point_here_is_refused(proxy: Proxy, host: str, target: str) -> None:
    """DNS rebinding: the page's own origin, which it truthfully sends, is no proof."""
    method = "POST" if target == CHAT else "GET"
    data = request(method, target, f"Origin: http://{host}", host=host)
    body = await refused_raw(proxy, data, 421, "host_not_allowed")
    assert "openrouter" not in body["error"]["message"] or host == "openrouter.ai"


@pytest.mark.parametrize("host", HOSTS)
async def test_a_preflight_under_a_foreign_host_is_refused(proxy: Proxy, host: str) -> None:
    fields = (f"Origin: {PAGE}", "Access-Control-Request-Method: POST")
    data = request("OPTIONS", CHAT, *fields, host=host)
    await refused_raw(proxy, data, 421, "host_not_allowed")


@pytest.mark.parametrize("host", ["evil.example", "", "10.0.0.7:8484", "a@b", "x" * 300])
@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_is_told_to_any_host_but_to_no_page(
    start: Start, host: str, path: str
) -> None:
    proxy = await start("serve")
    for origin in ("https://app.example", "https://evil.example"):
        data = request("GET", path, f"Origin: {origin}", "Connection: close", host=host)
        answer = await only_answer(proxy, data)
        assert (answer.status, answer.body) == (200, b"ok\n")
        assert not any(name.startswith("access-control-") for name in answer.headers)
    assert proxy.upstream.calls == []


async def test_health_answers_head_with_an_empty_body(proxy: Proxy) -> None:
    async with proxy.session.head(proxy.url + "/healthz") as answer:
        assert (answer.status, await answer.read()) == (200, b"")


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        (CHAT, {}, BODY, 200),
        (CHAT, {"Content-Type": "text/plain"}, BODY, 415),
        (CHAT, {}, b"{", 400),
        (CHAT, {}, BODY | {"plugins": [{"id": "web"}]}, 403),
        (CHAT, {}, BODY | {"model": "other/model"}, 403),
        (CHAT, {"Authorization": "Bearer sk-or-v1-" + "0" * 64}, BODY, 400),
        (CHAT, {"X-Forwarded-For": "8.8.8.8"}, BODY, 403),
        (CHAT, {"Expect": "x"}, BODY, 417),
        (CHAT, {}, b"x" * 5000, 413),
        (f"{CHAT}?x=1", {}, BODY, 400),
        ("/api/v1/models", {}, BODY, 405),
        ("/no/such/path", {}, BODY, 404),
        ("/api/v1/messages", {}, b"{}", 400),
    ],
)
async def test_every_answer_can_be_read_by_the_page(
    start: Start, path: str, headers: dict[str, str], body: Any, status: int
) -> None:
    proxy = await start(ALLOWED_MODELS="openai/*", MAX_BODY="4KiB")
    async with proxy.post(body, path, headers={"Origin": PAGE} | headers) as answer:
        assert answer.status == status
        assert_readable(answer)
        assert answer.headers["X-Request-Id"]
    assert len(proxy.upstream.calls) == (status == 200)


async def test_a_rate_limited_page_can_read_when_to_come_back(start: Start) -> None:
    proxy = await start(RATE_LIMIT="1/hour")
    async with proxy.post(headers={"Origin": PAGE}) as answer:
        assert_readable(answer)
    async with proxy.post(headers={"Origin": PAGE}) as answer:
        await refused(answer, 429, "rate_limited")
        assert_readable(answer)
        assert int(answer.headers["Retry-After"]) > 0
    assert len(proxy.upstream.calls) == 1


async def test_a_page_can_read_a_stream_and_the_upstreams_errors(proxy: Proxy) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        await response.write(b"data: 1\n\n")
        return response

    async def error(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": {"code": 429}}, status=429)

    for handler, status in ((stream, 200), (error, 429)):
        proxy.upstream.answer = handler
        async with proxy.post(headers={"Origin": PAGE}) as answer:
            assert answer.status == status
            assert_readable(answer)
            await answer.read()


async def test_a_page_can_read_our_own_failure(proxy: Proxy) -> None:
    class Broken:
        def admit(self, *anything: object) -> None:
            raise ZeroDivisionError("SECRET")

    kit = proxy.service.kit
    app = dataclasses.replace(kit.default, admission=cast("Admission", Broken()))
    proxy.service.assembly.kit = dataclasses.replace(kit, apps={app.settings.name: app})
    async with proxy.post(headers={"Origin": PAGE}) as answer:
        error = await refused(answer, 500, "internal_error")
        assert_readable(answer)
    assert error["message"] == "Something went wrong here."
    assert "ZeroDivision" not in str(error)
    assert "SECRET" not in str(error)
    assert proxy.upstream.calls == []


async def test_an_unreachable_upstream_can_be_read_by_the_page(start: Start) -> None:
    proxy = await start(UPSTREAM="http://127.0.0.1:9/api/v1")
    async with proxy.post(headers={"Origin": PAGE}) as answer:
        await refused(answer, 502, "upstream_unreachable")
        assert_readable(answer)


async def test_a_call_without_an_origin_gets_no_cors_fields(proxy: Proxy) -> None:
    async with proxy.post() as answer:
        assert answer.status == 200
        assert unreadable(answer)
        assert "origin" in vary(answer)


async def test_any_origin_is_echoed_never_starred(start: Start) -> None:
    proxy = await start(ALLOWED_ORIGINS="*")
    for origin in ("https://anything.example", "null"):
        async with proxy.post(headers={"Origin": origin}) as answer:
            assert answer.status == 200
            assert_readable(answer, origin)
        async with preflight(proxy, origin=origin) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == origin


async def test_previews_of_one_team_are_allowed_by_a_pattern(start: Start) -> None:
    proxy = await start("serve", ALLOWED_ORIGINS="https://myapp-*-team.vercel.app")
    async with preflight(proxy, origin="https://myapp-git-x-team.vercel.app") as answer:
        assert answer.status == 204
    async with preflight(proxy, origin="https://myapp-x-team.vercel.app.evil.example") as answer:
        await refused(answer, 403, "origin_not_allowed")


async def test_the_page_we_serve_may_call_us_wherever_it_was_opened(start: Start) -> None:
    """A phone opens the demo by this computer's address."""
    opened = {"Host": "192.168.1.5:8484", "Origin": "http://192.168.1.5:8484"}
    proxy = await start("demo")
    async with proxy.get("/api/v1/models", headers=opened) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == opened["Origin"]
    seen = len(proxy.upstream.catalogue)
    for odd in (
        {"Host": "192.168.1.5:8484", "Origin": "http://192.168.1.6:8484"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
    ):
        async with proxy.get("/api/v1/models", headers=odd) as answer:
            assert answer.status in (403, 421)
    assert len(proxy.upstream.catalogue) == seen


async def test_under_serve_the_own_host_is_no_origin_by_itself(start: Start) -> None:
    proxy = await start("serve", ALLOWED_HOSTS="api.example")
    odd = {"Host": "api.example", "Origin": "http://api.example"}
    async with proxy.get("/api/v1/models", headers=odd) as answer:
        await refused(answer, 403, "origin_not_allowed")
    assert proxy.upstream.catalogue == []


# Electron (electron-serve), Obsidian, Cordova, Capacitor, Tauri, extensions, an editor's panel.
SHELLS = (
    "app://-",
    "app://.",
    "app://obsidian.md",
    "file://",
    "capacitor://localhost",
    "ionic://localhost",
    "tauri://localhost",
    "http://tauri.localhost",
    "https://localhost",
    "chrome-extension://aapbdbdomjkkjkaonfhkkikfgjllcleb",
    "moz-extension://7a3c1c0e-52a1-4d0a-9f0c-3d1f8c1f7a11",
    "safari-web-extension://140BB581-A2C0-422A-9DD3-6982A5ABEE5E",
    "vscode-webview://1hjq5mdo0k6e8bqk2kgb1v7r1m3v1ppjq5b3h3q9pklmfqk8a1b2",
    "My-App.v2://Main_Window:8080",
    "https://app.example:8443",
    "null",
)


@pytest.mark.parametrize("origin", SHELLS)
async def test_pages_of_every_shell_can_be_allowed(start: Start, origin: str) -> None:
    """Preflight, call, a session bound to the origin, and the fields by which a page reads them."""
    secret = {"CLIENT_AUTH": "session", "SESSION_SECRET": "kU3v9xQ2" * 5}
    proxy = await start("serve", ALLOWED_ORIGINS=origin, **secret)
    asking = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    async with proxy.session.options(proxy.url + CHAT, headers=asking) as answer:
        assert answer.status == 204
        assert answer.headers["Access-Control-Allow-Origin"] == origin
    async with proxy.post({}, "/session", headers={"Origin": origin}) as answer:
        assert answer.status == 200
        token = (await answer.json())["token"]
        assert answer.headers["Access-Control-Allow-Origin"] == origin
    bearer = {"Authorization": f"Bearer {token}"}
    async with proxy.post(headers={"Origin": origin} | bearer) as answer:
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] == origin
    async with proxy.post(headers={"Origin": origin.swapcase()} | bearer) as answer:
        await refused(answer, 403, "origin_not_allowed")
    assert len(proxy.upstream.calls) == 1


async def test_an_extension_of_any_installation_can_be_allowed(start: Start) -> None:
    proxy = await start(ALLOWED_ORIGINS="moz-extension://*")
    async with proxy.post(headers={"Origin": "moz-extension://0F3C-9a"}) as answer:
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] == "moz-extension://0F3C-9a"
    async with proxy.post(headers={"Origin": "chrome-extension://0f3c"}) as answer:
        await refused(answer, 403, "origin_not_allowed")


_HOSTS = st.one_of(
    st.from_regex(r"[A-Za-z0-9._*~:@/\[\]-]{0,40}", fullmatch=True),
    st.sampled_from(["-", ".", "*", "localhost", "App.example:443", "a.example:08", "[::1]:3000"]),
)
_SCHEMES = st.one_of(
    st.sampled_from(["http", "https", "HTTPS", "app", "file", "moz-extension", "data", ""]),
    st.from_regex(r"[A-Za-z][A-Za-z0-9+.-]{0,12}", fullmatch=True),
)
_ORIGINS = st.one_of(
    st.builds("{}://{}".format, _SCHEMES, _HOSTS),
    st.sampled_from(["null", "*", "localhost", "none", *SHELLS]),
    st.text(max_size=40),
)


@cache
def listing(origins: str) -> Settings:
    return made("dev", ALLOWED_ORIGINS=origins)


@given(_ORIGINS, st.sampled_from(["none", "localhost", "https://a.example,app://-"]))
@examples(400)
def test_every_origin_in_a_hint_is_taken_and_then_allowed(origin: str, listed: str) -> None:
    before = listing(listed)
    head = CIMultiDictProxy(CIMultiDict({"Origin": origin, "Host": "localhost"}))
    try:
        browser_of(before, before.allowed_origins).check_origin(head)
    except Refusal as refusal:
        line = written_hint(refusal.hint, before)
    else:
        return
    assert line is None or "localhost" not in listed or "=localhost," in line
    if line is None:
        assert origin not in set(SHELLS) - {"null"}
        return
    assert "null" not in line.split(",")
    assert "*" not in line
    said = dotenv_values(stream=StringIO(line), interpolate=False)["KEYPROXY_ALLOWED_ORIGINS"]
    after = listing(said or "")
    browser = browser_of(after, after.allowed_origins)
    browser.check_origin(head)
    assert browser.preflight(head)["Access-Control-Allow-Origin"] == origin


@pytest.mark.parametrize("origin", ["null", "*", "https://*.example", "https://A.example:443"])
async def test_no_line_offers_what_is_no_single_page(proxy: Proxy, origin: str) -> None:
    async with proxy.post(headers={"Origin": origin}) as answer:
        error = await refused(answer, 403, "origin_not_allowed")
    assert "KEYPROXY" not in error["message"]
    assert proxy.upstream.calls == []
