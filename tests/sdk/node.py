"""The SDKs from npm: installed as pinned, run in Node, bundled for a browser."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.sdk.outside import needed

HERE = Path(__file__).parent
CASE_SECONDS = 30
_INSTALL_SECONDS = 240
MODULES = HERE / "node_modules"
_NPM = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")


def install() -> None:
    """Packages exactly as locked; nothing is fetched when they are there already."""
    lock, stamp = HERE / "package-lock.json", MODULES / ".installed"
    if stamp.is_file() and stamp.read_bytes() == lock.read_bytes():
        return
    with _alone():
        if stamp.is_file() and stamp.read_bytes() == lock.read_bytes():
            return  # by another process of the tests, meanwhile
        subprocess.run([needed("npm"), *_NPM], cwd=HERE, check=True, timeout=_INSTALL_SECONDS)
        stamp.write_bytes(lock.read_bytes())


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One process of the tests at a time, where the system has such locks."""
    with (Path(tempfile.gettempdir()) / "keyproxy-tests-npm.lock").open("w") as file:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def bundle(directory: Path) -> None:
    """Write ``page.js``: the SDKs and their cases in one file, as a web app ships them."""
    [esbuild] = (MODULES / "@esbuild").glob(
        "*/bin/esbuild" if sys.platform != "win32" else "*/*.exe"
    )
    options = ("--bundle", "--format=esm", "--target=es2022", "--keep-names", "--log-level=warning")
    out = f"--outfile={directory / 'page.js'}"
    subprocess.run([esbuild, HERE / "page.mjs", *options, out], check=True, timeout=60)


class Node:
    """A Node process that runs cases, one after the other."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [needed("node"), HERE / "run.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    async def run(self, sdk: str, case: str, base: str) -> Any:
        """What ``case`` of ``sdk`` returned."""
        asked = json.dumps({"sdk": sdk, "case": case, "base": base})
        timer = asyncio.get_running_loop().call_later(CASE_SECONDS, self._process.kill)
        try:
            answer = json.loads(await asyncio.to_thread(self._ask, asked.encode() + b"\n"))
        finally:
            timer.cancel()
        if "crash" in answer:
            pytest.fail(f"{sdk} {case}: {answer['crash']}")
        return answer["result"]

    def _ask(self, line: bytes) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        return self._process.stdout.readline() or b'{"crash": "Node ended, or was too slow"}'
