"""What of a client's head reaches the upstream: a closed list, and our key."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from keyproxy import dialects
from keyproxy.call import Call, Endpoint
from keyproxy.dialects import Dialect
from keyproxy.settings import Secret
from keyproxy.upstream import headers
from keyproxy.upstream.openrouter import OPENROUTER
from tests.conftest import CHAT, KEY, Proxy, Start, refused
from tests.examples import examples
from tests.fake_upstream import Seen
from tests.raw import only_answer, request

MESSAGES = "/api/v1/messages"
PLAIN_HEAD = {
    "Host", "Accept", "Accept-Encoding", "User-Agent", "Content-Type", "Content-Length",
    "Authorization",
}  # fmt: skip


async def sent(proxy: Proxy, *fields: str | bytes, path: str = CHAT) -> Seen:
    """What reached the upstream of one call with these fields."""
    answer = await only_answer(proxy, request("POST", path, *fields, "Connection: close"))
    assert answer.status == 200, answer
    [seen] = proxy.upstream.calls
    return seen


def assert_plain(seen: Seen, *more: str) -> None:
    names = [name.title() for name in seen.headers]
    assert sorted(names) == sorted(name.title() for name in (*PLAIN_HEAD, *more))
    assert seen.headers.getall("Authorization") == [f"Bearer {KEY}"]


async def test_a_call_goes_up_with_a_head_of_our_own(proxy: Proxy) -> None:
    seen = await sent(proxy)
    assert_plain(seen)
    assert seen.headers["Host"] in proxy.upstream.base_url
    assert seen.headers["Accept-Encoding"] == "identity"
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.headers["User-Agent"].startswith("keyproxy/")


@pytest.mark.parametrize(
    "fields",
    [
        ("Authorization: Bearer evil", "Authorization: Bearer evil2"),
        ("authorization: Basic evil",),
        ("AUTHORIZATION: evil",),
        ("X-Api-Key: evil",),
        ("X-Goog-Api-Key: evil",),
        ("Api-Key: evil",),
        ("Proxy-Authorization: Basic evil",),
        ("X-Provider-API-Keys: evil",),
        ('X-Provider-API-Keys: {"openai":"sk-proj-evil"}',),
        ("Authorization_: Bearer evil",),
        ("Authorization;q: evil",),
    ],
)
async def test_a_second_credential_never_goes_up(proxy: Proxy, fields: tuple[str, ...]) -> None:
    if ";" in fields[0]:
        assert (await only_answer(proxy, request("POST", CHAT, *fields))).status == 400
        return
    seen = await sent(proxy, *fields)
    assert_plain(seen)
    assert "evil" not in str(seen.headers)


@pytest.mark.parametrize(
    "value",
    [
        "close, Authorization",
        "Authorization",
        "close, Content-Length, Host",
        "close, Content-Type",
        "\r\nConnection: Authorization",
        "close, Accept-Encoding, User-Agent",
        "keep-alive, X-Title, X-OpenRouter-Title, HTTP-Referer",
    ],
)
async def test_connection_takes_nothing_out_of_our_head(start: Start, value: str) -> None:
    proxy = await start(TITLE="Ours", REFERER="https://ours.example")
    seen = await sent(proxy, f"Connection: {value}")
    assert_plain(seen, "HTTP-Referer", "X-OpenRouter-Title", "X-Title")


@pytest.mark.parametrize(
    "field",
    [
        # hop by hop
        "TE: trailers", "Trailer: X", "Proxy-Connection: keep-alive", "Keep-Alive: timeout=5",
        "HTTP2-Settings: AAMAAABk", "Proxy-Authenticate: Basic", "Via: 1.1 evil",
        # odd names
        "X_Forwarded_For: 1.2.3.4", "Content_Length: 5", "Transfer_Encoding: chunked",
        "Content-Length-: 5", "X.Host: evil", "_: evil", "HTTP_PROXY: http://evil", "Proxy: evil",
        # who and where from
        "Cookie: session=secret", "Referer: https://app.example/private", "Forwarded: for=10.0.0.1",
        "X-Forwarded-For: 10.0.0.1", "X-Forwarded-Host: evil", "X-Forwarded-Proto: https",
        "X-Real-IP: 10.0.0.1", "CF-Connecting-IP: 10.0.0.1", "Origin: http://localhost:3000",
        "Sec-Fetch-Site: same-origin", "User-Agent: evil", "DNT: 1", "From: a@b.example",
        "Authorization-Info: x", "X-Session-Id: s",
        # tracing, caching, ranges
        "traceparent: 00-11111111111111111111111111111111-2222222222222222-01", "baggage: a=b",
        "sentry-trace: x", "tracestate: a=b", "b3: 0", "Range: bytes=0-1", "If-None-Match: x",
        "If-Modified-Since: x", "Cache-Control: no-cache", "Pragma: no-cache",
        "Accept: text/html", "Accept-Encoding: gzip, br", "Accept-Language: de",
        "Content-MD5: x", "Content-Language: de", "Content-Location: /x", "Digest: x",
        "Content-Disposition: attachment", "Idempotency-Key: x",
        # the upstream's own switches
        "HTTP-Referer: https://evil.example", "X-Title: evil", "X-OpenRouter-Title: evil",
        "X-OpenRouter-Categories: evil", "X-OpenRouter-Metadata: enabled",
        "X-OpenRouter-Cache: true", "X-OpenRouter-App-Visibility: public", "OpenAI-Beta: x",
        "OpenAI-Organization: org", "OpenAI-Project: proj", "X-Stainless-Retry-Count: 1",
        "anthropic-version: 2023-06-01", "anthropic-beta: x", "X-HTTP-Method-Override: GET",
        "x-portkey-custom-host: https://evil.example",
        "anthropic-dangerous-direct-browser-access: true",
    ],
)  # fmt: skip
async def test_a_field_that_is_not_listed_does_not_go_up(proxy: Proxy, field: str) -> None:
    seen = await sent(proxy, field)
    assert_plain(seen)
    assert "evil" not in str(seen.headers)


async def test_ranking_headers_are_the_operators(start: Start) -> None:
    proxy = await start(
        REFERER="https://ours.example", TITLE="Ours", CATEGORIES="creative-writing,roleplay"
    )
    names = ("HTTP-Referer", "X-Title", "X-OpenRouter-Title", "X-OpenRouter-Categories")
    seen = await sent(proxy, *(f"{name}: evil" for name in names))
    assert_plain(seen, *names)
    assert seen.headers.getall("X-Title") == ["Ours"]
    assert seen.headers.getall("X-OpenRouter-Title") == ["Ours"]
    assert seen.headers.getall("HTTP-Referer") == ["https://ours.example"]


async def test_anthropic_fields_pass_on_messages(proxy: Proxy) -> None:
    seen = await sent(
        proxy, "anthropic-version: 2026-10-21", "Anthropic-Beta: a,b", "x-api-key: x", path=MESSAGES
    )
    assert_plain(seen, "anthropic-version", "anthropic-beta")
    assert seen.headers["anthropic-version"] == "2026-10-21"
    assert seen.headers["anthropic-beta"] == "a,b"


@pytest.mark.parametrize(
    "value",
    [b"\xff\xfe", b"caf\xc3\xa9", b"a\tb", b"a" * 1025, b"a\r\nanthropic-beta: b", b"\xc2\xa0"],
)
async def test_odd_values_of_a_passed_field_are_left_out(proxy: Proxy, value: bytes) -> None:
    assert_plain(await sent(proxy, b"anthropic-beta: " + value, path=MESSAGES))


@pytest.mark.parametrize("name", ["X", "Accept", "Origin-Trial", "traceparent", "Accept-Language"])
async def test_bytes_that_are_no_text_harm_nothing(proxy: Proxy, name: str) -> None:
    field = name.encode() + b": \xff\xfe\x80 \xed\xa0\x80 \xf0\x9f\x92\xa9"
    assert_plain(await sent(proxy, field))


async def test_the_catalogue_is_asked_for_without_key_and_client_fields(proxy: Proxy) -> None:
    fields = {"Authorization": "Bearer evil", "Cookie": "a=evil", "Accept-Language": "de"}
    async with proxy.get("/api/v1/models", headers=fields) as answer:
        assert answer.status == 200
    [seen] = proxy.upstream.catalogue
    assert set(seen.headers) == {"Host", "Accept", "Accept-Encoding", "User-Agent"}


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "X-Goog-Api-Key"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_providers_key_in_a_page_is_refused_by_name(
    proxy: Proxy, name: str, path: str
) -> None:
    key = "sk-or-v1-" + "0" * 64
    value = f"Bearer {key}" if name == "Authorization" else key
    async with proxy.post(path=path, headers={name: value}) as answer:
        error = await refused(answer, 400, "provider_key_sent")
    assert "rotate" in error["message"]
    assert key not in json.dumps(error)
    assert proxy.upstream.calls == []


HEADS = headers.Heads(OPENROUTER, Secret(KEY), {"X-Title": "Ours"})


def outgoing(fields: list[tuple[str, str]], style: Dialect = dialects.MESSAGES) -> CIMultiDict[str]:
    client = CIMultiDictProxy(CIMultiDict(fields))
    passed = headers.forwarded(style, client)
    head = headers.outgoing(OPENROUTER, Secret(KEY), {"X-Title": "Ours"}, passed)
    if style is not dialects.CATALOGUE:  # nobody calls that
        written = HEADS.of(Call(Endpoint("POST", CHAT, style), CHAT, b"", headers=passed))
        pairs = [line.split(": ", 1) for line in written.split("\r\n")]
        assert pairs == [*([name, value] for name, value in head.items()), [""]]
    return head


NAMES = st.sampled_from(
    ["Authorization", "authorization", "Cookie", "anthropic-beta", "Anthropic-Version", "X-Title",
     "Content-Type", "User-Agent", "Host", "Connection", "X-Api-Key", "Accept-Encoding"]
)  # fmt: skip


EVERY = [*dialects.DIALECTS, dialects.CATALOGUE]


@given(st.lists(st.tuples(NAMES, st.text(max_size=20)), max_size=12), st.sampled_from(EVERY))
@examples(150)
def test_whatever_a_client_sends_the_head_is_ours(
    fields: list[tuple[str, str]], style: Dialect
) -> None:
    head = outgoing(fields, style)
    assert head.getall("Authorization") == [f"Bearer {KEY}"]
    assert head.getall("X-Title") == ["Ours"]
    assert len(head) == len({name.lower() for name in head})
    known = {"content-type", "accept", "accept-encoding", "user-agent", "x-title", "authorization"}
    passed = {"anthropic-beta", "anthropic-version"} if style is dialects.MESSAGES else set()
    assert {name.lower() for name in head} <= known | passed
    assert all(" " <= char <= "~" for value in head.values() for char in value)


async def test_no_head_makes_a_call_fail_here(start: Start) -> None:
    proxy = await start("serve", RATE_LIMIT="off", ALLOWED_HOSTS="localhost")
    junk = (
        b"",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"a" * 4000,
        b"%s%n{0}",
        b"\xe2\x80\xae",
        b"[::1",
        b",;,",
    )
    for name in (
        b"Host", b"Origin", b"Content-Type", b"Content-Encoding", b"Authorization", b"X-Api-Key",
        b"X-Forwarded-For", b"Forwarded", b"traceparent", b"anthropic-beta", b"Cookie", b"Expect",
        b"Accept", b"Sec-Fetch-Site", b"Access-Control-Request-Method", b"Upgrade", b"Range",
        b"Access-Control-Request-Headers", b"If-Modified-Since", b"Transfer-Encoding",
    ):  # fmt: skip
        for value in junk:
            for method in ("POST", "OPTIONS", "GET"):
                field = name + b": " + value
                host = None if name == b"Host" else "localhost"
                data = request(method, CHAT, field, "Connection: close", host=host)
                assert (await only_answer(proxy, data)).status < 500, field
