"""Who reads what became of calls: alerts and the last line always, the rest where it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from keyproxy.admin.totals import Failures, Totals
from keyproxy.call import Cost, Told
from keyproxy.ledger.entry import Unsettled
from keyproxy.record import Record

if TYPE_CHECKING:  # most show nothing
    from keyproxy.admin.recent import Recent
    from keyproxy.admin.tally import Tally


class Shown(NamedTuple):
    """What the admin listener shows: sums for ever, and the last hour."""

    tally: Tally
    recent: Recent


@dataclass(frozen=True, slots=True)
class Readers:
    """Told of each call when it has ended, when its cost has become final, and of refusals of what
    was no call. ``shown`` is empty where nothing shows it."""

    failures: Failures
    totals: Totals
    shown: Shown | tuple[()]

    def ended(self, record: Record) -> None:
        self.failures.ended(record)
        self.totals.ended(record)
        for reader in self.shown:
            reader.ended(record)

    def settled(self, row: Unsettled, cost: Cost | None, told: Told | None) -> None:
        self.totals.settled(row, cost, told)
        for reader in self.shown:
            reader.settled(row, cost, told)

    def refused(self, code: str) -> None:
        for reader in self.shown:
            reader.refused(code)
