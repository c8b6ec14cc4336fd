"""Where a model can be called, and by which id. Pure.

Ids: what the operator names, then the table that is shipped; neither is asked about. Then a rule,
which holds where the provider's own list of models has what comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from keyproxy.call import ROUTER
from keyproxy.dataclass import dataclass, field
from keyproxy.upstream import shipped
from keyproxy.upstream.catalogue import Allowed
from keyproxy.upstream.provider import Model, Provider

_CHOOSING = frozenset({"floor", "nitro"})
"""Suffixes that say how a home is chosen; any other makes another model."""


class Home(NamedTuple):
    """A provider that serves a model, and the model's id there."""

    provider: str
    native_id: str


At = Sequence[tuple[str, str | None]]
"""Providers in the operator's order, each with a model's id there, or None for the usual one."""


class Place(NamedTuple):
    """A home as it is looked at: ``model`` is OpenRouter's id, with its suffixes. ``is_named``: the
    operator says that it is there."""

    home: Home
    provider: Provider
    model: str
    is_named: bool = False


class Found(NamedTuple):
    """The homes of a model in the operator's order; ``waits_for``: providers that may have it, of
    which that is not known yet."""

    places: tuple[Place, ...]
    waits_for: tuple[str, ...] = ()


def parted(model: str) -> tuple[str, str]:
    """A model's id without the suffixes that say how its home is chosen, and those."""
    name, *variants = model.split(":")
    chosen = [variant for variant in variants if variant in _CHOOSING]
    kept = [variant for variant in variants if variant not in _CHOOSING]
    return ":".join([name, *kept]), ":".join(chosen)


@dataclass(frozen=True)
class Homes:
    """The homes of all models among the providers that are used.

    ``providers`` in the operator's order. ``allows``: by provider, whether it may be used for a
    model. ``at``: by model, what the operator names: providers, each with the id there or None.
    ``listed``: the models in a provider's own list by their ids there, None while it is not known.
    ``same``: the names of the model that one of its names stands for.
    """

    providers: Sequence[Provider]
    allows: Mapping[str, Callable[[str], bool]] = field(default_factory=dict)
    at: Mapping[str, At] = field(default_factory=dict)
    listed: Callable[[str], Mapping[str, Model] | None] = lambda provider: None
    same: Callable[[str], Collection[str]] = lambda name: (name,)
    # By provider, the list and its ids by their small letters.
    _small: dict[str, tuple[Mapping[str, Model], dict[str, str]]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    def of(self, model: str, at: At | None = None) -> Found:
        """Those of ``model``, as the policy allowed it; ``at``: those that a route names of it."""
        plain, _ = parted(model)
        if (named := at or self.at_of(model)) is not None:
            return Found(tuple(self._named(plain, model, named)))
        waits_for: list[str] = []
        return Found(tuple(self._unnamed(plain, model, waits_for)), tuple(waits_for))

    def meant(self, table: Collection[str], model: str) -> str | None:
        """Which of the names in a table of the operator's, in small letters, means ``model``: its
        own, else that of which it is a variant or a second name."""
        plain = parted(model)[0].lower()
        if plain in table:
            return plain
        name, _, _ = plain.partition(":")
        return next((each for each in (name, *sorted(self.same(name))) if each in table), None)

    def at_of(self, model: str) -> At | None:
        """What the operator names of ``model``. Variants and second names are known to OpenRouter,
        and to nobody else."""
        if (name := self.meant(self.at, model)) is None:
            return None
        is_itself = name == parted(model)[0].lower()
        return [each for each in self.at[name] if is_itself or each == (ROUTER, None)]

    def _unnamed(self, plain: str, model: str, waits_for: list[str]) -> Iterator[Place]:
        """By the table or a rule; those that may have it are added to ``waits_for``."""
        for provider in self.providers:
            if (allows := self.allows.get(provider.name)) and not allows(plain):
                continue
            if provider.name == ROUTER:
                yield Place(Home(ROUTER, model), provider, model)
                continue
            native = _shipped(provider.name, plain)
            if native is None and (native := provider.native(plain)) is not None:
                if (ids := self.listed(provider.name)) is None:
                    waits_for.append(provider.name)
                    continue
                native = self._as_listed(provider.name, native, ids)
            if native is not None:
                yield Place(Home(provider.name, native), provider, model)

    def has(self, model: str) -> bool:
        """Whether any home of ``model`` is known: asked of each row of long lists."""
        if self.at_of(model) is not None:
            return bool(self.of(model).places)
        return next(self._unnamed(parted(model)[0], model, []), None) is not None

    def _as_listed(self, provider: str, native: str, ids: Mapping[str, Model]) -> str | None:
        """An id as the provider's list has it, whose letters may be large; None where it has
        none."""
        if native in ids:
            return native
        kept = self._small.get(provider)
        if kept is None or kept[0] is not ids:
            kept = self._small[provider] = ids, {id.lower(): id for id in reversed([*ids])}
        return kept[1].get(native.lower())

    def _named(self, plain: str, model: str, named: At) -> Iterator[Place]:
        by_name = {provider.name: provider for provider in self.providers}
        for name, told in named:
            if (provider := by_name.get(name)) is None:
                continue  # of another app
            native = told or (model if name == ROUTER else _shipped(name, plain))
            if native is None and (native := provider.native(plain)) is not None:
                native = self._as_listed(name, native, self.listed(name) or {}) or native
            if native is not None:
                yield Place(Home(name, native), provider, model, is_named=True)

    def model_at(self, provider: str, native_id: str) -> str:
        """OpenRouter's id of what the operator calls by the one it has at a provider."""
        if provider == ROUTER:
            return native_id
        known = shipped.models_of(provider).get(native_id)
        if known is not None and known.model is not None:
            return known.model
        own = next((each for each in self.providers if each.name == provider), None)
        return native_id if own is None or own.author is None else f"{own.author}/{native_id}"

    def canonical(self, bare: str) -> str | None:
        """OpenRouter's id of what a vendor calls ``bare``, where exactly one provider that is used
        has a model of that name. OpenRouter itself is not asked."""
        found = [self._canonical_at(provider, bare) for provider in self.providers]
        owned = [model for model in found if model is not None]
        return owned[0] if len(owned) == 1 else None

    def _canonical_at(self, provider: Provider, bare: str) -> str | None:
        known = shipped.models_of(provider.name).get(bare)
        if known is not None and known.model is not None:
            return known.model
        if provider.author is None:
            return None
        model = f"{provider.author}/{bare}"
        ids = self.listed(provider.name) or ()
        return model if provider.native(model) == bare and bare in ids else None


@dataclass(frozen=True, slots=True)
class WithHome:
    """Of the ``models`` that are allowed, those that have a home."""

    models: Allowed
    homes: Homes

    def allows(self, model: str) -> bool:
        return self.models.allows(model) and self.homes.has(model)

    def check(self, model: str) -> None:
        """Raises ``model_not_allowed``."""
        self.models.check(model)


def _shipped(provider: str, plain: str) -> str | None:
    """The id of a model in the table that is shipped, which has OpenRouter's in small letters."""
    return shipped.native_ids(provider).get(plain.lower())
