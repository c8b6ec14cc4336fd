"""What the ledger's thread is asked to do, and how many calls it has not written."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

from keyproxy.dataclass import dataclass, field
from keyproxy.ledger.tables import Rows

Work = Callable[[sqlite3.Connection], Any]


@dataclass(eq=False, slots=True)
class Order:
    """A call's ``rows`` to write, its own and those of its attempts, or ``work`` to do with the
    file: a change or a question.

    ``answer`` is told what ``work`` returned once that is durable; None where it cannot be done.
    ``is_last``: no other rows of its id will come.
    """

    rows: Rows | None = None
    work: Work | None = None
    is_last: bool = False
    answer: asyncio.Future[Any] | None = None

    @property
    def id(self) -> object:
        """Of the call whose rows it has."""
        return None if self.rows is None else self.rows.call[0]

    def tell(self, result: Any) -> None:
        """Give the answer to whoever still waits for it."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(result)


@dataclass(slots=True)
class Losses:
    """How many calls the file does not hold as they ended: each counts once, however many of its
    rows were lost, and not at all if a later one is written. For whoever has the lock."""

    count: int = 0  # may fall again, by calls that are under way
    _curable: set[object] = field(default_factory=set)

    def add(self, order: Order) -> None:
        """This row will not be written."""
        if order.rows:
            id = order.id
            self.count += id not in self._curable
            (self._curable.discard if order.is_last else self._curable.add)(id)

    def take_back(self, id: object) -> None:
        """A later row of this id will be written, or none is needed any more."""
        if id in self._curable:
            self._curable.remove(id)
            self.count -= 1
