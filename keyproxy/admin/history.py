"""Thirty days of calls for the dashboard, from the ledger.

It is asked off the loop, one question at a time, and its answer kept a while.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import structlog

from keyproxy.admin.recent import Sums, add, client_shown, largest
from keyproxy.dataclass import dataclass, field
from keyproxy.ledger.file import LedgerFault, ask
from keyproxy.ledger.ledger import Ledger
from keyproxy.ledger.queries import By, Summary, summary

DAYS = 30
KEPT_SECONDS = 60.0
MOST_ROWS = 10
_DAY_SECONDS = 86_400
_OF: tuple[By, ...] = ("model", "app", "client", "provider")
_APP_CLIENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*/)?(.*)", re.DOTALL)
_log = structlog.get_logger("keyproxy.admin")


@dataclass(slots=True)
class History:
    """``log_address`` says how much of a client's address may be shown."""

    ledger: Ledger | None
    log_address: Callable[[], str]
    clock: Callable[[], float] = time.monotonic
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _found: dict[str, Any] | None = None
    _until: float = float("-inf")

    async def days(self) -> dict[str, Any] | None:
        """Days (date, calls, USD, tokens in and out), and what costs most; None without a ledger,
        or while it cannot be read."""
        if self.ledger is None:
            return None
        async with self._asking:
            if self.clock() >= self._until:
                try:
                    self._found = await asyncio.to_thread(self._read, self.ledger)
                except (LedgerFault, sqlite3.Error) as error:
                    _log.warning("the ledger could not be read", why=str(error))
                    self._found = None
                self._until = self.clock() + KEPT_SECONDS
            return self._found

    def _read(self, ledger: Ledger) -> dict[str, Any]:
        since = (int(time.time()) // _DAY_SECONDS - DAYS + 1) * _DAY_SECONDS

        def by(what: By) -> Summary:
            return ask(ledger.path, lambda connection: summary(connection, what, since))

        days = by("day")
        tops = {what: self._top(what, by(what)) for what in _OF}
        return {
            "since": since,
            "days": [
                [day.name, day.calls, float(day.spend), day.input_tokens, day.output_tokens]
                for day in days.rows
            ],
            "tops": tops,
        }

    def _top(self, what: By, found: Summary) -> list[list[Any]]:
        """Name, calls, USD, tokens: the largest, and the rest as one; addresses as the log shows
        them."""
        sums: Sums = {}
        for row in found.rows:
            name = self._client(row.name) if what == "client" else row.name
            tokens = row.input_tokens + row.output_tokens
            add(sums, name, (row.calls, float(row.spend), tokens))
        return list(largest(sums, MOST_ROWS))

    def _client(self, name: str) -> str:
        app, client = _APP_CLIENT.fullmatch(name).groups()  # type: ignore[union-attr]
        return (app or "") + (client_shown(client, self.log_address()) or "–")
