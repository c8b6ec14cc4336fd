"""Settings to kits: whatever a call is handled with is made here.

What outlives a configuration (keys' states, names of models, the book) is made once, with the
assembly; each kit is made of that and of new settings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from secrets import token_urlsafe
from typing import TYPE_CHECKING

import aiohttp
import structlog

from keyproxy import logs
from keyproxy.browser import Browser, OriginRules
from keyproxy.call import ROUTER
from keyproxy.clients.addresses import Addresses
from keyproxy.clients.captcha import Captcha
from keyproxy.clients.credentials import Tokens
from keyproxy.clients.identity import Door, Identity
from keyproxy.clients.jwt import Verifier, Verifiers
from keyproxy.clients.sessions import Sessions
from keyproxy.errors import Refusal
from keyproxy.key_forms import NO_KEY
from keyproxy.kit import AppKit, Kit, Life
from keyproxy.ledger.ledger import Book
from keyproxy.limits.admit import Admission
from keyproxy.limits.counters import Counters
from keyproxy.money.booking import Bookings
from keyproxy.money.settling import Settled
from keyproxy.pairing import Pairing
from keyproxy.policy.check import Policy
from keyproxy.policy.endpoints import Endpoints
from keyproxy.policy.models import Known, Models
from keyproxy.policy.opened import Features
from keyproxy.server import memory
from keyproxy.server.accounting import Accounting
from keyproxy.server.names import Names
from keyproxy.session_endpoint import Opening
from keyproxy.settings import Secret, Settings
from keyproxy.settings.providers import Used
from keyproxy.transport.client import Pools
from keyproxy.transport.intake import Room
from keyproxy.upstream.catalogue import Allowed, Catalogue
from keyproxy.upstream.keyring import KeyStates
from keyproxy.upstream.lists import Lists
from keyproxy.upstream.offered import Offered
from keyproxy.upstream.openrouter import OPENROUTER
from keyproxy.upstream.provider import Fetched, KeyReport, Model, Provider
from keyproxy.upstream.providers import bases_of, provider_of
from keyproxy.upstream.requests import Lingering
from keyproxy.upstream.send import Upstream

if TYPE_CHECKING:
    from keyproxy.server.routing import Routing

PROVIDER = OPENROUTER
LISTS_PATIENCE_SECONDS = 5.0
_INSPECTION_SECONDS = 10.0
_log = structlog.get_logger("keyproxy")


class Assembly:
    """Makes kits; ``kit`` is the one in force. ``session``, ``pools``, ``counters`` and ``book``
    are closed by who opened them."""

    kit: Kit

    def __init__(
        self,
        settings: Settings,
        session: aiohttp.ClientSession,
        pools: Pools,
        counters: Counters,
        book: Book,
        settled: Settled = lambda row: None,
        pairing: Pairing | None = None,
    ) -> None:
        self.session = session
        self.pools = pools
        self.counters = counters
        self.life = Life(Room(memory.for_bodies(memory.limit())), pairing)
        self.keys = KeyStates(self._ask_about)
        self.lingering = Lingering()
        self.verifiers = Verifiers(session)
        self.lists = Lists(self._models_of)
        wait = partial(self.lists.settled, LISTS_PATIENCE_SECONDS)
        offered = Offered(self._others, self.lists.of, PROVIDER.listing, self._openrouter, wait)
        self._fetch_shown = partial(offered.fetch, how=Upstream.fetch_shown)
        self._catalogue = Catalogue(offered.fetch, self._fetch_shown, PROVIDER.listing)
        self.names = Names(self._catalogue, lambda: self.kit.settings)
        self.accounting = Accounting(counters, book, self._upstreams, self._fetch_unshown, settled)
        self._routing: Routing | None = None  # loaded when an app asks for it first
        self._own_secret = Secret(token_urlsafe(32))  # for sessions, where none is set
        self.put_in_force(settings)

    def put_in_force(self, settings: Settings) -> None:
        """Have calls that begin from now on handled by ``settings``. Raises ``SettingsFault``, and
        changes nothing then."""
        logs.masking.hide(secret.reveal() for secret in _secrets(settings))
        verifiers = self.verifiers.of(settings)
        sessions = Sessions(settings.session_secrets or (self._own_secret,))
        identity = identity_of(settings, sessions, verifiers)
        captcha = None
        if settings.captcha is not None and settings.captcha_secret is not None:
            captcha = Captcha(settings.captcha, settings.captcha_secret, self.session)
        origins = [origin for app in settings.all_apps for origin in self._origins(app)]
        bookings = self.accounting.adopt(settings)
        self.kit = Kit(
            settings=settings,
            browser=browser_of(settings, origins),
            identity=identity,
            apps={
                app.name: self._app(app, bookings[app.name], settings.hidden_keys)
                for app in settings.all_apps
            },
            opening=Opening(
                identity, sessions, captcha, self.counters, settings.session_rate_limit
            ),
            catalogue=self._catalogue,
            life=self.life,
        )
        if self._routing is not None:
            self._routing.memory.rests.reloaded()

    def _app(self, settings: Settings, bookings: Bookings, hidden: Collection[Secret]) -> AppKit:
        rates = settings.rate_limit, settings.address_rate_limit
        upstreams = {
            used.name: self._upstream(settings, used, hidden) for used in settings.providers
        }
        upstream = upstreams.get(PROVIDER.name) or next(iter(upstreams.values()))
        policy, attempts = policy_of(settings, self.names.known), None
        listed: Allowed = policy.models
        if is_routed(settings):
            policy, attempts, listed = self._routes().of(
                settings, upstreams, bookings, policy, self.names.known
            )
        return AppKit(
            settings=settings,
            browser=browser_of(settings, self._origins(settings)),
            endpoints=Endpoints(settings.allowed_endpoints, is_local=settings.mode != "serve"),
            policy=policy,
            admission=Admission(self.counters, *rates, settings.max_in_flight),
            bookings=bookings,
            upstream=upstream,
            upstreams=upstreams,
            catalogue=Catalogue(partial(upstream.fetch, with_key=True)),
            attempts=attempts,
            listed=listed,
        )

    def _routes(self) -> Routing:
        if self._routing is None:
            from keyproxy.server.routing import Routing

            self._routing = Routing(self.lists, lambda: self.accounting.prices)
        return self._routing

    def _upstream(self, app: Settings, used: Used, hidden: Collection[Secret]) -> Upstream:
        """One provider with an app's keys for it; they go to no other address."""
        provider = provider_of(used)
        base, messages_base = bases_of(used, provider, app.upstream)
        return Upstream(
            app,
            self.pools.of(base),
            self.keys,
            self.lingering,
            hidden=hidden,
            provider=provider,
            keys=used.keys or (NO_KEY,),
            messages_pool=self.pools.of(messages_base),
        )

    def _origins(self, app: Settings) -> tuple[str, ...]:
        """Whose pages may call an app."""
        pairing = self.life.pairing
        return app.allowed_origins + (() if pairing is None else pairing.origins)

    async def end_drains(self, seconds: float = 0.0) -> None:
        """Let answers whose clients have left end within so many seconds; the rest are cut."""
        if self._routing is not None:
            await self._routing.drains.end(seconds)

    async def close(self) -> None:
        """End what goes on beside calls, behind the last of them."""
        await self.end_drains()
        await self.lists.close()
        await self.keys.close()  # after the calls, which ask about keys
        await self.verifiers.close()
        await self._catalogue.close()

    async def _fetch_unshown(self, path: str) -> Fetched:
        """What no page shows: the list of all models is fetched once for it and for pages."""
        is_list = path == PROVIDER.listing.path
        return await (self.names.whole() if is_list else self._fetch_shown(path))

    def _used(self) -> Iterator[Upstream]:
        """Each provider with each app's keys for it."""
        return (each for app in self.kit.apps.values() for each in app.upstreams.values())

    def _others(self) -> list[Provider]:
        """The providers that are used by any app, but for OpenRouter."""
        used = {each.provider.name: each.provider for each in self._used()}
        return [provider for name, provider in used.items() if name != PROVIDER.name]

    def _openrouter(self) -> Upstream | None:
        """Where its lists are had, without a key where no key of it is used; None where it is not
        to be asked."""
        settings = self.kit.settings
        if not settings.public_list:
            return None
        upstream = self.kit.default.upstreams.get(PROVIDER.name)
        if upstream is None:
            pool, hidden = self.pools.of(settings.upstream), settings.hidden_keys
            return Upstream(settings, pool, self.keys, hidden=hidden, provider=PROVIDER, keys=())
        return upstream

    def _upstreams(self) -> Mapping[str, Upstream]:
        return {name: app.upstream for name, app in self.kit.apps.items()}

    async def _models_of(self, provider: str) -> Mapping[str, Model] | None:
        """What a provider lists to the first app that uses it."""
        upstream = next((each for each in self._used() if each.provider.name == provider), None)
        return None if upstream is None else await upstream.models()

    def ask_for_lists(self) -> None:
        """Have the lists of all providers that are used known from now on, but for OpenRouter's,
        which has every model."""
        self.lists.keep([provider.name for provider in self._others()])

    async def _ask_about(self, key: Secret) -> KeyReport | None:
        """What its upstream says of ``key``; None without an answer."""
        upstream = next((each for each in self._used() if key in each.keys), None)
        if upstream is None:
            return None  # a reload took it away
        try:
            async with asyncio.timeout(_INSPECTION_SECONDS):
                return await upstream.inspect(key)
        except (Refusal, TimeoutError) as error:
            why = type(error.__cause__ or error).__name__
            _log.warning("the upstream could not be asked about a key", error=why)
            return None


def browser_of(settings: Settings, origins: Iterable[str]) -> Browser:
    """What pages of ``origins`` may do here."""
    return Browser(
        settings.allowed_hosts,
        tuple(origins),
        listed=settings.allowed_origins,
        has_page=settings.mode != "serve",
    )


def identity_of(
    settings: Settings, sessions: Sessions, verifiers: Mapping[str, Verifier]
) -> Identity:
    """Who calls. ``verifiers``: those of the apps that ask for JWTs, by the app's name."""
    apps = settings.all_apps
    return Identity(
        [_door(app, settings, verifiers.get(app.name)) for app in apps],
        Addresses(
            settings.trusted_proxies,
            hops=settings.trusted_hops,
            address_header=settings.client_address_header,
        ),
        Tokens(
            (app.name, token)
            for app in apps
            if app.client_auth == "token"
            for token in app.client_tokens
        ),
        sessions,
        is_private=settings.mode == "dev",
        keys=frozenset(key for key in settings.all_keys if key.owner is None),
    )


def _door(app: Settings, default: Settings, verifier: Verifier | None) -> Door:
    """An app that has its origins from the default app is not chosen by them."""
    own = app.allowed_origins if app.allowed_origins != default.allowed_origins else ()
    return Door(app.name, app.client_auth, OriginRules(own).allows, verifier)


def is_routed(app: Settings) -> bool:
    """Whether its calls may go elsewhere than to OpenRouter as they are, or not all go there."""
    has_limits = bool(app.routes or app.max_price) or any(
        used.models != ("*",) or used.max_in_flight or used.on_hangup == "drain"
        for used in app.providers
    )
    return app.provider_names != (ROUTER,) or has_limits


def policy_of(settings: Settings, known: Callable[[], Known] = Known) -> Policy:
    """What calls of the app whose settings these are may ask for. ``known``: of models' names."""
    features = Features.of(settings.allowed_features, settings.extra_fields)
    models = Models(settings.allowed_models, features, known)
    for name, model in settings.model_aliases:
        if not models.allows(model):
            _log.warning("an alias stands for a model that is not allowed", alias=name, model=model)
    aliases = dict(settings.model_aliases)
    return Policy(models, aliases, settings.max_tokens, features, settings.counts_money)


def _secrets(value: object) -> Iterator[Secret]:
    """Each that stands in settings, however deep."""
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _secrets(each)
    elif is_dataclass(value):
        for each in fields(value):
            yield from _secrets(getattr(value, each.name))
