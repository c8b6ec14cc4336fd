"""One thread that writes the ledger: what has gathered goes into one transaction.

Knows threads, orders and the file, no tables. An order stays in line until it is written, so
that a full disk, a locked or a replaced file costs nothing that fits into the line. The loop
waits for no commit: rows that must not be lost stand in the spool meanwhile.
"""

#   An order:  IN LINE --- taken into a batch ---> WRITTEN, and its work answered
#    |           ^                |    |
#    |           |                |    +--- a fault of its own ---> LOST, its answer is None
#    |           +--- a fault of the file: it stays
#    +--- line full or closed ---> LOST, its answer is None
#
#   The thread:  OPENING ---> WRITING <--- each second ---> FAILING
#                   |            |                             |
#                 fault       closing: until the line is empty, or the time is over ---> ENDED

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import structlog

from keyproxy.dataclass import dataclass, field
from keyproxy.ledger.file import fault_of
from keyproxy.ledger.held_file import HeldFile
from keyproxy.ledger.orders import Losses, Order, Work
from keyproxy.ledger.spool import Spool
from keyproxy.ledger.tables import FAULTS_OF_ONE, ROWS_AT_ONCE, Rows

MOST_ORDERS = 20_000  # about 20 MB; at 100 calls a second more than a minute of a hanging disk
_BATCH = 500  # a transaction of some 10 ms
MOMENT_SECONDS = 0.05
"""The file has what nobody waits for once nothing came for so long, or after ``_MOMENTS``, or once
a half of the spool is full. A call that is over by then is written once."""
_MOMENTS = 10
_RETRY_SECONDS = 1.0
_CLOSE_SECONDS = 5.0
_CLOSING_RETRY_SECONDS = 0.1
_log = structlog.get_logger("keyproxy.ledger")


@dataclass(slots=True)
class Writer:
    """The thread, its line of orders, and how it fares. One for a ledger, made on the loop.

    Beside a busy loop each time that the thread wakes, and each of its statements, makes one of the
    two wait for the other (the GIL): so it wakes seldom, and many rows go in by one statement.

    ``write`` puts rows into the file, of one of ``ROWS_AT_ONCE`` calls. ``chore`` is done again
    and again, each time after as many seconds as it returned; ``farewell`` once, as the last thing.
    ``gather`` puts in line what is only in the spool, on the loop, before the thread wakes.
    """

    path: Path
    write: Callable[[Sequence[Rows], sqlite3.Connection], None]
    chore: Callable[[sqlite3.Connection], float]
    farewell: Work
    gather: Callable[[], None] = lambda: None
    busy_seconds: float = 1.0
    most_orders: int = MOST_ORDERS
    moment_seconds: float = MOMENT_SECONDS
    is_failing: bool = False
    orders: deque[Order] = field(default_factory=deque)
    ordered: int = 0
    """How many orders were put in line so far."""
    _news_count: int = 0
    """How much came since the thread was woken last."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _news: threading.Condition = field(init=False)
    _waking: asyncio.Handle | None = None
    _is_waited_for: bool = False
    _is_woken: bool = False
    _is_closing: bool = False
    _close_by: float = 0.0
    _is_losing: bool = False
    lost: Losses = field(default_factory=Losses)
    _connection: sqlite3.Connection | None = None
    _chore_at: float = 0.0
    _thread: threading.Thread | None = None
    _file: HeldFile = field(init=False)
    _spool: Spool = field(init=False)
    _loop: asyncio.AbstractEventLoop = field(init=False)

    def __post_init__(self) -> None:
        self._news = threading.Condition(self._lock)
        self._file = HeldFile(self.path, self.busy_seconds)

    async def start(self) -> None:
        """Open the file and begin. Raises ``LedgerFault``."""
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[Exception | None] = self._loop.create_future()
        # A daemon: a disk that hangs must not keep the process from ending.
        order = Order(answer=opened)
        self._thread = threading.Thread(target=self._run, args=(order,), name="ledger", daemon=True)
        self._thread.start()
        if (error := await opened) is not None:
            raise fault_of(self.path, error)

    @property
    def written(self) -> int:
        """How many of those are not in line any more."""
        return self.ordered - len(self.orders)

    def spool(self, value: tuple[object, ...]) -> bool:
        """Have it where it outlives this process, until what ``gather`` puts in line next is
        written; False once that is too late."""
        if self._is_closing:
            return False
        spool, half = self._spool, self._spool.half
        is_there = spool.add((*value,), self.written)  # of a NamedTuple marshal takes none
        # What stands nowhere else is to be written at once; and a half that is full now is to be
        # free again by the time that the other one is.
        self.wake(is_waited_for=not is_there or spool.half != half)
        return True

    def put(self, order: Order) -> bool:
        """Put it in line; False where that is full or closed: a row is a loss then."""
        with self._lock:
            if not self._is_closing and len(self.orders) < self.most_orders:
                self.orders.append(order)
                self.ordered += 1
                self.wake(is_waited_for=order.answer is not None)
                if order.rows and self.lost.count:
                    self.lost.take_back(order.id)
                return True
            self.lost.add(order)
            if order.rows and not self._is_losing:
                self._is_losing = True
                why = "it is closed" if self._is_closing else "too many wait for it"
                _log.error("calls are not booked in the ledger any more", why=why)
        return False

    def ask(self, order: Order) -> asyncio.Future[Any]:
        """Put it in line and be told its answer."""
        order.answer = answer = self._loop.create_future()
        if not self.put(order):
            answer.set_result(None)
        return answer

    def forget(self, id: object) -> None:
        """A row of this id needs not be written any more."""
        with self._news:
            self.lost.take_back(id)

    def wake(self, *, is_waited_for: bool = False) -> None:
        """Wake the thread before long; at the end of the loop's turn where somebody waits for an
        answer. With all that is ordered until then."""
        self._news_count += 1
        if is_waited_for and not self._is_waited_for:
            if self._waking is not None:
                self._waking.cancel()
            self._waking, self._is_waited_for = self._loop.call_soon(self._wake_thread), True
        elif self._waking is None:
            self._put_off(_MOMENTS)

    def _put_off(self, moments: int) -> None:
        came = self._news_count
        self._waking = self._loop.call_later(
            self.moment_seconds, self._wake_if_quiet, came, moments - 1
        )

    def _wake_if_quiet(self, before: int, moments: int) -> None:
        """For how many more moments what comes next may be waited for."""
        if moments and before < self._news_count:
            self._put_off(moments)
        else:
            self._wake_thread()

    def _wake_thread(self) -> None:
        self.gather()
        self._spool.ordered(self.ordered)
        self._waking, self._is_waited_for, self._news_count = None, False, 0
        with self._news:
            self._is_woken = True
            self._news.notify()

    async def close(self, open_ids: Collection[object] = ()) -> None:
        """Write what is in line, within a few seconds; what cannot be written is lost, unless
        whoever opens the ledger next finds it in the spool.

        ``open_ids``: those whose last row has not been ordered.
        """
        with self._news:
            if self._is_closing:
                return
            self._is_closing = True
            self._close_by = time.monotonic() + _CLOSE_SECONDS
            self._news.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _CLOSE_SECONDS)
        for order in list(self.orders):
            if order.is_last or (order.rows and order.id in open_ids):
                self.lost.add(order)
        if self.lost.count:
            _log.error("the ledger is incomplete", path=str(self.path), losses=self.lost.count)

    def _run(self, opened: Order) -> None:
        try:
            self._connection = self._file.connection()
            self._spool = Spool(self.path)
        except Exception as error:
            self._file.let_go()
            self._tell([(opened, error)])
            return
        self._tell([(opened, None)])
        while (batch := self._next()) is not None:
            try:
                self._write(batch)
            except Exception as error:
                self._fail(error)
                if self._is_closing and time.monotonic() + self.busy_seconds > self._close_by:
                    break
            else:
                self._succeed()
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self.farewell(self._connection)
        self._file.let_go()
        self._spool.close(is_empty=not self.orders)

    def _next(self) -> list[Order] | None:
        """What to write now; empty when only the chore is due, None at the end."""
        with self._news:
            if self.is_failing and self._is_closing:
                self._news.wait(_CLOSING_RETRY_SECONDS)
            elif self.is_failing:
                self._news.wait_for(lambda: self._is_closing, _RETRY_SECONDS)
            else:
                left = max(0.0, self._chore_at - time.monotonic())
                self._news.wait_for(
                    lambda: (self._is_woken and self.orders) or self._is_closing, left
                )
            if self._is_closing and not self.orders:
                return None
            batch = list(islice(self.orders, _BATCH))
            self._is_woken = len(batch) < len(self.orders)
            return batch

    def _write(self, batch: list[Order]) -> None:
        connection = self._file.connection()
        if connection is not self._connection:
            self._connection, self._chore_at = connection, 0.0
        if time.monotonic() >= self._chore_at:
            if not self._spool.is_there():
                removed, self._spool = self._spool, Spool(self.path)
                # The loop may be using it; what is in line is only in line now.
                self._loop.call_soon_threadsafe(removed.close)
            self._chore_at = time.monotonic() + self.chore(connection)
            self._file.mark()
        if batch:
            try:
                answers = self._transact(connection, batch)
            except FAULTS_OF_ONE:
                answers = [self._alone(connection, order) for order in batch]
            with self._news:
                for _ in batch:
                    self.orders.popleft()
            self._tell([(o, a) for o, a in zip(batch, answers, strict=True) if o.answer])

    def _transact(self, connection: sqlite3.Connection, batch: Sequence[Order]) -> list[Any]:
        """All of ``batch`` in one transaction, in its order; the answers."""
        connection.execute("BEGIN IMMEDIATE")
        answers: list[Any] = []
        rows: dict[object, Rows] = {}  # of several with one id the last are written
        with connection:
            for order in batch:
                answer = None
                if order.rows:
                    rows[order.id] = order.rows
                elif order.work is not None:
                    self._write_rows(rows, connection)
                    answer = order.work(connection)
                answers.append(answer)
            self._write_rows(rows, connection)
        return answers

    def _write_rows(self, rows: dict[object, Rows], connection: sqlite3.Connection) -> None:
        every, start = list(rows.values()), 0
        while left := len(every) - start:
            end = start + next(count for count in ROWS_AT_ONCE if count <= left)
            self.write(every[start:end], connection)
            start = end
        rows.clear()

    def _alone(self, connection: sqlite3.Connection, order: Order) -> Any:
        """Write one order of a batch that could not be written whole; a faulty one is lost."""
        try:
            answer = self._transact(connection, [order])[0]
            if order.rows:
                self.forget(order.id)
            return answer
        except FAULTS_OF_ONE:
            with self._news:
                self.lost.add(order)
            _log.exception("a row of the ledger could not be written")
            return None

    def _fail(self, error: Exception) -> None:
        """The line stays as it is, for better times."""
        self._file.let_go()
        self._connection = None
        if not self.is_failing:
            reason = fault_of(self.path, error)
            _log.error("the ledger cannot be written; calls go on", reason=str(reason))
        self.is_failing = True

    def _succeed(self) -> None:
        self._is_losing = False
        if self.is_failing:
            self.is_failing = False
            _log.info("the ledger is written again", path=str(self.path), losses=self.lost.count)

    def _tell(self, told: Sequence[tuple[Order, Any]]) -> None:
        """Give the waiting futures their answers, on their loop; it is not woken for none."""

        def answer() -> None:
            for order, result in told:
                order.tell(result)

        if told:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(answer)
