"""What the dashboard shows, as plain values for JSON: what is now, and with it the history."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from keyproxy import __version__
from keyproxy.admin.history import History
from keyproxy.admin.recent import CELL_SECONDS, CELLS, Line
from keyproxy.admin.watched import Shown, Watched
from keyproxy.dataclass import dataclass
from keyproxy.money.budget import Level
from keyproxy.upstream.keyring import KeyState

MOST_OPEN, MOST_NAMES = 30, 8
_OLD_PRICES_SECONDS = 2 * 86_400


@dataclass(frozen=True, slots=True)
class State:
    """``began_at`` in unix seconds."""

    watched: Watched
    shown: Shown
    history: History
    began_at: float

    async def whole(self) -> dict[str, Any]:
        """Everything, thirty days included."""
        live, days = await asyncio.gather(self.live(), self.history.days())
        return {**live, "history": days}

    async def live(self, cells: int = CELLS) -> dict[str, Any]:
        """What is true now, and so many of the cells of the last hour."""
        watched, recent, now = self.watched, self.shown.recent, time.time()
        settings = watched.kit().settings
        records = sorted(watched.open_records(), key=lambda record: record.started_at)
        is_calling = [record for record in records if record.endpoint and not record.is_quiet]
        monotonic = time.monotonic()
        return {
            "process": {
                "version": __version__,
                "mode": settings.mode,
                "began_at": self.began_at,
                "cell_seconds": CELL_SECONDS,
                "has_ledger": watched.ledger is not None,
            },
            "now": round(now, 3),
            "open": {
                "calls": len(is_calling),
                "reserved_usd": float(sum(filter(None, (r.reserved for r in is_calling)))),
                "list": [
                    Line.of(record, now - (monotonic - record.started_at)).shown()
                    for record in is_calling[:MOST_OPEN]
                ],
            },
            "alerts": [{"alert": alert, "text": text} for alert, text in watched.firing()],
            "calls": recent.calls(),
            "errors": recent.errors(),
            "refusals": recent.refusals(),
            "tops": recent.tops(MOST_NAMES),
            "unsettled_usd": self.shown.tally.unsettled_usd,
            "budgets": [_budget(level) for level in await watched.levels(now)],
            "health": self._health(),
            "cells": recent.cells(cells),
        }

    def _health(self) -> list[dict[str, str]]:
        """Each thing that may be ill: its name, ``ok``, ``warn``, ``bad`` or ``off``, and why."""
        watched = self.watched
        settings, ledger, book = watched.kit().settings, watched.ledger, watched.prices()
        providers = watched.provider_keys()
        keys = [
            ("keys" if len(providers) == 1 else name, _keys(states))
            for name, states in providers.items()
        ]
        age = None if book is None else book.age_seconds
        prices = ("off", "nobody asks what a call costs")
        if book is not None:
            prices = ("warn", "no list yet") if age is None else ("ok", f"{_ago(age)} old")
            if age is not None and age > _OLD_PRICES_SECONDS:
                prices = "warn", f"{_ago(age)} old"
        storage = ("ok", "this process")
        if settings.storage is not None:
            storage = ("ok", str(settings.storage))
            if watched.counters.is_down:
                storage = "bad", f"down: {settings.storage_failure}"
        books = ("off", "calls are not booked")
        if ledger is not None:
            books = ("ok", f"{ledger.backlog} waiting") if ledger.backlog else ("ok", "written")
            if ledger.losses:
                books = "warn", f"{ledger.losses} calls lost"
            if ledger.is_down:
                books = "bad", "cannot be written"
        ready = ("ok", "ready") if watched.is_ready() else ("bad", "not ready")
        return [
            {"name": name, "state": state, "text": text}
            for name, (state, text) in (
                ("process", ready),
                *keys,
                ("prices", prices),
                ("storage", storage),
                ("ledger", books),
            )
        ]


def _keys(states: Sequence[KeyState]) -> tuple[str, str]:
    """How the keys of a provider are, and which."""
    rejected = [state.key.label for state in states if state.is_rejected]
    if rejected:
        return "bad" if len(rejected) == len(states) else "warn", f"set aside: {rejected[0]}"
    return "ok", ", ".join(state.key.label for state in states[:3]) or "needs no key"


def _budget(level: Level) -> dict[str, Any]:
    return {
        "name": level.name,
        "limit": float(level.budget.usd),
        "spent": float(level.spent),
        "reserved": float(level.reserved),
        "ends": level.ends,
    }


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
