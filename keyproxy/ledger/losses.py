"""How many calls a ledger does not hold as they ended: each counts once, however many of its
rows were lost, and not at all if a later one is written. Pure; belongs to whoever has its lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Losses:
    """``count`` may fall again, by calls that are under way."""

    count: int = 0
    _curable: set[object] = field(default_factory=set)

    def add(self, id: object, *, is_last: bool) -> None:
        """A row of this id will not be written; ``is_last``: nor will another be ordered."""
        self.count += id not in self._curable
        (self._curable.discard if is_last else self._curable.add)(id)

    def take_back(self, id: object) -> None:
        """A later row of this id will be written, or none is needed any more."""
        if id in self._curable:
            self._curable.remove(id)
            self.count -= 1
