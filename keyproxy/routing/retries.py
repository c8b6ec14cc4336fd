"""How many further attempts a process may make: a share of its calls, and a few a minute.

So a provider that fails is not met with a storm: clients try again, too (Finagle's retry budget;
Kubernetes' GEP-3388).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from keyproxy.dataclass import dataclass

CALLS = 5
"""So many pay for one further attempt: 20 %."""
A_MINUTE = 10
_MOST_SAVED = 500
"""Calls of busy times that may pay for attempts in bad ones."""


@dataclass(eq=False)
class Retries:
    """One for a process."""

    clock: Callable[[], float] = time.monotonic
    _saved: int = 0
    _minute: int = -1
    _taken: int = 0

    def called(self) -> None:
        """A call makes its first attempt."""
        self._saved = min(self._saved + 1, _MOST_SAVED)

    def take(self) -> bool:
        """Whether there may be one more attempt; it is counted, then."""
        minute = int(self.clock() // 60)
        if minute != self._minute:
            self._minute, self._taken = minute, 0
        if self._taken < A_MINUTE:
            self._taken += 1
        elif self._saved >= CALLS:
            self._saved -= CALLS
        else:
            return False
        return True
