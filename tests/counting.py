"""Where windows stand, asked in the way that calls ask."""

from __future__ import annotations

from collections.abc import Sequence

from keyproxy.limits.counters import Counters
from keyproxy.limits.windows import Standing, Window

_TOO_MUCH = 2**60


async def standings(counters: Counters, windows: Sequence[Window]) -> list[Standing]:
    """Where the windows stand: more is asked of them than there is, so nothing is counted."""
    verdict = await counters.take(windows, cost=_TOO_MUCH)
    assert windows == [] or not verdict.is_admitted
    return list(verdict.standings)
