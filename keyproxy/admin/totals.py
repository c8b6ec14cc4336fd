"""What is counted whoever watches: which calls failed in the last minutes, and sums for ever.

Alerts compare it, and the log's last line tells of it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal

from keyproxy.call import End
from keyproxy.dataclass import dataclass, field
from keyproxy.errors import Side
from keyproxy.ledger.entry import Unsettled
from keyproxy.price import ZERO
from keyproxy.record import Record

FAILING_SECONDS = 300.0
_BUCKETS = 30  # of the time in which calls are counted
BROKEN = frozenset(
    {End.STALLED, End.UPSTREAM_CUT, End.UPSTREAM_ERROR, End.KEY_IN_ANSWER, End.FAILED}
)
_OUR_TROUBLE = frozenset({401, 402, 408, 429})
"""Statuses of the upstream's, below 500, that are between it and us."""


@dataclass(slots=True)
class Failures:
    """How many calls of the last five minutes failed, within ten seconds."""

    clock: Callable[[], float] = time.monotonic
    _buckets: deque[list[float]] = field(default_factory=deque, init=False)  # begin, calls, failed

    def ended(self, record: Record) -> None:
        """A call is over."""
        failed = has_failed(record)
        if failed is None:
            return
        now, width = self.clock(), FAILING_SECONDS / _BUCKETS
        if not self._buckets or now >= self._buckets[-1][0] + width:
            self._buckets.append([now // width * width, 0, 0])
        self._buckets[-1][1] += 1
        self._buckets[-1][2] += failed

    def counts(self) -> tuple[int, int]:
        """Calls, and those of them that failed."""
        since = self.clock() - FAILING_SECONDS
        while self._buckets and self._buckets[0][0] <= since:
            self._buckets.popleft()
        calls = sum(bucket[1] for bucket in self._buckets)
        return int(calls), int(sum(bucket[2] for bucket in self._buckets))


def has_failed(record: Record) -> bool | None:
    """Whether a call failed by us or by the upstream; None where that says nothing of either: it
    was refused, its client left, it was no call."""
    if record.code is not None:
        is_theirs = record.side == Side.CLIENT or record.code == "shutting_down"
        return None if is_theirs else True
    status = record.upstream_status
    if status is None or record.ended in (End.CLIENT_LEFT, End.STOPPED):
        return None
    return status >= 500 or status in _OUR_TROUBLE or record.ended in BROKEN


@dataclass(slots=True)
class Totals:
    """Of one process. Everything belongs to the loop. ``spent``: USD, once they are final."""

    spent: Decimal = ZERO
    other_models: int = 0
    storage_downs: int = 0

    def ended(self, record: Record) -> None:
        """A call is over."""
        self.other_models += bool(record.is_other_model)
        for attempt in record.booked:
            if attempt.is_final:
                self.spent += attempt.cost or ZERO

    def settled(self, row: Unsettled) -> None:
        """The cost of a call has become final after its end."""
        self.spent += row.attempt.cost or ZERO

    def storage_changed(self, is_down: bool) -> None:
        """The shared storage stopped to answer, or answers again."""
        self.storage_downs += is_down

    def counts(self) -> Mapping[str, int]:
        """What is worth a line when the process ends, by its name."""
        counts = {"other_model_served": self.other_models, "storage_down": self.storage_downs}
        return {name: count for name, count in counts.items() if count}
