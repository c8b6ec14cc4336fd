"""What is counted and what comes of it: windows, places, standings, verdicts. Plain values.

One primitive serves rates and money alike: a window holds ``amount`` units and a call takes
some of them. Units are whole numbers up to 2**53, which Redis' scripts count exactly. Windows
are kept from call to call by those who count in them; a call makes the rest, which is cheap.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from keyproxy.dataclass import dataclass, field

# Of a text's 64-bit hash, which is keyed anew in each process, 60 bits fit a small integer:
# two of 340,000 keys meet with a chance of 1 in 20 million, and nobody can choose them.
_HASH_BITS = (1 << 60) - 1


class Span(NamedTuple):
    """Which window of the calendar, in whole UTC epoch seconds; the end is not part of it."""

    begins: int
    ends: int


@dataclass(slots=True, unsafe_hash=True)  # nobody changes one once it is made
class Window:
    """One limit of one client: at most ``amount`` units in ``seconds``.

    It begins with the first call and lasts ``seconds``; or it is the ``span`` of the calendar that
    is given, of ``seconds`` or less (a month). One that ``is_kept`` is never forgotten to make
    room for others. ``opened`` counts what of it is only set aside: whatever is taken of it is
    counted there, too. ``is_open``: it is such a one, of the same name, key and times.
    """

    name: str
    key: str
    amount: int
    seconds: int
    span: Span | None = None
    is_kept: bool = False
    is_open: bool = False
    opened: Window | None = field(default=None, repr=False, compare=False)
    identity: int = field(init=False, repr=False, compare=False)
    """Of what it counts, whatever its amount and length; in this process."""
    column: int = field(init=False, repr=False, compare=False)
    """Which it is of those with one identity."""

    def __post_init__(self) -> None:
        self.identity = hash((self.name, self.key, self.span)) & _HASH_BITS
        self.column = -self.seconds if self.is_open else self.seconds


Change = tuple[Window, int]
"""A window, and how many units more are counted in it, or fewer."""


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether what a call costs was counted in every window, or nothing in any. ``is_crowded``: no
    place was left in flight. ``found``: what a standing says, of each window; most callers that are
    admitted look at no more. ``opened``: of those that refused it, the units only set aside.
    """

    is_admitted: bool
    found: Sequence[tuple[Window, int, float]]
    is_crowded: bool = False
    opened: Sequence[int] = ()

    @property
    def standings(self) -> tuple[Standing, ...]:
        return tuple(itertools.starmap(Standing, self.found))

    @property
    def in_the_way(self) -> tuple[Standing, ...]:
        """The windows that had no room for one more; empty where the call was admitted."""
        if self.is_admitted:
            return ()
        return tuple(each for each in self.standings if not each.remaining)
