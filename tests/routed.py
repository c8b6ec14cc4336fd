"""keyproxy before several of the fake providers, and what a test wants to know of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp

from keyproxy.attempts.attempts import Attempts
from keyproxy.key_forms import Secret
from keyproxy.routing.homes import Homes, Place
from keyproxy.routing.qualify import Facts
from keyproxy.routing.router import Memory, Router
from keyproxy.server.service import running
from keyproxy.transport.client import open_pools
from keyproxy.upstream import shipped
from keyproxy.upstream.keyring import KeyStates
from keyproxy.upstream.providers import PROVIDERS
from keyproxy.upstream.send import Upstream
from tests import conftest, fake_upstream
from tests.conftest import Proxy
from tests.fakes.books import FAILS
from tests.fakes.server import Fakes

HI = {"messages": [{"role": "user", "content": "Grüße"}]}


@asynccontextmanager
async def proxy_before(
    fakes: Fakes,
    *,
    at: Mapping[str, Any] | None = None,
    router: Mapping[str, Any] | None = None,
    attempts: Mapping[str, Any] | None = None,
    **variables: str,
) -> AsyncIterator[Proxy]:
    """A running keyproxy that uses ``fakes`` in their order, each with its own key."""
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(fake_upstream.serving(fake_upstream.FakeUpstream()))
        base = fakes["openrouter"].base if "openrouter" in fakes else fake.base_url
        settings = conftest.settings(UPSTREAM=base, **variables)
        service = await stack.enter_async_context(running(settings))
        hidden = [Secret(each.key) for each in fakes.values()]
        pools = await stack.enter_async_context(open_pools(settings))
        upstreams = {}
        for name, each in fakes.items():
            bases = [pools.of(each.origin + base) for base in each.vendor.bases]
            upstreams[name] = Upstream(
                settings,
                bases[0],
                KeyStates(),
                hidden=hidden,
                provider=PROVIDERS[name],
                keys=[Secret(each.key)],
                messages_pool=bases[-1],
            )
        homes = Homes(
            tuple(PROVIDERS[name] for name in fakes),
            at=at or {},
            listed=lambda name: {model.id for model in fakes[name].vendor.models},
        )
        kit = service.assembly.kit
        app = kit.default
        routes = Router("default", homes, Memory(), facts=_facts, **(router or {}))
        app = replace(
            app,
            policy=replace(app.policy, is_routed=True),
            attempts=Attempts(
                routes, upstreams, app.bookings, app.policy.models, **(attempts or {})
            ),
        )
        service.assembly.kit = replace(kit, apps={"default": app})
        session = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20))
        )
        yield Proxy(service, session, fake)


def _facts(place: Place) -> Facts:
    shown = shipped.models_of(place.home.provider).get(place.home.native_id)
    return Facts(inputs=None if shown is None else shown.inputs)


def failing(**ends: str) -> Mapping[str, Any]:
    """A model whose homes are these providers in order; each ends its call as told."""
    return {"a/b": [(name, f"{FAILS}{end}") for name, end in ends.items()]}
