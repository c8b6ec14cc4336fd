"""What decides about a call, made from settings: no state that outlives a call.

``proxy.handle()`` asks these in their order, and ``keyproxy explain`` asks them without a call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import structlog

from keyproxy.browser import Browser, OriginRules
from keyproxy.clients.addresses import Addresses
from keyproxy.clients.identity import Door, Identity
from keyproxy.clients.jwt import Verifier
from keyproxy.clients.sessions import Sessions
from keyproxy.clients.tokens import Tokens
from keyproxy.money.estimate import ask_of
from keyproxy.policy.calls import Policy
from keyproxy.policy.endpoints import Endpoints
from keyproxy.policy.features import Features
from keyproxy.policy.models import Models
from keyproxy.settings import Settings

NO_VERIFIERS: Mapping[str, Verifier] = MappingProxyType({})
_log = structlog.get_logger("keyproxy")


@dataclass(frozen=True, slots=True)
class AppRules:
    """The rules of one app. ``browser`` knows only the app's own origins."""

    browser: Browser
    endpoints: Endpoints
    policy: Policy

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The rules of the app whose settings these are."""
        return cls(
            _browser(settings, settings.allowed_origins),
            Endpoints(settings.allowed_endpoints, is_local=settings.mode != "serve"),
            _policy(settings),
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one configuration. ``browser`` knows the origins of all apps."""

    browser: Browser
    identity: Identity
    apps: Mapping[str, AppRules]

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        sessions: Sessions | None = None,
        verifiers: Mapping[str, Verifier] = NO_VERIFIERS,
    ) -> Self:
        """``verifiers``: those of the apps that ask for JWTs, by the app's name."""
        apps = settings.all_apps
        return cls(
            browser=_browser(settings, [o for app in apps for o in app.allowed_origins]),
            identity=_identity(
                settings, sessions or Sessions(settings.session_secrets or ()), verifiers
            ),
            apps={app.name: AppRules.of(app) for app in apps},
        )


def _browser(settings: Settings, origins: list[str] | tuple[str, ...]) -> Browser:
    return Browser(
        settings.allowed_hosts,
        origins,
        listed=settings.allowed_origins,
        has_page=settings.mode != "serve",
    )


def _identity(
    settings: Settings, sessions: Sessions, verifiers: Mapping[str, Verifier]
) -> Identity:
    return Identity(
        [_door(app, settings, verifiers.get(app.name)) for app in settings.all_apps],
        Addresses(
            settings.trusted_proxies,
            hops=settings.trusted_hops,
            address_header=settings.client_address_header,
        ),
        Tokens(
            (app.name, token)
            for app in settings.all_apps
            if app.client_auth == "token"
            for token in app.client_tokens
        ),
        sessions,
        is_private=settings.mode == "dev",
    )


def _door(app: Settings, default: Settings, verifier: Verifier | None) -> Door:
    """An app that has its origins from the default app is not chosen by them."""
    own = app.allowed_origins if app.allowed_origins != default.allowed_origins else ()
    return Door(app.name, app.client_auth, OriginRules(own).allows, verifier)


def _policy(settings: Settings) -> Policy:
    features = Features.of(settings.allowed_features, settings.extra_fields)
    models = Models(settings.allowed_models, features)
    for name, model in settings.model_aliases:
        if not models.allows(model):
            _log.warning("an alias stands for a model that is not allowed", alias=name, model=model)
    measure = ask_of if settings.counts_money else None
    return Policy(models, dict(settings.model_aliases), settings.max_tokens, features, measure)
