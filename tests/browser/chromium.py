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
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from tests.network import Computer

NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser", "chrome")
START_SECONDS = 30
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


@contextlib.asynccontextmanager
async def opened(program: str, on: Computer | None = None) -> AsyncIterator[Tab]:
    """A fresh browser with one empty tab; both end with the block. ``on``: where it runs, if not
    here."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            *(on.command if on else ()),
            program,
            *_ARGUMENTS,
            f"--user-data-dir={profile}",
            "about:blank",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                address = await _debugger_address(process.stderr)
            draining = asyncio.create_task(process.stderr.read())
            async with (
                on.session() if on else aiohttp.ClientSession() as session,
                session.ws_connect(address, max_msg_size=0) as socket,
                _connected(socket) as connection,
            ):
                try:
                    yield await Tab.open(connection)
                finally:
                    # Chromium then ends its own children, which a signal may leave behind.
                    with contextlib.suppress(BrowserError):
                        await connection.send("Browser.close")
            await draining
        finally:
            await _ended(process)


async def _debugger_address(stderr: asyncio.StreamReader) -> str:
    async for line in stderr:
        found = re.search(rb"DevTools listening on (ws://\S+)", line)
        if found:
            return found[1].decode()
    raise BrowserError("the browser ended before it listened")


async def _ended(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


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
    async def open(cls, connection: Connection) -> Tab:
        target = await connection.send("Target.createTarget", url="about:blank")
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
