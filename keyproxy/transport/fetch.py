"""One whole answer over the HTTP client: bounded in bytes and time, never redirected.

For what is read as a whole: key sets, verdicts, reports, lists. Calls are ``upstream``'s matter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import aiohttp
from multidict import CIMultiDictProxy

_PLAIN = {"Accept": "application/json", "Accept-Encoding": "identity"}
"""Compression is not asked for: a small body cannot become a large one."""


class Whole(NamedTuple):
    """``raw`` is None for a body that is larger than was allowed."""

    status: int
    headers: CIMultiDictProxy[str]
    raw: bytes | None


class Fetched(NamedTuple):
    """A resource of the upstream: ``head`` holds what of its head goes down to a client.

    ``is_public``: it was shown without the key. ``age_seconds``: how long ago it was fetched.
    """

    status: int
    raw: bytes
    head: Mapping[str, str] = MappingProxyType({})
    is_public: bool = True
    age_seconds: float = 0.0


Fetch = Callable[[str], Awaitable[Fetched]]
"""Gives what is below the upstream's base address; raises our refusals."""


async def fetch(
    session: aiohttp.ClientSession,
    url: str,
    *,
    max_bytes: int,
    timeout_seconds: float | None = None,
    head: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
) -> Whole:
    """The answer to a GET, or with a ``form`` to a POST; ``head`` goes beside or over ours.

    Raises ``TimeoutError``, ``aiohttp.ClientError``, ``OSError``, and ``UnicodeError`` for a name
    that is none.
    """
    async with (
        asyncio.timeout(timeout_seconds),
        session.request(
            "GET" if form is None else "POST",
            url,
            headers={**_PLAIN, **(head or {})},
            data=form,
            allow_redirects=False,
        ) as answer,
    ):
        return Whole(answer.status, answer.headers, await read_bounded(answer, max_bytes))


async def read_bounded(answer: aiohttp.ClientResponse, max_bytes: int) -> bytes | None:
    """The body, or None when it is larger than ``max_bytes``; then the connection is closed."""
    parts, size = [], 0
    async for chunk in answer.content.iter_any():
        size += len(chunk)
        if size > max_bytes:
            answer.close()
            return None
        parts.append(chunk)
    return b"".join(parts)
