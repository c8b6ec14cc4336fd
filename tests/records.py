"""Calls as a booking leaves them: about to go out, and over."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from keyproxy.call import Cost, Head, Usage
from keyproxy.ledger.entry import Entry
from keyproxy.record import Attempt, Record


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


def entry(id: str = "req_1", at: float = 0.0, **more: Any) -> Entry:
    """A call that is about to go out, for the first time. ``generation_id``: as a head had it."""
    attempt = Attempt(
        native_model="openai/gpt-4o-mini",
        key=more.pop("key", "sk-or-v1-abc...def"),
    )
    attempt.begin(at, more.pop("reserved", Decimal("0.03")))
    attempt.answer_id = more.pop("generation_id", None)
    said: dict[str, Any] = {
        "app": "default",
        "client": "192.0.2.1",
        "endpoint": "POST /api/v1/chat/completions",
        "models": ("openai/gpt-4o-mini",),
        "attempts": [attempt],
    }
    return Entry(id=id, at=at, **(said | more))
