"""Settings to routing: where calls of an app may go to, where more than OpenRouter is used.

What outlives a configuration (how homes do, where conversations stay, what providers list) is made
once; each app's attempts are made of that and of its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from keyproxy.attempts.attempts import Attempts
from keyproxy.money.booking import Bookings
from keyproxy.money.homeprices import HomePrices
from keyproxy.money.pricebook import PriceBook
from keyproxy.policy.models import Models
from keyproxy.routing.homes import ROUTER, Homes, Place
from keyproxy.routing.qualify import Facts
from keyproxy.routing.router import Memory, Router
from keyproxy.settings import Settings
from keyproxy.upstream import shipped
from keyproxy.upstream.lists import Lists
from keyproxy.upstream.send import Upstream


class Routing:
    """One for a process. ``prices`` gives OpenRouter's, None where nobody asks for them."""

    def __init__(self, lists: Lists, prices: Callable[[], PriceBook | None]) -> None:
        self.memory = Memory()
        self._lists, self._prices = lists, prices

    def attempts(
        self,
        app: Settings,
        upstreams: Mapping[str, Upstream],
        bookings: Bookings,
        models: Models,
    ) -> Attempts | None:
        """None where OpenRouter is the only one that calls may go to."""
        if list(upstreams) == [ROUTER]:
            return None
        used = app.providers
        homes = Homes(
            [upstream.provider for upstream in upstreams.values()],
            allows={each.name: Models(each.models).allows for each in used},
            listed=self._lists.of,
        )
        prices = HomePrices({}, lambda name: self._lists.of(name) or {}, self._prices())
        return Attempts(
            Router(app.name, homes, self.memory, facts=partial(self._facts, prices)),
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
        )

    def _facts(self, prices: HomePrices, place: Place) -> Facts:
        """What is known of a model at a home: by its provider's list, else by the shipped table."""
        name, native = place.home
        row = shipped.models_of(name).get(native)
        told = (self._lists.of(name) or {}).get(native)
        priced = prices.of(place.provider, native, place.model)
        price = None if priced is None else priced.price
        known = (price, None if row is None else row.price)
        lengths = [None if told is None else told.context_tokens]
        lengths += [each.context_length for each in known if each is not None]
        inputs = None if row is None else row.inputs
        return Facts(price, next(filter(None, lengths), None), inputs)
