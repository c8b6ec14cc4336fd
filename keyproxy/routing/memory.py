"""What is known of homes (how fast they are, which of them rest) and where conversations stay: it
outlives a configuration, and is told by whoever tries them. In memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from copy import copy

from keyproxy.dataclass import dataclass, field
from keyproxy.routing.breaker import Rests
from keyproxy.routing.homes import Home
from keyproxy.routing.retries import Retries
from keyproxy.routing.speed import Outputs, Speeds
from keyproxy.routing.sticky import Stays


@dataclass(eq=False)
class Memory:
    """One for a process."""

    clock: Callable[[], float] = time.monotonic
    rests: Rests = field(init=False)
    speeds: Speeds = field(init=False)
    outputs: Outputs = field(init=False)
    stays: Stays = field(init=False)
    retries: Retries = field(init=False)
    in_flight: Counter[Home] = field(init=False, default_factory=Counter)

    def __post_init__(self) -> None:
        self.rests, self.speeds = Rests(self.clock), Speeds(self.clock)
        self.outputs, self.stays = Outputs(self.clock), Stays(self.clock)
        self.retries = Retries(self.clock)

    def of(self, accounts: Mapping[str, str]) -> Memory:
        """The same, for the calls that these ``accounts`` pay for, by provider."""
        own = copy(self)
        own.rests = self.rests.of(accounts)
        return own
