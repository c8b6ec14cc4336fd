"""How often one network address may show a credential that is not accepted, or none.

Counted in this process only: an attempt that fails must cost nobody a round trip. Credentials
that are accepted are not touched by it, whatever others do behind the same address.
"""

from __future__ import annotations

from keyproxy.errors import Refusal
from keyproxy.limits.counters import Counters
from keyproxy.limits.windows import Window

SECONDS = 60
# An office whose app was shipped with a wrong token; no use for guessing 256 bits. What expired
# was ours once and needs renewing, by everybody who slept, and who shows nothing guesses nothing,
# so it takes more of them.
MOST = {"credential_invalid": 30, "credential_expired": 300, "credential_missing": 300}


class Failures:
    """Counts refused credentials by network address."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    async def count(self, refusal: Refusal, network: str) -> None:
        """Count ``refusal`` where it is one. Raises ``rate_limited`` beyond the limit."""
        most = MOST.get(refusal.code)
        if most is None:
            return
        window = Window(f"failed-{refusal.code}", network, most, SECONDS)
        verdict = await self._counters.take([window])
        if not verdict.is_admitted:
            raise Refusal(
                "rate_limited",
                "Too many calls from this network address had no credential that was accepted.",
                retry_after_seconds=verdict.standings[0].resets_in_seconds,
                must_close=True,
            ) from refusal
