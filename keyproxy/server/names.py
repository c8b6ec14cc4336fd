"""What the upstream's public list tells about the names of models, for every app's list of them.

Whoever fetches the list, for prices or for a page, fetches it here. Where an app excludes models,
it is fetched at the start and hourly, because a second name of a model must not get around that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog

from keyproxy.errors import Refusal
from keyproxy.policy.known import Known
from keyproxy.policy.models import Models
from keyproxy.settings import Settings
from keyproxy.settings.advice import unlisted
from keyproxy.upstream import headers
from keyproxy.upstream.catalogue import Fetched

LIST_PATH = "/models?output_modalities=all"
REFRESH_SECONDS = 3600.0
RETRY_SECONDS = 60.0
_log = structlog.get_logger("keyproxy")
_LISTS = ("/models", LIST_PATH)


class Names:
    """Teaches the models in force; outlives a configuration."""

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[Fetched]],
        fetch_with_key: Callable[[str], Awaitable[Fetched]],
        models: Callable[[], Iterable[Models]],
        settings: Callable[[], Settings],
    ) -> None:
        """``models`` and ``settings`` give those in force. ``fetch_with_key``: for an upstream that
        shows its list to nobody else."""
        self._fetch = fetch
        self._fetch_with_key = fetch_with_key
        self._models = models
        self._settings = settings
        self._known: dict[str, Known] = {}
        self._may_tell = False
        self._told: set[str] = set()

    async def fetch(self, path: str) -> Fetched:
        """A public resource; of a list of models, what it tells about names is learnt.

        Raises as the given ``fetch`` does.
        """
        return await self._learnt(path, await self._fetch(path))

    async def fetch_with_key(self, path: str) -> Fetched:
        """The same, asked for with the default app's key."""
        return await self._learnt(path, await self._fetch_with_key(path))

    async def _learnt(self, path: str, fetched: Fetched) -> Fetched:
        if path in _LISTS and fetched.status == 200:
            self._known[path] = await asyncio.to_thread(read_names, fetched.raw)
            self.teach()
            if self._may_tell:
                await self.tell()
        return fetched

    def teach(self) -> None:
        """Tell the models in force what is known; the longer list knows more."""
        known = self._known.get(LIST_PATH) or self._known.get("/models")
        if known is not None:
            for models in self._models():
                models.learn(known)

    async def tell(self) -> None:
        """Say, once each, which patterns and aliases name no model of the whole list.

        Called when it listens, and from then on with each list: nobody waits for one.
        """
        self._may_tell = True
        if (known := self._known.get(LIST_PATH)) is None:
            return
        for line in await asyncio.to_thread(unlisted, self._settings(), known.listed):
            if line not in self._told:
                self._told.add(line)
                _log.warning(line)

    async def look(self) -> bool:
        """Fetch the whole list; whether there was one to be had."""
        try:
            fetched = await self.fetch(LIST_PATH)
            if fetched.status == 401:
                fetched = await self.fetch_with_key(LIST_PATH)
        except Refusal:
            return False
        return fetched.status == 200

    async def run(self) -> None:
        """Keep the names fresh, until cancelled."""
        while True:
            is_fresh = False
            try:
                is_fresh = await self.look()
            except Exception:  # no memory or thread just now
                _log.exception("the names of models could not be read")
            await asyncio.sleep(REFRESH_SECONDS if is_fresh else RETRY_SECONDS)


def read_names(raw: bytes) -> Known:
    """What the bytes of a list tell; for a thread, since it is about a megabyte."""
    body = headers.loads(raw)
    data = body.get("data") if isinstance(body, dict) else None
    return Known.of(data if isinstance(data, list) else ())
