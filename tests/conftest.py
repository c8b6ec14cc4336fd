"""Fixtures: a fake upstream, and keyproxy before it, assembled as production is."""

from __future__ import annotations

import asyncio
import atexit
import gc
import io
import itertools
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import hypothesis
import pytest
import trustme

from keyproxy import __main__
from keyproxy.server.service import Service, running
from keyproxy.settings import Settings
from tests import fake_upstream, servers
from tests.browser import chromium
from tests.fake_upstream import FakeUpstream
from tests.servers import Server

KEY = "sk-or-v1-test-" + "0123456789abcdef" * 4
CHAT = "/api/v1/chat/completions"
_LEDGERS = tempfile.TemporaryDirectory(prefix="keyproxy-tests-")
atexit.register(_LEDGERS.cleanup)
_NUMBERS = itertools.count()
# Nobody beyond loopback is called, and to read all the CAs of the system takes 50 ms of each test.
_ONE_CA = Path(_LEDGERS.name, "ca.pem")
trustme.CA().cert_pem.write_to_path(_ONE_CA)
os.environ["SSL_CERT_FILE"] = str(_ONE_CA)
hypothesis.settings.register_profile("busy machine", deadline=None)
hypothesis.settings.load_profile("busy machine")
BODY: dict[str, Any] = {
    "model": "openai/gpt-4o-mini",
    "messages": [{"role": "user", "content": "Grüße"}],
}


# What takes longest begins first: a worker that began it last would end long behind the others.
LONGEST = (
    "test_examples.py",
    "test_page.py",
    "test_money_simulation.py",
    "test_load.py",
    "test_dashboard.py",
    "test_docs.py",  # the first that wants the packages of npm
    "test_sdk_providers.py",
    "test_policy_properties.py",
    "test_hints.py",
    "test_attempts_simulation.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


@dataclass
class Proxy:
    """A running keyproxy and a client for it."""

    service: Service
    session: aiohttp.ClientSession
    upstream: FakeUpstream

    @property
    def url(self) -> str:
        return f"http://{self.service.addresses[0]}"

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def post(self, body: Any = None, path: str = CHAT, **options: Any) -> Any:
        if body is None:
            body = BODY
        if not isinstance(body, (bytes, str, io.IOBase)):
            body = json.dumps(body)
        headers = {"Content-Type": "application/json"} | options.pop("headers", {})
        return self.session.post(self.url + path, data=body, headers=headers, **options)

    def get(self, path: str, **options: Any) -> Any:
        return self.session.get(self.url + path, **options)

    async def raw(self, data: bytes, *, timeout: float = 5.0, port: int | None = None) -> bytes:
        """Everything that comes back for ``data`` until the connection closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port)
        try:
            writer.write(data)
            async with asyncio.timeout(timeout):
                return await reader.read()
        finally:
            writer.close()


Start = Callable[..., Awaitable[Proxy]]
Run = Callable[..., tuple[int, str, str]]


@asynccontextmanager
async def served(said: Settings, upstream: FakeUpstream, pages: Any = None) -> AsyncIterator[Proxy]:
    """A keyproxy before ``upstream``."""
    timeout = aiohttp.ClientTimeout(total=20)
    async with running(said, pages) as service, aiohttp.ClientSession(timeout=timeout) as session:
        yield Proxy(service, session, upstream)


@dataclass
class Clock:
    """Stands still until it is moved."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and an environment without any of our variables."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("KEYPROXY_", "OPENROUTER_", "KUBERNETES_")):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def powerless() -> Iterator[Path]:
    """A directory others can reach, and no power to read what is forbidden."""
    if sys.platform == "win32":
        pytest.skip("no modes")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        before = os.geteuid()
        yield directory
        os.seteuid(before)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Run:
    """``command("usage", "--by", "app")``: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            code = __main__.main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        written = capsys.readouterr()
        return code, written.out, written.err

    return run


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A storage of the kind that this machine has."""
    kind = next((kind for kind in servers.KINDS if servers.binary(kind)), None)
    if kind is None:
        pytest.skip("neither Redis nor Valkey on this machine")
    async with servers.running(kind) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[str]:
    """A Chromium for a file of tests, each of which has a ``tab``."""
    with chromium.running() as address:
        yield address


@pytest.fixture
async def tab(browser: str) -> AsyncIterator[chromium.Tab]:
    async with chromium.opened(browser) as tab:
        yield tab


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    async with fake_upstream.serving(FakeUpstream()) as fake:
        yield fake


def settings(mode: Any = "dev", **variables: str) -> Settings:
    """Settings as the environment would give them; names without ``KEYPROXY_``."""
    has_budget = any("BUDGET" in name and value != "off" for name, value in variables.items())
    is_alone = mode == "serve" and has_budget and "STORAGE" not in variables
    environ = {
        "OPENROUTER_API_KEY": KEY,
        "KEYPROXY_LISTEN": "127.0.0.1:0",
        # A budget that `serve` counts alone must outlive it.
        "KEYPROXY_LEDGER": f"{_LEDGERS.name}/{next(_NUMBERS)}.sqlite3" if is_alone else "off",
        "KEYPROXY_TOTAL_BUDGET": "off",
        "KEYPROXY_ADMIN": "off",
    }
    environ |= {
        name if "_API_KEY" in name else f"KEYPROXY_{name}": value
        for name, value in variables.items()
    }
    return Settings.from_environ(mode, environ)


SERVE = {
    "ALLOWED_HOSTS": "127.0.0.1",
    "ALLOWED_ORIGINS": "https://app.example",
    "ALLOWED_MODELS": "openai/*",
    "CLIENT_AUTH": "none",
    "TRUSTED_PROXIES": "none",
    "TOTAL_BUDGET": "off",
}


@pytest.fixture
async def start(upstream: FakeUpstream) -> AsyncIterator[Start]:
    """Starts keyproxy before the fake upstream: ``await start("serve", RATE_LIMIT="off")``."""
    async with AsyncExitStack() as stack:

        async def started(mode: str = "dev", pages: Any = None, **variables: str) -> Proxy:
            said = {"UPSTREAM": upstream.base_url} | (SERVE if mode == "serve" else {}) | variables
            made = served(settings(mode, **said), upstream, pages)
            return await stack.enter_async_context(made)

        yield started


@pytest.fixture
async def proxy(start: Start) -> Proxy:
    return await start()


async def inspected(proxy: Proxy) -> None:
    """Waits until what is being asked about keys is answered."""
    states = proxy.service.assembly.keys._states.values()
    async with asyncio.timeout(5):
        await asyncio.gather(*(state.question for state in states if state.question))


async def refused(answer: aiohttp.ClientResponse, status: int, code: str) -> dict[str, Any]:
    """Assert that ``answer`` is our refusal; its ``error`` object."""
    body: dict[str, Any] = await answer.json()
    assert (answer.status, answer.headers.get("X-Keyproxy-Code")) == (status, code), body
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Server" not in answer.headers
    error: dict[str, Any] = body["error"]
    return error


@pytest.fixture
async def no_loose_ends(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[None]:
    """Fails a test that leaves an unretrieved exception, an unclosed connection or a 500."""
    left: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: left.append(context))
    yield
    gc.collect(1)
    await asyncio.sleep(0)
    left += [r for r in caplog.records if r.levelname in ("ERROR", "CRITICAL")]
    assert left == []
    assert "internal_error" not in capsys.readouterr().out
