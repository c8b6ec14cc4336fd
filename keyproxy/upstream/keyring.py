"""Which key a call is sent with, and what the upstream has said about each.

Holds the keys wrapped; only ``headers`` unwraps them. Several keys are not a way around an
account's limits (they are global there): they are for rotation and for separate budgets.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import aiohttp

from keyproxy.settings import Secret
from keyproxy.upstream import headers

UNAFFORDABLE_SECONDS = 60.0
"""A 402 may concern one dear call only, so the key just goes last for a while."""
_MAX_REPORT_BYTES = 64 * 1024


@dataclass(slots=True)
class _State:
    key: Secret
    is_rejected: bool = False
    last_until: float = 0.0


class KeyStates:
    """What the upstream has said about each key; outlives the rings that try them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._states: dict[Secret, _State] = {}

    def of(self, key: Secret) -> _State:
        return self._states.setdefault(key, _State(key))

    def keep(self, keys: Collection[Secret]) -> None:
        """Forget every other key: one that comes back later has changed for all we know."""
        self._states = {key: state for key, state in self._states.items() if key in keys}

    def reject(self, key: Secret) -> None:
        """Set ``key`` aside until it changes: the upstream does not know it."""
        self.of(key).is_rejected = True

    def restore(self, key: Secret) -> None:
        """Use ``key`` again: the upstream says that it knows it after all."""
        self.of(key).is_rejected = False

    def rejected(self) -> list[Secret]:
        return [state.key for state in self._states.values() if state.is_rejected]


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

    def reject(self, key: Secret) -> None:
        self._known.reject(key)

    def demote(self, key: Secret) -> None:
        """Try ``key`` last for a minute: its account could not pay for a call."""
        self._known.of(key).last_until = self._known.clock() + UNAFFORDABLE_SECONDS


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
    raw = b""
    async with session.get(f"{base_url}/key", headers=head, allow_redirects=False) as answer:
        async for chunk in answer.content.iter_any():
            raw += chunk
            if len(raw) > _MAX_REPORT_BYTES:
                break
    return _report(answer.status, headers.loads(raw))


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
    return amount if amount.is_finite() else None
