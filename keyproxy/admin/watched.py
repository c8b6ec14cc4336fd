"""The running process as those who watch may look at it, and what is true of it just now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keyproxy.kit import Kit
from keyproxy.ledger.ledger import Book, Ledger
from keyproxy.limits.counters import Counters
from keyproxy.money.budget import Level, levels
from keyproxy.money.pricebook import PriceBook
from keyproxy.record import Record
from keyproxy.settings import Secret
from keyproxy.upstream.keyring import KeyState, KeyStates


@dataclass(frozen=True, slots=True)
class Watched:
    """Asked anew each time: a reload puts another kit in force.

    ``open_records``: of the calls that are being answered; ``firing``: name and sentence of each
    alert that is not over.
    """

    kit: Callable[[], Kit]
    is_ready: Callable[[], bool]
    open_records: Callable[[], Sequence[Record]]
    keys: KeyStates
    counters: Counters
    book: Book
    prices: Callable[[], PriceBook | None]
    firing: Callable[[], Sequence[tuple[str, str]]]

    @property
    def ledger(self) -> Ledger | None:
        """None where calls are booked in memory only."""
        return self.book if isinstance(self.book, Ledger) else None

    def provider_keys(self) -> dict[str, list[KeyState]]:
        """What is known of the keys of all apps, by the provider that they are for."""
        keys: dict[str, dict[Secret, None]] = {}
        for app in self.kit().settings.all_apps:
            for used in app.providers:
                keys.setdefault(used.name, {}).update(dict.fromkeys(used.keys))
        return {name: self.keys.states(each) for name, each in keys.items()}

    async def levels(self, at: float) -> list[Level]:
        """Where the budgets of apps and of all together stand."""
        budgets = (app.bookings.budgets for app in self.kit().apps.values())
        return await levels(self.counters, budgets, at)
