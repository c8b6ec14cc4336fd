"""curl, as people try an API with it: streams, HTTP/2 upgrades, large bodies."""

from __future__ import annotations

import asyncio
import json
import re
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from tests.conftest import BODY, CHAT, Proxy
from tests.fake_upstream import COMPLETION, event_stream
from tests.sdk.outside import needed

JSON = ("-H", "Content-Type: application/json")
SECONDS = 15


@asynccontextmanager
async def curl(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A running curl. ``-q``: without the settings of whoever runs the tests."""
    process = await asyncio.create_subprocess_exec(
        needed("curl"), "-q", "-sS", "--noproxy", "*", *arguments,
        stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(SECONDS):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def printed(*arguments: str) -> tuple[str, str]:
    """What a curl that succeeds writes to its two outputs."""
    async with curl(*arguments) as process:
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode(), err.decode()


async def test_a_stream_is_shown_as_it_comes(proxy: Proxy) -> None:
    second = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        await response.write("data: Grüße\n\n".encode())
        await second.wait()
        await response.write(b"data: [DONE]\n\n")
        return response

    proxy.upstream.answer = answer
    async with curl(
        "-N", *JSON, "-d", json.dumps(BODY | {"stream": True}), proxy.url + CHAT
    ) as run:
        assert run.stdout is not None
        assert await run.stdout.readuntil(b"\n\n") == "data: Grüße\n\n".encode()
        second.set()
        assert await run.stdout.read() == b"data: [DONE]\n\n"
        assert await run.wait() == 0


async def test_ending_curl_ends_the_call(proxy: Proxy) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        await response.write(b": waiting\n\n")
        await asyncio.Event().wait()
        return response

    proxy.upstream.answer = answer
    async with curl(
        "-N", *JSON, "-d", json.dumps(BODY | {"stream": True}), proxy.url + CHAT
    ) as run:
        assert run.stdout is not None
        await run.stdout.readuntil(b"\n\n")
        run.kill()
        await proxy.upstream.left.wait()


async def test_an_offer_of_http_2_is_passed_over(proxy: Proxy) -> None:
    """RFC 9110 7.8: a server may ignore Upgrade. JDK's HTTP client sends it, too, by default."""
    out, err = await printed("-v", "--http2", *JSON, "-d", json.dumps(BODY), proxy.url + CHAT)
    assert "> Upgrade: h2c" in err
    assert "< HTTP/1.1 200" in err
    assert json.loads(out) == COMPLETION
    assert "< Connection: close" in err
    [seen] = proxy.upstream.calls
    assert {"Upgrade", "HTTP2-Settings"}.isdisjoint(seen.headers)


async def test_what_follows_an_offer_of_http_2_takes_a_new_connection(proxy: Proxy) -> None:
    call = ("--http2", *JSON, "-d", json.dumps(BODY), proxy.url + CHAT, "-w", "\n%{num_connects}\n")
    out, _ = await printed(*call, "--next", *call)
    assert re.findall(r"^[01]$", out, re.M) == ["1", "1"]
    assert len(proxy.upstream.calls) == 2


async def test_other_protocols_are_refused(proxy: Proxy) -> None:
    upgrade = ("-H", "Connection: Upgrade", "-H", "Upgrade: websocket")
    out, _ = await printed(*upgrade, *JSON, "-d", json.dumps(BODY), proxy.url + CHAT)
    assert json.loads(out)["error"]["type"] == "bad_request"
    assert proxy.upstream.calls == []


@pytest.fixture
def large(tmp_path: Path) -> str:
    """A body over a megabyte, for which curl asks before it sends."""
    path = tmp_path / "body.json"
    path.write_text(json.dumps(BODY | {"user": "x" * (1 << 20)}))
    return f"@{path}"


# curl would send the body after a second without an answer; here only a real 100 makes it.
EXPECTING = ("-v", "--http1.1", "--expect100-timeout", "30", "-H", "Expect: 100-continue", *JSON)


async def test_a_large_body_is_asked_for(large: str, proxy: Proxy) -> None:
    out, err = await printed(*EXPECTING, "--data-binary", large, proxy.url + CHAT)
    assert "< HTTP/1.1 100 Continue" in err
    assert json.loads(out) == COMPLETION
    assert len(proxy.upstream.calls[0].body) > 1 << 20


async def test_a_refused_large_body_is_never_sent(large: str, proxy: Proxy) -> None:
    sent = ("-w", "\n%{http_code} %{size_upload}")
    out, err = await printed(*EXPECTING, "--data-binary", large, *sent, proxy.url + "/api/v1/files")
    assert "100 Continue" not in err
    assert out.rpartition("\n")[2] == "404 0"
    assert proxy.upstream.calls == []
