"""Records of calls that are over, as a booking leaves them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from keyproxy.call import Cost, Head, Usage
from keyproxy.record import Record


def over(
    status: int | None = 200,
    ended: Any = "complete",
    cost: Decimal | None = None,
    source: Any = "estimated",
    usage: Usage | None = None,
    *,
    counted: Decimal | None = None,
    served: str | None = None,
) -> Record:
    """``status`` is the upstream's; budgets count the ``cost``, or what is ``counted``."""
    record = Record("POST", "/x", ended=ended, usage=usage, served=served)
    if status is not None:
        record.answer = Head(status, "", None, "")
    if cost is not None:
        record.cost = Cost(cost, cost if counted is None else counted, source)
    return record
