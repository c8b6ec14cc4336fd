"""Attempts that cut across modules: framing, hosts, the environment, load, the log."""

from __future__ import annotations

import asyncio
import ctypes
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from aiohttp import web

from keyproxy import logs
from keyproxy.demo import page
from tests.conftest import BODY, CHAT, KEY, Proxy, Start, inspected, refused
from tests.fake_upstream import completion, raw, read_request
from tests.raw import CALL, Connection, answers, only_answer, refused_raw, request

CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n"
PREFLIGHT = ("Origin: http://localhost:3000", "Access-Control-Request-Method: POST")


def chunked(body: bytes) -> bytes:
    return CHUNKED % (len(body), body)


@pytest.fixture
async def with_page(start: Start) -> Proxy:
    return await start(pages=page.files(), RATE_LIMIT="off")


# Where a request ends


@pytest.mark.parametrize("target", ["/healthz", "/readyz", "/", "/api/v1/models", CHAT])
@pytest.mark.parametrize("coding", ["gzip, chunked", "identity, chunked", "chunked, chunked"])
async def test_a_coding_that_readers_frame_differently_ends_the_connection(
    with_page: Proxy, target: str, coding: str
) -> None:
    """Also where no body is read: what follows would be a request to one reader only."""
    method = "POST" if target == CHAT else "GET"
    data = request(method, target, f"Transfer-Encoding: {coding}", body=chunked(CALL))
    await refused_raw(with_page, data + request(), 400, "bad_request")


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
@pytest.mark.parametrize("target", ["/healthz", CHAT])
async def test_http_1_0_knows_no_chunks(with_page: Proxy, connection: str, target: str) -> None:
    """A server in front that speaks it would take them for the next request."""
    fields = (f"Connection: {connection}", "Transfer-Encoding: chunked")
    data = request("POST", target, *fields, body=chunked(CALL))
    data = data.replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    await refused_raw(with_page, data + request(), 400, "bad_request")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (("OPTIONS", CHAT, *PREFLIGHT), 204),
        (("GET", "/healthz"), 200),
        (("HEAD", "/readyz"), 200),
        (("GET", "/"), 200),
        (("HEAD", "/chat.js"), 200),
    ],
)
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_request_hidden_in_a_body_that_nobody_reads_is_never_run(
    start: Start, head: tuple[str, ...], status: int, is_chunked: bool
) -> None:
    proxy = await start(pages=page.files(), KEEPALIVE_TIMEOUT="300ms")
    fields = ("Transfer-Encoding: chunked",) if is_chunked else ()
    body = chunked(request()) if is_chunked else request()
    data = await proxy.raw(request(*head, *fields, body=body))
    assert data.startswith(b"HTTP/1.1 %d " % status)
    assert data.count(b"HTTP/1.1") == 1
    assert proxy.upstream.calls == []


# Host names and paths


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0", "2130706433", "127.1", "0x7f000001", "0177.0.0.1", "[::ffff:127.0.0.1]", "[::]",
        "localhost/api/v1/models?", "localhost/#@evil.example", "localhost:8484@evil.example",
        "evil.example#localhost", "localhost\\.evil.example", "localhost:80:80", "localhost,",
    ],
)  # fmt: skip
@pytest.mark.parametrize("target", [CHAT, "/api/v1/models", "/"])
async def test_a_host_spelled_to_be_read_otherwise_is_refused(
    with_page: Proxy, host: str, target: str
) -> None:
    method = "POST" if target == CHAT else "GET"
    data = request(method, target, f"Origin: http://{host}", host=host)
    answer = await only_answer(with_page, data)
    assert answer.status in (400, 421)
    assert answer.code in ("bad_request", "host_not_allowed")
    assert with_page.upstream.calls == with_page.upstream.catalogue == []


@pytest.mark.parametrize(
    "target",
    [
        "/../keyproxy.toml", "/.env", "/%2e%2e/.env", "/..%2f.env", "/index.html/../.env", "//.env",
        "/chat.js/", "/CHAT.JS", "/page.py", "/etc/passwd", "/chat.js%00", "/chat.js;x",
    ],
)  # fmt: skip
async def test_the_chat_page_is_no_way_to_other_files(with_page: Proxy, target: str) -> None:
    await refused_raw(with_page, request("GET", target), 404, "endpoint_not_allowed")


async def test_the_chat_page_cannot_be_framed_nor_load_from_elsewhere(with_page: Proxy) -> None:
    async with with_page.get("/") as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(
    "agent", ["kube-probe/1.33", "GoogleHC/1.0", "ELB-HealthChecker/2.0", "Amazon CloudFront"]
)
async def test_a_health_checkers_name_opens_nothing(start: Start, agent: str) -> None:
    proxy = await start("serve")
    for path in (CHAT, "/healthz/../api/v1/chat/completions", "/healthz/api/v1/keys"):
        head = {"User-Agent": agent, "Origin": "https://evil.example"}
        async with proxy.post(path=path, headers=head) as answer:
            await refused(answer, 403, "origin_not_allowed")
    assert proxy.upstream.calls == []


# The key and what stands around the process


async def test_a_netrc_of_the_operator_changes_nothing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password other-secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    proxy = await start()
    async with proxy.post() as answer:
        assert answer.status == 200
    async with proxy.get("/api/v1/models") as answer:
        assert answer.status == 200
    assert proxy.upstream.calls[0].headers.getall("Authorization") == [f"Bearer {KEY}"]
    assert "Authorization" not in proxy.upstream.catalogue[0].headers


async def test_the_question_about_a_key_follows_no_redirect(start: Start) -> None:
    """The key goes to the configured address; where that points to is not asked."""
    asked: list[bytes] = []
    was_answered = asyncio.Event()

    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await read_request(reader))

    async with raw(elsewhere) as other:

        async def moved(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            head = f"HTTP/1.1 307 Moved\r\nLocation: {other}/key\r\nContent-Length: 0\r\n\r\n"
            writer.write(head.encode())
            await reader.read()
            was_answered.set()

        async with raw(moved) as base:
            proxy = await start(UPSTREAM=base)
            await inspected(proxy)
    assert asked == []


async def test_a_cookie_of_the_upstream_is_kept_for_nobody(proxy: Proxy) -> None:
    async def with_cookie(request: web.Request) -> web.StreamResponse:
        answer = completion()
        answer.set_cookie("session", "of-the-first-client")
        return answer

    proxy.upstream.answer = with_cookie
    for _ in range(2):
        async with proxy.post() as answer:
            assert answer.status == 200
            assert "Set-Cookie" not in answer.headers
    assert not any("Cookie" in seen.headers for seen in proxy.upstream.calls)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_no_other_process_of_the_user_may_read_the_memory() -> None:
    code = (
        "import ctypes, resource; from keyproxy.server.process import forbid_core_dumps;"
        "forbid_core_dumps();"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    if ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) < 0:
        pytest.skip("prctl is not permitted here")
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert ended.stdout.split(maxsplit=1) == ["0", "(0, 0)\n"]


# Bodies


@pytest.mark.parametrize("coding", ["Content-Encoding: gzip", "Content-Type: application/gzip", ""])
async def test_a_body_that_would_unfold_is_never_unfolded(proxy: Proxy, coding: str) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    fields = (coding,) if coding else ()
    answer = await only_answer(
        proxy, request("POST", CHAT, *fields, "Connection: close", body=bomb)
    )
    assert answer.code == ("unsupported_media_type" if coding else "invalid_json")
    assert proxy.upstream.calls == []


async def test_a_promise_to_send_a_body_holds_nobody_for_long(start: Start) -> None:
    proxy = await start(BODY_TIMEOUT="200ms")
    head = request("POST", CHAT, "Expect: 100-continue").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    async with await Connection.open(proxy) as connection:
        connection.writer.write(head)
        assert b" 100 " in await connection.head()
        [answer] = answers(await connection.rest())
    assert (answer.status, answer.code) == (408, "body_timeout")
    assert proxy.upstream.calls == []


@pytest.mark.timeout(20)
async def test_bodies_made_of_many_small_things_are_answered_in_time(start: Start) -> None:
    proxy = await start(RATE_LIMIT="off")
    text = json.dumps(BODY | {"user": "x" * 60_000}).encode()
    crumbs = b"".join(b"1\r\n%c\r\n" % byte for byte in text) + b"0\r\n\r\n"
    fields = ("Transfer-Encoding: chunked", "Connection: close")
    answer = await only_answer(proxy, request("POST", CHAT, *fields, body=crumbs))
    assert answer.status == 200
    assert proxy.upstream.calls.pop().body == text
    names = b",".join(b'"k%d":{}' % number for number in range(100_000))
    for body in (b"{%b}" % names, b'{"model":"openai/x","a":{%b}}' % names):
        answer = await only_answer(proxy, request("POST", CHAT, "Connection: close", body=body))
        assert answer.status in (400, 403)
    assert proxy.upstream.calls == []


# The log on a terminal


@pytest.fixture
def terminal() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure("console", "info", stream)
    yield stream
    structlog.reset_defaults()


async def test_nothing_a_client_sends_moves_the_operators_cursor(
    proxy: Proxy, terminal: io.StringIO
) -> None:
    """Escape sequences, line ends and marks that turn the writing direction."""
    odd = "\x1b[2J\r\nFORGED\x85\u2028\u202e\x9b31m\x00"
    for body in (
        BODY | {"model": odd},
        BODY | {"model": f"openai/{odd}"},
        BODY | {odd: 1},
        BODY | {"tools": [{"type": odd}]},
        BODY | {"n": odd},
        BODY | {"service_tier": odd},
        BODY | {"models": [odd]},
    ):
        async with proxy.post(body) as answer:
            assert answer.status in (400, 403)
    for field in ("Origin: http://localhost:3000", "X: y"):
        for name in ("Origin", "User-Agent", "traceparent", "X-Forwarded-For", "Host"):
            data = f"{name}: {odd.translate({0: None, 10: None, 13: None, 27: None})}".encode()
            data = request("POST", CHAT, field, data, "Connection: close", body=b"{}")
            assert (await only_answer(proxy, data)).status in (400, 403, 421)
    for target in (b"/x\xc2\x9b31mFORGED", b"/x\xe2\x80\xaeFORGED", b"/x\x9bFORGED", b"/x%1b[2J"):
        assert (await only_answer(proxy, request("GET", target))).status in (400, 404)
    lines = terminal.getvalue().split("\n")
    assert len(lines) > 15
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("FORGED") for line in lines)
    assert proxy.upstream.calls == []


@pytest.mark.parametrize("odd", ["x\x1b[2J\x9b31m\u202e\x00", "x \x1b[2J\r\nFORGED"])
async def test_nothing_the_upstream_sends_moves_the_operators_cursor(
    proxy: Proxy, terminal: io.StringIO, odd: str
) -> None:

    async def answer(request: web.Request) -> web.StreamResponse:
        head = {"Content-Type": "application/json"}
        return web.Response(body=f'{{"model":"{odd}"}}'.encode(), headers=head)

    proxy.upstream.answer = answer
    async with proxy.post() as answered:
        await answered.read()
    lines = terminal.getvalue().split("\n")
    assert "served=" in terminal.getvalue()
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("FORGED") for line in lines)
