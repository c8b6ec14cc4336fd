"""Start, reload and stop of the real program, by signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from keyproxy.server.service import running
from tests.conftest import BODY, CHAT, KEY, SERVE, settings
from tests.fake_upstream import FakeUpstream, streaming
from tests.program import Program, ran, started

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")
SAID = {f"KEYPROXY_{name}": value for name, value in SERVE.items()}
OTHER_KEY = "sk-or-v1-other-" + "fedcba9876543210" * 4


@asynccontextmanager
async def serving(
    upstream: FakeUpstream, directory: Path, **variables: str
) -> AsyncIterator[Program]:
    said = SAID | {"KEYPROXY_UPSTREAM": upstream.base_url} | variables
    async with started("serve", directory, **said) as program:
        yield program


async def status(session: aiohttp.ClientSession, url: str) -> int:
    async with session.post(url + CHAT, json=BODY) as answer:
        await answer.read()
        return answer.status


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest.fixture
def stream(upstream: FakeUpstream) -> asyncio.Event:
    """Makes the upstream's answers last until the event is set."""
    release = asyncio.Event()
    upstream.answer = streaming(release, b"data: [DONE]\n\n")
    return release


async def test_sigterm_lets_an_open_call_finish(
    upstream: FakeUpstream, tmp_path: Path, session: aiohttp.ClientSession, stream: asyncio.Event
) -> None:
    async with serving(upstream, tmp_path) as program:
        async with session.post(program.url + CHAT, json=BODY) as answer:
            assert await answer.content.readuntil(b"\n\n") == b"data: 1\n\n"
            program.signal(signal.SIGTERM)
            await program.said("stopping")
            stream.set()
            assert await answer.read() == b"data: [DONE]\n\n"
        assert await program.ended() == 0


async def test_a_call_that_outlives_the_grace_is_cut(
    upstream: FakeUpstream, tmp_path: Path, session: aiohttp.ClientSession, stream: asyncio.Event
) -> None:
    async with serving(upstream, tmp_path, KEYPROXY_SHUTDOWN_GRACE="200ms") as program:
        async with session.post(program.url + CHAT, json=BODY) as answer:
            await answer.content.readuntil(b"\n\n")
            program.signal(signal.SIGTERM)
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()
        assert await program.ended() == 0
        await program.said("calls cut by the stop", calls=1)
        await upstream.left.wait()


async def test_during_the_delay_calls_are_served_while_readyz_says_no(
    upstream: FakeUpstream, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with serving(upstream, tmp_path, KEYPROXY_SHUTDOWN_DELAY="10s") as program:
        async with session.get(program.url + "/readyz") as answer:
            assert answer.status == 200
        program.signal(signal.SIGTERM)
        await program.said("stopping")
        async with session.get(program.url + "/readyz") as answer:
            assert answer.status == 503
        async with session.get(program.url + "/healthz") as answer:
            assert answer.status == 200
        assert await status(session, program.url) == 200
        await program.stop()  # a second signal does not wait


async def test_after_the_delay_open_connections_are_told_and_new_ones_refused(
    upstream: FakeUpstream, tmp_path: Path, session: aiohttp.ClientSession, stream: asyncio.Event
) -> None:
    async with serving(upstream, tmp_path, KEYPROXY_SHUTDOWN_GRACE="20s") as program:
        host, _, port = program.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"ok\n")
        async with session.post(program.url + CHAT, json=BODY) as answer:
            await answer.content.readuntil(b"\n\n")
            program.signal(signal.SIGTERM)
            await program.said("draining")
            writer.write(b"GET /api/v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            told = await reader.read()
            assert told.startswith(b"HTTP/1.1 503 ")
            assert b"X-Keyproxy-Code: shutting_down\r\n" in told
            assert b"Connection: close\r\n" in told
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(host, int(port))
            stream.set()
            await answer.read()
        writer.close()
        assert await program.ended() == 0
    assert upstream.catalogue == []


async def test_sighup_puts_a_new_key_file_in_force(
    upstream: FakeUpstream, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(KEY + "\n")
    variables = {"OPENROUTER_API_KEY": "", "OPENROUTER_API_KEY_FILE": str(key_file)}
    async with serving(upstream, tmp_path, **variables) as program:
        await status(session, program.url)
        replacement = tmp_path / "new"
        replacement.write_text(OTHER_KEY)
        replacement.rename(key_file)
        program.signal(signal.SIGHUP)
        await program.said("settings reloaded")
        await status(session, program.url)
        keys = [seen.headers["Authorization"] for seen in upstream.calls]
        assert keys == [f"Bearer {KEY}", f"Bearer {OTHER_KEY}"]
        assert KEY not in program.text
        assert OTHER_KEY not in program.text


async def test_a_swapped_symlink_is_noticed_without_a_signal(
    upstream: FakeUpstream, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """Kubernetes updates a mounted secret by swapping a link above the file."""
    for name, key in (("one", KEY), ("two", OTHER_KEY)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(key)
    (tmp_path / "data").symlink_to("one")
    variables = {"OPENROUTER_API_KEY": "", "OPENROUTER_API_KEY_FILE": str(tmp_path / "data/key")}
    async with serving(upstream, tmp_path, **variables) as program:
        (tmp_path / "swap").symlink_to("two")
        (tmp_path / "swap").rename(tmp_path / "data")
        await program.said("settings reloaded")
        await status(session, program.url)
        assert upstream.calls[0].headers["Authorization"] == f"Bearer {OTHER_KEY}"


@pytest.mark.parametrize("broken", ["", "sk-or\x01", None])
async def test_a_faulty_reload_changes_nothing_and_says_why(
    upstream: FakeUpstream, tmp_path: Path, session: aiohttp.ClientSession, broken: str | None
) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    variables = {"OPENROUTER_API_KEY": "", "OPENROUTER_API_KEY_FILE": str(key_file)}
    async with serving(upstream, tmp_path, **variables) as program:
        if broken is None:
            key_file.unlink()
        else:
            key_file.write_text(broken)
        program.signal(signal.SIGHUP)
        line = await program.said("settings not reloaded")
        assert "OPENROUTER_API_KEY_FILE" in line["faults"][0]
        assert await status(session, program.url) == 200
        assert upstream.calls[0].headers["Authorization"] == f"Bearer {KEY}"


async def test_env_files_are_read_again_and_listeners_need_a_restart(
    upstream: FakeUpstream, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("KEYPROXY_ALLOWED_MODELS=openai/*\n")
    async with serving(upstream, tmp_path, KEYPROXY_ALLOWED_MODELS="") as program:
        assert await status(session, program.url) == 200
        env_file.write_text("KEYPROXY_ALLOWED_MODELS=google/*\nKEYPROXY_KEEPALIVE_TIMEOUT=60\n")
        program.signal(signal.SIGHUP)
        line = await program.said("settings reloaded")
        assert line["changed"] == ["allowed_models"]
        stuck = await program.said("these settings need a restart")
        assert stuck["settings"] == ["keepalive_timeout_seconds"]
        assert await status(session, program.url) == 403


async def test_a_new_upstream_needs_a_restart(
    upstream: FakeUpstream, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """The proxy on the way and the keys' standing belong to the upstream they were made for."""
    env_file = tmp_path / ".env"
    env_file.write_text(f"KEYPROXY_UPSTREAM={upstream.base_url}\n")
    async with serving(upstream, tmp_path, KEYPROXY_UPSTREAM="") as program:
        env_file.write_text("KEYPROXY_UPSTREAM=http://127.0.0.1:9/api/v1\n")
        for count in (1, 2):
            program.signal(signal.SIGHUP)
            await program.said("these settings need a restart", count=count)
        assert await status(session, program.url) == 200


async def test_the_start_line_says_where_for_whom_and_with_which_limits(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    async with serving(upstream, tmp_path) as program:
        line = await program.said("listening")
    assert line["origins"] == ["https://app.example"]
    assert line["models"] == ["openai/*"]
    assert line["rate_limit"] == "20 in 60 s; 300 in 86400 s"
    assert line["address_rate_limit"] == "200 in 60 s; 3000 in 86400 s"
    assert line["limits_counted"] == "in this process only"
    assert line["key"] == ["sk-or-v1-tes...def"]


async def test_a_management_key_is_found_in_the_background(
    upstream: FakeUpstream, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    upstream.key_report = {"label": "sk-or-v1-man...age", "is_management_key": True}
    async with serving(upstream, tmp_path) as program:
        while not any("management key" in line["message"] for line in program.lines):
            await asyncio.sleep(0)
        assert await status(session, program.url) == 502
    assert upstream.calls == []


@pytest.mark.parametrize(
    ("flags", "key", "mode", "cure"),
    [
        ([], KEY, "dev", "--listen"),
        (["--or-demo"], KEY, "dev", "make run ARGS='--listen localhost:8486'"),
        (["--or-demo"], "", "demo", "make run ARGS='--listen localhost:8486'"),
    ],
)
def test_a_taken_port_is_one_clear_line(
    tmp_path: Path, flags: list[str], key: str, mode: str, cure: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = [*flags, "--listen", f"127.0.0.1:{port}"]
        ended = ran("dev", tmp_path, *options, KEYPROXY_LISTEN="", OPENROUTER_API_KEY=key)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [
        f"keyproxy {mode}: cannot listen on 127.0.0.1:{port}: it is taken; choose another with"
        f" {cure}"
    ]


@pytest.mark.parametrize("turns", range(5))
async def test_a_connection_that_comes_with_the_stop_is_closed(
    upstream: FakeUpstream, turns: int
) -> None:
    async with running(settings("dev", UPSTREAM=upstream.base_url)) as service:
        host, _, port = service.addresses[0].rpartition(":")
        caller = socket.create_connection((host, int(port)), timeout=5)
        for _ in range(turns):
            await asyncio.sleep(0)
    with caller, contextlib.suppress(ConnectionResetError):
        assert await asyncio.to_thread(caller.recv, 1) == b""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
async def test_core_dumps_are_off(upstream: FakeUpstream, tmp_path: Path) -> None:
    async with serving(upstream, tmp_path) as program:
        limits = Path(f"/proc/{program.process.pid}/limits")
        if not os.access(limits, os.R_OK):
            pytest.skip("the process is not dumpable, so its limits cannot be read")
        [core] = [line for line in limits.read_text().splitlines() if "core file" in line]
        assert core.split()[4:6] == ["0", "0"]
