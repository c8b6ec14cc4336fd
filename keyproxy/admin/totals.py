"""Sums that are kept whoever watches: alerts compare them, and the log's last line tells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keyproxy.call import Cost, Told
from keyproxy.ledger.entry import Unsettled, to_pico
from keyproxy.price import ZERO
from keyproxy.record import Record


@dataclass(slots=True)
class Totals:
    """Of one process. Everything belongs to the loop. ``spent_pico``: pico-USD, once they are
    final."""

    spent_pico: int = 0
    other_models: int = 0
    storage_downs: int = 0

    def ended(self, record: Record) -> None:
        """A call is over."""
        self.other_models += bool(record.is_other_model)
        for attempt in record.booked:
            if attempt.is_final:
                self.spent_pico += to_pico(attempt.standing[0] or ZERO)

    def settled(self, row: Unsettled, cost: Cost | None, told: Told | None) -> None:
        """The cost of a call has become final after its end."""
        self.spent_pico += to_pico((row.cost if cost is None else cost.usd) or ZERO)

    def storage_changed(self, is_down: bool) -> None:
        """The shared storage stopped to answer, or answers again."""
        self.storage_downs += is_down

    def counts(self) -> Mapping[str, int]:
        """What is worth a line when the process ends, by its name."""
        counts = {"other_model_served": self.other_models, "storage_down": self.storage_downs}
        return {name: count for name, count in counts.items() if count}
