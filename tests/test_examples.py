"""The examples that people copy: built from npm's registry as their README says, and used."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from keyproxy.commands.frameworks import framework_in
from tests.browser import chromium
from tests.loopback import listening
from tests.sdk.outside import needed
from tests.sdk.served import TEXT, Served, serving

pytestmark = pytest.mark.timeout(400)  # npm fetches, bundlers build

EXAMPLES = Path(__file__).parent.parent / "examples"
_INSTALL_SECONDS, _BUILD_SECONDS, _START_SECONDS = 240, 240, 30
_INSTALL = ("install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
URL, MODEL = "http://keyproxy.invalid/api/v1", "maker/of-the-page"
Built = Callable[[Path], Path]
# How long the answer was each time that it was shown.
WATCH = """(() => {
  window.lengths = new Set();
  new MutationObserver(() => lengths.add(document.querySelector(".assistant")?.textContent.length))
    .observe(document.body, { subtree: true, childList: true, characterData: true });
})()"""


def copied(name: str, directory: Path) -> Path:
    """A copy of an example with its packages, as a reader installs them: a lock that was written
    beside an incomplete mirror is no reason to stop, as it is for ``npm ci``."""
    folder = directory / name
    ignored = shutil.ignore_patterns("node_modules", "dist", ".next")
    shutil.copytree(EXAMPLES / name, folder, ignore=ignored)
    subprocess.run([needed("npm"), *_INSTALL], cwd=folder, check=True, timeout=_INSTALL_SECONDS)
    return folder


@pytest.fixture(scope="module")
def react_vite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied("react-vite", tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module")
def ai_sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied("ai-sdk", tmp_path_factory.mktemp("examples"))


def build(folder: Path, **variables: str) -> None:
    environ = {**os.environ, "NEXT_TELEMETRY_DISABLED": "1", **variables}
    done = subprocess.run(
        [needed("npm"), "run", "build"],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built() -> Built:
    """What an example is built to, once: for an address and a model that ``handed_out`` names."""

    @cache
    def made(folder: Path) -> Path:
        build(folder, VITE_LLM_URL=URL, VITE_LLM_MODEL=MODEL)
        return (folder / "dist").rename(folder / "built")

    return made


@asynccontextmanager
async def handed_out(folder: Path, said: dict[str, str]) -> AsyncIterator[str]:
    """The origin of a web server that knows nothing but these files, with ``said`` in them."""

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        path = folder / (request.path.lstrip("/") or "index.html")
        text = path.read_text()
        for before, after in said.items():
            text = text.replace(before, after)
        headers = {"Cache-Control": "no-store"}  # other words under the same name
        kind = "text/html" if path.suffix == ".html" else "text/javascript"
        return web.Response(text=text, content_type=kind, headers=headers)

    async with listening(serve) as port:
        yield f"http://localhost:{port}"


@asynccontextmanager
async def started(folder: Path, *command: str, **variables: str) -> AsyncIterator[str]:
    """The origin of the framework's own server, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        needed("node"),
        *(word.format(port=port) for word in command),
        cwd=folder,
        # Vite colours its lines wherever CI is set, in the midst of the words that are looked for.
        env={**os.environ, "NEXT_TELEMETRY_DISABLED": "1", "NO_COLOR": "1", **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    draining = None
    try:
        async with asyncio.timeout(_START_SECONDS):
            async for line in process.stdout:
                if re.search(rb"Local:|Ready in", line):
                    break
        draining = asyncio.create_task(process.stdout.read())
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if draining is not None:
            draining.cancel()


async def ask(tab: chromium.Tab, text: str) -> None:
    await tab.wait_for("document.querySelector('[name=question]') !== null")
    await tab.evaluate(WATCH)
    await tab.evaluate("document.querySelector('[name=question]').focus()")
    await tab.write(text)
    await tab.press("Enter")


async def answer(tab: chromium.Tab) -> str:
    """The whole answer, which is there once the page would take another question."""
    await tab.wait_for(
        "document.querySelector('.assistant')?.textContent"
        " && !document.querySelector('form button').disabled"
    )
    text: str = await tab.evaluate("document.querySelector('.assistant').textContent")
    return text


async def stop(tab: chromium.Tab, served: Served) -> None:
    """Ask for something long, and stop it: the upstream hears of it."""
    await ask(tab, "tell me")
    await tab.wait_for("document.querySelector('.assistant')?.textContent.length > 20")
    await tab.evaluate("document.querySelector('form button[type=button]').click()")
    assert (await served.calls(aborted=1))["aborted"] == 1


async def alert(tab: chromium.Tab) -> str:
    text: str = await tab.wait_for("document.querySelector('[role=alert]')?.textContent")
    return text


def live(origin: str, **more: str) -> dict[str, Any]:
    return {"ALLOWED_ORIGINS": origin, "ALLOWED_MODELS": "demo/*", **more}


@pytest.mark.parametrize("name", ["react-vite", "ai-sdk"])
async def test_a_page_streams_across_origins(
    name: str, request: pytest.FixtureRequest, built: Built, tab: chromium.Tab
) -> None:
    folder = built(request.getfixturevalue(name.replace("-", "_")))
    said = {MODEL: "demo/echo"}
    async with serving(pace=4) as served, handed_out(folder, said) as origin:
        said[URL] = f"{served.url}/api/v1"
        await tab.go(f"{origin}/")
        await ask(tab, TEXT)
        assert await answer(tab) == TEXT
        assert await tab.evaluate("lengths.size") > 3
        said[MODEL] = "demo/long"
        await tab.go(f"{origin}/")
        await stop(tab, served)


@pytest.mark.parametrize("name", ["react-vite", "ai-sdk"])
async def test_a_page_says_why_it_was_refused(
    name: str, request: pytest.FixtureRequest, built: Built, tab: chromium.Tab
) -> None:
    folder = built(request.getfixturevalue(name.replace("-", "_")))
    said = {MODEL: "demo/echo"}
    async with serving(ALLOWED_MODELS="openai/*") as served, handed_out(folder, said) as origin:
        said[URL] = f"{served.url}/api/v1"
        await tab.go(f"{origin}/")
        await ask(tab, TEXT)
        assert "demo/echo" in await alert(tab)
        assert await served.calls() == {"open": 0, "finished": 0, "aborted": 0}


async def test_a_page_streams_through_vites_proxy(react_vite: Path, tab: chromium.Tab) -> None:
    build(react_vite, VITE_LLM_MODEL="demo/echo")
    vite = ("node_modules/vite/bin/vite.js", "preview", "--port", "{port}", "--strictPort")
    async with (
        serving(pace=4) as served,
        started(react_vite, *vite, "--host", "127.0.0.1", LLM_PROXY=served.url) as origin,
    ):
        await tab.go(f"{origin}/")
        await ask(tab, TEXT)
        assert await answer(tab) == TEXT
        assert await tab.evaluate("lengths.size") > 3


async def test_what_init_prints_is_what_a_dev_server_reads(
    react_vite: Path, tab: chromium.Tab
) -> None:
    framework = framework_in(react_vite)
    assert framework is not None
    assert framework.name == "Vite"
    vite = ("node_modules/vite/bin/vite.js", "--port", "{port}", "--strictPort")
    async with serving(pace=4) as served:
        place, _, line = framework.lines(f"{served.url}/api/v1")[0].partition(": ")
        (react_vite / place).write_text(f"{line}\nVITE_LLM_MODEL=demo/echo\n")
        async with started(react_vite, *vite, "--host", "127.0.0.1") as origin:
            await tab.go(f"{origin}/")
            await ask(tab, TEXT)
            assert await answer(tab) == TEXT
            assert await tab.evaluate("lengths.size") > 3


async def test_a_page_streams_through_nexts_rewrites(tmp_path: Path, tab: chromium.Tab) -> None:
    folder = copied("next", tmp_path)
    next_js = ("node_modules/next/dist/bin/next", "start", "-H", "127.0.0.1", "-p", "{port}")
    async with serving(pace=4) as served:
        build(folder, LLM_PROXY=served.url, LLM_MODEL="demo/echo")
        async with started(folder, *next_js) as origin:
            await tab.go(f"{origin}/")
            await ask(tab, TEXT)
            assert await answer(tab) == TEXT
            assert await tab.evaluate("lengths.size") > 3


# What every example says of itself


@pytest.mark.parametrize(
    "folder", [path for path in EXAMPLES.iterdir() if path.is_dir()], ids=lambda path: path.name
)
def test_every_example_is_explained(folder: Path) -> None:
    assert (folder / "README.md").is_file()


@pytest.mark.parametrize("name", ["react-vite", "ai-sdk", "next"])
def test_an_example_is_short_and_pins_what_it_uses(name: str) -> None:
    folder = EXAMPLES / name
    text = (folder / "README.md").read_text().splitlines()
    assert len([line for line in text if line.strip()]) <= 12
    versions = re.findall(r'": "(\d[\d.]*)"', (folder / "package.json").read_text())
    assert versions
    assert '"resolved"' not in (folder / "package-lock.json").read_text()  # npm knows where


@pytest.mark.parametrize("name", ["expo/README.md", "expo/App.js", "compose.dev.yaml"])
def test_what_was_not_run_says_so_first(name: str) -> None:
    assert "ot run" in (EXAMPLES / name).read_text().splitlines()[0]
