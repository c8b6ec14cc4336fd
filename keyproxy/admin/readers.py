"""Who reads what became of calls: sums for ever, the last hour, what alerts look at."""

from __future__ import annotations

from dataclasses import dataclass

from keyproxy.admin.failures import Failures
from keyproxy.admin.recent import Recent
from keyproxy.admin.tally import Tally
from keyproxy.call import Cost, Told
from keyproxy.ledger.entry import Unsettled
from keyproxy.record import Record


@dataclass(frozen=True, slots=True)
class Readers:
    """Told of each call when it has ended, when its cost has become final, and of refusals of what
    was no call."""

    tally: Tally
    recent: Recent
    failures: Failures

    def ended(self, record: Record) -> None:
        self.tally.ended(record)
        self.recent.ended(record)
        self.failures.ended(record)

    def settled(self, row: Unsettled, cost: Cost | None, told: Told | None) -> None:
        self.tally.settled(row, cost, told)
        self.recent.settled(row, cost, told)

    def refused(self, code: str) -> None:
        self.tally.refused(code)
        self.recent.refused(code)
