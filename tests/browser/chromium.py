"""Drive a headless Chromium over the DevTools protocol, with aiohttp's WebSocket client alone.

Waiting is done inside the page by a ``MutationObserver``, never by sleeping. Knows nothing of
the page under test.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from typing import IO, Any

import aiohttp

from tests.network import Computer
from tests.sdk.outside import missing

NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser", "chrome")
COMMAND_SECONDS = 30
CLOSE_SECONDS = 5

_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    # Gives tests an origin that is not loopback without asking a name server.
    "--host-resolver-rules=MAP *.test 127.0.0.1",
    "--remote-debugging-port=0",
)
_WAIT = """new Promise((resolve, reject) => {
  const giveUp = setTimeout(() => { observer.disconnect(); reject(new Error("never")); }, %d);
  const observer = new MutationObserver(look);
  function look() {
    const value = (%s);
    if (!value) return;
    clearTimeout(giveUp);
    observer.disconnect();
    resolve(value);
  }
  const everything = { subtree: true, childList: true, characterData: true, attributes: true };
  observer.observe(document, everything);
  look();
})"""


class BrowserError(Exception):
    """The browser did not do what it was told."""


def find_chromium() -> str | None:
    """The program named by ``$CHROMIUM``, else the first known one on the path."""
    named = os.environ.get("CHROMIUM")
    found = (shutil.which(name) for name in ((named,) if named else NAMES))
    return next((path for path in found if path), None)


@contextlib.contextmanager
def running(on: Computer | None = None) -> Iterator[str]:
    """Where a fresh browser is driven; it ends with the block. ``on``: where it runs, if not
    here."""
    program = find_chromium() or missing("Chromium")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        subprocess.Popen(
            [*(on.command if on else ()), program, *_ARGUMENTS, f"--user-data-dir={profile}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stderr is not None
        draining = threading.Thread(target=process.stderr.read, daemon=True)
        try:
            address = _debugger_address(process.stderr)
            draining.start()
            yield address
        finally:
            process.terminate()  # Chromium then ends its own children
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(CLOSE_SECONDS)
            process.kill()
            if draining.is_alive():
                draining.join()


@contextlib.asynccontextmanager
async def opened(address: str, on: Computer | None = None) -> AsyncIterator[Tab]:
    """An empty tab of the browser at ``address``, with cookies, storage and a cache of its own:
    what the tabs before it left is not there."""
    async with (
        on.session() if on else aiohttp.ClientSession() as session,
        session.ws_connect(address, max_msg_size=0) as socket,
        _connected(socket) as connection,
    ):
        context = await connection.send("Target.createBrowserContext")
        try:
            yield await Tab.open(connection, context["browserContextId"])
        finally:
            with contextlib.suppress(BrowserError):
                await connection.send("Target.disposeBrowserContext", **context)


def _debugger_address(stderr: IO[bytes]) -> str:
    for line in stderr:
        found = re.search(rb"DevTools listening on (ws://\S+)", line)
        if found:
            return found[1].decode()
    raise BrowserError("the browser ended before it listened")


class Connection:
    """Commands and their results over one WebSocket; events go to the one listener."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.listener: Tab | None = None

    async def send(self, method: str, session: str | None = None, **params: object) -> Any:
        number = next(self._numbers)
        result = self._waiting[number] = asyncio.get_running_loop().create_future()
        command: dict[str, object] = {"id": number, "method": method, "params": params}
        if session is not None:
            command["sessionId"] = session
        await self._socket.send_json(command)
        async with asyncio.timeout(COMMAND_SECONDS):
            return await result

    async def listen(self) -> None:
        async for message in self._socket:
            data = json.loads(message.data)
            if "id" not in data:
                if self.listener is not None:
                    self.listener.note(data["method"], data["params"])
                continue
            result = self._waiting.pop(data["id"])
            if result.done():
                continue
            if "error" in data:
                result.set_exception(BrowserError(data["error"]["message"]))
            else:
                result.set_result(data["result"])
        for result in self._waiting.values():
            result.cancel()


@contextlib.asynccontextmanager
async def _connected(socket: aiohttp.ClientWebSocketResponse) -> AsyncIterator[Connection]:
    connection = Connection(socket)
    listening = asyncio.create_task(connection.listen())
    try:
        yield connection
    finally:
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening


class Tab:
    """One page. ``errors`` collects what its console complained about."""

    def __init__(self, connection: Connection, session: str) -> None:
        self._connection = connection
        self._session = session
        self._loaded = asyncio.Event()
        self.errors: list[str] = []

    @classmethod
    async def open(cls, connection: Connection, context: str) -> Tab:
        target = await connection.send(
            "Target.createTarget", url="about:blank", browserContextId=context
        )
        attached = await connection.send(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        tab = cls(connection, attached["sessionId"])
        connection.listener = tab
        for domain in ("Page", "Runtime", "Log"):
            await tab._send(f"{domain}.enable")
        return tab

    async def go(self, url: str) -> None:
        """Open ``url``; returns once everything it names is loaded."""
        self._loaded.clear()
        await self._send("Page.navigate", url=url)
        async with asyncio.timeout(COMMAND_SECONDS):
            await self._loaded.wait()

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        answer = await self._send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            problem = answer["exceptionDetails"]
            text = problem.get("exception", {}).get("description", problem["text"])
            raise BrowserError(f"{text} in: {expression}")
        return answer["result"].get("value")

    async def wait_for(self, condition: str, *, seconds: float = 10) -> Any:
        """The first true value of ``condition``, looked at whenever the document changes."""
        return await self.evaluate(_WAIT % (round(seconds * 1000), condition))

    async def write(self, text: str) -> None:
        """Type into whatever has the focus."""
        await self._send("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        code = {"Enter": 13, "Escape": 27, "Tab": 9}[key]
        fields: dict[str, object] = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        text = {"text": "\r"} if key == "Enter" else {}
        await self._send("Input.dispatchKeyEvent", type="keyDown", **fields, **text)
        await self._send("Input.dispatchKeyEvent", type="keyUp", **fields)

    async def resize(self, width: int, height: int, *, scale: float = 1) -> None:
        await self._send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    async def prefer(self, **features: str) -> None:
        """Emulate media features: ``prefer(color_scheme="dark")``."""
        wanted = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        await self._send("Emulation.setEmulatedMedia", features=wanted)

    async def screenshot(self) -> bytes:
        """What is in the window now, as PNG."""
        shot = await self._send("Page.captureScreenshot", format="png")
        return base64.b64decode(shot["data"])

    def note(self, event: str, details: dict[str, Any]) -> None:
        """Take in one event of the protocol."""
        if event == "Page.loadEventFired":
            self._loaded.set()
        elif event == "Runtime.exceptionThrown":
            self.errors.append(str(details["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and details["type"] == "error":
            self.errors.append(str(details["args"]))
        elif event == "Log.entryAdded" and details["entry"]["level"] == "error":
            self.errors.append(details["entry"]["text"])

    async def _send(self, method: str, **params: object) -> Any:
        return await self._connection.send(method, self._session, **params)
