"""The server: sockets for the addresses of the settings, and a connection for each client.

One connection too many gets a 503 and is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterable, Iterator

from keyproxy.errors import KeyproxyError
from keyproxy.settings import Address
from keyproxy.transport.connection import Connection, Serving

SHUTDOWN_SECONDS = 0.5
"""For calls that are left when the grace is over, and again for those that are cancelled then."""
_TURNS_TO_ACCEPT = 4  # of the loop, from a connection's arrival until the server knows it
BACKLOG = 512  # asyncio accepts so many in one step, before the cap on connections can look
_SPARE_FILES = 128
MAX_CONNECTIONS = 20_000
_WITHOUT_LIMITS = 1_000  # Windows: no such call
_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}


class CannotListen(KeyproxyError):
    """An address is taken or not ours; the message says which. ``is_taken``: another may do."""

    def __init__(self, message: str, *, is_taken: bool = False) -> None:
        super().__init__(message)
        self.is_taken = is_taken


def listening(addresses: Iterable[Address]) -> list[socket.socket]:
    """Bound sockets. ``localhost`` is 127.0.0.1 and ::1, an empty host every address.

    Port 0 picks a free port, the same for both halves of such a pair. Raises CannotListen.
    """
    opened: list[socket.socket] = []
    with contextlib.ExitStack() as stack:
        for address in addresses:
            port = address.port
            for host, is_optional in _hosts(address.host):
                bound = _bind(host, port, is_optional)
                if bound is not None:
                    opened.append(stack.enter_context(bound))
                    port = port or bound.getsockname()[1]
        stack.pop_all()
    return opened


def _hosts(host: str) -> Iterator[tuple[str, bool]]:
    """Each address with whether a machine may lack it."""
    if host == "localhost":
        yield from (("127.0.0.1", False), ("::1", True))
    elif host == "":
        yield from (("0.0.0.0", False), ("::", True))  # noqa: S104  (the operator asked for it)
    else:
        yield host, False


def _bind(host: str, port: int, is_optional: bool) -> socket.socket | None:
    try:
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return socket.create_server((host, port), family=resolved[0][0], backlog=BACKLOG)
    except OSError as error:
        if is_optional and (isinstance(error, socket.gaierror) or error.errno in _NO_SUCH_FAMILY):
            return None
        is_taken = error.errno == errno.EADDRINUSE
        # ``create_server`` says the address again, in its own words.
        why = "it is taken" if is_taken else str(error.strerror).partition(" (while ")[0]
        message = f"cannot listen on {Address(host, port)}: {why}"
        raise CannotListen(message, is_taken=is_taken) from error


def connection_limit() -> int:
    """How many client connections fit, each with one to the upstream; raises the soft limit."""
    try:
        import resource  # not on Windows
    except ImportError:
        return _WITHOUT_LIMITS
    wanted = 2 * MAX_CONNECTIONS + _SPARE_FILES
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    files, most = (
        wanted if limit == resource.RLIM_INFINITY else min(limit, wanted) for limit in limits
    )
    if files < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
            files = most
    return max(16, (files - _SPARE_FILES) // 2)


class Server:
    """Listens; each client has a ``Connection``."""

    def __init__(self, serving: Serving) -> None:
        """Must be made within the loop."""
        self._loop = asyncio.get_running_loop()
        self._serving = serving
        self.connections = serving.connections
        self._listening: dict[socket.socket, asyncio.Server] = {}

    async def listen(self, addresses: Iterable[Address]) -> tuple[str, ...]:
        """Take connections; at which addresses, in figures. Raises CannotListen."""
        sockets = listening(addresses)
        for sock in sockets:
            self._listening[sock] = await self._loop.create_server(self, sock=sock, backlog=BACKLOG)
        return tuple(str(Address(*sock.getsockname()[:2])) for sock in sockets)

    def __call__(self) -> Connection:
        return Connection(self._serving)

    async def stop_listening(self) -> None:
        """Take no more connections.

        asyncio forgets one that it is accepting while the listener closes (python/cpython#109564),
        and its caller would wait; so it is accepted before.
        """
        for sock in self._listening:
            with contextlib.suppress(NotImplementedError):  # Windows
                self._loop.remove_reader(sock)
        for _ in range(_TURNS_TO_ACCEPT):
            await asyncio.sleep(0)
        while self._listening:
            self._listening.popitem()[1].close()

    async def close(self) -> None:
        """Let idle connections go, and calls after a moment; write what was counted of floods."""
        await self.stop_listening()
        self._serving.is_closing = True
        for connection in self.connections - set(self.busy()):
            connection.close()
        await self._wait()
        for connection in [*self.connections]:
            connection.close()
            if connection.task is not None:
                connection.task.cancel()
        await self._wait()
        self._serving.floods.close()

    async def _wait(self) -> None:
        if tasks := [each.task for each in self.busy() if each.task is not None]:
            await asyncio.wait(tasks, timeout=SHUTDOWN_SECONDS)

    def busy(self) -> list[Connection]:
        """The connections whose calls are being answered."""
        return [each for each in self.connections if each.task is not None]
