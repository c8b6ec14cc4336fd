"""Settings to routing: where calls of an app may go to, where more than OpenRouter is used.

What outlives a configuration (how homes do, where conversations stay, what providers list) is made
once; each app's attempts are made of that and of its settings. Loaded by the first such app.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from functools import partial

from keyproxy.attempts.attempts import Attempts
from keyproxy.attempts.drains import Drains
from keyproxy.call import ROUTER
from keyproxy.money.booking import Bookings
from keyproxy.money.homeprices import HomePrices, rates_of
from keyproxy.money.pricebook import PriceBook
from keyproxy.policy.check import Policy
from keyproxy.policy.models import Known, Models
from keyproxy.policy.opened import Features
from keyproxy.price import Rates
from keyproxy.routing.homes import Homes, Place, WithHome, parted
from keyproxy.routing.memory import Memory
from keyproxy.routing.preferences import lowest
from keyproxy.routing.qualify import Facts
from keyproxy.routing.router import Router, Way
from keyproxy.settings import Settings
from keyproxy.settings.routes import Route
from keyproxy.upstream import shipped
from keyproxy.upstream.catalogue import Allowed
from keyproxy.upstream.lists import Lists
from keyproxy.upstream.send import Upstream

Upstreams = Mapping[str, Upstream]


class Routing:
    """One for a process. ``prices`` gives OpenRouter's, None where nobody asks for them."""

    def __init__(self, lists: Lists, prices: Callable[[], PriceBook | None]) -> None:
        self.memory, self.drains = Memory(), Drains()
        self._lists, self._prices = lists, prices

    def of(
        self,
        app: Settings,
        upstreams: Upstreams,
        bookings: Bookings,
        policy: Policy,
        known: Callable[[], Known],
    ) -> tuple[Policy, Attempts, Allowed]:
        """What the app's calls may ask for with the names of its routes, where they go, and the
        models that lists show. ``known``: of models' names."""
        homes = self._homes(app, upstreams, policy.features, known)
        routes = {route.name: _models(route, homes) for route in app.routes if not route.is_model}
        policy = replace(policy, is_routed=True, routes=routes, canonical=homes.canonical)
        attempts = self._attempts(app, homes, upstreams, bookings, policy.models)
        return policy, attempts, WithHome(policy.models, homes)

    def _homes(
        self, app: Settings, upstreams: Upstreams, features: Features, known: Callable[[], Known]
    ) -> Homes:
        """Where the app's models can be called."""
        return Homes(
            [upstream.provider for upstream in upstreams.values()],
            allows={
                each.name: Models(each.models, features, known).allows
                for each in app.providers
                if each.models != ("*",)
            },
            at={
                route.name.lower(): route.at for route in app.routes if route.is_model and route.at
            },
            listed=self._lists.of,
            same=lambda name: known().names(name),
        )

    def _attempts(
        self,
        app: Settings,
        homes: Homes,
        upstreams: Upstreams,
        bookings: Bookings,
        models: Models,
    ) -> Attempts:
        book = self._prices() if ROUTER in upstreams else None
        prices = HomePrices(_said(app, homes), lambda name: self._lists.of(name) or {}, book)
        usual = Way(app.choose, _numbers(app.max_price or {}), app.fallback)
        named = [route for route in app.routes if not route.is_model]
        accounts = {
            name: ",".join(key.label for key in each.keys) for name, each in upstreams.items()
        }
        router = Router(
            app.name,
            homes,
            self.memory.of(accounts),
            usual,
            ways={route.name.lower(): _way(route, usual) for route in app.routes if route.is_model},
            routes={route.name: _way(route, usual, homes) for route in named},
            facts=partial(self._facts, prices),
        )
        used = app.providers
        return Attempts(
            router,
            upstreams,
            bookings,
            models,
            most_in_flight={each.name: most for each in used if (most := each.max_in_flight)},
            first_output_seconds={
                each.name: seconds
                for each in used
                if (seconds := each.first_output_timeout_seconds)
            },
            first_byte_seconds=app.first_byte_timeout_seconds,
            idle_seconds=app.idle_timeout_seconds,
            shows_route=app.route_headers,
            drained=frozenset(
                each.name
                for each in used
                if (each.on_hangup or upstreams[each.name].provider.on_hangup) == "drain"
            ),
            drains=self.drains,
        )

    def _facts(self, prices: HomePrices, place: Place) -> Facts:
        """What is known of a model at a home: by its provider's list, else by the shipped table."""
        name, native = place.home
        row = shipped.models_of(name).get(native)
        told = (self._lists.of(name) or {}).get(native)
        priced = prices.of(place.provider, native, parted(place.model)[0])
        price, source = priced or (None, None)
        known = (price, None if row is None else row.price)
        lengths = [None if told is None else told.context_tokens]
        lengths += [each.context_length for each in known if each is not None]
        inputs = None if row is None else row.inputs
        lacks = frozenset() if row is None else row.lacks
        writes = (each.max_completion_tokens for each in known if each is not None)
        length, most = next(filter(None, lengths), None), next(filter(None, writes), None)
        book = prices.book
        is_unlisted = price is None and book is not None and not book.listed.priced
        return Facts(price, length, inputs, source, lacks, most, is_unlisted)


def _models(route: Route, homes: Homes) -> tuple[str, ...]:
    """The ids of the models that a route stands for."""
    named = (homes.model_at(provider, native or "") for provider, native in route.at)
    return route.models or tuple(dict.fromkeys(named))


def _way(route: Route, usual: Way, homes: Homes | None = None) -> Way:
    """``homes``: of a route, whose places name models, too."""
    at: dict[str, list[tuple[str, str | None]]] = {}
    if homes is not None:
        for provider, native in route.at:
            at.setdefault(homes.model_at(provider, native or ""), []).append((provider, native))
    return Way(
        route.choose or usual.choose,
        lowest(usual.max_price, _numbers(route.max_price)),
        route.fallback,
        at,
        tuple((provider, native or "") for provider, native in route.at) if at else (),
    )


def _numbers(usd: Mapping[str, Decimal]) -> dict[str, float]:
    return {name: float(amount) for name, amount in usd.items()}


def _said(app: Settings, homes: Homes) -> dict[tuple[str, str], Rates]:
    """The operator's prices, by model and provider; those of a model beat those of a route."""
    said: dict[tuple[str, str], Rates] = {}
    for route in sorted(app.routes, key=lambda route: route.is_model):
        models = (route.name,) if route.is_model else _models(route, homes)
        for provider, usd in route.price.items():
            rates = rates_of(dict[str, Decimal](usd))
            said |= {(model.lower(), provider): rates for model in models}
    return said
