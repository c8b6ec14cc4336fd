"""What a call says of the homes it wants: ``provider{}``, as OpenRouter means it. Pure.

openrouter.ai/docs, "Provider routing" (November 2026). OpenRouter, where it is used, gets the
object as it is, and does the same among its own hosts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal

from keyproxy.call import ROUTER, Said
from keyproxy.dataclass import dataclass, field
from keyproxy.price import Price
from keyproxy.routing.homes import parted
from keyproxy.upstream.provider import Provider

Choice = Literal["cheapest", "fastest"]
_SORTS: Mapping[str, Choice] = MappingProxyType(
    {"price": "cheapest", "throughput": "fastest", "latency": "fastest"}
)
_SUFFIXES: Mapping[str, Choice] = MappingProxyType({"floor": "cheapest", "nitro": "fastest"})
# What a host promises of data and weights: nobody tells that of an API with a key of its own.
_PROMISES = ("data_collection", "zdr", "quantizations", "enforce_distillable_text")
_PER_MILLION = {"prompt": "prompt", "input": "prompt", "completion": "output", "output": "output"}
_PER_PIECE = {"request": "request", "image": "image"}


@dataclass(frozen=True, slots=True)
class Preferences:
    """What one call wants. ``order``, ``only``, ``ignore``: slugs of hosts, in small letters;
    ``promise``: the name of one that only OpenRouter can keep. ``max_price``: USD, for a million
    tokens or for a piece."""

    order: Sequence[str] = ()
    only: Sequence[str] = ()
    ignore: Sequence[str] = ()
    may_fall_back: bool = True
    choose: Choice | None = None
    max_price: Mapping[str, float] = field(default_factory=dict)
    promise: str | None = None

    def obstacle(self, provider: Provider) -> str | None:
        """Why a provider is none for this call; None where it may be."""
        if provider.name == ROUTER:
            return None
        names = {provider.slug, provider.name}
        if self.promise is not None:
            return f"provider.{self.promise} asks for a promise that only OpenRouter keeps"
        if names & {*self.ignore}:
            return "provider.ignore names it"
        if self.only and not names & {*self.only}:
            return "provider.only does not name it"
        if self.order and not self.may_fall_back and not names & {*self.order}:
            return "provider.order does not name it, and allow_fallbacks is false"
        return None

    def ranks(self, providers: Iterable[Provider]) -> dict[str, int]:
        """By provider, its place in ``order``; those that are not named stand behind. OpenRouter
        stands where the first host is named that only it has."""
        own = {provider.name: {provider.slug, provider.name} for provider in providers}
        known = {slug for name, names in own.items() if name != ROUTER for slug in names}

        def rank(name: str) -> int:
            is_there = own[name].__contains__ if name != ROUTER else lambda slug: slug not in known
            found = (at for at, slug in enumerate(self.order) if is_there(slug))
            return next(found, len(self.order))

        return {name: rank(name) for name in own}


NONE = Preferences()


def preferences(said: Said) -> Preferences:
    """Those of a call, in ``provider{}`` and behind the model's id. Odd values, which OpenRouter
    would refuse, ask for nothing."""
    told = said.fields.get("provider")
    suffix = next((parted(model)[1] for model in said.answering), "").partition(":")[0]
    choose = _SUFFIXES.get(suffix)
    if not isinstance(told, dict) or not told:
        return NONE if choose is None else Preferences(choose=choose)
    sort = told.get("sort")
    by = sort.get("by") if isinstance(sort, dict) else sort
    price = told.get("max_price")
    return Preferences(
        order=_slugs(told.get("order")),
        only=_slugs(told.get("only")),
        ignore=_slugs(told.get("ignore")),
        may_fall_back=told.get("allow_fallbacks") is not False,
        choose=_SORTS.get(by, choose) if isinstance(by, str) else choose,
        max_price=_numbers(price) if isinstance(price, dict) else {},
        promise=next((name for name in _PROMISES if told.get(name) not in (None, False, [])), None),
    )


def is_above(price: Price, most: Mapping[str, float], tokens: int) -> str | None:
    """The name of what is dearer than ``most`` allows for a prompt of so many tokens, or None."""
    rates = price.at(tokens)
    for name, limit in most.items():
        if (rate := _PER_MILLION.get(name)) is not None:
            amount = getattr(rates, rate) * 1_000_000
        elif (rate := _PER_PIECE.get(name)) is not None:
            amount = getattr(rates, rate)
        else:
            continue
        if amount > Decimal(str(limit)):
            return name
    return None


def lowest(*most: Mapping[str, float]) -> dict[str, float]:
    """Highest prices of which all hold."""
    names = {name: None for each in most for name in each}
    return {name: min(each[name] for each in most if name in each) for name in names}


def _slugs(value: Any) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else ()
    return tuple(slug.lower() for slug in listed if isinstance(slug, str))


def _numbers(told: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for name, value in told.items():
        try:
            number = float(value)  # OpenRouter takes texts, too
        except (TypeError, ValueError):
            continue
        if math.isfinite(number) and number >= 0:
            found[name] = number
    return found
