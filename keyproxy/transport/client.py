"""Whom calls and questions of ours go out to: trust, the way through a proxy, the clients for both.

Calls go over a ``Pool``. What is asked of others than the upstream (key sets, verdicts on
captchas) goes over a session of aiohttp's, a connection each.
"""

from __future__ import annotations

import asyncio.sslproto
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from keyproxy.errors import SettingsFault
from keyproxy.settings import Settings
from keyproxy.settings.grammar import Unfit, network
from keyproxy.transport.pool import Pool

_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/pki/tls/cert.pem",  # those of before
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # BSD
)
_TLS_READ_BYTES = 8 * 1024  # most pieces of an answer are smaller


@asynccontextmanager
async def open_clients(settings: Settings) -> AsyncIterator[tuple[aiohttp.ClientSession, Pools]]:
    """An HTTP client without cookies, netrc and decompression, and connections to upstreams.

    Raises SettingsFault.
    """
    async with (
        Pools(settings) as pools,
        open_session(settings, settings.upstream, pools.trust) as session,
    ):
        yield session, pools


def open_session(settings: Settings, url: str, trust: ssl.SSLContext) -> aiohttp.ClientSession:
    """The same client for ``url`` alone: through our proxy, unless that is not for it.

    To be entered. Raises SettingsFault.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trust, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        proxy=_proxy(settings, url),
        timeout=aiohttp.ClientTimeout(total=None, connect=settings.connect_timeout_seconds),
    )


class Pools:
    """A pool for each base address, made when it is asked for first; it stays when a reload leaves
    its address out, and its connections age. To be entered; closed at the end."""

    def __init__(self, settings: Settings) -> None:
        # asyncio gives each TLS connection a 256 KiB read buffer: 310 KB a stream instead of 77.
        asyncio.sslproto.SSLProtocol.max_size = _TLS_READ_BYTES
        self._settings = settings
        self._pools: dict[str, Pool] = {}

    def of(self, base: str) -> Pool:
        """The connections to ``base``. Raises SettingsFault."""
        if (pool := self._pools.get(base)) is None:
            extra_ca = self._settings.upstream_ca_file
            is_plain = base.startswith("http:") and extra_ca is None
            pool = self._pools[base] = Pool(
                base,
                trust=_Later(ssl.PROTOCOL_TLS_CLIENT) if is_plain else self._store,
                connect_seconds=self._settings.connect_timeout_seconds,
                proxy=_proxy(self._settings, base),
            )
        return pool

    @property
    def trust(self) -> ssl.SSLContext:
        """Whom every other client of ours believes."""
        return self.of(self._settings.upstream).trust

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for pool in self._pools.values():
            await pool.close()

    @cached_property
    def _store(self) -> ssl.SSLContext:
        return trust(self._settings.upstream_ca_file)


class _Later(ssl.SSLContext):
    """``trust`` that is read when one connects first: with an upstream beside us, hardly ever."""

    @cached_property
    def _read(self) -> ssl.SSLContext:
        return trust(None)

    def wrap_bio(self, *given: Any, **named: Any) -> ssl.SSLObject:
        return self._read.wrap_bio(*given, **named)


def trust(extra_ca: Path | None) -> ssl.SSLContext:
    """Whom every outgoing connection of ours believes: the system's store, and ``extra_ca``.

    macOS and Windows keep corporate CAs where OpenSSL does not look, so that truststore asks them.
    Elsewhere the store is a file, read once; truststore reads it for each connection, which holds
    the loop for 15 ms and more.
    """
    context: ssl.SSLContext
    if sys.platform in ("darwin", "win32"):
        import truststore

        context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_default_certs()
        if not _has_store(ssl.get_default_verify_paths()):
            for file in filter(os.path.isfile, _CA_FILES):
                context.load_verify_locations(file)
                break
    if extra_ca is not None:
        context.load_verify_locations(extra_ca)
    return context


def _has_store(paths: ssl.DefaultVerifyPaths) -> bool:
    """Whether the OpenSSL that Python was built with looks where this system keeps its CAs."""
    folder = Path(paths.capath or "/nonexistent")
    return bool(paths.cafile) or any(folder.glob("[0-9a-f]*.[0-9]"))


def _proxy(settings: Settings, url: str) -> str | None:
    """The corporate proxy to CONNECT through. Never for plain HTTP: it would read the key.

    Raises SettingsFault for one of the environment that cannot be used.
    """
    base = URL(url)
    if settings.upstream_proxy is None or base.scheme != "https":
        return None
    proxy = settings.upstream_proxy.reveal()
    if proxy != "env":
        return proxy
    found = None if proxy_bypass(base.host or "") else getproxies().get("https")
    if not found:
        return None
    try:
        return network.upstream_proxy(found if "://" in found else f"http://{found}").reveal()
    except Unfit as unfit:
        raise SettingsFault("HTTPS_PROXY", found=unfit.found, expected=unfit.expected) from unfit
