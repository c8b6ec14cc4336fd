"""Which key a call is sent with, and how the upstream is asked about one.

Holds the keys wrapped; only ``headers`` unwraps them. Several keys are not a way around an
account's limits (they are global there): they are for rotation and for separate budgets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import aiohttp

from keyproxy.settings import Secret
from keyproxy.transport.fetch import fetch
from keyproxy.upstream import headers
from keyproxy.upstream.verdicts import KeyStates

UNAFFORDABLE_SECONDS = 60.0
"""A 402 may concern one dear call only, so the key just goes last for a while."""
_MAX_REPORT_BYTES = 64 * 1024
_MOST_DIGITS = 40


class KeyRing:
    """The keys of one app for one upstream, in the operator's order."""

    def __init__(self, keys: Sequence[Secret], known: KeyStates | None = None) -> None:
        self._known = KeyStates() if known is None else known
        self._states = [self._known.of(key) for key in keys]

    @property
    def keys(self) -> tuple[Secret, ...]:
        return tuple(state.key for state in self._states)

    def usable(self) -> Iterator[Secret]:
        """The keys to try for one call, best first; none when all were rejected."""
        now = self._known.clock()
        states = [state for state in self._states if not state.is_rejected]
        yield from (s.key for s in sorted(states, key=lambda state: state.last_until > now))

    def refused(self, key: Secret) -> None:
        """The upstream answered the call with 401."""
        self._known.refused(key)

    def accepted(self, key: Secret) -> None:
        """The upstream answered the call with a 2xx."""
        self._known.accepted(key)

    async def are_rejected(self, keys: Iterable[Secret]) -> bool:
        """Whether all of ``keys`` are set aside; waits for the answers to questions about them
        for ``verdicts.PATIENCE_SECONDS`` at most."""
        return all(await asyncio.gather(*map(self._known.is_rejected, keys)))

    def demote(self, key: Secret) -> None:
        """Try ``key`` last for a minute: its account could not pay for a call."""
        for state in self._states:  # of this ring: a reload may have taken the key away
            if state.key == key:
                state.last_until = self._known.clock() + UNAFFORDABLE_SECONDS


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What ``GET /key`` says. Money in USD; ``limit`` is None for a key without one."""

    status: int
    label: str | None = None
    limit: Decimal | None = None
    limit_remaining: Decimal | None = None
    expires_at: str | None = None
    is_management: bool = False


async def inspect(session: aiohttp.ClientSession, base_url: str, key: Secret) -> KeyReport:
    """Ask the upstream about ``key``; costs nothing (OpenRouter: "Get current API key").

    Raises ``aiohttp.ClientError`` and ``TimeoutError`` when there is no answer.
    """
    head = headers.common() | headers.authorization(key)
    answer = await fetch(session, f"{base_url}/key", max_bytes=_MAX_REPORT_BYTES, head=head)
    return _report(answer.status, headers.loads(answer.raw or b""))


def _report(status: int, body: Any) -> KeyReport:
    data = body.get("data") if isinstance(body, dict) else None
    if status != 200 or not isinstance(data, dict):
        return KeyReport(status)
    return KeyReport(
        status=status,
        label=_text(data.get("label")),
        limit=_money(data.get("limit")),
        limit_remaining=_money(data.get("limit_remaining")),
        expires_at=_text(data.get("expires_at")),
        is_management=data.get("is_management_key") is True
        or data.get("is_provisioning_key") is True,
    )


def _text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) and value.isprintable() else None


def _money(value: Any) -> Decimal | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return None
    # What is written out in digits: an exponent of a few characters may stand for gigabytes.
    digits, exponent = amount.as_tuple()[1:]
    is_short = isinstance(exponent, int) and len(digits) + abs(exponent) <= _MOST_DIGITS
    return amount if is_short else None
