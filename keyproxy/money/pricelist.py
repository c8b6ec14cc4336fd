"""A price list as a value: from the upstream's bytes, to and from a file, found under any name.

What reads and writes runs in threads: a list is about a megabyte. Reading never raises over what
it is given.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from keyproxy.dataclass import dataclass, field, replace
from keyproxy.ledger.held_file import replacing
from keyproxy.price import Price
from keyproxy.upstream import answers, openrouter
from keyproxy.upstream.provider import Fetched

MAX_BYTES = 10 << 20
_VERSION = 3  # 1 and 2 were of one file for all upstreams
_MAX_ID = 200
_AT_BASE = frozenset({"floor", "online"})
_AT_PROVIDERS = frozenset({"nitro", "exacto"})


class Providers(NamedTuple):
    """Who serves a model: ``usual`` is the dearest that any call may get, ``with_tiers`` the
    dearest of all. Without ``endpoints`` nothing is known. ``is_public``: shown without a key."""

    asked_at: float
    endpoints: tuple[dict[str, Any], ...] = ()
    usual: Price | None = None
    with_tiers: Price | None = None
    is_public: bool = True


@dataclass(frozen=True)
class PriceList:
    """``prices``: every listed id, with None where it has no known price. ``names``: other
    names, and the ids they stand for. ``rows``: what they were read from. ``is_fetched``:
    not from a file. ``is_public``: shown without a key."""

    prices: Mapping[str, Price | None] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[dict[str, Any], ...] = ()
    fetched_at: float = 0.0
    is_fetched: bool = False
    is_public: bool = True

    @cached_property
    def priced(self) -> int:
        """How many models have a price."""
        return sum(price is not None for price in self.prices.values())

    def id_of(self, model: str) -> str:
        """The listed id that any name of a model, with any variant, stands for."""
        name, _ = self._without_variants(model)
        return self.names.get(name, name)

    def price_of(self, model: str, providers: Mapping[str, Providers]) -> Price | None:
        """The most that ``model`` costs; ``providers`` by id, as far as they are known.

        ``:floor`` and ``:online`` cost what the model does (a search is no matter of the model),
        ``:nitro`` and ``:exacto`` what the dearest provider does, if that is known; other
        variants need a row of their own.
        """
        name, variants = self._without_variants(model)
        if not variants <= _AT_BASE | _AT_PROVIDERS:
            return None
        price = self.prices.get(name)
        target = self.names.get(name)
        if target is not None and target in self.prices:
            other = self.prices[target]
            price = price.dearer(other) if price is not None and other is not None else other
        known = providers.get(target or name)
        if price is None or known is None or not known.endpoints:
            return None if variants & _AT_PROVIDERS else price
        dearest = known.with_tiers if "nitro" in variants else known.usual
        return None if dearest is None else price.dearer(dearest)

    def _without_variants(self, model: str) -> tuple[str, frozenset[str]]:
        """The longest beginning of ``model`` that is listed, and the suffixes after it."""
        variants: set[str] = set()
        name = model
        while name not in self.prices and name not in self.names and ":" in name:
            name, _, variant = name.rpartition(":")
            variants.add(variant)
        return name, frozenset(variants)


EMPTY = PriceList()


def read(fetched: Fetched, now: float) -> PriceList:
    """The prices in an answer to the path of OpenRouter's list."""
    listed = _of_rows([row.kept for row in fetched.rows], now)
    return replace(listed, is_fetched=True, is_public=fetched.is_public)


def read_providers(fetched: Fetched, now: float) -> Providers | None:
    """A model's providers in an answer of OpenRouter's, which may be none; None for what is no such
    answer."""
    parsed = answers.loads(fetched.raw)
    data = parsed.get("data") if isinstance(parsed, dict) else None
    listed = data.get("endpoints") if isinstance(data, dict) else None
    found = _of_endpoints(listed, now)
    return None if found is None else found._replace(is_public=fetched.is_public)


def file_name(upstream: str) -> str:
    """Of the file that holds the prices of one base address."""
    return f"prices-{hashlib.sha256(upstream.encode()).hexdigest()[:8]}.json"


def load(path: Path) -> tuple[PriceList, dict[str, Providers]] | None:
    """What ``save`` wrote, or None when there is nothing, or it is not whole."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError:
        return None
    kept = answers.loads(raw) if len(raw) <= MAX_BYTES else None
    if not isinstance(kept, dict) or kept.get("version") != _VERSION:
        return None
    rows, fetched_at = kept.get("models"), _time(kept.get("fetched_at"))
    if not isinstance(rows, list) or fetched_at is None:
        return None
    providers: dict[str, Providers] = {}
    entries = kept.get("providers")
    for model, entry in entries.items() if isinstance(entries, dict) else ():
        asked_at = _time(entry.get("asked_at")) if isinstance(entry, dict) else None
        if asked_at is None:
            continue
        if (known := _of_endpoints(entry.get("endpoints"), asked_at)) is not None:
            providers[model] = known
    return _of_rows(rows, fetched_at), providers


def save(path: Path, listed: PriceList, providers: Mapping[str, Providers]) -> None:
    """Replace the file at once, readable by its owner only. Raises OSError."""
    document = {
        "version": _VERSION,
        "fetched_at": listed.fetched_at,
        "models": listed.rows,
        "providers": {
            model: {"asked_at": entry.asked_at, "endpoints": entry.endpoints}
            for model, entry in providers.items()
            if entry.endpoints and entry.is_public
        },
    }
    try:
        raw = json.dumps(document, separators=(",", ":")).encode()
    except RecursionError as error:
        raise OSError("the prices are nested too deeply to be written") from error
    if len(raw) > MAX_BYTES:
        raise OSError(f"{len(raw)} bytes of prices are more than {MAX_BYTES}")
    with replacing(path) as file:
        file.write(raw)


def _of_rows(rows: list[Any], fetched_at: float) -> PriceList:
    prices: dict[str, Price | None] = {}
    kept: list[dict[str, Any]] = []
    for row in rows:
        model = row.get("id") if isinstance(row, dict) else None
        if isinstance(model, str) and 0 < len(model) <= _MAX_ID:
            price = openrouter.price_of_row(row)
            # Listed twice with two prices: neither is known for certain.
            prices[model] = price if prices.get(model, price) == price else None
            kept.append({name: row[name] for name in openrouter.LISTING.kept if name in row})
    names = openrouter.names_of(kept, prices)
    return PriceList(prices, names, tuple(kept), fetched_at)


def _of_endpoints(listed: Any, asked_at: float) -> Providers | None:
    if not isinstance(listed, list):
        return None
    kept = tuple(
        {name: each[name] for name in openrouter.KEPT_OF_PROVIDER if name in each}
        for each in listed
        if isinstance(each, dict)
    )
    if len(kept) != len(listed):
        return None
    usual, with_tiers = (openrouter.price_of_providers(kept, tiers) for tiers in (False, True))
    return Providers(asked_at, kept, usual, with_tiers)


def _time(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and 0 < value < 1e12 else None
