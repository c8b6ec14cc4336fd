"""How a home is chosen for a model, and names of the operator's for several models: the tables
``[models."author/slug"]`` and ``[routes.NAME]`` of the TOML file. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from decimal import Decimal
from typing import Any, Literal

from keyproxy.dataclass import dataclass, field
from keyproxy.errors import SettingsFault
from keyproxy.settings.grammar import Unfit, mask, nearest, plain, shown

Choose = Literal["order", "cheapest", "fastest"]
CHOOSE = ("order", "cheapest", "fastest")
Fallback = Literal["none", "provider", "model"]
Usd = Mapping[str, Decimal]
At = tuple[tuple[str, str | None], ...]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MODEL = re.compile(r"~?[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?::[\w.-]+)?", re.ASCII)
_HOME = re.compile(r"([a-z][a-z0-9-]{0,31})(?::([^\s,]{1,200}))?")
OF_PRICE = ("input", "cached", "cache_write", "output")
"""USD for a million tokens."""
OF_MAX_PRICE = ("input", "output")
_AMOUNT = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,9})?")
_MOST_USD = Decimal(1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What is said of the model, or the route, of this name; None: as it is for all.

    ``at``: its homes, each with the model's id there or None; ``models``: of a route. ``price``:
    by provider.
    """

    name: str
    is_model: bool = False
    choose: Choose | None = None
    fallback: Fallback | None = None
    models: tuple[str, ...] = ()
    at: At = ()
    max_price: Usd = field(default_factory=dict)
    price: Mapping[str, Usd] = field(default_factory=dict)


@dataclass(slots=True)
class RouteReading:
    """The tables, read: ``routes`` and ``faults``. ``used``: the providers that are."""

    used: Collection[str]
    routes: list[Route] = field(default_factory=list)
    faults: list[SettingsFault] = field(default_factory=list)

    def read(self, tables: Mapping[str, Any]) -> None:
        """What the TOML file holds under ``models`` and ``routes``."""
        for kind in ("models", "routes"):
            named = tables.get(kind, {})
            if not isinstance(named, Mapping):
                self._fault(kind, "no table", f"tables [{kind}.NAME]")
                continue
            for name, table in named.items():
                self._read(kind, name, table)

    def _read(self, kind: str, name: str, table: object) -> None:
        is_model, here = kind == "models", f"{kind}.{mask(name)}"
        form, what = (
            (_MODEL, 'the id of a model, such as [models."openai/gpt-oss-120b"]')
            if is_model
            else (_NAME, "a name of letters, digits, -, _ and ., such as [routes.fast]")
        )
        if not form.fullmatch(name):
            self._fault(here, "no such name", what)
        elif not isinstance(table, Mapping):
            self._fault(here, "no table", what)
        else:
            said = self._values(here, table, is_model=is_model)
            if not is_model and bool(said.get("models")) == bool(said.get("at")):
                found = "with both" if said.get("at") else "with neither"
                self._fault(here, found, "either models, or at: homes with an id each")
            elif not is_model and any(native is None for _, native in said.get("at", ())):
                self._fault(f"{here}.at", "a home without an id", "PROVIDER:ID, as in groq:ID")
            self.routes.append(Route(name=name, is_model=is_model, **said))

    def _values(self, here: str, table: Mapping[str, object], *, is_model: bool) -> dict[str, Any]:
        fallbacks = ("none", "provider") if is_model else ("none", "provider", "model")
        readers: dict[str, Callable[[Any], object]] = {
            "choose": lambda value: plain.word(*CHOOSE)(str(value)),
            "fallback": lambda value: plain.word(*fallbacks)(str(value)),
            "at": self._homes,
            "max_price": lambda value: _usd(value, OF_MAX_PRICE),
            "price": self._prices,
        }
        if not is_model:
            readers["models"] = _models
        said = {}
        for key, value in table.items():
            try:
                if key not in readers:
                    hint = nearest(key, readers, f"one of {', '.join(readers)}")
                    raise Unfit(hint, found="not a setting")
                said[key] = readers[key](value)
            except Unfit as unfit:
                found = unfit.found or shown(str(value))
                self._fault(f"{here}.{mask(key)}{unfit.where}", found, unfit.expected)
        return said

    def _homes(self, value: Any) -> At:
        expected = 'providers, with the id there where it differs: ["groq", "cerebras:ID"]'
        homes = []
        for text in _texts(value, expected):
            if (parts := _HOME.fullmatch(text)) is None:
                raise Unfit(expected, found=shown(text))
            self._check_used(parts[1], shown(parts[1]))
            homes.append((parts[1], parts[2]))
        return tuple(homes)

    def _prices(self, value: Any) -> Mapping[str, Usd]:
        if not isinstance(value, Mapping):
            raise Unfit("a table for each provider", found="no table")
        found = {}
        for name, table in value.items():
            self._check_used(name, "not one", f".{mask(name)}")
            found[name] = _usd(table, OF_PRICE, f".{name}")
            if not {"input", "output"} <= found[name].keys():
                raise Unfit("input and output at least", found="incomplete", where=f".{name}")
        return found

    def _check_used(self, provider: str, found: str, where: str = "") -> None:
        if provider not in self.used:
            used = f"a provider that is used: {', '.join(self.used)}"
            raise Unfit(used, found=found, where=where)

    def _fault(self, place: str, found: str | None, expected: str) -> None:
        self.faults.append(SettingsFault(place, found=found, expected=expected))


def _texts(value: Any, expected: str) -> list[str]:
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return value
    raise Unfit(expected, found="no list of texts")


def _models(value: Any) -> tuple[str, ...]:
    expected = 'ids of models, as in ["openai/gpt-oss-120b"]'
    ids = _texts(value, expected)
    if odd := [id for id in ids if not _MODEL.fullmatch(id)]:
        raise Unfit(expected, found=shown(odd[0]))
    return tuple(dict.fromkeys(ids))


def _usd(value: Any, names: Collection[str], where: str = "") -> Usd:
    expected = f"USD for a million tokens: {{ {', '.join(f'{name} = 0.5' for name in names)} }}"
    if not isinstance(value, Mapping) or not value:
        raise Unfit(expected, found="no table", where=where)
    for name, amount in value.items():
        is_number = type(amount) in (int, float) and 0 <= amount <= _MOST_USD
        if name not in names or not is_number:
            raise Unfit(expected, found=shown(str(amount)), where=f"{where}.{mask(name)}")
    return {name: Decimal(str(amount)) for name, amount in value.items()}


def max_price(text: str) -> Usd:
    """``input=1.0,output=5``: the most that a home may take, in USD for a million tokens."""
    expected = f"USD for a million tokens, as in {','.join(f'{n}=1.0' for n in OF_MAX_PRICE)}"
    found = {}
    for part in text.split(","):
        name, _, amount = (each.strip() for each in part.partition("="))
        if name not in OF_MAX_PRICE or name in found or not _AMOUNT.fullmatch(amount):
            raise Unfit(expected, found=shown(part.strip()))
        found[name] = Decimal(amount)
    return found


def alias_faults(
    aliases: Collection[tuple[str, str]], routes: Collection[Route]
) -> Iterator[SettingsFault]:
    """Aliases and routes share their names, and an alias stands for a model."""
    names = {route.name for route in routes if not route.is_model}
    for name, model in aliases:
        if name in names:
            yield SettingsFault(
                "KEYPROXY_MODEL_ALIASES",
                found=f"{shown(name)}, which is a route, too",
                expected="another name for one of them",
            )
        if model in names:
            yield SettingsFault(
                "KEYPROXY_MODEL_ALIASES",
                found=f"{shown(name)}, which stands for the route {shown(model)}",
                expected="the id of a model: a route is called by its own name",
            )
