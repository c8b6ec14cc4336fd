"""What is counted and what comes of it: windows, places, standings, verdicts. Plain values.

One primitive serves rates and money alike: a window holds ``amount`` units and a call takes
``cost`` of them. Units are whole numbers up to 2**53, which Redis' scripts count exactly.
A call makes a dozen of these: a frozen dataclass would take four times as long to make.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import NamedTuple


class Span(NamedTuple):
    """Which window of the calendar, in whole UTC epoch seconds; the end is not part of it."""

    begins: int
    ends: int


class Window(NamedTuple):
    """One limit of one client: at most ``amount`` units in ``seconds``.

    It begins with the first call and lasts ``seconds``; or, ``is_aligned``, at a multiple of
    ``seconds`` since the epoch (an hour, a day in UTC), which the storage's clock decides; or,
    where the length varies (a month), with the ``span`` that is given. ``take`` hands windows
    back with the span they were counted in, so that ``adjust`` finds that very window. One that
    ``is_kept`` is never forgotten to make room for others.
    """

    name: str
    key: str
    amount: int
    seconds: int
    cost: int = 1
    is_aligned: bool = False
    span: Span | None = None
    is_kept: bool = False

    def costing(self, units: int) -> Window:
        """This window, of which ``units`` are taken; faster than ``_replace``."""
        name, key, amount, seconds, _, is_aligned, span, is_kept = self
        return Window(name, key, amount, seconds, units, is_aligned, span, is_kept)


@dataclass(eq=False, slots=True)
class Place:
    """A place among the calls in flight of ``key``, of which there are ``most``.

    One object for each call: two places are never equal. ``number``: which one of this process.
    """

    key: str
    most: int
    number: int = field(default_factory=itertools.count().__next__)


class Standing(NamedTuple):
    """Where a client stands in a window; ``resets_in_seconds`` is rounded by the reader.

    ``units`` are counted in it: beyond its amount, where more was used than was set aside, or
    before the amount was lowered.
    """

    window: Window
    units: int
    resets_in_seconds: float

    @property
    def remaining(self) -> int:
        """How many units it has room for."""
        return max(0, self.window.amount - self.units)

    @property
    def is_in_the_way(self) -> bool:
        """Whether the window has no room for the cost of the call that asked."""
        return self.remaining < self.window.cost


class Verdict(NamedTuple):
    """Counted in every window, or in none. ``is_crowded``: no place was left in flight."""

    is_admitted: bool
    standings: tuple[Standing, ...]
    is_crowded: bool = False

    @property
    def in_the_way(self) -> tuple[Standing, ...]:
        """The windows that had no room; empty where the call was admitted."""
        if self.is_admitted:
            return ()
        return tuple(standing for standing in self.standings if standing.is_in_the_way)
