"""What an attempt of a call may cost at one home, and who says so. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keyproxy.price import Price, PriceSource

Prices = Mapping[str, Price | None]
"""By the model that may answer; None of one: nobody tells."""


@dataclass(slots=True)  # not frozen: each call makes one
class Tariff:
    """A home and its prices, by the models that may answer there: several, of which one does, where
    it is told a list. None: the desk's own list tells, which has them as ``listed``.

    ``key``: the label of the key that is tried first. ``is_told``: the provider says later what an
    answer has cost.
    """

    provider: str
    native_model: str
    prices: Prices | None = None
    source: PriceSource | None = None
    key: str = ""
    is_told: bool = False
    listed: tuple[str, ...] = ()
