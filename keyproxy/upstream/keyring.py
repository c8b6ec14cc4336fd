"""Which key a call is sent with, and how the upstream is asked about one.

Holds the keys wrapped; only ``headers`` unwraps them. Several keys are not a way around an
account's limits (they are global there): they are for rotation and for separate budgets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

import aiohttp

from keyproxy.settings import Secret
from keyproxy.transport.fetch import fetch
from keyproxy.upstream import headers
from keyproxy.upstream.provider import KeyReport, Provider
from keyproxy.upstream.verdicts import KeyStates

UNAFFORDABLE_SECONDS = 60.0
"""A 402 may concern one dear call only, so the key just goes last for a while."""
_MAX_REPORT_BYTES = 256 * 1024


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


async def inspect(
    session: aiohttp.ClientSession, provider: Provider, base_url: str, key: Secret
) -> KeyReport:
    """Ask the upstream about ``key``; costs nothing.

    Raises ``aiohttp.ClientError`` and ``TimeoutError`` when there is no answer.
    """
    url, head = base_url + provider.key_path, headers.common() | headers.credential(provider, key)
    answer = await fetch(session, url, max_bytes=_MAX_REPORT_BYTES, head=head)
    return provider.read_key(answer.status, headers.loads(answer.raw or b""))
