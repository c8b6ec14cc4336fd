"""The upstream's public model list, cached, and cut down to what may be used here.

Fetched and read once for all who want it: pages, prices, the names in apps' lists. What pages show
is asked for without the key, so it carries nothing of the account; where the upstream wants one
(``KeyWanted``), each app has a catalogue of its own, asked for with its key. The envelope is kept
(``data``, ``total_count``, ``links``), because typed SDKs require it.
"""

from __future__ import annotations

import json
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Protocol
from urllib.parse import parse_qsl, urlencode

from keyproxy.call import BASE
from keyproxy.dataclass import dataclass
from keyproxy.errors import Refusal
from keyproxy.transport.fetch import Refreshed
from keyproxy.upstream.provider import Fetch, Fetched, Listing, Row

FRESH_SECONDS = 300.0
REFUSED_SECONDS = 60.0  # until the list is asked for again without the key
STALE_SECONDS = 86_400.0
"""An old list is better than none while the upstream is away."""
MAX_LISTS = 8  # a list is about 1 MB, and its filters have few useful values
MAX_DETAILS = 256
_USUAL = "/models"
_USUAL_LISTING = Listing(_USUAL)
_DETAIL = re.compile(rf"({BASE}/models/)(.+)(/endpoints)|({BASE}/model/)(.+)()")
_Cache = OrderedDict[str, Refreshed[Fetched]]
NO_ALIASES: Mapping[str, str] = MappingProxyType({})


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


@dataclass(eq=False)
class Catalogue:
    """Answers the catalogue endpoints, and has the whole list for who needs it. ``close`` it.

    ``fetch_whole`` gives the list of all models, which no page is shown unless it is public; the
    usual list is cut from it then. Without it there is the usual list alone.
    """

    fetch: Fetch
    fetch_whole: Fetch | None = None
    listing: Listing = _USUAL_LISTING
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._whole = self._refreshed(self.listing.path)
        self._lists: _Cache = OrderedDict()
        self._details: _Cache = OrderedDict()
        self._usual_rows: tuple[Row, ...] = ()
        self.whole_rows: tuple[Row, ...] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        """Of the longest list that was ever had."""
        return self.whole_rows or self._usual_rows

    async def whole(self) -> Fetched:
        """The list of all models, or the error in its place. Raises what the fetch raises."""
        fetched = await _fresh(self._whole)
        return fetched._replace(age_seconds=self._whole.age_seconds)

    async def close(self) -> None:
        await self._whole.close()

    async def answer(
        self, path: str, query: str, models: Allowed, aliases: Mapping[str, str] = NO_ALIASES
    ) -> Fetched:
        """The answer to a served path below ``/api/v1`` and its checked query; its ``raw`` is JSON.

        An alias is listed as a row of the model it stands for, under the alias' name.

        Raises ``model_not_allowed``, ``KeyWanted`` and what the fetch raises.
        """
        rest = resolved(path, models, aliases).removeprefix(BASE)
        if rest in ("/models", "/models/count"):
            return await self._list(rest, dict(parse_qsl(query)), models, aliases)
        return await self._public(self._kept(self._details, MAX_DETAILS, rest))

    async def _list(
        self, rest: str, asked: dict[str, str], models: Allowed, aliases: Mapping[str, str]
    ) -> Fetched:
        offset, limit = int(asked.pop("offset", 0)), asked.pop("limit", None)
        filters = urlencode(sorted(asked.items()))
        is_cut = not filters and self._is_whole_public()
        path = self.listing.path if is_cut else _USUAL + (f"?{filters}" if filters else "")
        fetched = await self._public(self._kept(self._lists, MAX_LISTS, path))
        if fetched.status != 200:
            return fetched
        allowed = {
            row.model: row.page
            for row in fetched.rows
            if models.allows(row.model) and (not is_cut or self.listing.is_usual(row.kept))
        }
        rows = [_renamed(allowed[m], name) for name, m in aliases.items() if m in allowed]
        rows += allowed.values()
        if rest == "/models/count":
            return Fetched(200, json.dumps({"data": {"count": len(rows)}}).encode())
        end = len(rows) if limit is None else offset + int(limit)
        following = None
        if end < len(rows) and limit is not None and int(limit) > 0:
            following = urlencode({**asked, "limit": limit, "offset": str(end)})
            following = f"{BASE}/models?{following}"
        counted = {"total_count": len(rows), "links": {"next": following}}
        tail = json.dumps(counted).encode()[1:-1] + fetched.raw
        return Fetched(200, b'{"data":[' + b",".join(rows[offset:end]) + b"]," + tail + b"}")

    def _is_whole_public(self) -> bool:
        """Whether pages may be cut from the whole list: it is at hand, or about to be."""
        whole = self._whole.value
        return self._whole.is_loading if whole is None else whole.is_public

    async def _public(self, kept: Refreshed[Fetched]) -> Fetched:
        """What a page may show, an old one while there is no better one."""
        try:
            fetched = await _fresh(kept)
        except Refusal:
            if kept.value is None:
                raise
            fetched = kept.value
        old = kept.value
        if old and old.status == 200 and (fetched.status >= 500 or fetched.status == 401):
            fetched = old  # what was public still is
        is_shown = fetched.is_public or self.fetch_whole is None
        if fetched.status == 401 or not is_shown:
            raise KeyWanted
        return fetched

    def _kept(self, cache: _Cache, size: int, path: str) -> Refreshed[Fetched]:
        """Room for one more is made by what has nothing to show, then by what was not asked for
        longest. Odd filters must not push out the list that everybody asks for."""
        if path == self.listing.path:
            return self._whole
        if path not in cache and len(cache) >= size:
            empty = (path for path, kept in cache.items() if not kept.value and not kept.is_loading)
            del cache[next(empty, None) or next(path for path in cache if path != _USUAL)]
        kept = cache[path] = cache.get(path) or self._refreshed(path)
        cache.move_to_end(path)
        return kept

    def _refreshed(self, path: str) -> Refreshed[Fetched]:
        load = partial(self._load, path)
        return Refreshed(load, STALE_SECONDS, keeps=_is_kept, clock=self.clock)

    async def _load(self, path: str) -> Fetched:
        is_whole = path == self.listing.path
        fetch = self.fetch_whole if is_whole and self.fetch_whole else self.fetch
        fetched = await fetch(path)
        if is_whole and fetched.rows:
            self.whole_rows = fetched.rows
        elif path == _USUAL and fetched.rows:
            self._usual_rows = fetched.rows
        return fetched


async def _fresh(kept: Refreshed[Fetched]) -> Fetched:
    value = kept.value
    fresh_seconds = FRESH_SECONDS if value and value.status == 200 else REFUSED_SECONDS
    if value is not None and kept.age_seconds < fresh_seconds:
        return value
    return await kept.renewed()


def _is_kept(fetched: Fetched, known: Fetched | None) -> bool:
    is_public = known is not None and known.status == 200
    return fetched.status == 200 or (fetched.status == 401 and not is_public)


def _renamed(row: bytes, name: str) -> bytes:
    return json.dumps({**json.loads(row), "id": name}, separators=(",", ":")).encode()
