"""``keyproxy dev --lan`` in a network: the real program, a phone with a browser, and a stranger."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from keyproxy.demo import page
from keyproxy.pairing import CODE_FIELD, PATH
from keyproxy.settings.table import KNOWN_ENDPOINTS
from keyproxy.transport.health import HEALTH_PATHS
from tests import fake_upstream
from tests.browser import chromium
from tests.conftest import BODY, CHAT, refused
from tests.fake_upstream import FakeUpstream, event_stream
from tests.loopback import listening
from tests.network import Computer, network
from tests.program import Program, started
from tests.test_lan import REQUESTS

PAGE_PORT = 5173
SERVED = [tuple(each.split()) for each in KNOWN_ENDPOINTS]
TO_STDERR = ("sh", "-c", 'exec "$@" >&2', "sh")
"""The code stands on stdout, and the log on stderr; together they are read in their order."""


@dataclass
class Home:
    """A developer's computer, where keyproxy and a page of their own run; two more devices."""

    phone: Computer
    stranger: Computer
    program: Program
    upstream: FakeUpstream
    base: str
    page: str

    async def link(self) -> str:
        """What keyproxy prints for a device that is to be paired."""
        return (await self.program.shown(rf"{self.base}{PATH}#\w+"))[0]


@pytest.fixture
def computers() -> Iterator[list[Computer]]:
    with network("192.168.77.1", "192.168.77.2", "192.168.77.3") as computers:
        yield computers


@pytest.fixture
async def home(computers: list[Computer], tmp_path: Path) -> AsyncIterator[Home]:
    here, phone, stranger = computers
    upstream = FakeUpstream()
    async with (
        fake_upstream.serving(upstream, at=here.listening("127.0.0.1")),
        own_page(here),
        started(
            "dev",
            tmp_path,
            f"--lan={here.address}",
            before=(*here.command, *TO_STDERR),
            KEYPROXY_UPSTREAM=upstream.base_url,
            KEYPROXY_TOTAL_BUDGET="5/day",
            KEYPROXY_ADMIN="127.0.0.1:0",
        ) as program,
    ):
        [line] = [line for line in program.lines if line["message"] == "listening"]
        base = f"http://{line['listen'][-1]}"
        assert base.startswith(f"http://{here.address}:")
        own = f"http://{here.address}:{PAGE_PORT}/?api={base}/api/v1"
        yield Home(phone, stranger, program, upstream, base, own)


@asynccontextmanager
async def own_page(here: Computer) -> AsyncIterator[None]:
    """A dev server beside keyproxy, open to the network as with ``--host``: it knows its files."""
    files = page.files()

    async def serve(request: web.BaseRequest) -> web.Response:
        file = files.get(request.path)
        if file is None:
            return web.Response(status=404)
        return web.Response(body=file.body, headers={"Content-Type": file.content_type})

    async with listening(serve, here.listening(here.address, PAGE_PORT)):
        yield


@pytest.fixture
async def tab(home: Home) -> AsyncIterator[chromium.Tab]:
    with chromium.running(home.phone) as address:
        async with chromium.opened(address, home.phone) as tab:
            await tab.resize(390, 844, scale=3)
            yield tab


async def words(request: web.Request) -> web.StreamResponse:
    if request.method == "GET":
        return web.json_response(fake_upstream.MODELS)
    response = await event_stream(request)
    for text in ("Over ", "the ", "network."):
        chunk = {"choices": [{"index": 0, "delta": {"content": text}}]}
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
    await response.write(b"data: [DONE]\n\n")
    return response


async def ask(tab: chromium.Tab, text: str) -> None:
    await tab.evaluate("document.querySelector('#input').select()")
    await tab.write(text)
    await tab.press("Enter")


@pytest.mark.timeout(120)
async def test_a_phones_page_streams_once_it_was_paired(home: Home, tab: chromium.Tab) -> None:
    """The page is the developer's own, of the same computer and another port."""
    home.upstream.answer = words
    await tab.go(home.page)
    await tab.wait_for("document.body.textContent.includes('has not been paired')")
    assert home.upstream.calls == []
    await tab.go(await home.link())
    await tab.wait_for("document.querySelector('#next')?.hidden === false")
    assert await tab.evaluate("location.href") == f"{home.base}{PATH}"
    await tab.go(home.page)
    await tab.wait_for("document.querySelector('#model option[value^=openai]')")
    await ask(tab, "hello")
    await tab.wait_for("document.querySelector('#turns')?.textContent.includes('the network.')")
    [call] = home.upstream.calls
    assert "Cookie" not in call.headers
    assert "favicon" not in home.program.text, "a page's icon is not refused beside it"


async def test_a_stranger_of_the_network_gets_nothing(home: Home) -> None:
    """On no path, whatever it says of itself, also while and after somebody else is paired."""
    forged = [
        {},
        {"Host": "localhost"},
        {"Origin": home.base},
        {"X-Forwarded-For": home.phone.address},
        {"Forwarded": f"for={home.phone.address}"},
    ]
    async with home.phone.session() as phone, home.stranger.session() as stranger:
        for is_paired in (False, True):
            if is_paired:
                await paired(home, phone)
            for method, path in (*REQUESTS, *SERVED):
                for headers in forged:
                    async with stranger.request(
                        method, home.base + path, json=BODY, headers=headers
                    ) as answer:
                        await refused(answer, 403, "not_paired")
        for path in HEALTH_PATHS:  # which say no more than a refusal: that somebody is here
            async with stranger.get(home.base + path) as answer:
                assert await answer.text() == "ok\n"
    assert home.upstream.calls == []


async def test_the_start_says_what_devices_call(home: Home) -> None:
    await home.program.shown(rf"  Network +{home.base}/api/v1, for paired devices\n")


async def test_a_code_pairs_one_device(home: Home) -> None:
    async with home.phone.session() as phone, home.stranger.session() as stranger:
        headers = await paired(home, phone)
        async with stranger.post(home.base + PATH, headers=headers) as answer:
            await refused(answer, 403, "not_paired")
        async with stranger.post(home.base + CHAT, json=BODY) as answer:
            await refused(answer, 403, "not_paired")
        assert home.upstream.calls == []
        async with phone.post(home.base + CHAT, json=BODY) as answer:
            assert answer.status == 200


async def paired(home: Home, device: aiohttp.ClientSession) -> dict[str, str]:
    """The head of the call that has paired ``device``."""
    headers = {CODE_FIELD: (await home.link()).partition("#")[2]}
    async with device.post(home.base + PATH, headers=headers) as answer:
        assert answer.status == 204
    return headers


async def test_the_network_reaches_no_loopback_port(home: Home) -> None:
    """The listener of this computer, its dashboard, the upstream."""
    [line] = [line for line in home.program.lines if line["message"] == "listening"]
    ports = {address.rpartition(":")[2] for address in (*line["listen"][:-1], *line["admin"])}
    async with home.phone.session() as phone:
        for port in sorted(ports):
            with pytest.raises(aiohttp.ClientConnectorError):
                await phone.get(f"http://{urlsplit(home.base).hostname}:{port}/")
