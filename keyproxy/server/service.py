"""A running keyproxy: assembled from settings, reloaded, drained. Knows no signals.

Counters, calls in flight and the HTTP session outlive a reload; everything else is made anew
from the new settings, and calls under way end with what they began with.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields
from secrets import token_urlsafe
from typing import Any

import aiohttp
import structlog

from keyproxy import logs
from keyproxy.clients.captcha import Captcha
from keyproxy.clients.sessions import Sessions
from keyproxy.clients.verifiers import Verifiers
from keyproxy.demo.page import PageFile
from keyproxy.ledger.memory import Book
from keyproxy.limits.admit import Admission
from keyproxy.limits.counters import Counters
from keyproxy.limits.failures import Failures
from keyproxy.limits.shared import open_shared
from keyproxy.policy.models import Models
from keyproxy.proxy import AppKit, Kit
from keyproxy.rules import AppRules, Rules
from keyproxy.server import memory
from keyproxy.server.accounting import Treasury, open_book
from keyproxy.server.app import Runner, create_app
from keyproxy.server.names import Names
from keyproxy.session_endpoint import Opening
from keyproxy.settings import Secret, Settings
from keyproxy.settings.advice import is_worth_a_look
from keyproxy.strict_json.turns import Turns
from keyproxy.tally import Event, Tally
from keyproxy.transport import sockets
from keyproxy.transport.hardening import connection_limit
from keyproxy.transport.intake import Room
from keyproxy.transport.server import HeadGuard
from keyproxy.transport.session import open_session, trust
from keyproxy.upstream import keyring
from keyproxy.upstream.catalogue import Catalogue
from keyproxy.upstream.keyring import KeyReport, KeyRing
from keyproxy.upstream.lingering import Lingering
from keyproxy.upstream.send import Upstream
from keyproxy.upstream.verdicts import KeyStates

_DRAIN_LOOK_SECONDS = 0.05
_INSPECTION_SECONDS = 10.0
_log = structlog.get_logger("keyproxy")


class Service:
    """One process's worth of keyproxy. Made by ``running``."""

    def __init__(
        self,
        settings: Settings,
        session: aiohttp.ClientSession,
        counters: Counters,
        book: Book,
        tally: Tally,
    ) -> None:
        self._session = session
        self._counters = counters
        self._failures = Failures(Counters())
        self._room = Room(memory.for_bodies(memory.limit()))
        self._large_bodies = Turns()
        self.tally = tally
        self._is_ready = False
        self._is_stopping = self._is_cutting = False
        self._beside: set[asyncio.Task[object]] = set()
        self._reinspecting: asyncio.Task[None] | None = None
        self._runner: Runner | None = None
        self.addresses: tuple[str, ...] = ()
        self._verifiers = Verifiers(session)
        self._names = Names(lambda: self.kit.default.upstream, self._models, lambda: self.settings)
        self._naming: asyncio.Task[None] | None = None
        self._keys = KeyStates(self._ask_about)
        self._lingering = Lingering()
        self._treasury = Treasury(counters, book, self._upstreams, self._names.fetch_shown)
        self._own_secret = Secret(token_urlsafe(32))  # for sessions, where none is set
        self.kit = self._assemble(settings, None)

    @property
    def settings(self) -> Settings:
        return self.kit.settings

    @property
    def ledger(self) -> str:
        """The file that calls are booked in, or "off"."""
        return self._treasury.place

    @property
    def room_for_bodies(self) -> int:
        """How many bytes all bodies may have that are held at the same time."""
        return self._room.max_bytes

    async def start(self, pages: Mapping[str, PageFile] | None = None) -> None:
        """Listen. Raises CannotListen, ParserMissing."""
        await self._treasury.start(is_shared=self.settings.storage is not None)
        app = create_app(lambda: self.kit, is_ready=self._may_be_asked, pages=pages)
        runner = Runner(app, self.settings, connection_limit())
        await runner.setup()
        self._runner = runner
        listening = sockets.listening(self.settings.listen)
        self.addresses = tuple(map(sockets.shown, listening))
        for sock in listening:
            await runner.listen(sock)
        self._is_ready = True
        self._treasury.ask_ahead(self.kit.apps)
        self._keys.inspect(self.settings.all_keys)
        self._reinspecting = asyncio.create_task(self._keys.run())
        self._keep_names()

    def _keep_names(self) -> None:
        """Know the names of models from the start on, where one of them is excluded; tell of
        patterns that match none. Where there are prices, their list tells the names."""
        self._run(self._names.tell())
        if self._treasury.has_prices:
            return
        excludes = any(
            pattern.startswith("!")
            for app in self.settings.all_apps
            for pattern in app.allowed_models
        )
        if excludes:
            self._naming = self._naming or asyncio.create_task(self._names.run())
        elif is_worth_a_look(self.settings):
            self._run(self._names.look())

    def _models(self) -> list[Models]:
        return [app.rules.policy.models for app in self.kit.apps.values()]

    def _may_be_asked(self) -> bool:
        """Whether a load balancer should send calls here."""
        is_closed = self._counters.is_down and self.settings.storage_failure == "closed"
        return self._is_ready and not is_closed

    def apply(self, settings: Settings) -> None:
        """Put new settings in force for the calls that begin from now on."""
        old = self.settings
        settings, stuck = settings.reloaded(old)
        changed = [
            field.name
            for field in fields(settings)
            if field.compare and getattr(old, field.name) != getattr(settings, field.name)
        ]
        known = old.all_keys
        self.kit = self._assemble(settings, self.kit.catalogue)
        self._treasury.reloaded(self.kit.apps)
        self._treasury.ask_ahead(self.kit.apps)
        self._keys.keep(settings.all_keys)
        self._names.teach()
        self._keep_names()
        _log.info("settings reloaded", changed=changed)
        if stuck:
            _log.warning("these settings need a restart", settings=stuck)
        rejected = self._keys.rejected()
        self._keys.inspect([k for k in settings.all_keys if k not in known or k in rejected])

    async def drain(self) -> None:
        """Stop: serve on for the delay, close the listeners, let open calls end, cut the rest."""
        self._is_ready = False
        _log.info("stopping", delay_seconds=self.settings.shutdown_delay_seconds)
        await asyncio.sleep(self.settings.shutdown_delay_seconds)
        self._is_stopping = True
        await self._lingering.end()
        if self._runner is None:
            return
        await self._runner.stop_listening()
        _log.info("draining", calls=len(self._busy()))
        deadline = asyncio.get_running_loop().time() + self.settings.shutdown_grace_seconds
        # aiohttp has no event for the end of a call.
        while self._busy() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_LOOK_SECONDS)
        if cut := self._busy():
            _log.warning("calls cut by the stop", calls=len(cut))
        self._is_cutting = True
        for connection in cut:
            connection.force_close()

    async def close(self) -> None:
        """Release everything, at once."""
        self._is_ready, self._is_stopping, self._is_cutting = False, True, True
        lasting = [*self._beside, *filter(None, (self._reinspecting, self._naming))]
        for task in lasting:
            task.cancel()
        await self._lingering.end()
        if self._runner is not None:
            await self._runner.cleanup()
        await self._keys.close()  # after the calls, which ask about keys
        await self._verifiers.close()
        await self._names.close()
        await self._treasury.close()
        await asyncio.gather(*lasting, return_exceptions=True)

    def _upstreams(self) -> Mapping[str, Upstream]:
        return {name: app.upstream for name, app in self.kit.apps.items()}

    def _busy(self) -> list[HeadGuard]:
        server = self._runner.server if self._runner is not None else None
        connections = server.connections if server is not None else []
        return [c for c in connections if isinstance(c, HeadGuard) and c.is_busy]

    def _assemble(self, settings: Settings, catalogue: Catalogue | None) -> Kit:
        hidden = (
            *settings.all_keys,
            settings.upstream_proxy,
            settings.captcha_secret,
            None if settings.storage is None else settings.storage.password,
            *(settings.session_secrets or ()),
            *(app.jwt_secret for app in settings.all_apps),
        )
        logs.masking.hide(secret.reveal() for secret in hidden if secret is not None)
        secrets = settings.session_secrets or (self._own_secret,)
        sessions = Sessions(secrets)
        verifiers = self._verifiers.of(settings)
        rules = Rules.of(settings, sessions=sessions, verifiers=verifiers)
        apps = {
            app.name: self._app(app, settings, rules.apps[app.name]) for app in settings.all_apps
        }
        return Kit(
            settings=settings,
            rules=rules,
            apps=apps,
            opening=Opening(
                rules.identity,
                sessions,
                self._captcha(settings),
                self._counters,
                settings.session_rate_limit,
            ),
            failures=self._failures,
            catalogue=catalogue or Catalogue(self._names.fetch, self._names.whole_path),
            room=self._room,
            large_bodies=self._large_bodies,
            tally=self.tally,
            is_stopping=lambda: self._is_stopping,
            is_cutting=lambda: self._is_cutting,
        )

    def _captcha(self, settings: Settings) -> Captcha | None:
        if settings.captcha is None or settings.captcha_secret is None:
            return None
        return Captcha(settings.captcha, settings.captcha_secret, self._session)

    def _app(self, settings: Settings, default: Settings, rules: AppRules) -> AppKit:
        upstream = Upstream(
            settings,
            self._session,
            KeyRing(settings.keys, self._keys),
            self._lingering,
            hidden=default.all_keys,
        )
        return AppKit(
            settings=settings,
            rules=rules,
            admission=Admission(
                self._counters,
                settings.rate_limit,
                settings.address_rate_limit,
                settings.max_in_flight,
            ),
            bookings=self._treasury.bookings(settings, default),
            upstream=upstream,
            catalogue=Catalogue(upstream.fetch_with_key),
        )

    def _run(self, work: Coroutine[Any, Any, object]) -> None:
        """Beside the calls, until it is done or we close."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _ask_about(self, key: Secret) -> KeyReport | None:
        """What the upstream says of ``key``; None without an answer."""
        base_url = self.settings.upstream
        try:
            async with asyncio.timeout(_INSPECTION_SECONDS):
                return await keyring.inspect(self._session, base_url, key)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            _log.warning("the upstream could not be asked about a key", error=type(error).__name__)
            return None


@asynccontextmanager
async def _counters(settings: Settings, tally: Tally) -> AsyncIterator[Counters]:
    """Where calls are counted: here, or in a storage that replicas share."""
    if settings.storage is None:
        yield Counters()
        return
    ca = trust(settings.upstream_ca_file) if settings.storage.has_tls else None

    def count(is_down: bool) -> None:
        if is_down:
            tally.add(Event.STORAGE_DOWN)

    failure = settings.storage_failure
    async with open_shared(settings.storage, failure, trust=ca, on_change=count) as counters:
        yield counters


@asynccontextmanager
async def running(
    settings: Settings, pages: Mapping[str, PageFile] | None = None
) -> AsyncIterator[Service]:
    """A service that listens, and is closed at the end."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_session(settings))
        tally = Tally()
        counters = await stack.enter_async_context(_counters(settings, tally))
        book = await stack.enter_async_context(open_book(settings))
        service = Service(settings, session, counters, book, tally)
        stack.push_async_callback(service.close)
        await service.start(pages)
        yield service
