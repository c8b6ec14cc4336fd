"""``dataclass``, with what all classes can share written once: here.

The library's writes and compiles up to six functions for each, which for our hundred and more is a
ninth of the time until the first answer. ``__init__`` still comes from it, for calls run that. What
``frozen`` forbids the type checker sees, in all of our code; nothing looks at run time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import KW_ONLY, Field, field, fields, replace
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ["KW_ONLY", "Field", "dataclass", "field", "fields", "replace"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls=None, /, *, eq=True, frozen=False, repr=True, unsafe_hash=False, **more):
        def make(cls):
            made = dataclasses.dataclass(cls, eq=False, repr=False, **more)
            if eq:
                _compare(made, is_hashed=frozen or unsafe_hash)
            if repr:
                _put(made, "__repr__", _shown)
            return made

        return make if cls is None else make(cls)


def _compare(made: type, *, is_hashed: bool) -> None:
    of = attrgetter(*(each.name for each in fields(made) if each.compare))

    def equals(self: object, other: object) -> bool:
        return of(self) == of(other) if type(self) is type(other) else NotImplemented

    def hashed(self: object) -> int:
        return hash(of(self))

    _put(made, "__eq__", equals)
    _put(made, "__hash__", hashed if is_hashed else None)


@recursive_repr()
def _shown(self: Any) -> str:
    shown = [each.name for each in fields(self) if each.repr]
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
    return f"{type(self).__qualname__}({values})"


def _put(made: type, name: str, function: Callable[..., object] | None) -> None:
    if name not in vars(made):  # the class has its own
        setattr(made, name, function)
