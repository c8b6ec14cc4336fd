"""What decides about a call, made from settings: no I/O, no state that outlives a call.

``proxy.handle()`` asks these in their order, and ``keyproxy explain`` asks them without a call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import structlog

from keyproxy.browser import Browser
from keyproxy.clients.identity import Identity
from keyproxy.policy.calls import Policy
from keyproxy.policy.endpoints import Endpoints
from keyproxy.policy.features import Features
from keyproxy.policy.models import Models
from keyproxy.settings import Settings

_log = structlog.get_logger("keyproxy")


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one configuration."""

    browser: Browser
    identity: Identity
    endpoints: Endpoints
    policy: Policy

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            browser=Browser(
                settings.allowed_hosts,
                settings.allowed_origins,
                has_page=settings.mode != "serve",
            ),
            identity=Identity(
                settings.trusted_proxies,
                hops=settings.trusted_hops,
                address_header=settings.client_address_header,
                is_private=settings.mode == "dev",
            ),
            endpoints=Endpoints(settings.allowed_endpoints),
            policy=_policy(settings),
        )


def _policy(settings: Settings) -> Policy:
    features = Features.of(settings.allowed_features, settings.extra_fields)
    models = Models(settings.allowed_models, features)
    for name, model in settings.model_aliases:
        if not models.allows(model):
            _log.warning("an alias stands for a model that is not allowed", alias=name, model=model)
    return Policy(models, dict(settings.model_aliases), settings.max_tokens, features)
