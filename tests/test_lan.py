"""``dev --lan``: a device of the network gets nothing before it was paired, and then what we get.

The network is loopback here: this computer is 127.0.0.1, devices have other addresses of 127/8.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from keyproxy.commands import run as command
from keyproxy.demo import page
from keyproxy.errors import Refusal, SettingsFaults
from keyproxy.pairing import (
    CODE_FIELD,
    CODE_SECONDS,
    MOST_WRONG,
    MOST_WRONG_IN_ALL,
    PATH,
    Pairing,
)
from keyproxy.server.process import pairing_pages
from keyproxy.server.service import Service, running
from tests.conftest import BODY, CHAT, refused, settings
from tests.fake_upstream import FakeUpstream

HERE, LAN, PHONE, STRANGER = "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Network:
    """keyproxy at its address in the network, and devices there."""

    service: Service
    pairing: Pairing
    upstream: FakeUpstream
    stack: AsyncExitStack

    @property
    def port(self) -> int:
        return int(self.service.addresses[-1].rpartition(":")[2])

    @property
    def base(self) -> str:
        return f"http://{LAN}:{self.port}"

    async def device(self, address: str) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(local_addr=(address, 0))
        jar = aiohttp.CookieJar(unsafe=True)  # of addresses, as browsers have it
        return await self.stack.enter_async_context(
            aiohttp.ClientSession(self.base, connector=connector, cookie_jar=jar)
        )

    async def paired(self, address: str = PHONE) -> aiohttp.ClientSession:
        device = await self.device(address)
        async with device.post(PATH, headers={CODE_FIELD: self.pairing.code}) as answer:
            assert answer.status == 204
        return device


@pytest.fixture
async def network(upstream: FakeUpstream) -> AsyncIterator[Network]:
    pairing = Pairing(IPv4Address(LAN), lambda address: str(address) == HERE)
    pairing.renew()
    said = settings("dev", UPSTREAM=upstream.base_url, LISTEN=f"{HERE}:0")
    pages = {**page.files(), **pairing_pages()}
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(running(said, pages, pairing))
        yield Network(service, pairing, upstream, stack)


REQUESTS = [
    ("POST", CHAT),
    ("GET", "/api/v1/models"),
    ("GET", "/"),
    ("GET", "/app.js"),
    ("OPTIONS", CHAT),
    ("POST", "/session"),
    ("GET", "/pair/../"),
    ("GET", "/PAIR"),
]


@pytest.mark.parametrize(("method", "path"), REQUESTS)
async def test_a_stranger_gets_nothing(network: Network, method: str, path: str) -> None:
    await network.paired(PHONE)
    stranger = await network.device(STRANGER)
    headers = {"Origin": f"http://{LAN}:5173", "Access-Control-Request-Method": "POST"}
    async with stranger.request(method, path, json=BODY, headers=headers) as answer:
        error = await refused(answer, 403, "not_paired")
    assert "Enter" in error["message"]
    assert network.upstream.calls == []


async def test_the_page_of_the_code_is_all_that_a_stranger_sees(network: Network) -> None:
    stranger = await network.device(STRANGER)
    for path, kind in ((PATH, "text/html"), (f"{PATH}.js", "text/javascript")):
        async with stranger.get(path) as answer:
            text = await answer.text()
            assert (answer.status, answer.content_type) == (200, kind)
            assert network.pairing.code not in text
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_a_paired_device_calls_and_pages_of_this_host_on_any_port(network: Network) -> None:
    phone = await network.paired()
    for origin in (None, f"http://{LAN}:5173", f"http://{LAN}:3000", f"http://{LAN}"):
        headers = {} if origin is None else {"Origin": origin}
        async with phone.post(CHAT, json=BODY, headers=headers) as answer:
            assert answer.status == 200
            assert answer.headers.get("Access-Control-Allow-Origin") == origin
    async with phone.get("/") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("origin", ["http://192.168.7.7:5173", "https://evil.example", "null"])
async def test_pages_from_elsewhere_do_not_call_through_it(network: Network, origin: str) -> None:
    phone = await network.paired()
    async with phone.post(CHAT, json=BODY, headers={"Origin": origin}) as answer:
        await refused(answer, 403, "origin_not_allowed")
    assert network.upstream.calls == []


async def test_this_computer_needs_no_code(network: Network) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{network.service.addresses[0]}{CHAT}", json=BODY) as answer,
    ):
        assert answer.status == 200


async def test_a_code_is_good_once(network: Network) -> None:
    await network.paired()
    other = await network.device(STRANGER)
    async with other.post(PATH, headers={CODE_FIELD: network.pairing.code}) as answer:
        await refused(answer, 403, "not_paired")
    network.pairing.renew()
    await network.paired(STRANGER)


@pytest.mark.parametrize("origin", ["https://evil.example", "http://192.168.7.7"])
async def test_a_page_from_elsewhere_pairs_nobody(network: Network, origin: str) -> None:
    phone = await network.device(PHONE)
    headers = {CODE_FIELD: network.pairing.code, "Origin": origin}
    async with phone.post(PATH, headers=headers) as answer:
        await refused(answer, 403, "origin_not_allowed")
    async with phone.post(CHAT, json=BODY) as answer:
        await refused(answer, 403, "not_paired")
    assert network.upstream.calls == []


async def test_a_dev_server_on_this_computer_lends_nobody_its_address(network: Network) -> None:
    """What it hands on names the network; only the cookie tells for whom."""
    phone = await network.paired()
    [cookie] = phone.cookie_jar
    lan, own = f"{LAN}:5173", f"http://{network.service.addresses[0]}"
    cases: list[tuple[dict[str, str], bool]] = [
        ({"Host": lan}, False),
        ({"Host": lan, "Origin": f"http://{lan}"}, False),
        ({"Host": lan, "Cookie": f"{cookie.key}=guess"}, False),
        ({"Host": lan, "X-Forwarded-For": HERE}, False),
        ({"Host": lan, "X-Forwarded-For": PHONE}, False),
        ({"Host": "192.168.7.7:5173", "Origin": "http://192.168.7.7:5173"}, False),
        ({"Host": "[fd00::7]:5173"}, False),
        ({"Origin": "http://192.168.7.7:5173"}, False),
        ({"Origin": f"http://{lan}"}, False),
        ({"Origin": f"http://{lan}", "Cookie": f"{cookie.key}={cookie.value}"}, False),
        ({"Host": lan, "Cookie": f"a=b; {cookie.key}={cookie.value}"}, True),
        ({"Host": "localhost:5173", "Origin": "http://localhost:5173"}, True),
        ({"Host": f"{HERE}:5173", "Origin": f"http://{HERE}:5173"}, True),
        ({"Host": "[::1]:5173", "Origin": "http://[::1]:5173"}, True),
        ({"Host": "10.0.2.2:8484"}, True),
    ]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as dev_server:
        for headers, is_let_in in cases:
            before = len(network.upstream.calls)
            async with dev_server.post(own + CHAT, json=BODY, headers=headers) as answer:
                if is_let_in:
                    assert answer.status == 200, headers
                    continue
                error = await refused(answer, 403, "not_paired")
            assert len(network.upstream.calls) == before
            if "Host" not in headers:
                assert "changeOrigin: false" in error["message"]


async def test_what_is_no_text_is_neither_code_nor_cookie(network: Network) -> None:
    name = f"{LAN}:{network.port}".encode()
    here = HERE, int(network.service.addresses[0].rpartition(":")[2])
    for head in (
        b"POST /pair HTTP/1.1\r\nHost: %b\r\nX-Pairing-Code: \xff",
        b"GET /api/v1/models HTTP/1.1\r\nHost: %b\r\nCookie: keyproxy_paired=\xff",
    ):
        reader, writer = await asyncio.open_connection(*here)
        writer.write(head % name + b"\r\nConnection: close\r\n\r\n")
        assert b"not_paired" in await reader.read()
        writer.close()
    assert network.upstream.catalogue == []


async def test_the_cookie_goes_nowhere_else(network: Network) -> None:
    phone = await network.paired()
    async with phone.post(CHAT, json=BODY) as answer:
        assert answer.status == 200
    [request] = network.upstream.calls
    assert "Cookie" not in request.headers
    [cookie] = phone.cookie_jar
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"


async def test_a_reload_forgets_no_device(network: Network) -> None:
    phone = await network.paired()
    network.service.apply(network.service.settings.kept(max_in_flight=3))
    async with phone.post(CHAT, json=BODY, headers={"Origin": f"http://{LAN}:1"}) as answer:
        assert answer.status == 200


async def test_no_code_is_in_the_log(network: Network, capfd: pytest.CaptureFixture[str]) -> None:
    code = network.pairing.code
    phone = await network.device(PHONE)
    async with phone.post(f"{PATH}?{code}", headers={CODE_FIELD: "WRONGWRONG"}) as answer:
        await refused(answer, 403, "not_paired")
    await network.paired()
    out, err = capfd.readouterr()
    assert code not in out + err


class Asked:
    """As much of a request as a pairing reads."""

    def __init__(self, remote: str, code: str, method: str = "POST") -> None:
        self.remote, self.method = remote, method
        self.headers = CIMultiDictProxy(CIMultiDict({CODE_FIELD: code}))


def tried(pairing: Pairing, code: str, remote: str = PHONE, **more: str) -> bool:
    asked: Any = Asked(remote, code, **more)
    try:
        return bool(pairing.pair(asked))
    except Refusal as refusal:
        return refusal.code != "not_paired"


def test_a_code_is_good_for_two_minutes() -> None:
    clock = Clock()
    pairing = Pairing(IPv4Address(LAN), clock=clock)
    assert not tried(pairing, "")  # before there is one
    code = pairing.renew()
    assert re.fullmatch("[2-9A-HJKMNP-Z]{10}", code)
    clock.now += CODE_SECONDS
    assert not tried(pairing, code)
    assert tried(pairing, pairing.renew())
    old = pairing.renew()
    assert old not in (code, pairing.renew())
    assert not tried(pairing, old)
    assert not tried(pairing, pairing.renew(), method="GET")


def test_who_guesses_is_not_listened_to_and_harms_nobody_else() -> None:
    pairing = Pairing(IPv4Address(LAN))
    code = pairing.renew()
    for _ in range(MOST_WRONG):
        assert not tried(pairing, "GUESS", STRANGER)
    assert not tried(pairing, code, STRANGER)
    assert tried(pairing, code, PHONE)


def test_a_network_of_guessers_ends_the_code() -> None:
    pairing = Pairing(IPv4Address(LAN))
    code = pairing.renew()
    for number in range(MOST_WRONG_IN_ALL):
        assert not tried(pairing, "GUESS", f"10.0.0.{number}")
    assert not tried(pairing, code)
    assert tried(pairing, pairing.renew())


def test_pages_of_an_ipv6_address_have_brackets() -> None:
    assert Pairing(ip_address("fd00::2")).origins[:2] == ("http://[fd00::2]", "http://[fd00::2]:*")


@pytest.mark.parametrize("said", ["8.8.8.8", "127.0.0.1", "0.0.0.0", "::", "fe80::1", "myhost"])
def test_only_a_private_address_is_listened_at(said: str) -> None:
    with pytest.raises(SettingsFaults, match="--lan"):
        command.lan_address(settings("dev", TOTAL_BUDGET="5/day"), said)


@pytest.mark.parametrize("said", ["10.1.2.3", "172.31.0.1", "192.168.1.5", "fd12::1"])
def test_a_private_address_may_be_named(said: str) -> None:
    assert command.lan_address(settings("dev", TOTAL_BUDGET="5/day"), said) == ip_address(said)


def test_strangers_are_never_let_in_without_a_budget() -> None:
    with pytest.raises(SettingsFaults, match="KEYPROXY_TOTAL_BUDGET"):
        command.lan_address(settings("dev", TOTAL_BUDGET="off"), "10.1.2.3")


class Routes:
    """A socket that knows from which address packets would leave."""

    def __init__(self, own: dict[int, str]) -> None:
        self.own = own

    def __call__(self, family: int, kind: int) -> Any:
        assert kind == socket.SOCK_DGRAM
        if family not in self.own:
            raise OSError("no such family")
        self.name = self.own[family]
        return self

    def __enter__(self) -> Routes:
        return self

    def __exit__(self, *ended: object) -> None:
        pass

    def connect(self, far: tuple[str, int]) -> None:
        pass

    def getsockname(self) -> tuple[str, int]:
        return self.name, 0


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ({socket.AF_INET: "192.168.1.5", socket.AF_INET6: "fd00::2"}, "192.168.1.5"),
        ({socket.AF_INET: "198.51.100.7", socket.AF_INET6: "fd00::2"}, "fd00::2"),
        ({socket.AF_INET: "198.51.100.7", socket.AF_INET6: "2001:db8::2"}, None),
        ({}, None),
    ],
)
def test_the_address_that_leads_out_is_taken(
    own: dict[int, str], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keyproxy.commands.run.socket.socket", Routes(own))
    said = settings("dev", TOTAL_BUDGET="5/day")
    if found is None:
        with pytest.raises(SettingsFaults, match="name one"):
            command.lan_address(said, "")
    else:
        assert command.lan_address(said, "") == ip_address(found)
