"""What each provider says it has: its own list of models, kept for who asks at once.

A native id that comes of a rule holds where its provider lists it; a price there is the nearest
word to the bill. Outlives a configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping

import structlog

from keyproxy.errors import Refusal
from keyproxy.upstream.provider import Model

REFRESH_SECONDS = 3600.0
RETRY_SECONDS = 60.0
TIMEOUT_SECONDS = 20.0
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
        self._asked: dict[str, asyncio.Event] = {}

    def of(self, provider: str) -> Mapping[str, Model] | None:
        """Its models as it last told them, by their ids there; None while it never did."""
        return self._lists.get(provider)

    async def settled(self, patience_seconds: float) -> None:
        """Wait until each provider has answered once, or so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_seconds):
                for asked in [*self._asked.values()]:
                    await asked.wait()

    def keep(self, providers: Collection[str]) -> None:
        """Ask those providers, now and hourly, and forget what others told. An old list holds until
        there is a new one: another key or address may stand behind the name."""
        for name in self._lists.keys() - set(providers):
            del self._lists[name]
        for task in self._tasks.values():
            task.cancel()
        self._asked = {name: self._asked.get(name, asyncio.Event()) for name in providers}
        self._tasks = {name: asyncio.create_task(self._renew(name)) for name in providers}

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
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    models = await self._fetch(name)
            except (Refusal, TimeoutError) as error:
                why = error.code if isinstance(error, Refusal) else "timeout"
                _log.warning("a provider's list of models cannot be had", provider=name, why=why)
            except Exception:  # no memory or thread just now
                _log.exception("a provider's list of models could not be read", provider=name)
            if models:
                self._lists[name] = models
            if (asked := self._asked.get(name)) is not None:
                asked.set()
            await self._sleep(REFRESH_SECONDS if models else RETRY_SECONDS)
