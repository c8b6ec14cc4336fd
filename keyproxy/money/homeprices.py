"""What a model costs at one of several providers, and who says so.

In the contract's order: the operator, the provider itself, the provider's row in OpenRouter's list
of a model's hosts, the table that is shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from keyproxy.dataclass import dataclass, field, replace
from keyproxy.money.pricebook import PriceBook
from keyproxy.price import Price, PriceSource, Rates
from keyproxy.upstream import shipped
from keyproxy.upstream.openrouter import OPENROUTER, price_of_providers
from keyproxy.upstream.provider import Model, Provider

PER_TOKEN = {
    "input": "prompt",
    "cached": "input_cache_read",
    "cache_write": "input_cache_write",
    "output": "completion",
}
"""What an operator may say of a price, in USD for a million tokens, and the kind that it is."""
_MOST_KEPT = 1024  # names of models come from callers
Rows = tuple[dict[str, Any], ...]
Priced = tuple[Price, PriceSource]
"""A price, and whose word it is."""


@dataclass(frozen=True, slots=True)
class HomePrices:
    """Prices by provider and model.

    ``said``: the operator's, by OpenRouter's id of the model, in small letters, and the provider's
    name. ``listed`` gives what the list of a provider tells, by native id, nothing while it was not
    had. ``book``: OpenRouter's prices; None where it is not asked.
    """

    said: Mapping[tuple[str, str], Rates]
    listed: Callable[[str], Mapping[str, Model]]
    book: PriceBook | None
    _hosts: dict[tuple[str, str], tuple[Rows, Price | None]] = field(default_factory=dict)

    def of(self, provider: Provider, native_id: str, model: str) -> Priced | None:
        """None where nobody tells what ``model`` costs there."""
        told = self._told(provider, native_id, model)
        if (rates := self.said.get((model.lower(), provider.name))) is None:
            return told
        known = Price(rates) if told is None else told[0]
        return replace(known, rates=rates, overrides=()), "operator"

    def _told(self, provider: Provider, native_id: str, model: str) -> Priced | None:
        """What others than the operator tell, the nearest to the bill first."""
        if provider is OPENROUTER:
            price = None if self.book is None else self.book.price_of(native_id)
            return None if price is None else (price, "provider")
        row = self.listed(provider.name).get(native_id)
        if row is not None and row.price is not None:
            return row.price, "provider"
        if (price := self._at_host(model, provider.slug)) is not None:
            return price, "openrouter"
        shipped_row = shipped.models_of(provider.name).get(native_id)
        if shipped_row is None or shipped_row.price is None:
            return None
        return shipped_row.price, "shipped"

    def _at_host(self, model: str, slug: str) -> Price | None:
        """By OpenRouter's list of the model's hosts. A host may have several rows, which differ in
        precision: the dearest counts, as nobody tells which one the native id is."""
        rows = () if self.book is None else self.book.hosts_of(model)
        kept = self._hosts.get((model, slug))
        if kept is None or kept[0] is not rows:
            own = [row for row in rows if str(row.get("tag")).partition("/")[0] == slug]
            kept = rows, price_of_providers(own, False)
            if len(self._hosts) >= _MOST_KEPT:
                self._hosts.clear()
            self._hosts[model, slug] = kept
        return kept[1]


def rates_of(usd: Mapping[str, Decimal]) -> Rates:
    """An operator's price, by the names of ``PER_TOKEN``."""
    return Rates(**{PER_TOKEN[name]: amount / 1_000_000 for name, amount in usd.items()})
