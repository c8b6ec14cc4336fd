"""Our examples of web servers in front, run: what passes keyproxy passes them, too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.conftest import BODY, CHAT, Proxy, Start
from tests.fake_upstream import event_stream

EXAMPLES = Path(__file__).parent.parent / "examples"
PROGRAMS = ("nginx", "haproxy", "caddy")


def program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def nginx(folder: Path, port: int, keyproxy: int) -> list[str]:
    """The example as a part of a whole configuration; the command that runs it."""
    example = (EXAMPLES / "nginx.conf").read_text()
    example = example.replace("keyproxy:8484", f"127.0.0.1:{keyproxy}")
    example = example.replace("listen 80;", f"listen 127.0.0.1:{port};")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    file = folder / "nginx.conf"
    file.write_text(
        f"pid {folder}/pid; error_log stderr; daemon off; master_process off;"
        f"events {{}}\nhttp {{ access_log off; {paths}\n{example}}}\n"
    )
    return ["-e", "stderr", "-p", str(folder), "-c", str(file)]


def haproxy(folder: Path, port: int, keyproxy: int) -> list[str]:
    example = (EXAMPLES / "haproxy.cfg").read_text()
    example = example.replace("keyproxy:8484", f"127.0.0.1:{keyproxy}")
    file = folder / "haproxy.cfg"
    file.write_text(example.replace("bind :80", f"bind 127.0.0.1:{port}"))
    return ["-db", "-f", str(file)]


def caddy(folder: Path, port: int, keyproxy: int) -> list[str]:
    """The example without TLS, which wants a name that the world knows."""
    example = (EXAMPLES / "deploy" / "Caddyfile").read_text()
    for name, value in (
        ("SITE:localhost", f"http://127.0.0.1:{port}"),
        ("KEYPROXY:keyproxy:8484", f"127.0.0.1:{keyproxy}"),
        ("APP:app:80", f"127.0.0.1:{keyproxy}"),
    ):
        assert f"{{${name}}}" in example
        example = example.replace(f"{{${name}}}", value)
    file = folder / "Caddyfile"
    options = f"admin off\nauto_https off\nstorage file_system {folder}"
    file.write_text(f"{{\n{options}\n}}\n{example}")
    return ["run", "--config", str(file), "--adapter", "caddyfile"]


@asynccontextmanager
async def in_front(name: str, folder: Path, proxy: Proxy) -> AsyncIterator[str]:
    """The address of that server, which hands on to ``proxy``."""
    found = program(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    port = free_port()
    options = {"nginx": nginx, "haproxy": haproxy, "caddy": caddy}[name](folder, port, proxy.port)
    server = await asyncio.create_subprocess_exec(found, *options)
    try:
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with proxy.session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                        if answer.status == 200:
                            break
                await asyncio.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        await server.wait()


@pytest.mark.parametrize("name", PROGRAMS)
async def test_large_cookies_pass_the_server_in_front(
    name: str, tmp_path: Path, proxy: Proxy
) -> None:
    """Cookies of two sign-ins, as Supabase and Clerk split them over names, and one long one."""
    cookies = "; ".join([*(f"sb-{n}={'a' * 3000}" for n in range(4)), f"s={'b' * 18_000}"])
    async with (
        in_front(name, tmp_path, proxy) as address,
        proxy.session.post(address + CHAT, json=BODY, headers={"Cookie": cookies}) as answer,
    ):
        assert answer.status == 200, await answer.text()
    assert "Cookie" not in proxy.upstream.calls[0].headers


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_caller_cannot_name_its_own_address(
    name: str, tmp_path: Path, start: Start
) -> None:
    """Else each call could be another client's, with a limit of its own."""
    proxy = await start("serve", TRUSTED_PROXIES="loopback", RATE_LIMIT="1/hour")
    async with in_front(name, tmp_path, proxy) as address:
        for number, status in ((1, 200), (2, 429)):
            headers = {"X-Forwarded-For": f"203.0.113.{number}"}
            async with proxy.session.post(address + CHAT, json=BODY, headers=headers) as answer:
                assert answer.status == status, await answer.text()


@pytest.mark.parametrize("name", PROGRAMS)
async def test_events_pass_one_by_one(name: str, tmp_path: Path, proxy: Proxy) -> None:
    """The upstream sends the next one only when the last one has arrived."""
    has_come = asyncio.Semaphore(0)
    events = [b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % n for n in range(5)]

    async def stepwise(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        for event in events:
            await response.write(event)
            await has_come.acquire()
        return response

    proxy.upstream.answer = stepwise
    async with (
        in_front(name, tmp_path, proxy) as address,
        proxy.session.post(address + CHAT, json={**BODY, "stream": True}) as answer,
    ):
        assert answer.status == 200
        for event in events:
            async with asyncio.timeout(10):
                assert await answer.content.readexactly(len(event)) == event
            has_come.release()
