"""The listener for those who watch: where it is, and whom it shows anything."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from keyproxy.server.service import running
from keyproxy.settings import Settings
from keyproxy.transport.server import CannotListen
from tests.conftest import CHAT, KEY, Proxy, Start, refused, settings
from tests.program import ran, started
from tests.raw import answers, request

TOKEN = secrets.token_hex(32)
DATA = ("/metrics", "/state.json", "/events")
HERE = "127.0.0.1:0"


def admin(proxy: Proxy) -> str:
    assert proxy.service.admin is not None
    return f"http://{proxy.service.admin.addresses[0]}"


def look(proxy: Proxy, path: str = "/metrics", **options: Any) -> Any:
    return proxy.session.request(options.pop("method", "GET"), admin(proxy) + path, **options)


@pytest.mark.parametrize("path", DATA)
async def test_a_program_beside_it_reads_figures(start: Start, path: str) -> None:
    proxy = await start(ADMIN=HERE)
    async with look(proxy, path) as answer:
        assert answer.status == 200
        assert answer.headers["Cache-Control"].startswith("no-store")
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert not {"Server", "Access-Control-Allow-Origin"} & answer.headers.keys()
    async with look(proxy, path, method="HEAD") as answer:
        assert (answer.status, await answer.read()) == (200, b"")


@pytest.mark.parametrize("path", DATA)
@pytest.mark.parametrize(
    "fields",
    [
        {"Sec-Fetch-Site": "cross-site"},  # any page; and 127.0.0.1 that asks localhost
        {"Sec-Fetch-Site": "same-site"},  # the chat page, on the next port
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin, cross-site"},
        {"Origin": "https://evil.example"},  # browsers that do not say the site
        {"Origin": "null"},
        {"Origin": "http://localhost:8484", "Sec-Fetch-Site": "same-site"},
    ],
)
async def test_no_page_but_its_own_reads_figures(
    start: Start, path: str, fields: dict[str, str]
) -> None:
    proxy = await start(ADMIN=HERE)
    async with look(proxy, path, headers=fields) as answer:
        await refused(answer, 403, "origin_not_allowed")
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", DATA)
async def test_its_own_page_reads_figures(start: Start, path: str) -> None:
    proxy = await start(ADMIN=HERE)
    own = {"Sec-Fetch-Site": "same-origin", "Origin": admin(proxy)}
    async with look(proxy, path, headers=own) as answer:
        assert answer.status == 200


async def test_a_page_that_asks_from_127_0_0_1_at_localhost_reads_nothing(start: Start) -> None:
    """For a browser these are two sites, whichever ports; both names lead here."""
    proxy = await start(ADMIN="localhost:0")
    port = admin(proxy).rpartition(":")[2]
    crossed = {"Host": f"localhost:{port}", "Origin": f"http://127.0.0.1:{port}"}
    for fields in (crossed, crossed | {"Sec-Fetch-Site": "cross-site"}):
        async with look(proxy, headers=fields) as answer:
            await refused(answer, 403, "origin_not_allowed")


@pytest.mark.parametrize("path", [*DATA, "/", "/nothing"])
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8485", "localhost.evil.example"])
async def test_a_rebound_name_is_shown_nothing(start: Start, path: str, host: str) -> None:
    proxy = await start(ADMIN=HERE)
    async with look(proxy, path, headers={"Host": host}) as answer:
        await refused(answer, 421, "host_not_allowed")


async def test_names_of_the_setting_are_answered_to(start: Start) -> None:
    proxy = await start(ADMIN=HERE, ADMIN_HOSTS="watch.example")
    async with look(proxy, headers={"Host": "watch.example:8485"}) as answer:
        assert answer.status == 200
    async with look(proxy) as answer:
        await refused(answer, 421, "host_not_allowed")


@pytest.mark.parametrize("path", DATA)
async def test_with_a_token_figures_are_for_who_shows_it(start: Start, path: str) -> None:
    proxy = await start(ADMIN=HERE, ADMIN_TOKEN=TOKEN)
    for fields, code in (
        ({}, "credential_missing"),
        ({"Authorization": f"Basic {TOKEN}"}, "credential_missing"),
        ({"Cookie": f"token={TOKEN}; Authorization=Bearer {TOKEN}"}, "credential_missing"),
        ({"X-Api-Key": TOKEN}, "credential_missing"),
        ({"Authorization": f"Bearer {TOKEN[:-1]}"}, "credential_invalid"),
        ({"Authorization": "Bearer Grüße"}, "credential_invalid"),
        ({"Authorization": "Bearer "}, "credential_invalid"),
    ):
        async with look(proxy, path, headers=fields) as answer:
            error = await refused(answer, 401, code)
            assert TOKEN not in str(error)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    async with look(proxy, f"{path}?token={TOKEN}") as answer:
        await refused(answer, 401, "credential_missing")
    async with look(proxy, path, headers={"Authorization": f"bearer {TOKEN}"}) as answer:
        assert answer.status == 200
    shown = {"Authorization": f"Bearer {TOKEN}", "Sec-Fetch-Site": "same-site"}
    async with look(proxy, path, headers=shown) as answer:
        await refused(answer, 403, "origin_not_allowed")


async def test_a_token_that_is_no_text_is_none(start: Start) -> None:
    proxy = await start(ADMIN=HERE, ADMIN_TOKEN=TOKEN)
    port = int(admin(proxy).rpartition(":")[2])
    data = request("GET", "/metrics", b"Authorization: Bearer \xff\xfe", "Connection: close")
    [answer] = answers(await proxy.raw(data, port=port))
    assert (answer.status, answer.code) == (401, "credential_invalid")


async def test_a_token_that_is_changed_counts_at_once(start: Start) -> None:
    proxy = await start(ADMIN=HERE, ADMIN_TOKEN=TOKEN)
    new = secrets.token_hex(32)
    said = {"UPSTREAM": proxy.upstream.base_url, "ADMIN": HERE, "ADMIN_TOKEN": new}
    proxy.service.apply(settings(**said))
    async with look(proxy, headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
        await refused(answer, 401, "credential_invalid")
    async with look(proxy, headers={"Authorization": f"Bearer {new}"}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", [*DATA, "/", CHAT])
async def test_nothing_can_be_changed_there(start: Start, method: str, path: str) -> None:
    proxy = await start(ADMIN=HERE)
    async with look(proxy, path, method=method) as answer:
        await refused(answer, 405, "method_not_allowed")
        assert answer.headers["Allow"] == "GET, HEAD"
    assert proxy.upstream.calls == []


async def test_calls_are_not_served_there(start: Start) -> None:
    proxy = await start(ADMIN=HERE)
    async with look(proxy, "/api/v1/models") as answer:
        await refused(answer, 404, "endpoint_not_allowed")
    assert proxy.upstream.catalogue == []


@pytest.mark.parametrize("path", DATA)
async def test_figures_are_not_on_the_listener_of_calls(start: Start, path: str) -> None:
    proxy = await start(ADMIN=HERE)
    async with proxy.get(path) as answer:
        await refused(answer, 404, "endpoint_not_allowed")


async def test_health_is_on_both_listeners_for_any_host(start: Start) -> None:
    proxy = await start(ADMIN=HERE, ADMIN_TOKEN=TOKEN)
    anybody = {"Host": "evil.example", "Origin": "https://evil.example"}
    for path in ("/healthz", "/readyz"):
        async with look(proxy, path, headers=anybody) as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
    proxy.service.assembly.life.is_ready = False
    async with look(proxy, "/readyz", headers=anybody) as answer:
        assert (answer.status, await answer.text()) == (503, "not ready\n")


async def test_off_is_no_listener(start: Start) -> None:
    assert (await start(ADMIN="off")).service.admin is None
    assert (await start("serve")).service.admin is None


async def test_a_taken_port_is_a_warning_where_nobody_chose_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    usual = Settings.from_environ("dev", {"OPENROUTER_API_KEY": KEY}).admin
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        chosen = settings(ADMIN=f"127.0.0.1:{port}")
        with pytest.raises(CannotListen, match=f"127.0.0.1:{port}: it is taken"):
            async with running(chosen):
                pass
    is_ours, addresses = False, None
    while addresses is None or (addresses and not is_ours):  # a stranger's, who has left since
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # somebody else has it, which is as good
                taken.bind(("127.0.0.1", usual[0].port))
                taken.listen()
                is_ours = True
            async with running(settings(ADMIN="localhost:8485")) as service:
                assert service.admin is not None
                addresses = service.admin.addresses
    assert addresses == ()
    told = capsys.readouterr()
    assert "no dashboard and no metrics" in told.out + told.err


def test_beyond_this_computer_it_does_not_start_without_a_token(tmp_path: Path) -> None:
    done = ran("demo", tmp_path, KEYPROXY_ADMIN=":0")
    assert done.returncode == 2
    for name in ("KEYPROXY_ADMIN_TOKEN_FILE", "KEYPROXY_ADMIN_HOSTS"):
        assert name in done.stderr


async def test_the_token_is_read_from_its_file_and_never_logged(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    said = {"KEYPROXY_ADMIN": HERE, "KEYPROXY_ADMIN_TOKEN_FILE": str(file)}
    async with started("demo", tmp_path, **said) as program, aiohttp.ClientSession() as session:
        [line] = [line for line in program.lines if line["message"] == "listening"]
        url = f"http://{line['admin'][0]}/metrics"
        async with session.get(url, headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
            assert answer.status == 200
        async with session.get(url, headers={"Authorization": f"Bearer x{TOKEN}"}) as answer:
            assert answer.status == 401
        await program.said("not shown", code="credential_invalid")
        assert TOKEN not in program.text
        assert json.loads(program.text.splitlines()[-1])["http_status"] == 401
