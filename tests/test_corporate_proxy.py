"""Outgoing calls through a CONNECT proxy, to a TLS upstream with a CA of one's own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from structlog.testing import capture_logs

from keyproxy.errors import KeyproxyError
from tests.conftest import CHAT, KEY, Start, refused
from tests.fake_upstream import COMPLETION, FakeUpstream, serving
from tests.receiver import receiving

pytestmark = pytest.mark.usefixtures("no_loose_ends")
HOST = "api.upstream.example"
"""No name server knows it: only the proxy does."""
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
DEADLINE_SECONDS = 5.0


@dataclass
class ConnectProxy:
    """A real proxy for CONNECT; what passed through it in the clear and in the tunnels."""

    port: int = 0
    target_port: int = 0
    reply: bytes = ESTABLISHED
    heads: list[bytes] = field(default_factory=list)
    tunnelled: bytearray = field(default_factory=bytearray)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, EOFError), contextlib.closing(writer):
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.reply)
            if not self.reply.startswith(ESTABLISHED):
                await reader.read()
                self.left.set()
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            with contextlib.closing(far_writer):
                await asyncio.gather(self.pump(reader, far_writer), self.pump(far_reader, writer))

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                self.tunnelled += data
                writer.write(data)
                await writer.drain()
            writer.close()


@asynccontextmanager
async def connect_proxy() -> AsyncIterator[ConnectProxy]:
    proxy = ConnectProxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()


@pytest.fixture
async def corporate() -> AsyncIterator[ConnectProxy]:
    async with connect_proxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture
async def far(ca: trustme.CA, corporate: ConnectProxy) -> AsyncIterator[FakeUpstream]:
    """A TLS upstream, known as HOST behind the proxy and as localhost beside it."""
    trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(HOST, "localhost").configure_cert(trust)
    async with serving(FakeUpstream(), trust) as fake:
        corporate.target_port = int(fake.base_url.rpartition(":")[2].removesuffix("/api/v1"))
        fake.base_url = f"https://localhost:{corporate.target_port}/api/v1"
        yield fake


@pytest.fixture
def behind(far: FakeUpstream, corporate: ConnectProxy, ca_file: str) -> dict[str, str]:
    """Settings for a call to HOST through the proxy."""
    return {
        "UPSTREAM": f"https://{HOST}/api/v1",
        "UPSTREAM_PROXY": corporate.url,
        "UPSTREAM_CA_FILE": ca_file,
    }


async def test_a_call_goes_through_the_proxy(
    start: Start, far: FakeUpstream, corporate: ConnectProxy, behind: dict[str, str]
) -> None:
    proxy = await start(**behind)
    async with proxy.post() as answer:
        assert answer.status == 200
        assert await answer.json() == COMPLETION
    [seen] = far.calls
    assert seen.target == CHAT
    assert seen.headers.getall("Authorization") == [f"Bearer {KEY}"]
    assert {head.partition(b"\r\n")[0] for head in corporate.heads} == {
        f"CONNECT {HOST}:443 HTTP/1.1".encode()
    }


async def test_a_tunnel_is_used_again(
    start: Start, far: FakeUpstream, corporate: ConnectProxy, behind: dict[str, str]
) -> None:
    proxy = await start(**behind)
    for _ in range(5):
        async with proxy.post() as answer:
            await answer.read()
    assert len(far.calls) == 5
    assert len(corporate.heads) <= 2  # one for the calls, one for the question about the key


async def test_the_proxy_never_sees_the_key(
    start: Start, far: FakeUpstream, corporate: ConnectProxy, behind: dict[str, str]
) -> None:
    proxy = await start(**behind)
    async with proxy.post() as answer:
        await answer.read()
    seen = b"".join(corporate.heads) + corporate.tunnelled
    assert b"uthorization" not in seen
    assert KEY.encode() not in seen
    assert base64.b64encode(KEY.encode())[:40] not in seen


async def test_the_proxys_password_goes_to_the_proxy_only(
    start: Start, far: FakeUpstream, corporate: ConnectProxy, behind: dict[str, str]
) -> None:
    behind["UPSTREAM_PROXY"] = f"http://me:secret-word@127.0.0.1:{corporate.port}"
    proxy = await start(**behind)
    async with proxy.post() as answer:
        assert answer.status == 200
    sent = base64.b64encode(b"me:secret-word")
    assert all(b"Proxy-Authorization: Basic " + sent in head for head in corporate.heads)
    assert "Proxy-Authorization" not in far.calls[0].headers


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n<html>",
        b"junk\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Endless: " + b"x" * 40_000,
    ],
)
async def test_a_proxy_that_refuses_becomes_502(
    start: Start,
    far: FakeUpstream,
    corporate: ConnectProxy,
    behind: dict[str, str],
    reply: bytes,
) -> None:
    corporate.reply = reply
    behind["UPSTREAM_PROXY"] = f"http://me:secret-word@127.0.0.1:{corporate.port}"
    proxy = await start(**behind)
    with capture_logs() as lines:
        async with proxy.post() as refusal:
            assert refusal.status == 502
            assert "secret-word" not in await refusal.text()
    assert far.calls == []
    assert "secret-word" not in str(lines)
    assert "evil.example" not in str(lines)


async def test_a_proxy_that_is_not_there_becomes_502(start: Start, behind: dict[str, str]) -> None:
    proxy = await start(**{**behind, "UPSTREAM_PROXY": "http://127.0.0.1:9"})
    async with proxy.post() as refusal:
        await refused(refusal, 502, "upstream_unreachable")


async def test_a_silent_proxy_becomes_504(
    start: Start, corporate: ConnectProxy, behind: dict[str, str]
) -> None:
    corporate.reply = b""
    proxy = await start(**behind, CONNECT_TIMEOUT="200ms")
    async with proxy.post() as refusal:
        await refused(refusal, 504, "upstream_timeout")


async def test_a_proxy_that_speaks_into_the_tunnel_becomes_502(
    start: Start, far: FakeUpstream, corporate: ConnectProxy, behind: dict[str, str]
) -> None:
    corporate.reply = ESTABLISHED + b"more"
    proxy = await start(**behind)
    async with proxy.post() as refusal:
        await refused(refusal, 502, "upstream_unreachable")
    assert far.calls == []


async def test_a_client_that_leaves_ends_the_tunnel(
    start: Start, corporate: ConnectProxy, behind: dict[str, str]
) -> None:
    corporate.reply = b""
    proxy = await start(**behind)
    call = asyncio.create_task(proxy.post()._coro)
    async with asyncio.timeout(DEADLINE_SECONDS):
        while len(corporate.heads) < 2:  # the call's, and the question's about the key
            await asyncio.sleep(0)
        call.cancel()
        await corporate.left.wait()


async def test_without_the_ca_the_upstream_is_not_trusted(
    start: Start, far: FakeUpstream, behind: dict[str, str]
) -> None:
    del behind["UPSTREAM_CA_FILE"]
    proxy = await start(**behind)
    async with proxy.post() as refusal:
        await refused(refusal, 502, "upstream_unreachable")
    assert far.calls == []


async def test_a_certificate_for_another_name_is_not_trusted(
    start: Start, far: FakeUpstream, behind: dict[str, str]
) -> None:
    proxy = await start(**{**behind, "UPSTREAM": "https://other.example/api/v1"})
    async with proxy.post() as refusal:
        await refused(refusal, 502, "upstream_unreachable")
    assert far.calls == []


async def test_an_extra_ca_serves_without_a_proxy(
    start: Start, far: FakeUpstream, corporate: ConnectProxy, ca_file: str
) -> None:
    proxy = await start(UPSTREAM=far.base_url, UPSTREAM_CA_FILE=ca_file)
    async with proxy.post() as answer:
        assert answer.status == 200
    assert corporate.heads == []


async def test_plain_http_never_goes_through_a_proxy(
    start: Start, upstream: FakeUpstream, corporate: ConnectProxy
) -> None:
    """Without a tunnel the proxy would read the key."""
    proxy = await start(UPSTREAM_PROXY=corporate.url)
    async with proxy.post() as answer:
        assert answer.status == 200
    assert corporate.heads == []


@pytest.mark.parametrize("scheme", ["http://", ""])
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
async def test_env_takes_the_environments_proxy(
    start: Start,
    corporate: ConnectProxy,
    behind: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    scheme: str,
) -> None:
    monkeypatch.setenv(name, f"{scheme}127.0.0.1:{corporate.port}")
    proxy = await start(**{**behind, "UPSTREAM_PROXY": "env"})
    async with proxy.post() as answer:
        assert answer.status == 200
    assert corporate.heads


async def test_env_respects_no_proxy(
    start: Start,
    far: FakeUpstream,
    corporate: ConnectProxy,
    behind: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", corporate.url)
    monkeypatch.setenv("NO_PROXY", "example.org,localhost")
    proxy = await start(**{**behind, "UPSTREAM_PROXY": "env", "UPSTREAM": far.base_url})
    async with proxy.post() as answer:
        assert answer.status == 200
    assert corporate.heads == []


async def test_the_environments_proxy_is_not_taken_unasked(
    start: Start,
    far: FakeUpstream,
    corporate: ConnectProxy,
    ca_file: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, corporate.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    proxy = await start(UPSTREAM=far.base_url, UPSTREAM_CA_FILE=ca_file)
    async with proxy.post() as answer:
        assert answer.status == 200
    assert corporate.heads == []


@pytest.mark.parametrize(
    "value", ["socks5://127.0.0.1:1080", "https://127.0.0.1:1", "http://", "x y"]
)
async def test_a_proxy_of_the_environment_that_cannot_be_used_is_a_fault(
    start: Start, behind: dict[str, str], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """Going around it unasked would be worse, and so would 502 for every call."""
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(KeyproxyError, match="HTTPS_PROXY"):
        await start(**{**behind, "UPSTREAM_PROXY": "env"})


async def test_alerts_go_through_the_proxy_and_to_this_computer_without_it(
    start: Start, ca: trustme.CA, corporate: ConnectProxy, ca_file: str
) -> None:
    trust, host = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), "hooks.example"
    ca.issue_cert(host).configure_cert(trust)
    said = {
        "UPSTREAM_PROXY": corporate.url,
        "UPSTREAM_CA_FILE": ca_file,
        "ALERT_SPEND": "0.00001/day",
    }
    async with receiving(ssl_context=trust) as far, receiving() as near:
        corporate.target_port = int(far.url.split(":")[2].partition("/")[0])
        for url in (f"https://{host}/hook", near.url):
            proxy = await start(ALERT_URL=url, **said)
            async with proxy.post() as answer:
                assert answer.status == 200
            await (far if host in url else near).told()
    assert [head.partition(b"\r\n")[0] for head in corporate.heads] == [
        f"CONNECT {host}:443 HTTP/1.1".encode()
    ]
    assert far.got[0].alert["alert"] == near.got[0].alert["alert"] == "spend"
