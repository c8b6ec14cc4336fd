"""The running process as those who watch may look at it, what is true of it just now, and who reads
what became of calls: alerts and the last line always, the rest where it is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from keyproxy.admin.totals import Failures, Totals
from keyproxy.dataclass import dataclass
from keyproxy.kit import Kit
from keyproxy.ledger.entry import Unsettled
from keyproxy.ledger.ledger import Book, Ledger
from keyproxy.limits.counters import Counters
from keyproxy.money.budget import Level, levels
from keyproxy.money.pricebook import PriceBook
from keyproxy.record import Record
from keyproxy.settings import Secret
from keyproxy.upstream.keyring import KeyState, KeyStates

if TYPE_CHECKING:  # most show nothing
    from keyproxy.admin.recent import Recent
    from keyproxy.admin.tally import Tally


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


class Shown(NamedTuple):
    """What the admin listener shows: sums for ever, and the last hour."""

    tally: Tally
    recent: Recent


@dataclass(frozen=True, slots=True)
class Readers:
    """Told of each call when it has ended, when its cost has become final, and of refusals of what
    was no call. ``shown`` is empty where nothing shows it."""

    failures: Failures
    totals: Totals
    shown: Shown | tuple[()]

    def ended(self, record: Record) -> None:
        self.failures.ended(record)
        self.totals.ended(record)
        for reader in self.shown:
            reader.ended(record)

    def settled(self, row: Unsettled) -> None:
        self.totals.settled(row)
        for reader in self.shown:
            reader.settled(row)

    def refused(self, code: str) -> None:
        for reader in self.shown:
            reader.refused(code)
