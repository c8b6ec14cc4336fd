"""A mapping of what was used last."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(OrderedDict[Key, Value]):
    """Holds ``most`` entries: one more, and what was not used for longest is forgotten."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def used(self, key: Key) -> Value | None:
        """The value of ``key``, which is used by that; None where there is none."""
        if (value := self.get(key)) is not None:
            with contextlib.suppress(KeyError):  # of a large call, in a thread: it may just be gone
                self.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> Value:
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._most:
            self.popitem(last=False)
        return value
