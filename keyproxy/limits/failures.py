"""How often one network address may show a credential that is not accepted.

Counted in this process only: an attempt that fails must cost nobody a round trip. Credentials
that are accepted are not touched by it, whatever others do behind the same address.
"""

from __future__ import annotations

from keyproxy.errors import Refusal
from keyproxy.limits.storage import Counters
from keyproxy.limits.windows import Window

MOST = 30  # an office whose app was shipped with a wrong token; no use for guessing 256 bits
SECONDS = 60
_FAILED = frozenset({"credential_invalid"})  # an expired one was ours once, and needs renewing


class Failures:
    """Counts refused credentials by network address."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    async def count(self, refusal: Refusal, network: str) -> None:
        """Count ``refusal`` where it is one. Raises ``rate_limited`` beyond the limit."""
        if refusal.code not in _FAILED:
            return
        verdict = await self._counters.take([Window("failed", network, MOST, SECONDS)])
        if not verdict.is_admitted:
            raise Refusal(
                "rate_limited",
                "Too many credentials from this network address were not accepted.",
                retry_after_seconds=verdict.standings[0].resets_in_seconds,
                must_close=True,
            ) from refusal
