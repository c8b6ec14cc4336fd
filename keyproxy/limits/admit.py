"""Whether a client may make one more call now: windows, calls in flight.

Both are looked at before anything is counted, for the client and for its network address.
Field names: draft-ietf-httpapi-ratelimit-headers-10 (RateLimit-Policy, RateLimit).
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from keyproxy.call import Client
from keyproxy.errors import Refusal
from keyproxy.limits.storage import Counters, Standing, Window
from keyproxy.settings import Rate

IN_FLIGHT_RETRY_SECONDS = 1.0


class InFlight:
    """Open calls by client; a client without one leaves no trace."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(self._open.values())

    def of(self, client_id: str) -> int:
        return self._open.get(client_id, 0)

    def enter(self, client_id: str) -> None:
        self._open[client_id] = self.of(client_id) + 1

    def leave(self, client_id: str) -> None:
        left = self.of(client_id) - 1
        if left > 0:
            self._open[client_id] = left
        else:
            self._open.pop(client_id, None)


@dataclass(frozen=True, slots=True)
class Admission:
    """The limits of one configuration over counters that outlive it."""

    counters: Counters
    in_flight: InFlight
    rates: tuple[Rate, ...]
    address_rates: tuple[Rate, ...]
    max_in_flight: int

    @asynccontextmanager
    async def admit(self, client: Client, headers: dict[str, str]) -> AsyncIterator[None]:
        """Hold a place for one call; ``headers`` receives the RateLimit fields, refused or not.

        Raises ``rate_limited``, ``too_many_in_flight``.
        """
        whose = f"{client.app}:{client.id}"
        windows = _windows("client", whose, self.rates)
        windows += _windows("address", client.address, self.address_rates)
        if self.in_flight.of(whose) >= self.max_in_flight:
            headers.update(rate_headers(await self.counters.look(windows)))
            raise Refusal(
                "too_many_in_flight",
                f"At most {self.max_in_flight} calls may run at the same time; wait for one to"
                " end.",
                retry_after_seconds=IN_FLIGHT_RETRY_SECONDS,
                hint=f"KEYPROXY_MAX_IN_FLIGHT={self.max_in_flight * 2}",
            )
        self.in_flight.enter(whose)  # before the first await, so that none slips past
        try:
            await self._count(windows, headers)
            yield
        finally:
            self.in_flight.leave(whose)

    async def _count(self, windows: Sequence[Window], headers: dict[str, str]) -> None:
        verdict = await self.counters.take(windows)
        headers.update(rate_headers(verdict.standings))
        if verdict.is_admitted:
            return
        full = [standing for standing in verdict.standings if standing.remaining < 1]
        longest = max(full, key=lambda standing: standing.resets_in_seconds)
        raise Refusal(
            "rate_limited",
            f"The limit of {_counted(longest.window.amount, 'call')} in"
            f" {_duration(longest.window.seconds)} is reached; the next call may be made in"
            f" {_duration(math.ceil(longest.resets_in_seconds))}.",
            retry_after_seconds=longest.resets_in_seconds,
            hint=f"KEYPROXY_{'ADDRESS_' if longest.window.name == 'address' else ''}RATE_LIMIT=…",
        )


def _windows(name: str, key: str, rates: Sequence[Rate]) -> list[Window]:
    return [Window(name, key, rate.amount, rate.seconds) for rate in rates]


def rate_headers(standings: Sequence[Standing]) -> dict[str, str]:
    """``RateLimit-Policy: "client-60";q=20;w=60`` and ``RateLimit: "client-60";r=19;t=42``."""
    if not standings:
        return {}
    policies, states = [], []
    for standing in standings:
        window = standing.window
        name = f'"{window.name}-{window.seconds}"'
        policies.append(f"{name};q={window.amount};w={window.seconds}")
        states.append(
            f"{name};r={max(standing.remaining, 0)};t={math.ceil(standing.resets_in_seconds)}"
        )
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(states)}


def _duration(seconds: int) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length and seconds % length == 0:
            return _counted(seconds // length, unit)
    return _counted(seconds, "second")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
