"""How often something noteworthy happened in this process: what metrics will read.

A fact of calls that is to be counted is one line of ``OF_RECORDS``. Names are fixed words of ours,
never a caller's, so that there are only a few.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from keyproxy.record import Record

OF_RECORDS: Mapping[str, Callable[[Record], object]] = {
    # A model answered that is neither allowed nor a form of one that was asked for.
    "other_model_served": lambda record: record.is_other_model,
}


class Totals:
    """Counts since the process began."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def ended(self, record: Record) -> None:
        """A call is over."""
        self._counts.update(name for name, is_so in OF_RECORDS.items() if is_so(record))

    def storage_changed(self, is_down: bool) -> None:
        """The shared storage stopped to answer, or answers again."""
        if is_down:
            self._counts["storage_down"] += 1

    def counts(self) -> Mapping[str, int]:
        """Whatever has happened, by its name."""
        return dict(sorted(self._counts.items()))
