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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, urlencode

from keyproxy.call import BASE
from keyproxy.errors import Refusal
from keyproxy.transport.fetch import Fetch, Fetched, Refreshed
from keyproxy.upstream import headers

FRESH_SECONDS = 300.0
REFUSED_SECONDS = 60.0  # until the list is asked for again without the key
STALE_SECONDS = 86_400.0
"""An old list is better than none while the upstream is away."""
MAX_LISTS = 8  # a list is about 1 MB, and its filters have few useful values
MAX_DETAILS = 256
_DETAIL = re.compile(rf"({BASE}/models/)(.+)(/endpoints)|({BASE}/model/)(.+)()")
NO_ALIASES: Mapping[str, str] = MappingProxyType({})


class Page(NamedTuple):
    """An answer of ours: a JSON ``body`` and the fields that go with it."""

    status: int
    body: bytes
    head: Mapping[str, str] = MappingProxyType({})


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


class _Row(NamedTuple):
    """A model's; ``is_usual``: it is in the list that nothing was asked of."""

    model: str
    raw: bytes
    is_usual: bool


@dataclass(frozen=True, slots=True)
class _Entry:
    """``body``: the whole answer, or what follows the rows of a list in its envelope.

    ``age_seconds``: how old it was already when it came.
    """

    status: int
    body: bytes
    rows: tuple[_Row, ...] = ()
    head: Mapping[str, str] = field(default_factory=dict)
    age_seconds: float = 0.0

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

    def __init__(
        self,
        fetch: Fetch,
        whole_path: Callable[[], str | None] = lambda: None,
        is_usual: Callable[[Mapping[str, Any]], bool] = lambda row: True,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``whole_path``: where the list of all models is had, where it is fetched for others,
        too; then the usual list is cut from it, by ``is_usual``."""
        self._fetch = fetch
        self._is_usual = is_usual
        self._whole_path = whole_path
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
        whole = None if filters else self._whole_path()
        path = whole or "/models" + (f"?{filters}" if filters else "")
        entry = await self._entry(self._lists, MAX_LISTS, path)
        if entry.status != 200:
            return entry.answer
        listed = (row for row in entry.rows if row.is_usual or whole is None)
        allowed = {row.model: row.raw for row in listed if models.allows(row.model)}
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
            self._make_room(cache, size)
            load = partial(self._load, path)
            cache[path] = Refreshed(load, STALE_SECONDS, keeps=_is_kept, clock=self._clock)
        kept = cache[path]
        cache.move_to_end(path)
        known = kept.value
        fresh_seconds = FRESH_SECONDS if known and known.status == 200 else REFUSED_SECONDS
        if known is not None and known.age_seconds + kept.age_seconds < fresh_seconds:
            return known
        try:
            entry = await kept.renewed()
        except Refusal:
            if known is None:
                raise
            return known
        is_old_better = entry.status >= 500 or entry.status == 401  # what was public still is
        return known if known and known.status == 200 and is_old_better else entry

    def _make_room(self, cache: _Cache, size: int) -> None:
        """For one more: what has nothing to show goes first, then what was not asked for longest.

        Odd filters must not push out the list that everybody asks for.
        """
        if len(cache) >= size:
            usual = {"/models", self._whole_path()}
            empty = (path for path, kept in cache.items() if not kept.value and not kept.is_loading)
            others = (path for path in cache if path not in usual)
            del cache[next(empty, None) or next(others)]

    async def _load(self, path: str) -> _Entry:
        fetched = await self._fetch(path)
        entry = await asyncio.to_thread(self._read, path, fetched)
        return replace(entry, age_seconds=fetched.age_seconds)

    def _read(self, path: str, fetched: Fetched) -> _Entry:
        """Runs in a thread: the list is about a megabyte. Raises ``upstream_invalid``."""
        status, raw, head, *_ = fetched
        if 400 <= status < 600:
            return _Entry(status, raw, head=head)
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
                _Row(
                    row["id"], json.dumps(row, separators=(",", ":")).encode(), self._is_usual(row)
                )
                for row in data
                if isinstance(row, dict) and isinstance(row.get("id"), str)
            )
            rest = b"," + json.dumps(parsed).encode()[1:-1] if parsed else b""
        except RecursionError as error:
            raise _invalid() from error
        return _Entry(status, rest, rows)


def _is_kept(entry: _Entry, known: _Entry | None) -> bool:
    is_public = known is not None and known.status == 200
    return entry.status == 200 or (entry.status == 401 and not is_public)


def _renamed(row: bytes, name: str) -> bytes:
    return json.dumps({**json.loads(row), "id": name}, separators=(",", ":")).encode()


def _invalid() -> Refusal:
    return Refusal("upstream_invalid", "The upstream's model list cannot be read.")
