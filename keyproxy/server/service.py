"""A running keyproxy: started, reloaded, drained. Knows no signals.

A reload puts another kit in force; calls under way end with the one they began with.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import structlog

from keyproxy.admin.alerts import Alerts
from keyproxy.admin.conditions import Conditions
from keyproxy.admin.outbox import Outbox
from keyproxy.admin.totals import Failures, Totals
from keyproxy.admin.watched import Readers, Shown, Watched
from keyproxy.demo.page import PageFile
from keyproxy.kit import Kit
from keyproxy.limits.counters import Counters
from keyproxy.money.pricebook import PriceBook
from keyproxy.pairing import Pairing
from keyproxy.record import Record
from keyproxy.server.accounting import open_book
from keyproxy.server.app import App
from keyproxy.server.assembly import Assembly
from keyproxy.settings import Address, Settings
from keyproxy.settings.advice import is_worth_a_look
from keyproxy.transport.client import open_clients, open_session
from keyproxy.transport.server import connection_limit

if TYPE_CHECKING:
    from keyproxy.admin.listener import Admin

_DRAIN_LOOK_SECONDS = 0.05
_log = structlog.get_logger("keyproxy")


class Service:
    """One process's worth of keyproxy. Made by ``running``."""

    def __init__(self, assembly: Assembly, readers: Readers, pages: Mapping[str, PageFile]) -> None:
        self.assembly = assembly
        self.accounting = assembly.accounting
        self.readers = readers
        self.addresses: tuple[str, ...] = ()
        self._naming: asyncio.Task[object] | None = None
        self._beside: set[asyncio.Task[object]] = set()
        app = App(lambda: self.kit, self._may_be_asked, readers, pages)
        self._server = app.serve(self.settings, connection_limit())
        watched = self._watched()
        self.admin = _admin(watched, readers.shown) if readers.shown else None
        self._outbox = Outbox(
            lambda url: open_session(self.settings, url, assembly.pools.trust),
            lambda: self.settings,
        )
        conditions = Conditions(watched, readers.failures, readers.totals)
        self.alerts = Alerts(conditions, self._outbox, self._instance, watched.ledger)

    @property
    def kit(self) -> Kit:
        """What calls that begin now are handled with."""
        return self.assembly.kit

    @property
    def settings(self) -> Settings:
        return self.kit.settings

    async def start(self) -> None:
        """Listen. Raises CannotListen."""
        self.assembly.ask_for_lists()  # which the first price list may wait for
        await self.accounting.start()
        wanted = [*self.settings.listen]
        if (pairing := self.assembly.life.pairing) is not None:
            wanted.append(Address(str(pairing.address), wanted[0].port))
        self.addresses = await self._server.listen(wanted)
        if self.admin is not None:
            await self.admin.start()
        self.assembly.life.is_ready = True
        self.assembly.keys.inspect(self.settings.all_keys)
        self._run(self.assembly.keys.run())
        self._run(self.alerts.run())
        self._run(self._outbox.run())
        self._keep_names()

    def _keep_names(self) -> None:
        """Know the names of models from the start on, where one of them is excluded; tell of
        patterns that match none. Where there are prices, their list tells the names."""
        self._run(self.assembly.names.tell())
        if self.accounting.prices is not None:
            return
        patterns = [each for app in self.settings.all_apps for each in app.allowed_models]
        if any(pattern.startswith("!") for pattern in patterns):
            self._naming = self._naming or self._run(self.assembly.names.run())
        elif is_worth_a_look(self.settings):
            self._run(self.assembly.names.look())

    def _watched(self) -> Watched:
        return Watched(
            kit=lambda: self.kit,
            is_ready=self._may_be_asked,
            open_records=self._open_records,
            keys=self.assembly.keys,
            counters=self.assembly.counters,
            book=self.accounting.book,
            prices=lambda: self.accounting.prices,
            firing=lambda: self.alerts.firing(),
        )

    def _instance(self) -> str:
        """What this process is called beside others."""
        return f"{socket.gethostname()}:{self.addresses[0].rpartition(':')[2]}"

    def _open_records(self) -> list[Record]:
        requests = (connection.request for connection in self._server.busy())
        exchanges = (request.exchange for request in requests if request is not None)
        return [exchange.record for exchange in exchanges if exchange is not None]

    def _may_be_asked(self) -> bool:
        """Whether a load balancer should send calls here."""
        is_down = self.assembly.counters.is_down
        is_closed = is_down and self.settings.storage_failure == "closed"
        return self.assembly.life.is_ready and not is_closed

    def apply(self, settings: Settings) -> None:
        """Put new settings in force for the calls that begin from now on."""
        old = self.settings
        settings, stuck = settings.reloaded(old)
        changed = [
            field.name
            for field in fields(settings)
            if field.compare and getattr(old, field.name) != getattr(settings, field.name)
        ]
        self.assembly.put_in_force(settings)
        self.assembly.keys.keep(settings.all_keys)
        self._keep_names()
        _log.info("settings reloaded", changed=changed)
        if stuck:
            _log.warning("these settings need a restart", settings=stuck)
        self.assembly.keys.inspect(settings.all_keys)
        self.assembly.ask_for_lists()

    async def drain(self) -> None:
        """Stop: serve on for the delay, close the listeners, let open calls end, cut the rest."""
        life = self.assembly.life
        life.is_ready = False
        _log.info("stopping", delay_seconds=self.settings.shutdown_delay_seconds)
        await asyncio.sleep(self.settings.shutdown_delay_seconds)
        life.is_stopping = True
        await self.assembly.lingering.end()
        await self._server.stop_listening()
        _log.info("draining", calls=len(self._server.busy()))
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.settings.shutdown_grace_seconds
        while self._server.busy() and clock() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_LOOK_SECONDS)
        await self.assembly.end_drains(max(0.0, deadline - clock()))
        if cut := self._server.busy():
            _log.warning("calls cut by the stop", calls=len(cut))
        life.is_cutting = True
        for connection in cut:
            connection.cut()
        await self.alerts.finish()

    async def close(self) -> None:
        """Release everything, at once."""
        life = self.assembly.life
        life.is_ready, life.is_stopping, life.is_cutting = False, True, True
        beside = [*self._beside]
        for task in beside:
            task.cancel()
        await self.assembly.lingering.end()
        if self.admin is not None:
            await self.admin.close()
        await self._server.close()
        await self.assembly.close()
        await self.accounting.close()
        await asyncio.gather(*beside, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        """Beside the calls, until it is done or we close."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return task


def _admin(watched: Watched, shown: Shown) -> Admin:
    from keyproxy.admin.listener import Admin  # most have none

    return Admin(watched, shown)


def _shown(prices: Callable[[], PriceBook | None], detail: Callable[[], str]) -> Shown:
    from keyproxy.admin.recent import Recent
    from keyproxy.admin.tally import Tally

    return Shown(Tally(prices), Recent(detail))


@asynccontextmanager
async def running(
    settings: Settings,
    pages: Mapping[str, PageFile] | None = None,
    pairing: Pairing | None = None,
) -> AsyncIterator[Service]:
    """A service that listens, and is closed at the end. ``pairing``: in the local network, too."""
    async with AsyncExitStack() as stack:
        session, pools = await stack.enter_async_context(open_clients(settings))
        shown: Shown | tuple[()] = ()
        if settings.admin:
            shown = _shown(lambda: service.accounting.prices, lambda: service.settings.log_address)
        readers = Readers(Failures(), Totals(), shown)
        counters = Counters()
        if (storage := settings.storage) is not None:  # that replicas share; most have none
            from keyproxy.limits.shared import open_shared

            ca = pools.trust if storage.has_tls else None
            failure, on_change = settings.storage_failure, readers.totals.storage_changed
            shared = open_shared(storage, failure, trust=ca, on_change=on_change)
            counters = await stack.enter_async_context(shared)
        book = await stack.enter_async_context(open_book(settings))
        assembly = Assembly(settings, session, pools, counters, book, readers.settled, pairing)
        service = Service(assembly, readers, pages or {})
        stack.push_async_callback(service.close)
        await service.start()
        yield service
