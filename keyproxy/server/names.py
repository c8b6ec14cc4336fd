"""The upstream's list of models, fetched once for prices, pages and the names in apps' lists.

Whoever wants the list gets it here. Where an app excludes models it is fetched at the start and
hourly, as it is for prices, because a second name of a model must not get around that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from keyproxy.errors import Refusal
from keyproxy.policy.models import Known, Models
from keyproxy.settings import Settings
from keyproxy.settings.advice import unlisted
from keyproxy.transport.fetch import Fetched, Refreshed
from keyproxy.upstream import headers
from keyproxy.upstream.catalogue import FRESH_SECONDS, STALE_SECONDS
from keyproxy.upstream.send import Upstream

REFRESH_SECONDS = 3600.0
RETRY_SECONDS = 60.0
_log = structlog.get_logger("keyproxy")


class Names:
    """Teaches the models in force; outlives a configuration."""

    def __init__(
        self,
        list_path: str,
        upstream: Callable[[], Upstream],
        models: Callable[[], Iterable[Models]],
        settings: Callable[[], Settings],
    ) -> None:
        """``list_path`` is the upstream's for all models; the others give what is in force,
        ``upstream`` the default app's."""
        self._list_path = list_path
        self._upstream = upstream
        self._models = models
        self._settings = settings
        self._whole = Refreshed(
            self._load_whole, STALE_SECONDS, keeps=lambda fetched, _: fetched.status == 200
        )
        self._known: dict[str, Known] = {}
        self._may_tell = False
        self._told: set[str] = set()

    async def fetch(self, path: str) -> Fetched:
        """A public resource for a page, asked for without the key.

        Raises as ``Upstream.send`` does.
        """
        if path == self._list_path and (whole := await self._fetch_whole()).is_public:
            return whole
        return await self._learnt(path, await self._upstream().fetch(path))

    async def fetch_shown(self, path: str) -> Fetched:
        """The same for what nobody is shown, with the default app's key where it needs one."""
        if path == self._list_path:
            return await self._fetch_whole()
        return await self._upstream().fetch_shown(path)

    def whole_path(self) -> str | None:
        """Under which path pages get the whole list, if it is at hand, or about to be."""
        whole = self._whole.value
        is_public = self._whole.is_loading if whole is None else whole.is_public
        return self._list_path if is_public else None

    async def _fetch_whole(self) -> Fetched:
        known, age_seconds = self._whole.value, self._whole.age_seconds
        if known is not None and age_seconds < FRESH_SECONDS:
            return known._replace(age_seconds=age_seconds)
        return await self._whole.renewed()

    async def _load_whole(self) -> Fetched:
        return await self._learnt(
            self._list_path, await self._upstream().fetch_shown(self._list_path)
        )

    async def _learnt(self, path: str, fetched: Fetched) -> Fetched:
        if path in ("/models", self._list_path) and fetched.status == 200:
            self._known[path] = await asyncio.to_thread(read_names, fetched.raw)
            self.teach()
            if self._may_tell:
                await self.tell()
        return fetched

    def teach(self) -> None:
        """Tell the models in force what is known; the longer list knows more."""
        known = self._known.get(self._list_path) or self._known.get("/models")
        if known is not None:
            for models in self._models():
                models.learn(known)

    async def tell(self) -> None:
        """Say, once each, which patterns and aliases name no model of the whole list.

        Called when it listens, and from then on with each list: nobody waits for one.
        """
        self._may_tell = True
        if (known := self._known.get(self._list_path)) is None:
            return
        for line in await asyncio.to_thread(unlisted, self._settings(), known.listed):
            if line not in self._told:
                self._told.add(line)
                _log.warning(line)

    async def look(self) -> bool:
        """Fetch the whole list; whether there was one to be had."""
        try:
            return (await self._fetch_whole()).status == 200
        except Refusal:
            return False

    async def run(self) -> None:
        """Keep the names fresh where there is no price book that does it, until cancelled."""
        while True:
            is_fresh = False
            try:
                is_fresh = await self.look()
            except Exception:  # no memory or thread just now
                _log.exception("the names of models could not be read")
            await asyncio.sleep(REFRESH_SECONDS if is_fresh else RETRY_SECONDS)

    async def close(self) -> None:
        await self._whole.close()


def read_names(raw: bytes) -> Known:
    """What the bytes of a list tell; for a thread, since it is about a megabyte."""
    body = headers.loads(raw)
    data = body.get("data") if isinstance(body, dict) else None
    return Known.of(data if isinstance(data, list) else ())
