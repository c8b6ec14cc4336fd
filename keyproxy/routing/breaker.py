"""Which homes rest, because they said so or because they fail. In memory, shared by all calls.

A rest orders homes, it never refuses: with all resting, the one due soonest is tried.
"""

#   WELL --- refused for load: as long as it says, else 15 s ------------------> RESTS
#    ^  \--- three failures in a row, or half of six and more in a minute -----> RESTS
#    |                                                                          |
#    |                     15 s, doubling up to 5 min each time it fails anew   |
#    +--- it answers ---- ONE CALL TRIES IT <------------- the time is up ------+

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from copy import copy

from keyproxy.dataclass import dataclass, field
from keyproxy.routing.homes import Home
from keyproxy.routing.recent import Recent
from keyproxy.upstream.faults import Fault

REST_SECONDS = 15.0
"""Of a home that does not say how long, and of one that fails: mnfst/llm-gateway#2372."""
LONGEST_SECONDS = 300.0
LEAST_SECONDS = 1.0
IN_A_ROW = 3
WINDOW_SECONDS = 60.0
ENOUGH = 6
_MOST_KEPT = 2048
OF_ACCOUNT = frozenset({Fault.LOAD, Fault.ACCOUNT, Fault.CONFIG})
OF_CALL = frozenset({Fault.CALLER, Fault.CONTEXT, Fault.FIELD})


@dataclass(slots=True)
class _State:
    until: float = 0.0
    pause: float = REST_SECONDS
    in_a_row: int = 0
    tried_at: float | None = None  # since when one call tries it, whose rest is over
    ended: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=64))


@dataclass(eq=False)
class Rests:
    """Who rests, and until when; outlives a configuration. ``accounts``: who pays for the calls
    that ask, by provider: what one account may not do now is no news of another's."""

    clock: Callable[[], float] = time.monotonic
    accounts: Mapping[str, str] = field(default_factory=dict)
    _states: Recent[Home, _State] = field(default_factory=lambda: Recent(_MOST_KEPT), init=False)
    # Apart, since callers may name models without end that OpenRouter does not have.
    _off: Recent[Home, Fault] = field(default_factory=lambda: Recent(_MOST_KEPT), init=False)

    def of(self, accounts: Mapping[str, str]) -> Rests:
        """The same for calls that these pay for."""
        own = copy(self)
        own.accounts = accounts
        return own

    def _places(self, home: Home) -> tuple[Home, ...]:
        """Where it is known of a home: for all, and for those of its account."""
        if (account := self.accounts.get(home.provider)) is None:
            return (home,)
        return home, home._replace(provider=f"{home.provider} {account}")

    def seconds(self, home: Home) -> float:
        """How much longer a home rests; 0 for one that is well. One whose rest is over is well for
        the first call that asks, and ``tries`` it; for others not until it has answered."""
        return max(map(self._seconds, self._places(home)))

    def _seconds(self, home: Home) -> float:
        if home in self._off:
            return LONGEST_SECONDS
        state = self._states.get(home)
        if state is None:
            return 0.0
        now = self.clock()
        if state.until > now:
            return state.until - now
        if state.tried_at is not None and now - state.tried_at < state.pause:
            return max(LEAST_SECONDS, state.tried_at + state.pause - now)
        return 0.0

    def tries(self, home: Home) -> None:
        """A call goes to ``home``."""
        for state in filter(None, map(self._states.get, self._places(home))):
            if (state.until or state.tried_at) and state.until <= self.clock():
                state.tried_at = self.clock()

    def answered(self, home: Home) -> None:
        """It has answered a call."""
        for each in self._places(home):
            self._off.pop(each, None)
            if (state := self._states.get(each)) is not None:
                state.until = 0.0
                self._is_there(each)

    def _is_there(self, home: Home) -> None:
        """One that rests goes on to rest all the same."""
        state = self._states.get(home)
        if state is not None and state.until <= self.clock():
            state.until, state.pause, state.in_a_row, state.tried_at = 0.0, REST_SECONDS, 0, None
            state.ended.append((self.clock(), True))

    def failed(self, home: Home, fault: Fault, seconds: float | None) -> None:
        """It has failed so; ``seconds``: how long it asks us to wait. What is a call's own fault
        neither benches a home nor wakes it: whoever calls may choose both."""
        if fault in OF_CALL:
            for each in self._places(home):
                self._is_there(each)
            return
        if fault in OF_ACCOUNT:
            home = self._places(home)[-1]
        if fault is Fault.CONFIG:
            self._off.put(home, fault)
            return
        state = self._states.used(home) or self._states.put(home, _State())
        now = self.clock()
        was_tried, state.tried_at = state.tried_at is not None, None
        if fault in OF_ACCOUNT:
            usual = REST_SECONDS if fault is Fault.LOAD else LONGEST_SECONDS
            asked = min(max(seconds, LEAST_SECONDS), LONGEST_SECONDS) if seconds else usual
            state.until = max(state.until, now + asked)
        else:  # it does not say so itself, but is not well
            state.in_a_row += 1
            state.ended.append((now, False))
            recent = [is_good for at, is_good in state.ended if at > now - WINDOW_SECONDS]
            is_half = len(recent) >= ENOUGH and 2 * recent.count(False) >= len(recent)
            if was_tried:
                state.pause = min(2 * state.pause, LONGEST_SECONDS)
            if was_tried or state.in_a_row >= IN_A_ROW or is_half:
                state.until = now + state.pause

    def reloaded(self) -> None:
        """Another configuration is in force: what was off under the last one is asked again."""
        self._off.clear()
