"""How a home is chosen for a model, and names of the operator's for several models: the tables
``[models."author/slug"]`` and ``[routes.NAME]`` of the TOML file. No I/O.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from keyproxy.errors import SettingsFault
from keyproxy.settings.grammar import Unfit, mask, shown

Choose = Literal["order", "cheapest", "fastest"]
CHOOSE = ("order", "cheapest", "fastest")
Fallback = Literal["none", "provider", "model"]
Usd = Mapping[str, Decimal]
At = tuple[tuple[str, str | None], ...]
Tables = Mapping[str, Mapping[str, object]]
"""What the TOML file holds under ``models`` and ``routes``."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MODEL = re.compile(r"~?[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?::[\w.-]+)?", re.ASCII)
_HOME = re.compile(r"([a-z][a-z0-9-]{0,31})(?::([^\s,]{1,200}))?")
OF_PRICE = ("input", "cached", "cache_write", "output")
"""USD for a million tokens."""
OF_MAX_PRICE = ("input", "output")
_AMOUNT = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,9})?")
_MOST_USD = Decimal(1_000_000)
_BAD = object()


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

    def read(self, tables: Tables) -> None:
        """What both kinds of tables say."""
        for kind in ("models", "routes"):
            named: Any = tables.get(kind, {})
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
        readers: dict[str, Callable[[str, Any], Any]] = {
            "choose": lambda place, value: self._word(place, value, CHOOSE),
            "fallback": lambda place, value: self._word(place, value, fallbacks),
            "at": self._homes,
            "max_price": lambda place, value: self._usd(place, value, OF_MAX_PRICE),
            "price": self._prices,
        }
        if not is_model:
            readers["models"] = self._models
        said = {}
        for key, value in table.items():
            place = f"{here}.{mask(key)}"
            if (reader := readers.get(key)) is None:
                close = difflib.get_close_matches(key, readers, n=1)
                hint = f"{close[0]} perhaps?" if close else f"one of {', '.join(readers)}"
                self._fault(place, "not a setting", hint)
            elif (read := reader(place, value)) is not _BAD:
                said[key] = read
        return said

    def _word(self, place: str, value: Any, words: Collection[str]) -> Any:
        if isinstance(value, str) and value in words:
            return value
        return self._fault(place, shown(str(value)), f"one of {', '.join(words)}")

    def _texts(self, place: str, value: Any, expected: str) -> Any:
        is_list = isinstance(value, list) and value and all(isinstance(v, str) for v in value)
        return value if is_list else self._fault(place, "no list of texts", expected)

    def _models(self, place: str, value: Any) -> Any:
        expected = 'ids of models, as in ["openai/gpt-oss-120b"]'
        ids = self._texts(place, value, expected)
        for id in ids if ids is not _BAD else ():
            if not _MODEL.fullmatch(id):
                return self._fault(place, shown(id), expected)
        return ids if ids is _BAD else tuple(dict.fromkeys(ids))

    def _homes(self, place: str, value: Any) -> Any:
        expected = 'providers, with the id there where it differs: ["groq", "cerebras:ID"]'
        texts = self._texts(place, value, expected)
        homes = []
        for text in texts if texts is not _BAD else ():
            parts = _HOME.fullmatch(text)
            if parts is None:
                return self._fault(place, shown(text), expected)
            if parts[1] not in self.used:
                used = f"a provider that is used: {', '.join(self.used)}"
                return self._fault(place, shown(parts[1]), used)
            homes.append((parts[1], parts[2]))
        return texts if texts is _BAD else tuple(homes)

    def _prices(self, place: str, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return self._fault(place, "no table", f"tables [{place}.PROVIDER]")
        found = {}
        for name, table in value.items():
            if name not in self.used:
                used = f"a provider that is used: {', '.join(self.used)}"
                return self._fault(f"{place}.{mask(name)}", "not one", used)
            read = self._usd(f"{place}.{name}", table, OF_PRICE)
            if read is _BAD:
                return _BAD
            if not {"input", "output"} <= read.keys():
                return self._fault(f"{place}.{name}", "incomplete", "input and output at least")
            found[name] = read
        return found

    def _usd(self, place: str, value: Any, names: Collection[str]) -> Any:
        expected = f"USD for a million tokens: {{ {', '.join(f'{name} = 0.5' for name in names)} }}"
        if not isinstance(value, Mapping) or not value:
            return self._fault(place, "no table", expected)
        found = {}
        for name, amount in value.items():
            is_number = type(amount) in (int, float) and 0 <= amount <= _MOST_USD
            if name not in names or not is_number:
                return self._fault(f"{place}.{mask(name)}", shown(str(amount)), expected)
            found[name] = Decimal(str(amount))
        return found

    def _fault(self, place: str, found: str, expected: str) -> Any:
        self.faults.append(SettingsFault(place, found=found, expected=expected))
        return _BAD


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
