"""What each provider says it has: its own list of models, kept for who asks at once.

A native id that comes of a rule holds where its provider lists it; a price there is the nearest
word to the bill. Outlives a configuration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

import structlog

from keyproxy.errors import Refusal
from keyproxy.upstream.provider import Model

REFRESH_SECONDS = 3600.0
RETRY_SECONDS = 60.0
_log = structlog.get_logger("keyproxy.upstream")
Fetch = Callable[[str], Awaitable[Mapping[str, Model] | None]]
"""Gives the models of a provider, by its name and their ids there; None without a list. Raises our
refusals."""


class Lists:
    """``keep`` says whose lists are wanted; ``close`` it."""

    def __init__(
        self, fetch: Fetch, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        self._fetch, self._sleep = fetch, sleep
        self._lists: dict[str, Mapping[str, Model]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def of(self, provider: str) -> Mapping[str, Model] | None:
        """Its models as it last told them, by their ids there; None while it never did."""
        return self._lists.get(provider)

    def keep(self, providers: Collection[str]) -> None:
        """Ask those providers, now and hourly, and forget what others told."""
        for name in self._lists.keys() - set(providers):
            del self._lists[name]
        for name in self._tasks.keys() - set(providers):
            self._tasks.pop(name).cancel()
        for name in providers:
            if name not in self._tasks:
                self._tasks[name] = asyncio.create_task(self._renew(name))

    async def close(self) -> None:
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _renew(self, name: str) -> None:
        """Until it is cancelled."""
        while True:
            models = None
            try:
                models = await self._fetch(name)
            except Refusal as refusal:
                why = refusal.hint or refusal.code
                _log.warning("a provider's list of models cannot be had", provider=name, why=why)
            except Exception:  # no memory or thread just now
                _log.exception("a provider's list of models could not be read", provider=name)
            if models:
                self._lists[name] = models
            await self._sleep(REFRESH_SECONDS if models else RETRY_SECONDS)
