"""What an attempt of a call may cost at one home, and who says so. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from keyproxy.call import Ask
from keyproxy.price import Price, PriceSource, dearest


@dataclass(slots=True)  # not frozen: each call makes one
class Tariff:
    """A home and its prices, by the models that may answer there: several, of which one does, where
    it is told a list. None of one: nobody tells; None of all: the desk's own list does, which has
    them as ``listed``.

    ``key``: the label of the key that is tried first. ``is_told``: the provider says later what an
    answer has cost.
    """

    provider: str
    native_model: str
    prices: Mapping[str, Price | None] | None = None
    source: PriceSource | None = None
    key: str = ""
    is_told: bool = False
    listed: tuple[str, ...] = ()

    @property
    def price(self) -> Price | None:
        """Of the one model that may answer, if there is only one."""
        if self.prices is None or len(self.prices) != 1:
            return None
        [price] = self.prices.values()
        return price

    def worst(self, ask: Ask | None) -> Decimal | None:
        """The most that an attempt can cost, in USD; None where nobody knows."""
        return None if ask is None else dearest((self.prices or {}).values(), ask)
