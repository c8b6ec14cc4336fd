"""What the list of models tells of names: to the models in force, and to the operator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from keyproxy.errors import Refusal
from keyproxy.policy.models import Known
from keyproxy.settings import Settings
from keyproxy.settings.advice import unlisted
from keyproxy.upstream.catalogue import Catalogue
from keyproxy.upstream.provider import Fetched, Row

REFRESH_SECONDS = 3600.0  # as of prices
RETRY_SECONDS = 60.0
_log = structlog.get_logger("keyproxy")


class Names:
    """Outlives a configuration; ``settings`` gives those in force."""

    def __init__(self, catalogue: Catalogue, settings: Callable[[], Settings]) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._rows: tuple[Row, ...] = ()
        self._known = Known()
        self._may_tell = False
        self._told: set[str] = set()

    def known(self) -> Known:
        """What the longest list tells that was had last."""
        if (rows := self._catalogue.rows) is not self._rows:
            self._rows, self._known = rows, Known.of(row.kept for row in rows)
        return self._known

    async def whole(self) -> Fetched:
        """The list of all models, looked at here first. Raises as ``Catalogue.whole`` does."""
        fetched = await self._catalogue.whole()
        if self._may_tell:
            await self.tell()
        return fetched

    async def tell(self) -> None:
        """Say, once each, which patterns and aliases name no model of the whole list.

        Called when it listens, and from then on with each list: nobody waits for one.
        """
        self._may_tell = True
        if not self._catalogue.whole_rows:
            return
        for line in await asyncio.to_thread(unlisted, self._settings(), self.known().listed):
            if line not in self._told:
                self._told.add(line)
                _log.warning(line)

    async def look(self) -> bool:
        """Fetch the whole list; whether there was one to be had."""
        try:
            return (await self.whole()).status == 200
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
