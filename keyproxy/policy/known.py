"""What an upstream's catalogue tells about names: which stand for others, which are routers. Pure.

Shapes: OpenRouter's ``/models``, November 2026: ``canonical_slug`` is a second name of a model,
``alias_target.slug`` the model that a ``~author/x-latest`` stands for now, the price ``"-1"`` that
of a router.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Known:
    """Names in lower case, without variants. ``ids``: a second name -> the ids it stands for.

    ``listed``: every name that a model has, as it is spelled.
    """

    ids: Mapping[str, frozenset[str]] = field(default_factory=dict)
    routers: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, rows: Iterable[Any]) -> Self:
        """What the rows of ``data`` in a ``/models`` answer tell; odd ones are passed over."""
        ids: dict[str, set[str]] = {}
        routers, listed = set(), set()
        for row in rows:
            model = _name(row, "id")
            if model is None:
                continue
            second = row.get("canonical_slug")
            listed |= {row["id"], second} if isinstance(second, str) else {row["id"]}
            target = _name(row.get("alias_target"), "slug")
            for name, stands_for in ((_name(row, "canonical_slug"), model), (model, target)):
                if name is not None and stands_for is not None and name != stands_for:
                    ids.setdefault(name, set()).add(stands_for)
            pricing = row.get("pricing")
            if isinstance(pricing, dict) and "-1" in (
                pricing.get("prompt"),
                pricing.get("completion"),
            ):
                routers.add(model)
        known = {name: frozenset(found) for name, found in ids.items()}
        return cls(known, frozenset(routers), frozenset(listed))

    def names(self, name: str) -> frozenset[str]:
        """``name``, and the ids it stands for, directly or through one of them."""
        found = frozenset({name})
        for _ in range(2 if name in self.ids else 0):  # an alias may stand for a canonical name
            found = found.union(*(self.ids.get(one, ()) for one in found))
        return found


def base(model: str) -> str:
    """An id as it stands in here: ``A/B:free`` is ``a/b``."""
    return model.lower().partition(":")[0]


def _name(row: Any, field_name: str) -> str | None:
    value = row.get(field_name) if isinstance(row, dict) else None
    return base(value) if isinstance(value, str) and value else None
