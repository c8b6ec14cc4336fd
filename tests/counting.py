"""Where windows stand, asked in the way that calls ask."""

from __future__ import annotations

from collections.abc import Sequence

from keyproxy.limits.counters import Counters
from keyproxy.limits.windows import Standing, Window

_TOO_MUCH = 2**60


async def standings(counters: Counters, windows: Sequence[Window]) -> list[Standing]:
    """Where the windows stand, and behind each what of it is only set aside: more is asked of them
    than there is, so nothing is counted."""
    asked = [window for window in windows if not window.is_open]
    verdict = await counters.take(asked, cost=_TOO_MUCH)
    assert asked == [] or not verdict.is_admitted
    found, opened = [], iter(verdict.opened)
    for standing in verdict.standings:
        found.append(standing)
        if (inner := standing.window.opened) is not None:
            found.append(Standing(inner, next(opened), standing.resets_in_seconds))
    return found
