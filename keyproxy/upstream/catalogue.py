"""The upstream's public model list, cached, and cut down to what may be used here.

Asked for without the key, so it carries nothing of the account; where the upstream wants one
(``KeyWanted``), each app has a catalogue of its own, asked for with its key. The envelope is kept
(``data``, ``total_count``, ``links``), because typed SDKs require it.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, Protocol
from urllib.parse import parse_qsl, urlencode

from keyproxy.call import BASE
from keyproxy.dialects import CATALOGUE
from keyproxy.errors import Refusal
from keyproxy.transport.refreshed import Refreshed
from keyproxy.upstream import answers, headers

FRESH_SECONDS = 300.0
REFUSED_SECONDS = 60.0  # until the list is asked for again without the key
STALE_SECONDS = 86_400.0
"""An old list is better than none while the upstream is away."""
MAX_LISTS = 8  # a list is about 1 MB, and its filters have few useful values
MAX_DETAILS = 256
_DETAIL = re.compile(rf"({BASE}/models/)(.+)(/endpoints)|({BASE}/model/)(.+)()")
NO_ALIASES: Mapping[str, str] = MappingProxyType({})


class Fetched(NamedTuple):
    """A public resource: ``head`` holds what of its head goes down to a client."""

    status: int
    raw: bytes
    head: Mapping[str, str]


class Page(NamedTuple):
    """An answer of ours: a JSON ``body`` and the fields that go with it."""

    status: int
    body: bytes
    head: Mapping[str, str] = MappingProxyType({})


Fetch = Callable[[str], Awaitable[Fetched]]


class KeyWanted(Refusal):
    """The upstream answered 401: it shows its list only to who has a key."""

    def __init__(self) -> None:
        super().__init__(
            "upstream_invalid",
            "The upstream wants a key for its model list, and does not take this server's.",
            hint="it answered 401; run `keyproxy check`",
        )


class Allowed(Protocol):
    """The operator's list of models."""

    def allows(self, model: str) -> bool: ...

    def check(self, model: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Entry:
    """``body``: the whole answer, or what follows the rows of a list in its envelope."""

    status: int
    body: bytes
    rows: tuple[tuple[str, bytes], ...] = ()
    head: Mapping[str, str] = field(default_factory=dict)

    @property
    def answer(self) -> Page:
        return Page(self.status, self.body, self.head)


_Cache = OrderedDict[str, Refreshed[_Entry]]


def resolved(path: str, models: Allowed, aliases: Mapping[str, str]) -> str:
    """A detail path with the model that an alias in it stands for; other paths as they are.

    Raises ``model_not_allowed``.
    """
    match = _DETAIL.fullmatch(path)
    if match is None:
        return path
    before, asked, after = (part for part in match.groups() if part is not None)
    model = aliases.get(asked, asked)
    models.check(model)
    return f"{before}{model}{after}"


class Catalogue:
    """Answers the catalogue endpoints."""

    def __init__(self, fetch: Fetch, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lists: _Cache = OrderedDict()
        self._details: _Cache = OrderedDict()

    async def answer(
        self, path: str, query: str, models: Allowed, aliases: Mapping[str, str] = NO_ALIASES
    ) -> Page:
        """The answer to a served path below ``/api/v1`` and its checked query.

        An alias is listed as a row of the model it stands for, under the alias' name.

        Raises ``model_not_allowed``, ``KeyWanted`` and what the fetch raises.
        """
        rest = resolved(path, models, aliases).removeprefix(BASE)
        if rest in ("/models", "/models/count"):
            return await self._list(rest, dict(parse_qsl(query)), models, aliases)
        entry = await self._entry(self._details, MAX_DETAILS, rest)
        return entry.answer

    async def _list(
        self, rest: str, asked: dict[str, str], models: Allowed, aliases: Mapping[str, str]
    ) -> Page:
        offset, limit = int(asked.pop("offset", 0)), asked.pop("limit", None)
        filters = urlencode(sorted(asked.items()))
        entry = await self._entry(
            self._lists, MAX_LISTS, "/models" + (f"?{filters}" if filters else "")
        )
        if entry.status != 200:
            return entry.answer
        allowed = {model: row for model, row in entry.rows if models.allows(model)}
        rows = [_renamed(allowed[m], name) for name, m in aliases.items() if m in allowed]
        rows += allowed.values()
        if rest == "/models/count":
            return Page(200, json.dumps({"data": {"count": len(rows)}}).encode())
        end = len(rows) if limit is None else offset + int(limit)
        following = None
        if end < len(rows) and limit is not None and int(limit) > 0:
            following = urlencode({**asked, "limit": limit, "offset": str(end)})
            following = f"{BASE}/models?{following}"
        counted = {"total_count": len(rows), "links": {"next": following}}
        tail = json.dumps(counted).encode()[1:-1] + entry.body
        return Page(200, b'{"data":[' + b",".join(rows[offset:end]) + b"]," + tail + b"}")

    async def _entry(self, cache: _Cache, size: int, path: str) -> _Entry:
        entry = await self._cached(cache, size, path)
        if entry.status == 401:
            raise KeyWanted
        return entry

    async def _cached(self, cache: _Cache, size: int, path: str) -> _Entry:
        if path not in cache:
            _make_room(cache, size)
            load = partial(self._load, path)
            cache[path] = Refreshed(load, STALE_SECONDS, keeps=_is_kept, clock=self._clock)
        kept = cache[path]
        cache.move_to_end(path)
        known = kept.value
        fresh_seconds = FRESH_SECONDS if known and known.status == 200 else REFUSED_SECONDS
        if known is not None and kept.age_seconds < fresh_seconds:
            return known
        try:
            entry = await kept.renewed()
        except Refusal:
            if known is None:
                raise
            return known
        is_old_better = entry.status >= 500 or entry.status == 401  # what was public still is
        return known if known and known.status == 200 and is_old_better else entry

    async def _load(self, path: str) -> _Entry:
        return await asyncio.to_thread(_read, path, await self._fetch(path))


def _is_kept(entry: _Entry, known: _Entry | None) -> bool:
    is_public = known is not None and known.status == 200
    return entry.status == 200 or (entry.status == 401 and not is_public)


def _make_room(cache: _Cache, size: int) -> None:
    """For one more: what has nothing to show goes first, then what was not asked for longest.

    Odd filters must not push out the list that everybody asks for.
    """
    if len(cache) >= size:
        empty = (path for path, kept in cache.items() if not kept.value and not kept.is_loading)
        others = (path for path in cache if path != "/models")
        del cache[next(empty, None) or next(others)]


def _read(path: str, fetched: Fetched) -> _Entry:
    """Runs in a thread: the list is about a megabyte. Raises ``upstream_invalid``."""
    status, raw, head = fetched
    if 400 <= status < 600:
        body = answers.cleaned(raw, status) or answers.unreadable(status, CATALOGUE)
        return _Entry(status, body, head=head)
    parsed = headers.loads(raw)
    if status != 200 or not isinstance(parsed, dict):
        raise _invalid()
    if not (path == "/models" or path.startswith("/models?")):
        return _Entry(status, raw)
    data = parsed.pop("data", None)
    if not isinstance(data, list):
        raise _invalid()
    for name in ("total_count", "links"):
        parsed.pop(name, None)
    try:
        rows = tuple(
            (row["id"], json.dumps(row, separators=(",", ":")).encode())
            for row in data
            if isinstance(row, dict) and isinstance(row.get("id"), str)
        )
        rest = b"," + json.dumps(parsed).encode()[1:-1] if parsed else b""
    except RecursionError as error:
        raise _invalid() from error
    return _Entry(status, rest, rows)


def _renamed(row: bytes, name: str) -> bytes:
    return json.dumps({**json.loads(row), "id": name}, separators=(",", ":")).encode()


def _invalid() -> Refusal:
    return Refusal("upstream_invalid", "The upstream's model list cannot be read.")
