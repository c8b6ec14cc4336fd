"""Rows of the upstream's catalogue to prices. Pure.

Rows are those of OpenRouter's ``GET /models`` and ``GET /models/{author}/{slug}/endpoints``: USD
per token or unit, as decimal strings (OpenAPI document, August 2026). A row that is not wholly
understood has no price.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from keyproxy.call import DEARER_TIERS
from keyproxy.price import IMAGE_TOKENS, KINDS, Override, Price, Rates

_MANY_IMAGE_TOKENS: Mapping[str, int] = MappingProxyType({"openai/gpt-4o-mini": 48_169})
_PRICE = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,30})?")
_TIMES = ("utc_start", "utc_end", "utc_days")
_MAX_OVERRIDES = 64
_MAX_TOKENS = 10**9  # a length beyond it is no length


def price_of_row(row: Any) -> Price | None:
    """The price in a row of the models' list, or None when it is not known for certain.

    Prices of 0 are free only under ``…:free`` and ``openrouter/free``; elsewhere they hide what
    is billed by other units. -1 is a router's.
    """
    price = _priced(row)
    if price is None:
        return None
    name = row.get("id")
    is_free = isinstance(name, str) and (name.endswith(":free") or name == "openrouter/free")
    return price if is_free or price.rates.prompt or price.rates.completion else None


def price_of_providers(endpoints: Iterable[Any], *, with_tiers: bool = False) -> Price | None:
    """The dearest of the providers of one model, by the list ``endpoints``.

    Unless a call chooses, the upstream may take any of them, except tiers that a call must name
    (``with_tiers``: those too). None when there are none, or one is not understood.
    """
    dearest: Price | None = None
    for endpoint in endpoints:
        tag = endpoint.get("tag") if isinstance(endpoint, dict) else None
        tier = tag.rpartition("/")[2] if isinstance(tag, str) else ""
        if tier in DEARER_TIERS and not with_tiers:
            continue
        price = _priced(endpoint)
        if price is None:
            return None
        dearest = price if dearest is None else dearest.dearer(price)
    return dearest


class _Odd(ValueError):
    """Something in a row that is no price."""


def _priced(row: Any) -> Price | None:
    """The price in a row of either list; zeros are taken as they are."""
    pricing = row.get("pricing") if isinstance(row, dict) else None
    if not isinstance(pricing, dict) or pricing.get("prompt") is None:
        return None
    if pricing.get("completion") is None:
        return None
    try:
        rates = Rates(**dict(_rates(pricing)))
        overrides = tuple(_overrides(pricing.get("overrides")))
        _check_discount(pricing.get("discount"))
    except _Odd:
        return None
    top, built = row.get("top_provider"), row.get("architecture")
    top = top if isinstance(top, dict) else {}
    modalities = built.get("input_modalities") if isinstance(built, dict) else None
    contexts = [_length(place.get("context_length")) for place in (row, top)]
    name = row.get("id")
    return Price(
        rates=rates,
        overrides=overrides,
        context_length=max((length for length in contexts if length), default=None),
        max_completion_tokens=_length(
            row.get("max_completion_tokens") or top.get("max_completion_tokens")
        ),
        image_tokens=_image_tokens(name) if isinstance(name, str) else IMAGE_TOKENS,
        reads_files=isinstance(modalities, list) and "file" in modalities,
    )


def _rates(pricing: dict[str, Any]) -> Iterator[tuple[str, Decimal]]:
    """Kinds that are not known here are left out: calls that use them are not open."""
    for name in KINDS:
        value = pricing.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or not _PRICE.fullmatch(value):
            raise _Odd(name)
        yield name, Decimal(value)


def _overrides(listed: Any) -> Iterator[Override]:
    if listed is None:
        return
    if not isinstance(listed, list) or len(listed) > _MAX_OVERRIDES:
        raise _Odd("overrides")
    for entry in listed:
        if not isinstance(entry, dict):
            raise _Odd("overrides")
        above = entry.get("min_prompt_tokens")
        if above is None:
            above = -1
        elif type(above) is not int:
            raise _Odd("min_prompt_tokens")
        is_at_times = any(entry.get(name) is not None for name in _TIMES)
        yield Override(above, is_at_times, tuple(_rates(entry)))


def _check_discount(value: Any) -> None:
    """A discount is not deducted: whether the prices have it already is not documented."""
    if value is None or (type(value) in (int, float, Decimal) and 0 <= value <= 1):
        return
    if not isinstance(value, str) or not _PRICE.fullmatch(value) or Decimal(value) > 1:
        raise _Odd("discount")


def _length(value: Any) -> int | None:
    return value if type(value) is int and 0 < value <= _MAX_TOKENS else None


def _image_tokens(model: str) -> int:
    return next(
        (most for name, most in _MANY_IMAGE_TOKENS.items() if model.startswith(name)), IMAGE_TOKENS
    )
