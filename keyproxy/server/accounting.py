"""What outlives a call, a client and a configuration where money is concerned.

The book (a ledger, or one in memory), the prices, and the tasks behind them; ``adopt`` joins
them with the budgets of new settings.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from keyproxy.call import Told
from keyproxy.dataclass import dataclass
from keyproxy.errors import Refusal, SettingsFault
from keyproxy.ledger.entry import Unsettled
from keyproxy.ledger.file import LedgerFault, default_path, dev_path
from keyproxy.ledger.ledger import Book, Ledger, opened
from keyproxy.ledger.memory import MemoryBook
from keyproxy.limits.counters import Counters
from keyproxy.money import pricelist
from keyproxy.money.booking import Bookings
from keyproxy.money.budget import Budgets, Kind, restore
from keyproxy.money.pricebook import PriceBook
from keyproxy.money.settling import Settled, Settler
from keyproxy.settings import Mode, Settings
from keyproxy.settings.grammar.plain import DEFAULT_LEDGER
from keyproxy.upstream.provider import Fetch
from keyproxy.upstream.send import Upstream

_SETTLED_SECONDS = 5.0
_RECALL_PAUSES_SECONDS = (1.0, 5.0, 15.0, 60.0)  # the last again and again
_log = structlog.get_logger("keyproxy.money")
Upstreams = Callable[[], Mapping[str, Upstream]]
"""Those in force, by app; the default app's is the first."""


@dataclass(eq=False)
class Accounting:
    """One for a process: ``start`` it when the settings are in force, ``close`` it.

    ``fetch`` gives a resource of the default app's upstream, which no client is shown. ``settled``
    is told of each call whose cost has become final.
    """

    counters: Counters
    book: Book
    upstreams: Upstreams
    fetch: Fetch
    settled: Settled

    def __post_init__(self) -> None:
        self._ledger = self.book if isinstance(self.book, Ledger) else None
        self._budgets: dict[str, Budgets] = {}
        self._kinds: frozenset[Kind] = frozenset()
        self._left_at: dict[Kind, float] = {}  # by windows that calls have ceased to count in
        self._unread: dict[Kind, float] = {}  # by windows that lack what was spent before a time
        self._tasks: set[asyncio.Task[None]] = set()  # of calls that have ended
        self._lasting: set[asyncio.Task[None]] = set()  # until we close
        self.prices: PriceBook | None = None  # where nobody asks what a call costs
        self._restored_at = float("inf")  # of shared counters, which hold every process' calls
        self._own: set[tuple[str, int]] = set()  # attempts of ours whose cost is not final
        self._settling = asyncio.Lock()  # a row settled while the ledger is read must not count so
        self._settler = Settler(
            *(self.book, self._ask, self._budgets, self._is_counted),
            lock=self._settling,
            settled=self.settled,
            run_on=self._run,
        )

    @property
    def place(self) -> str:
        """The ledger's file, or "off"."""
        return "off" if self._ledger is None else str(self._ledger.path)

    def adopt(self, settings: Settings) -> dict[str, Bookings]:
        """Keep the budgets of ``settings`` from now on, and book by them; by the app's name.

        A budget that is new counts what was spent in its running window before. A call that is
        under way counts there with what was set aside for it.
        """
        apps = settings.all_apps
        if self.prices is None and any(app.asks_prices for app in apps):
            name = pricelist.file_name(settings.upstream)
            path = None if self._ledger is None else self._ledger.path.with_name(name)
            self.prices = PriceBook(self.fetch, path)
            if self._lasting:
                self._go_on(self.prices.run())
        budgets = {
            app.name: Budgets(
                self.counters,
                app=app.name,
                of_client=app.budget,
                of_app=app.app_budget,
                of_all=settings.total_budget,
                unread=self._unread,
            )
            for app in apps
        }
        self._budgets |= budgets
        if self.prices is not None:  # first calls would wait for what providers take
            named = (_named(app) for app in apps if not budgets[app.name].is_empty)
            self.prices.ask_ahead(dict.fromkeys(itertools.chain.from_iterable(named)))
        if self._lasting:
            self._recall_missing(budgets)
        return {
            app.name: Bookings(
                budgets[app.name],
                self.book,
                self.prices,
                self._run,
                key=app.keys[0].label if app.keys else "",
                refuses_unpriced=app.refuses_unpriced,
                unsettled=None if self._ledger is None else self._own,
            )
            for app in apps
        }

    async def start(self) -> None:
        """Take up where the last process ended. Shared counters outlived it, unless their storage
        was emptied."""
        self._kinds = _kinds(self._budgets)
        if self.prices is not None:
            await self.prices.open()
            self._go_on(self.prices.run())
        if self._ledger is not None:
            at, is_shared = time.time(), self.counters.is_shared
            if not is_shared:
                self._restored_at = at
            spent = partial(self._ledger.spent, is_least=is_shared)
            await restore(self.counters, self._budgets, spent, at, dict.fromkeys(self._kinds, 0.0))
        self._go_on(self._settler.run())

    def _recall_missing(self, budgets: Mapping[str, Budgets]) -> None:
        at = time.time()
        before, self._kinds = self._kinds, _kinds(budgets)
        missing = {kind: self._left_at.pop(kind, 0.0) for kind in self._kinds - before}
        self._left_at |= dict.fromkeys(before - self._kinds, at)
        if missing and self._ledger is not None and not self.counters.is_shared:
            self._unread |= dict.fromkeys(missing, at)
            self._go_on(self._recall(self._ledger, budgets, missing, at))

    async def _recall(
        self,
        ledger: Ledger,
        budgets: Mapping[str, Budgets],
        missing: Mapping[Kind, float],
        at: float,
    ) -> None:
        """Count in the windows of ``missing`` what was spent before ``at``, once that is known."""
        for tries in itertools.count():
            async with self._settling:
                try:
                    if await ledger.flush():
                        await restore(
                            self.counters, budgets, ledger.spent, time.time(), missing, at
                        )
                        for kind in missing:
                            if self._unread.get(kind) == at:  # else of a later reload
                                del self._unread[kind]
                        break
                    reason = "it is slow, or cannot be written"
                except Exception as error:  # tried again for as long as the process lives
                    reason = f"{type(error).__name__}: {error}"
            if not tries:
                _log.error(
                    "new budgets do not count yet what was spent before: the ledger cannot be read",
                    reason=reason,
                )
            await asyncio.sleep(_RECALL_PAUSES_SECONDS[min(tries, len(_RECALL_PAUSES_SECONDS) - 1)])
        if tries:
            _log.info("new budgets count what was spent before")

    async def close(self) -> None:
        """Let what was ended be booked; what the upstream was not asked for yet waits in the
        ledger."""
        lasting = [*self._lasting]
        for task in lasting:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_SETTLED_SECONDS)
        await asyncio.gather(*lasting, return_exceptions=True)
        if self._ledger is not None:
            await self._ledger.flush()

    def _is_counted(self, row: Unsettled) -> bool:
        is_own = (row.id, row.n) in self._own or self._ledger is None
        self._own.discard((row.id, row.n))
        return is_own or row.attempt.begun_at < self._restored_at

    def _go_on(self, work: Coroutine[Any, Any, None]) -> None:
        """Until it is done, or we close."""
        task = asyncio.create_task(work)
        self._lasting.add(task)
        task.add_done_callback(self._lasting.discard)

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """What is left of a call; ``close`` waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a call's cost could not be counted", error=type(error).__name__)

    async def _ask(self, row: Unsettled) -> Told | None:
        """What the upstream says of a call; None where it says nothing yet."""
        upstreams = self.upstreams()
        upstream = upstreams.get(row.app) or next(iter(upstreams.values()))
        try:
            return await upstream.generation(row.attempt.generation_id or "", row.attempt.key)
        except Refusal:
            return None


def _named(app: Settings) -> tuple[str, ...]:
    """The models that an app's settings name, each by an id of its own."""
    listed = (name for name in app.allowed_models if not name.startswith("!") and "*" not in name)
    return *listed, *(model for _, model in app.model_aliases)


def _kinds(budgets: Mapping[str, Budgets]) -> frozenset[Kind]:
    return frozenset(kind for each in budgets.values() for kind in each.kinds)


def usual_path(mode: Mode) -> Path | None:
    """Where the ledger is where nobody says; None: nowhere."""
    if mode == "dev":
        return dev_path(Path.cwd())
    return default_path() if mode == "serve" else None


@asynccontextmanager
async def open_book(settings: Settings) -> AsyncIterator[Book]:
    """The ledger that the settings ask for, or a book in memory.

    An unwritable default is off with a warning. Raises ``SettingsFault`` for an unwritable path
    that somebody named, or that ``serve`` needs: a restart would begin its budgets anew.
    """
    is_default = settings.ledger == DEFAULT_LEDGER
    path = usual_path(settings.mode) if is_default else settings.ledger
    book: Book = MemoryBook()
    async with AsyncExitStack() as stack:
        if path is not None:
            retention_seconds = settings.ledger_retention_days * 86_400.0
            ledger = opened(Path(path), retention_seconds=retention_seconds)
            try:
                book = await stack.enter_async_context(ledger)
            except LedgerFault as fault:
                if not is_default or (settings.mode == "serve" and _counts_alone(settings)):
                    raise SettingsFault(
                        "KEYPROXY_LEDGER",
                        found=fault.found,
                        expected=fault.expected,
                        paste=fault.paste,
                    ) from fault
                _log.warning("calls are not booked in a ledger", why=str(fault))
        yield book


def _counts_alone(settings: Settings) -> bool:
    """Whether there is a budget that this process alone counts."""
    budgets = [b for app in settings.all_apps for b in (app.budget, app.app_budget)]
    return settings.storage is None and any([settings.total_budget, *budgets])
