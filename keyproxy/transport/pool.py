"""Connections to one origin, kept open from call to call; made directly or through a proxy.

Newest first, so that the others may age: an idle one is closed before the edges in front of
providers would do so. A request is never sent twice: it goes over a connection that nobody closed
so far, and what happens from its first byte on is its caller's to know (RFC 9110, 9.2.2).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import aiohappyeyeballs

from keyproxy.settings import Address
from keyproxy.transport.http1 import Connection
from keyproxy.transport.messages import Lines
from keyproxy.transport.reply import Reply

IDLE_SECONDS = 30.0  # below the idle limits of edges (Cloudflare: 400 s, load balancers: 60 s)
MAX_IDLE = 256
_ATTEMPT_SECONDS = 0.25  # for one address before the next is tried beside it (RFC 8305, 5)
_CLOSING_SECONDS = 1.0
_OPENED = re.compile(rb"HTTP/1\.[01] 2\d\d[ \r]")
_MAX_TUNNEL_HEAD_BYTES = 16 * 1024
_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)


class ConnectFailed(Exception):
    """There was no connection, so nothing was sent. The cause says why."""


class ProxyFailed(ConnectFailed):
    """The proxy is not there, or opens no tunnel."""


class ConnectLate(ConnectFailed, TimeoutError):
    """The connection did not come about in time."""


class Origin(NamedTuple):
    """Whom connections lead to."""

    is_tls: bool
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        parts = urlsplit(url)
        is_tls = parts.scheme == "https"
        return cls(is_tls, parts.hostname or "", parts.port or (443 if is_tls else 80))

    @property
    def authority(self) -> str:
        """As the Host field names it: without a port that goes without saying."""
        return str(Address(self.host, self.port)).removesuffix(":443" if self.is_tls else ":80")


class Pool:
    """The connections to the origin of ``base_url``. ``proxy``: ``http://[user:password@]host:port``
    to ask for tunnels."""

    def __init__(
        self,
        base_url: str,
        *,
        trust: ssl.SSLContext,
        connect_seconds: float,
        proxy: str | None = None,
    ) -> None:
        self.origin = Origin.of(base_url)
        self._base_path = urlsplit(base_url).path.rstrip("/")
        self._host = self.origin.authority
        self.trust = trust
        self._connect_seconds = connect_seconds
        self._proxy = proxy
        self._own = self._keep, self._forget  # one for all connections
        self._idle: list[tuple[float, Connection]] = []  # the newest last
        self._connections: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._empty = asyncio.Event()

    async def ask(
        self,
        method: str,
        path: str,
        fields: Lines,
        body: bytes,
        timeout_seconds: float,
        connected: Callable[[], None] | None = None,
        left: Callable[[asyncio.Future[Reply]], Awaitable[None]] | None = None,
        *,
        is_rooted: bool = False,
    ) -> Reply:
        """The answer to a request below the base, or the origin if it ``is_rooted``, as soon as its
        head has come; read it to its end or close it. ``connected`` is called once, before the
        first byte goes up, from where ``timeout_seconds`` count. ``left``: what is done about the
        answer when the asker is cancelled meanwhile; then the connection is closed.

        Raises ``ConnectFailed``, ``TimeoutError``, ``Malformed``, ``BrokenOff``.
        """
        target = path if is_rooted else self._base_path + path
        head = self._head(method, target, fields, len(body))
        connection = self._kept() or await self._connect()
        if connected is not None:
            connected()
        answered = connection.ask(head, body, timeout_seconds)
        try:
            return await answered
        except asyncio.CancelledError:
            answered = connection.wait_on(answered)
            try:
                if left is not None:
                    await left(answered)
            finally:
                connection.give_up(answered)
            raise

    @property
    def kept(self) -> int:
        """How many connections wait for a next request."""
        return len(self._idle)

    @property
    def in_use(self) -> int:
        """How many connections a request is under way on."""
        return len(self._connections) - len(self._idle)

    async def close(self) -> None:
        """Cut every connection. Returns when the transports have let go of them."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in tuple(self._connections):
            connection.abort()
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), _CLOSING_SECONDS)

    def _head(self, method: str, target: str, fields: Lines, length: int) -> bytes:
        if not target.isprintable():
            raise ValueError("a target holds a line break")
        size = f"Content-Length: {length}\r\n" if length or method != "GET" else ""
        return f"{method} {target} HTTP/1.1\r\nHost: {self._host}\r\n{fields}{size}\r\n".encode()

    def _kept(self) -> Connection | None:
        oldest = monotonic() - IDLE_SECONDS
        while self._idle:
            since, connection = self._idle.pop()
            if since > oldest and connection.is_usable:
                return connection
            connection.abort()
        return None

    def _keep(self, connection: Connection) -> None:
        if self._is_closed or len(self._idle) >= MAX_IDLE:
            connection.close()
            return
        self._idle.append((monotonic(), connection))
        if self._sweeper is None:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(IDLE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for too long, and come again for the next one."""
        oldest = monotonic() - IDLE_SECONDS
        young = next((i for i, (since, _) in enumerate(self._idle) if since > oldest), None)
        for _, connection in self._idle[:young]:
            connection.close()
        del self._idle[:young]
        self._sweeper = None
        if self._idle:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(self._idle[0][0] - oldest, self._sweep)

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._idle = [kept for kept in self._idle if kept[1] is not connection]
        if not self._connections:
            self._empty.set()

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(self._connect_seconds):
                connection = await (self._tunnel(self._proxy) if self._proxy else self._direct())
        except TimeoutError as error:
            raise ConnectLate("no connection in time") from error
        except (OSError, UnicodeError) as error:  # a name that is none
            raise ConnectFailed("no connection") from error
        if self._is_closed or not connection.is_usable:
            connection.abort()
            raise ConnectFailed("the connection was closed at once")
        self._connections.add(connection)
        self._empty.clear()
        return connection

    async def _direct(self) -> Connection:
        is_tls, host, port = self.origin
        tls = self.trust if is_tls else None
        _, connection = await _open(lambda: Connection(*self._own), host, port, tls)
        return connection

    async def _tunnel(self, url: str) -> Connection:
        """TLS to the origin within a tunnel of the proxy's (RFC 9110, 9.3.6)."""
        loop, proxy = asyncio.get_running_loop(), urlsplit(url)
        said = asyncio.StreamReader(_MAX_TUNNEL_HEAD_BYTES)
        hears = partial(asyncio.StreamReaderProtocol, said)
        try:
            transport, _ = await _open(hears, proxy.hostname or "", proxy.port or 80)
        except OSError:
            raise ProxyFailed("the proxy cannot be reached") from None
        try:
            transport.write(_connect_head(self.origin, proxy.username, proxy.password))
            await _opened(said)
            connection = Connection(*self._own)
            tls = await loop.start_tls(
                transport, connection, self.trust, server_hostname=self.origin.host
            )
            if tls is None:
                raise ProxyFailed("the proxy closed the tunnel")
            connection.connection_made(tls)
        except BaseException:
            transport.abort()
            raise
        return connection


async def _open(
    factory: Callable[[], _Protocol], host: str, port: int, tls: ssl.SSLContext | None = None
) -> tuple[asyncio.Transport, _Protocol]:
    """``loop.create_connection``, which leaves a socket open when it is cancelled."""
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    sock: socket.socket | None = None
    try:
        sock = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=_ATTEMPT_SECONDS, interleave=1
        )
        given, sock = sock, None  # its transport closes it, whatever happens from here on
        return await loop.create_connection(
            factory, sock=given, ssl=tls, server_hostname=host if tls else None
        )
    finally:
        if sock is not None:
            sock.close()


def _connect_head(origin: Origin, user: str | None, password: str | None) -> bytes:
    target = Address(origin.host, origin.port)
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if user is not None:
        pair = f"{unquote(user)}:{unquote(password or '')}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(pair).decode()}")
    return "\r\n".join([*lines, "", ""]).encode()


async def _opened(said: asyncio.StreamReader) -> None:
    """Return when a proxy has said to CONNECT that the tunnel is there, and no more. Raises
    ``ProxyFailed``."""
    try:
        is_open = _OPENED.match(await said.readuntil(b"\r\n\r\n"))
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        is_open = None
    if not is_open:
        raise ProxyFailed("the proxy opens no tunnel")
    said.feed_eof()
    if await said.read():
        raise ProxyFailed("the proxy speaks into the tunnel")
