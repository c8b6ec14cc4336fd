"""How often something noteworthy happened in this process: what metrics will read.

Names are fixed words of ours, never a caller's, so that there are only a few.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum


class Event(StrEnum):
    """What is counted."""

    OTHER_MODEL_SERVED = "other_model_served"
    """A model answered that is neither allowed nor a form of one that was asked for."""

    STORAGE_DOWN = "storage_down"
    """The shared storage stopped to answer."""


class Tally:
    """Counts of events since the process began."""

    def __init__(self) -> None:
        self._counts: Counter[Event] = Counter()

    def add(self, event: Event) -> None:
        self._counts[event] += 1

    def counts(self) -> Mapping[str, int]:
        """Every event that has happened, by its name."""
        return {event.value: count for event, count in sorted(self._counts.items())}
