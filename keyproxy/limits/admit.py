"""Whether a client may make one more call now: windows, calls in flight.

Both are looked at before anything is counted, for the client and for its network address.
Field names: draft-ietf-httpapi-ratelimit-headers-10 (RateLimit-Policy, RateLimit).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from keyproxy.call import Client
from keyproxy.dataclass import dataclass, field, replace
from keyproxy.errors import Refusal
from keyproxy.limits.counters import Counters
from keyproxy.limits.windows import Place, Standing, Verdict, Window
from keyproxy.settings import Rate

IN_FLIGHT_RETRY_SECONDS = 1.0
FAILURES_SECONDS = 60
_MOST_KNOWN = 256  # callers whose windows are at hand: those of a moment
# An office whose app was shipped with a wrong token; no use for guessing 256 bits. What expired
# was ours once and needs renewing, by everybody who slept, and who shows nothing guesses nothing,
# so it takes more of them.
MOST_FAILURES = {"credential_invalid": 30, "credential_expired": 300, "credential_missing": 300}


@dataclass(eq=False, slots=True)
class Admission:
    """The limits of one app over counters that outlive it and that all apps share.

    A client is counted within its app, a network address across all of them.
    """

    counters: Counters
    rates: tuple[Rate, ...]
    address_rates: tuple[Rate, ...]
    max_in_flight: int
    _counted: Callable[[Client], tuple[str, list[Window]]] = field(init=False)
    _announced: Announced = field(init=False)

    def __post_init__(self) -> None:
        self._counted = lru_cache(_MOST_KNOWN)(self._count_of)
        self._announced = announced(self._count_of(Client("", ""))[1])

    async def admit(self, client: Client, headers: dict[str, str]) -> Admitted:
        """A place for one call; ``headers`` receives the RateLimit fields, refused or not.

        Raises ``rate_limited``, ``too_many_in_flight``, ``overloaded``.
        """
        whose, counted = self._counted(client)
        place = Place(whose, self.max_in_flight)
        verdict = await self.counters.take(counted, place)
        headers.update(rate_headers(self._announced, verdict))
        if not verdict.is_admitted:
            raise self._refusal(verdict)
        return Admitted(self.counters, place)

    def _count_of(self, client: Client) -> tuple[str, list[Window]]:
        """Whose place a call takes, and the windows that it is counted in."""
        whose = f"{client.app}:{client.id}"
        of_client = windows("client", whose, self.rates)
        return whose, of_client + windows("address", client.address, self.address_rates)

    def _refusal(self, verdict: Verdict) -> Refusal:
        if verdict.is_crowded and not verdict.in_the_way:
            return Refusal(
                "too_many_in_flight",
                f"At most {self.max_in_flight} calls may run at the same time; wait for one to"
                " end.",
                retry_after_seconds=IN_FLIGHT_RETRY_SECONDS,
                hint=f"KEYPROXY_MAX_IN_FLIGHT={self.max_in_flight * 2}",
            )
        longest = max(verdict.in_the_way, key=lambda standing: standing.resets_in_seconds)
        full = [each for each in verdict.in_the_way if each.window.name == longest.window.name]
        if longest.window.name == "address":
            hint = doubled("KEYPROXY_ADDRESS_RATE_LIMIT", self.address_rates, full)
        else:
            hint = doubled("KEYPROXY_RATE_LIMIT", self.rates, full)
        return Refusal(
            "rate_limited",
            f"The limit of {_counted(longest.window.amount, 'call')} in"
            f" {_duration(longest.window.seconds)} is reached; the next call may be made in"
            f" {_duration(math.ceil(longest.resets_in_seconds))}.",
            retry_after_seconds=longest.resets_in_seconds,
            hint=hint,
        )


@dataclass(eq=False, slots=True)
class Admitted:
    """One call: its place is given up as it is left."""

    _counters: Counters
    _place: Place

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None:
        self._counters.leave(self._place)


async def count_failure(counters: Counters, refusal: Refusal, network: str) -> None:
    """Count a credential that was not accepted, or none, by the address that showed it.

    In this process only: an attempt that fails must cost nobody a round trip. Credentials that
    are accepted are not touched by it, whatever others do behind the same address. Other refusals
    are passed over. Raises ``rate_limited`` beyond the limit.
    """
    most = MOST_FAILURES.get(refusal.code)
    if most is None:
        return
    window = Window(f"failed-{refusal.code}", network, most, FAILURES_SECONDS)
    verdict = await counters.take([window])
    if not verdict.is_admitted:
        raise Refusal(
            "rate_limited",
            "Too many calls from this network address had no credential that was accepted.",
            retry_after_seconds=verdict.standings[0].resets_in_seconds,
            is_unread=True,
        ) from refusal


def doubled(setting: str, rates: Sequence[Rate], full: Sequence[Standing]) -> str:
    """The line of settings to paste: ``rates``, with twice as much in the windows that are full."""
    reached = {standing.window.seconds for standing in full}
    new = [
        replace(rate, amount=rate.amount * 2) if rate.seconds in reached else rate for rate in rates
    ]
    return f"{setting}={';'.join(map(str, new))}"


def windows(name: str, key: str, rates: Sequence[Rate]) -> list[Window]:
    """The windows that ``key`` is counted in, one for each rate."""
    return [Window(name, key, rate.amount, rate.seconds) for rate in rates]


class Announced(NamedTuple):
    """What RateLimit fields say of windows, whatever is counted in them; ``state``: to be filled
    with what is left in each and for how many seconds."""

    policy: str
    state: str


def announced(windows: Sequence[Window]) -> Announced:
    """``"client-60";q=20;w=60``, and ``"client-60";r=%d;t=%d``, of each."""
    names = [(f'"{window.name}-{window.seconds}"', window) for window in windows]
    policy = ", ".join([f"{name};q={w.amount};w={w.seconds}" for name, w in names])
    return Announced(policy, ", ".join([f"{name};r=%d;t=%d" for name, _ in names]))


def rate_headers(announced: Announced, verdict: Verdict) -> dict[str, str]:
    """``RateLimit-Policy: "client-60";q=20;w=60`` and ``RateLimit: "client-60";r=19;t=42``."""
    if not verdict.found:
        return {}
    states: list[int] = []
    for window, units, seconds in verdict.found:
        left = window.amount - units
        states += (left if left > 0 else 0, math.ceil(seconds))
    return {"RateLimit-Policy": announced.policy, "RateLimit": announced.state % (*states,)}


def _duration(seconds: int) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length and seconds % length == 0:
            return _counted(seconds // length, unit)
    return _counted(seconds, "second")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
