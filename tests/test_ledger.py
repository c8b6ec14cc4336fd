"""The ledger: what is acknowledged stays, what cannot be written holds nobody up, and is said."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from keyproxy.call import Cost, Told, Usage
from keyproxy.ledger import schema
from keyproxy.ledger.entry import Entry, from_pico, to_pico
from keyproxy.ledger.file import (
    APPLICATION_ID,
    LedgerDamaged,
    LedgerFault,
    LedgerMissing,
    LedgerNewer,
    LedgerUnwritable,
    ask,
    default_path,
    dev_path,
    open_reader,
)
from keyproxy.ledger.ledger import HANGING_SECONDS, Ledger, opened
from keyproxy.ledger.opening import open_writer
from keyproxy.ledger.orders import Order
from keyproxy.ledger.queries import By, Summary, summary
from keyproxy.ledger.spool import HALF_BYTES
from keyproxy.ledger.tables import _BOOK, ROWS_AT_ONCE, Rows
from keyproxy.ledger.writer import Writer
from keyproxy.record import Record
from tests import records
from tests.records import over

if sys.platform != "win32":
    import resource

ROOT = Path(__file__).resolve().parents[1]
NOW = 1_790_981_416.5  # 2026-10-02, about one in the afternoon (UTC)
DAY = 86_400.0
GENERATION = "gen-1790981416-AbCdEfGhIjKlMnOpQrSt"
COST = Decimal("8.8e-05")
posix = pytest.mark.skipif(sys.platform == "win32", reason="modes, limits and signals of POSIX")


def entry(id: str = "req_1", **more: Any) -> Entry:
    return records.entry(id, **({"at": NOW} | more))


def outcome(cost: Decimal | None = COST, **more: Any) -> Record:
    said: dict[str, Any] = {"source": "exact", "usage": Usage(14, 6, 0, reasoning_tokens=3)}
    return over(cost=cost, **(said | more))


def rows(path: Path) -> dict[str, dict[str, Any]]:
    """What the file holds now, by id, read as another program would."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return {row["id"]: dict(row) for row in connection.execute("SELECT * FROM calls")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[Ledger]:
    async with opened(path, clock=lambda: NOW) as ledger:
        yield ledger


def failing(ledger: Ledger) -> bool:
    """As a function, since mypy takes a property to be as it was."""
    return ledger.is_failing


def down(ledger: Ledger) -> bool:
    return ledger.is_down


async def summed(ledger: Ledger, by: By, **more: Any) -> Summary:
    """As ``keyproxy usage`` asks it."""
    await ledger.flush()
    return ask(ledger.path, lambda connection: summary(connection, by, **more))


async def becomes(ledger: Ledger, *, is_failing: bool) -> None:
    async with asyncio.timeout(20):
        while failing(ledger) is not is_failing:
            await asyncio.sleep(0.01)  # the ledger looks by a timer of its own


async def written(ledger: Ledger) -> None:
    """Return when the ledger has caught up; it tries again every second."""
    async with asyncio.timeout(20):
        while not await ledger.flush():
            await asyncio.sleep(0)


# --- a call --------------------------------------------------------------------------------


async def test_row_of_a_call_under_way_stands_at_its_worst_case(ledger: Ledger) -> None:
    ledger.begin(entry())
    assert await ledger.flush()
    row = rows(ledger.path)["req_1"]
    assert (row["cost"], row["cost_source"], row["ended"]) == (30_000_000_000, "estimated", None)
    assert (row["client"], row["key"]) == ("192.0.2.1", "sk-or-v1-abc...def")


async def test_completed_call_is_one_row_with_its_cost(ledger: Ledger) -> None:
    ledger.begin(entry())
    ledger.note("req_1", GENERATION, "sk-or-v1-xyz...123")
    ledger.complete("req_1", outcome(served="openai/gpt-4o-mini-2026"), 1.5)
    assert await ledger.flush()
    [row] = rows(ledger.path).values()
    assert (row["cost"], row["cost_source"], row["is_settled"]) == (88_000_000, "exact", 1)
    assert (row["generation_id"], row["key"]) == (GENERATION, "sk-or-v1-xyz...123")
    assert (row["served"], row["http_status"], row["ended"]) == (
        "openai/gpt-4o-mini-2026",
        200,
        "complete",
    )
    assert (row["input_tokens"], row["output_tokens"], row["reasoning_tokens"]) == (14, 6, 3)


async def test_generation_id_is_in_the_file_while_the_call_runs(ledger: Ledger) -> None:
    ledger.begin(entry())
    ledger.note("req_1", GENERATION)
    assert await ledger.flush()
    assert rows(ledger.path)["req_1"]["generation_id"] == GENERATION


async def test_unknown_cost_leaves_the_reservation_as_an_estimate(ledger: Ledger) -> None:
    ledger.begin(entry())
    ledger.complete("req_1", outcome(None), 1.5)
    assert await ledger.flush()
    row = rows(ledger.path)["req_1"]
    assert (row["cost"], row["cost_source"]) == (to_pico(Decimal("0.03")), "estimated")


async def test_cost_that_nobody_knows_is_no_figure(ledger: Ledger) -> None:
    """Of a model without a price: 0 would be below the truth."""
    for id in ("under_way", "cut", "asked_about"):
        ledger.begin(entry(id, reserved=None))
    ledger.complete("cut", outcome(None), 1.5)
    ledger.note("asked_about", GENERATION)
    ledger.complete("asked_about", outcome(None), 1.5)
    [row] = await ledger.unsettled(10)
    assert (row.attempt.reserved, row.attempt.cost, row.attempt.counted) == (None, None, Decimal(0))
    await ledger.settle("asked_about")
    assert await ledger.flush()
    assert {row["cost"] for row in rows(ledger.path).values()} == {None}
    assert await ledger.spent(NOW) == {("default", "192.0.2.1"): 0}
    await book(ledger, "known", "0.5", "exact")
    total = (await summed(ledger, "app")).total
    assert (total.spend, total.calls, total.unknown) == (Decimal("0.5"), 4, 3)


async def test_withdrawn_call_leaves_no_row(ledger: Ledger) -> None:
    ledger.begin(entry())
    ledger.withdraw("req_1")
    ledger.complete("req_1", outcome(), 1.5)
    assert await ledger.flush()
    assert rows(ledger.path) == {}


async def test_close_writes_what_is_in_line(path: Path) -> None:
    async with opened(path) as ledger:
        for number in range(2_000):
            ledger.begin(entry(f"req_{number}"))
            ledger.complete(f"req_{number}", outcome(), 1.5)
    found = rows(path)
    assert len(found) == 2_000
    assert {row["is_settled"] for row in found.values()} == {1}
    assert ledger.losses == 0


async def test_closed_ledger_lets_calls_go_on(path: Path) -> None:
    async with opened(path) as ledger:
        pass
    ledger.begin(entry())
    assert ledger.losses == 1


async def test_many_calls_share_a_transaction(ledger: Ledger) -> None:
    ids = [f"req_{number}" for number in range(300)]
    for id in ids:
        ledger.begin(entry(id))
    assert await ledger.flush()
    assert sorted(rows(ledger.path)) == sorted(ids)


def nothing(connection: sqlite3.Connection) -> float:
    return 3600.0


async def test_what_was_ordered_is_written_by_as_few_statements_as_can_be(path: Path) -> None:
    statements: list[int] = []
    writer = Writer(path, lambda rows, _: statements.append(len(rows)), nothing, nothing)
    await writer.start()
    for number in range(ROWS_AT_ONCE[0] + 5):
        writer.put(Order(Rows((f"req_{number}",))))
    assert await writer.ask(Order(work=lambda connection: True))
    assert statements == [*ROWS_AT_ONCE]
    await writer.close()


def test_a_statement_has_no_more_values_than_an_old_sqlite_takes() -> None:
    assert _BOOK(ROWS_AT_ONCE[0]).count("?") <= 999


async def test_what_nobody_waits_for_goes_with_the_next_that_somebody_does(path: Path) -> None:
    statements: list[int] = []
    write = lambda rows, _: statements.append(len(rows))  # noqa: E731
    writer = Writer(path, write, nothing, nothing, moment_seconds=3600.0)
    await writer.start()
    writer.put(Order(Rows(("req_1",))))
    await asyncio.sleep(0)
    writer.put(Order(Rows(("req_2",))))
    assert await writer.ask(Order(work=lambda connection: True))
    assert statements == [1, 1]
    await writer.close()


async def test_what_waits_to_be_ordered_is_gathered_before_the_thread_wakes(path: Path) -> None:
    gathered = asyncio.Event()
    write = lambda rows, _: None  # noqa: E731
    writer = Writer(path, write, nothing, nothing, gather=gathered.set)
    await writer.start()
    writer.wake()
    async with asyncio.timeout(10):
        await gathered.wait()
    await writer.close()


async def test_what_comes_one_after_another_is_written_together(path: Path) -> None:
    gathered: list[int] = []

    def gather() -> None:
        gathered.append(len(writer.orders))

    writer = Writer(path, lambda *_: None, nothing, nothing, gather, moment_seconds=0.0)
    await writer.start()
    for number in range(4):
        writer.put(Order(Rows((f"req_{number}",))))
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        while not gathered:
            await asyncio.sleep(0)
    assert gathered == [4]
    await writer.close()


async def test_what_goes_on_coming_is_not_put_off(path: Path) -> None:
    gathered = asyncio.Event()
    writer = Writer(path, lambda *_: None, nothing, nothing, gathered.set, moment_seconds=0.0)
    await writer.start()
    for _ in range(15):
        writer.wake()
        await asyncio.sleep(0)
    assert gathered.is_set()
    await writer.close()


async def test_what_the_spool_has_no_room_for_is_written_at_once(path: Path) -> None:
    gathered = asyncio.Event()
    more: dict[str, Any] = {"gather": gathered.set, "moment_seconds": 3600.0}
    writer = Writer(path, lambda *_: None, nothing, nothing, **more)
    await writer.start()
    writer.spool(("x" * HALF_BYTES,))
    async with asyncio.timeout(10):
        await gathered.wait()
    await writer.close()


async def test_what_nobody_waits_for_is_written_within_a_moment(path: Path) -> None:
    is_written = threading.Event()
    writer = Writer(path, lambda rows, _: is_written.set(), nothing, nothing)
    await writer.start()
    writer.put(Order(Rows(("req_1",))))
    assert await asyncio.to_thread(is_written.wait, 10.0)
    await writer.close()


async def test_prompts_have_no_column(ledger: Ledger) -> None:
    with contextlib.closing(open_reader(ledger.path)) as connection:
        names = [
            row[1]
            for table in ("calls", "attempts")
            for row in connection.execute(f"PRAGMA table_info({table})")
        ]
    assert not [name for name in names if name in {"body", "prompt", "messages", "completion"}]
    assert len(names) == 57, "a new column: does it hold anything a user wrote?"


# --- money ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usd", "pico"),
    [
        ("8.8e-05", 88_000_000),
        ("0.000000037500", 37_500),
        ("1e-12", 1),
        ("0.0000000000001", 1),  # never below the truth
        ("0", 0),
        ("123.456789012345", 123_456_789_012_345),
        ("1e999999", 10**18),
    ],
)
def test_money_is_kept_in_whole_pico_usd(usd: str, pico: int) -> None:
    assert to_pico(Decimal(usd)) == pico
    assert from_pico(pico) == Decimal(pico) / 10**12


@given(st.decimals(min_value=0, max_value=10**6, places=20))
def test_money_is_kept_at_no_less_and_by_less_than_a_pico_usd_more(usd: Decimal) -> None:
    assert 0 <= to_pico(usd) - Fraction(usd) * 10**12 < 1


@pytest.mark.parametrize("text", ["-0.01", "NaN", "Infinity"])
def test_what_is_no_money_is_not_booked(text: str) -> None:
    with pytest.raises(ValueError, match="money"):
        to_pico(Decimal(text))


async def test_sums_are_exact_and_do_not_overflow(ledger: Ledger) -> None:
    costs = [Decimal("999999.999999999999")] * 30 + [Decimal("0.000000000001")] * 3
    for number, cost in enumerate(costs):
        ledger.begin(entry(f"req_{number}"))
        ledger.complete(f"req_{number}", outcome(cost), 1.5)
    found = await summed(ledger, "app")
    assert found.total.exact == sum(costs)
    assert await ledger.spent(NOW) == {("default", "192.0.2.1"): sum(costs)}


@pytest.mark.parametrize(
    "more",
    [
        {"client": "\udcff\0"},
        {"models": ("a\ud800",)},
    ],
)
async def test_text_that_is_no_text_is_booked_all_the_same(
    ledger: Ledger, more: dict[str, Any]
) -> None:
    ledger.begin(entry(**more))
    ledger.complete("req_1", outcome(), 1.5)
    assert await ledger.flush()
    assert rows(ledger.path)["req_1"]["ended"] == "complete"
    assert ledger.losses == 0


async def test_faulty_row_takes_no_other_with_it(ledger: Ledger) -> None:
    with capture_logs() as logs:
        ledger.begin(entry("bad", at=float("nan")))
        ledger.begin(entry("good"))
        assert await ledger.flush()
    assert list(rows(ledger.path)) == ["good"]
    assert (ledger.losses, ledger.is_failing) == (1, False)
    assert [log["event"] for log in logs] == ["a row of the ledger could not be written"]


# --- settling ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("generation_id", "source", "is_unsettled"),
    [
        (GENERATION, "exact", False),
        (GENERATION, "computed", True),
        (GENERATION, "estimated", True),
        (None, "computed", False),
        (None, "estimated", False),
    ],
)
async def test_call_is_unsettled_while_the_upstream_may_still_tell_its_cost(
    ledger: Ledger, generation_id: str | None, source: str, is_unsettled: bool
) -> None:
    ledger.begin(entry())
    ledger.note("req_1", generation_id)
    ledger.complete("req_1", outcome(source=source), 1.5)
    assert [row.id for row in await ledger.unsettled(10)] == ["req_1"] * is_unsettled


async def test_unsettled_call_tells_all_that_settling_needs(ledger: Ledger) -> None:
    ledger.begin(entry(models=("a/b", "c/d")))
    ledger.note("req_1", GENERATION)
    ledger.complete("req_1", outcome(source="computed", ended="client_gone"), 1.5)
    [row] = await ledger.unsettled(10)
    assert (row.attempt.generation_id, row.attempt.key, row.models) == (
        GENERATION,
        "sk-or-v1-abc...def",
        ("a/b", "c/d"),
    )
    assert (row.attempt.reserved, row.attempt.cost, row.attempt.cost_source) == (
        Decimal("0.03"),
        COST,
        "computed",
    )
    assert (row.attempt.ended, row.tries, row.attempt.begun_at) == ("client_gone", 0, NOW)


async def test_settled_call_has_its_final_cost_and_is_not_told_again(ledger: Ledger) -> None:
    ledger.begin(entry())
    ledger.note("req_1", GENERATION)
    ledger.complete("req_1", outcome(None), 1.5)
    known, late = Decimal("0.0125"), Decimal("0.9")
    final = ledger.settle("req_1", Cost(known, known, "exact"), Told(Usage(20, 9), "a/b"))
    other = ledger.settle("req_1", Cost(late, late, "estimated"))
    assert [await final, await other] == [True, False]
    assert await ledger.unsettled(10) == []
    row = rows(ledger.path)["req_1"]
    assert (row["cost"], row["cost_source"]) == (12_500_000_000, "exact")
    assert (row["input_tokens"], row["output_tokens"], row["reasoning_tokens"]) == (20, 9, 3)


async def test_an_attempt_that_is_settled_before_the_next_begins_keeps_its_cost(
    ledger: Ledger,
) -> None:
    call = entry(generation_id=GENERATION)
    ledger.begin(call)
    ledger.complete(call.id, outcome(None), 1.5)
    assert await ledger.settle(call.id, Cost(Decimal("0.001"), Decimal("0.001"), "exact"))
    call.attempts.append(entry().attempts[0])
    ledger.begin(call)
    ledger.complete(call.id, outcome(Decimal("0.002")), 2.5)
    assert await ledger.flush()
    with contextlib.closing(open_reader(ledger.path)) as connection:
        costs = connection.execute("SELECT n, cost, is_settled FROM attempts ORDER BY n")
        assert costs.fetchall() == [(1, 10**9, 1), (2, 2 * 10**9, 1)]
        [whole] = connection.execute("SELECT cost, attempts, is_settled, ended FROM calls")
    assert whole == (3 * 10**9, 2, 1, "complete")


async def test_what_budgets_count_is_booked_beside_the_cost(ledger: Ledger) -> None:
    """With the operator's own key at a provider, its bill is not the upstream's."""
    for id in ("told", "settled", "given_up"):
        ledger.begin(entry(id))
        ledger.note(id, GENERATION)
    ledger.complete("told", outcome(counted=Decimal("0.02")), 1.5)
    ledger.complete("settled", outcome(None), 1.5)
    await ledger.settle("settled", Cost(Decimal("0.001"), Decimal("0.04"), "exact"))
    ledger.complete("given_up", outcome(source="computed", counted=Decimal("0.5")), 1.5)
    [row] = await ledger.unsettled(10)
    assert (row.attempt.cost, row.attempt.counted) == (COST, Decimal("0.5"))
    assert await ledger.spent(NOW) == {("default", "192.0.2.1"): Decimal("0.56")}


async def test_postponed_call_is_told_when_its_time_has_come(path: Path) -> None:
    now = NOW
    async with opened(path, clock=lambda: now) as ledger:
        ledger.begin(entry())
        ledger.note("req_1", GENERATION)
        ledger.complete("req_1", outcome(None), 1.5)
        [row] = await ledger.unsettled(10)
        ledger.postpone(row, NOW + 60)
        assert await ledger.unsettled(10) == []
        now = NOW + 60
        assert [row.tries for row in await ledger.unsettled(10)] == [1]


async def test_running_call_of_another_living_process_is_not_taken_over(path: Path) -> None:
    async with opened(path) as first, opened(path) as second:
        first.begin(entry())
        first.note("req_1", GENERATION)
        await first.flush()
        assert await second.unsettled(10) == []
        first.complete("req_1", outcome(None), 1.5)
        assert [row.id for row in await first.unsettled(10)] == ["req_1"]
        assert await second.unsettled(10) == []


async def test_call_of_a_process_that_fell_silent_is_taken_over_by_one_other(path: Path) -> None:
    later = time.time() + 120
    async with opened(path) as silent:
        silent.begin(entry())
        assert await silent.flush()
        async with opened(path, clock=lambda: later) as second:
            [row] = await second.unsettled(10)
            assert (row.attempt.ended, row.attempt.generation_id) == ("killed", None)
            assert await silent.unsettled(10) == []
            silent.complete("req_1", outcome(), 1.5)  # it only slept: what it knows is better
            await silent.flush()
            assert await second.unsettled(10) == []
    assert rows(path)["req_1"]["cost_source"] == "exact"


async def test_a_question_that_is_called_back_as_it_is_answered_is_called_back(
    ledger: Ledger,
) -> None:
    """Else whoever asks again and again goes on, and a process that stops waits for it."""
    asking = asyncio.create_task(ledger.unsettled(1))
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251  # holds the loop until the thread has told it the answer
    asyncio.get_running_loop().call_soon(asking.cancel)
    with pytest.raises(asyncio.CancelledError):
        await asking


# --- the end of a process ------------------------------------------------------------------

_CHILD = """
import asyncio, sys, time
from decimal import Decimal
from pathlib import Path
from keyproxy.ledger.ledger import opened
from tests import records
from tests.records import over

async def call(ledger, name):
    ledger.begin(records.entry(name, time.time()))
    print(name, flush=True)
    ledger.note(name, f"gen-{name}")

async def main(path, prefix, count):
    async with opened(Path(path)) as ledger:
        for number in range(0, int(count), 8):
            names = [f"{prefix}{number + more}" for more in range(8)]
            await asyncio.gather(*(call(ledger, name) for name in names))
            for name in names[:4]:
                ledger.complete(name, over(200, "complete", Decimal("0.01"), "exact"), 1)

asyncio.run(main(*sys.argv[1:]))
"""


def child(path: Path, prefix: str, count: int, **options: Any) -> subprocess.Popen[str]:
    """A process of its own that books calls and says which were acknowledged."""
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path), prefix, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        **options,
    )


async def test_killed_process_loses_no_acknowledged_row(path: Path) -> None:
    for kill in range(3):
        with child(path, f"{kill}-", 1_000_000) as process:
            assert process.stdout is not None
            acknowledged = [process.stdout.readline().strip() for _ in range(150 + 37 * kill)]
            process.kill()
            acknowledged += process.stdout.read().split("\n")[:-1]
        async with opened(path) as ledger:
            assert await ledger.flush()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert set(acknowledged) <= set(rows(path))


async def test_calls_of_a_killed_process_are_told_at_once_to_the_next(path: Path) -> None:
    with child(path, "", 1_000_000) as process:
        assert process.stdout is not None
        for _ in range(100):
            process.stdout.readline()
        process.kill()
    async with opened(path) as ledger:
        told = await ledger.unsettled(100_000)
    is_open = {id for id, row in rows(path).items() if not row["is_settled"]}
    assert is_open
    assert {row.id for row in told} == is_open
    assert {(row.attempt.ended, row.attempt.cost) for row in told} == {("killed", Decimal("0.03"))}


async def test_processes_that_begin_one_file_together_lose_nothing(path: Path) -> None:
    processes = [child(path, f"{name}-", 200) for name in range(4)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0] * 4
    assert len(rows(path)) == 800


async def test_call_that_a_process_took_back_is_not_settled_by_another(path: Path) -> None:
    """The other knows nothing of what its budgets count since."""
    later = NOW + 100
    async with (
        opened(path, clock=lambda: NOW) as still,
        opened(path, clock=lambda: later) as awake,
    ):
        still.begin(entry(generation_id=GENERATION))
        assert await still.flush()
        assert [row.attempt.ended for row in await awake.unsettled(9)] == ["killed"]
        assert await still.left("req_1", 1) == (False, True)
        still.complete("req_1", outcome(source="computed"), 1.5)
        assert await still.left("req_1", 1) == (True, True)
        assert not await awake.settle("req_1", Cost(COST, COST, "exact"))
        assert await still.settle("req_1", Cost(COST, COST, "exact"))


# --- a file in trouble ---------------------------------------------------------------------


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """No file of this process can grow beyond what SQLite's files need now."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    files = [path, *(path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm"))]
    largest = max(each.stat().st_size for each in files if each.exists())
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(largest, 65_536), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@posix
async def test_full_disk_lets_calls_go_on_and_is_said_once(path: Path) -> None:
    with capture_logs() as logs:
        async with opened(path) as ledger:
            ids = [f"req_{number}" for number in range(400)]
            with full_disk(path):
                for id in ids:
                    ledger.begin(entry(id))
                    ledger.complete(id, outcome(), 1.5)
                await becomes(ledger, is_failing=True)
            await written(ledger)
            assert not failing(ledger)
    assert sorted(rows(path)) == sorted(ids)
    assert ledger.losses == 0
    assert [log["event"] for log in logs] == [
        "the ledger cannot be written; calls go on",
        "the ledger is written again",
    ]


async def test_loss_is_counted_when_too_many_wait(path: Path) -> None:
    with capture_logs() as logs:
        async with opened(path, most_waiting=10, busy_seconds=0.05) as ledger:
            with locked(path):
                ledger.begin(entry("req_0"))
                await becomes(ledger, is_failing=True)
                for number in range(1, 400):
                    ledger.begin(entry(f"req_{number}"))
                assert not await ledger.flush()
                assert ledger.losses > 0
                lost = ledger.losses
            await written(ledger)
    assert len(rows(path)) == 400 - lost
    assert [log["event"] for log in logs] == [
        "the ledger cannot be written; calls go on",
        "calls are not booked in the ledger any more",
        "the ledger is written again",
        "the ledger is incomplete",
    ]


@pytest.mark.parametrize("most_waiting", [20_000, 25, 0])
async def test_losses_are_calls_and_not_what_was_ordered_for_them(
    path: Path, most_waiting: int
) -> None:
    """Each is begun, named by its answer and completed; one is open at the end, one never went."""
    ledger = Ledger(path, most_waiting=most_waiting, busy_seconds=0.05, patience_seconds=0.05)
    await ledger.start()
    with capture_logs() as logs, locked(path):
        for number in range(30):
            ledger.begin(entry(f"req_{number}"))
            ledger.note(f"req_{number}", GENERATION)
            ledger.complete(f"req_{number}", outcome(), 1.5)
        ledger.begin(entry("open"))
        ledger.note("open", GENERATION)
        ledger.begin(entry("withdrawn"))
        ledger.withdraw("withdrawn")
        await ledger.close()
        assert ledger._writer._thread
        await asyncio.to_thread(ledger._writer._thread.join)  # it may be late, and write again
    assert ledger.losses == 31
    assert (logs[-1]["event"], logs[-1]["losses"]) == ("the ledger is incomplete", 31)
    assert rows(path) == {}


async def test_a_call_whose_end_is_written_is_not_lost(path: Path) -> None:
    async with opened(path, most_waiting=2, busy_seconds=5, patience_seconds=0.05) as ledger:
        with locked(path):
            for number in range(4):
                ledger.begin(entry(f"req_{number}"))
            assert not await ledger.flush()
            assert ledger.losses == 2
        await written(ledger)
        for number in range(4):
            ledger.complete(f"req_{number}", outcome(), 1.5)
            assert await ledger.flush()
        assert ledger.losses == 0
    assert len(rows(path)) == 4


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program writes to the file and takes its time."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")


async def test_locked_file_holds_neither_calls_nor_the_loop(path: Path) -> None:
    async with opened(path, patience_seconds=0.1, busy_seconds=5) as ledger:
        with capture_logs() as logs, locked(path):
            ledger.begin(entry("req_1"))
            assert not failing(ledger)
            assert await ledger.flush() is False
            ledger.begin(entry("req_2"))
            await becomes(ledger, is_failing=True)
            assert not down(ledger)  # a process that was held up is nobody's alarm
            ledger.clock = lambda: time.time() + HANGING_SECONDS
            assert down(ledger)
        await written(ledger)
        await becomes(ledger, is_failing=False)
        assert not down(ledger)
        ledger.begin(entry("req_3"))
    assert len(rows(path)) == 3
    assert [log["event"] for log in logs] == [
        "the ledger is slow; calls go on, and their rows wait in memory"
    ]


async def test_file_locked_beyond_the_waiting_is_tried_again(path: Path) -> None:
    async with opened(path, patience_seconds=2, busy_seconds=0.05) as ledger:
        with locked(path):
            ledger.begin(entry())
            await becomes(ledger, is_failing=True)
        await written(ledger)
    assert list(rows(path)) == ["req_1"]
    assert ledger.losses == 0


async def test_file_that_is_locked_while_the_ledger_closes_costs_nothing(path: Path) -> None:
    ledger = Ledger(path, busy_seconds=0.05)
    await ledger.start()
    ledger.begin(entry())
    with locked(path):
        ledger.complete("req_1", outcome(), 1.5)
        closing = asyncio.create_task(ledger.close())
        async with asyncio.timeout(5):
            while not failing(ledger):
                await asyncio.sleep(0.01)
        assert not closing.done()
    await closing
    assert ledger.losses == 0
    assert rows(path)["req_1"]["cost"] == 88_000_000


async def test_closed_ledger_says_why_it_books_no_more(path: Path) -> None:
    async with opened(path) as ledger:
        pass
    with capture_logs() as logs:
        ledger.begin(entry())
    assert [log["why"] for log in logs] == ["it is closed"]
    assert ledger.losses == 1


@posix
async def test_removed_file_is_noticed_and_begun_anew(ledger: Ledger) -> None:
    ledger.begin(entry("before"))
    assert await ledger.flush()
    for each in ledger.path.parent.iterdir():
        each.unlink()
    with capture_logs() as logs:
        ledger.begin(entry("after"))
        ledger.complete("before", outcome(), 1.5)
        assert await ledger.flush()
    assert set(rows(ledger.path)) == {"before", "after"}
    assert [log["event"][:34] for log in logs] == ["the ledger was removed or replaced"]


@posix
async def test_file_moved_away_alone_leaves_its_log_to_nobody(ledger: Ledger) -> None:
    """As when a person moves the file and forgets -wal: the new file must not replay it."""
    ledger.begin(entry("before"))
    assert await ledger.flush()
    ledger.path.rename(ledger.path.with_name("old"))
    with capture_logs():
        ledger.begin(entry("after"))
        assert await ledger.flush()
    assert set(rows(ledger.path)) == {"after"}


def copied(path: Path) -> bytes:
    """A ledger of another day, as a copy of it would hold it."""
    with contextlib.closing(open_writer(path, 1.0)) as connection:
        connection.execute("INSERT INTO writers VALUES ('writer_of_then', 1)")
        connection.commit()
    return path.read_bytes()


def overwrite(path: Path, content: bytes) -> None:
    """In place, as ``cp`` and ``>`` of a shell do it."""
    with path.open("r+b") as file:
        file.truncate()
        file.write(content)


def replace_by(path: Path, content: bytes) -> None:
    path.with_name("other").write_bytes(content)
    path.with_name("other").replace(path)


@posix
@pytest.mark.parametrize("how", [overwrite, replace_by])
@pytest.mark.parametrize("what", [b"", b"rubbish" * 1000, b"SQLite format 3\0" + bytes(9000)])
async def test_rubbish_in_the_ledgers_place_is_moved_aside_and_the_ledger_begun_anew(
    path: Path, how: Callable[[Path, bytes], None], what: bytes
) -> None:
    with capture_logs() as logs:
        async with opened(path) as ledger:
            for id in ("before", "open"):
                ledger.begin(entry(id))
            ledger.complete("before", outcome(), 1.5)
            assert await ledger.flush()
            how(path, what)
            ledger.begin(entry("after"))
            ledger.complete("open", outcome(), 1.5)
            ledger.complete("after", outcome(), 1.5)
            assert await ledger.flush()
            assert not failing(ledger)
            ledger.note("after", GENERATION)
    assert {id: row["cost"] for id, row in rows(path).items()} == {
        "open": 88_000_000,
        "after": 88_000_000,
    }
    assert ledger.losses == 0
    events = ["the ledger was overwritten" if how is overwrite else "the ledger was removed or"]
    events += ["what is in the ledger's place"] * bool(what)
    assert all(log["event"].startswith(e) for log, e in zip(logs, events, strict=True)), logs
    aside = [each for each in path.parent.iterdir() if "no-ledger" in each.name]
    assert [each.read_bytes() for each in aside] == [what] * bool(what)


@posix
@pytest.mark.parametrize("how", [overwrite, replace_by])
async def test_a_copy_over_the_ledger_is_gone_on_with_as_it_is(
    path: Path, how: Callable[[Path, bytes], None]
) -> None:
    """What waited for the old file in memory or beside it must not get into the copy."""
    copy = copied(path.with_name("copy"))
    with capture_logs() as logs:
        async with opened(path) as ledger:
            for number in range(300):
                ledger.begin(entry(f"before_{number}"))
                ledger.complete(f"before_{number}", outcome(), 1.5)
            assert await ledger.flush()
            how(path, copy)
            ledger.begin(entry("after"))
    assert set(rows(path)) == {"after"}
    assert len(logs) == 1
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@posix
async def test_an_earlier_copy_of_the_same_ledger_is_noticed(path: Path) -> None:
    now = NOW
    async with opened(path, clock=lambda: now) as ledger:
        ledger.begin(entry("before"))
        assert await ledger.flush()
        early = path.read_bytes()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            now += 100
            ledger._writer._chore_at = 0.0
            ledger.begin(entry("later"))
            assert await ledger.flush()
            other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        with capture_logs() as logs:
            ledger.begin(entry("last"))
            assert await ledger.flush()
            assert logs == []  # another process had copied the log into the file
            overwrite(path, early)
            ledger.begin(entry("after"))
            assert await ledger.flush()
        assert [log["event"][:27] for log in logs] == ["the ledger was overwritten;"]
    assert set(rows(path)) == {"after"}


@posix
async def test_a_process_that_leaves_is_no_change_of_the_file(path: Path) -> None:
    """Also for one that has nothing of its own in the file yet, since somebody reads on."""
    with capture_logs() as logs:
        async with contextlib.AsyncExitStack() as stack:
            async with opened(path) as leaves:
                assert await leaves.flush()
                with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
                    reader.execute("BEGIN")
                    reader.execute("SELECT * FROM writers").fetchall()
                    stays = await stack.enter_async_context(opened(path))
                    assert await stays.flush()
            with contextlib.closing(sqlite3.connect(path)) as other:
                other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            assert await stays.flush()
    assert logs == []


@posix
async def test_a_clock_that_is_set_back_is_no_change_of_the_file(path: Path) -> None:
    now = NOW
    with capture_logs() as logs:
        async with opened(path, clock=lambda: now) as ledger:
            for number in range(4):
                ledger.begin(entry(f"req_{number}"))
                assert await ledger.flush()
                now -= 100
                ledger._writer._chore_at = 0.0
                ledger.begin(entry(f"again_{number}"))
                assert await ledger.flush()
                with contextlib.closing(sqlite3.connect(path)) as other:
                    other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    assert logs == []
    assert len(rows(path)) == 8


@posix
async def test_a_log_that_was_removed_alone_loses_nothing(path: Path) -> None:
    async with opened(path) as ledger:
        ledger.begin(entry("before"))
        assert await ledger.flush()
        path.with_name(f"{path.name}-wal").unlink()
        with capture_logs() as logs:
            ledger.begin(entry("after"))
            assert await ledger.flush()
        assert [log["event"][:34] for log in logs] == ["the ledger was removed or replaced"]
    assert set(rows(path)) == {"before", "after"}


@posix
async def test_checkpoints_of_any_process_are_no_change_of_the_file(path: Path) -> None:
    with capture_logs() as logs:
        async with opened(path) as one, opened(path) as two:
            for number in range(2000):
                ledger = (one, two)[number % 2]
                ledger.complete(f"req_{number}", outcome(), 1.5)
                ledger.begin(entry(f"req_{number}"))
                ledger.complete(f"req_{number}", outcome(), 1.5)
                if number % 100 == 0:
                    assert await ledger.flush()
    assert logs == []
    assert len(rows(path)) == 2000


# --- refused at the start ------------------------------------------------------------------


async def refused(path: Path, kind: type[LedgerFault], **options: Any) -> LedgerFault:
    with pytest.raises(LedgerFault) as caught:
        async with opened(path, **options):
            pass
    assert type(caught.value) is kind
    assert path.name in caught.value.found
    return caught.value


async def test_rubbish_is_refused_and_left_as_it_is(path: Path) -> None:
    path.write_bytes(b"rubbish" * 1000)
    fault = await refused(path, LedgerDamaged)
    assert "move the file away" in fault.expected
    assert path.read_bytes() == b"rubbish" * 1000


async def test_damage_inside_the_file_is_found(path: Path) -> None:
    async with opened(path) as ledger:
        for number in range(500):
            ledger.begin(entry(f"req_{number}"))
    content = bytearray(path.read_bytes())
    content[40_000:48_000] = os.urandom(8_000)
    path.write_bytes(content)
    await refused(path, LedgerDamaged)


async def test_database_of_another_program_is_refused(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE cookies (a)")
    fault = await refused(path, LedgerDamaged)
    assert "another program" in fault.found


async def test_ledger_of_a_newer_keyproxy_is_refused(path: Path) -> None:
    async with opened(path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    fault = await refused(path, LedgerNewer)
    assert "newer keyproxy" in fault.found


async def test_ledger_in_the_tables_of_an_older_keyproxy_is_refused_and_left(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE calls (id TEXT NOT NULL UNIQUE, cost INTEGER NOT NULL)")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
    fault = await refused(path, LedgerFault)
    assert "older keyproxy" in fault.found
    assert "move this one away" in fault.expected
    with pytest.raises(LedgerFault, match="older keyproxy"):
        open_reader(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("PRAGMA table_info(calls)").fetchall()[1][1] == "cost"


async def test_ledger_held_by_another_program_is_refused(path: Path) -> None:
    async with opened(path):
        pass
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        fault = await refused(path, LedgerFault, busy_seconds=0.05)
    assert "locked by another process" in fault.found


async def test_directory_in_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir()
    fault = await refused(path, LedgerUnwritable)
    assert "a directory" in fault.found


async def test_missing_folder_of_a_named_file_is_not_made(tmp_path: Path) -> None:
    fault = await refused(tmp_path / "nowhere" / "ledger.sqlite3", LedgerUnwritable)
    assert fault.paste == f"mkdir -p {tmp_path / 'nowhere'}"
    assert not (tmp_path / "nowhere").exists()


async def test_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fault = await refused(tmp_path / "file" / "ledger.sqlite3", LedgerUnwritable)
    assert "Not a directory" in fault.found


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder others can reach, whatever the rights above pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        (Path(name) / "data").mkdir()
        yield Path(name) / "data"


@contextmanager
def powerless() -> Iterator[int]:
    """Be a user who owns nothing here; root may write anywhere."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65_534)
    try:
        yield os.geteuid()
    finally:
        os.seteuid(before)


@posix
async def test_folder_without_rights_is_refused_with_uid_path_and_cure(data: Path) -> None:
    data.chmod(0o555)
    with powerless() as us:
        fault = await refused(data / "ledger.sqlite3", LedgerUnwritable)
    assert f"uid {us} cannot write" in fault.found
    assert "mode 0555" in fault.found
    assert fault.paste == f"chown -R {us} {data}"


@posix
async def test_folder_that_may_not_be_looked_into_is_refused_with_uid_path_and_cure(
    data: Path,
) -> None:
    data.chmod(0o600)
    with powerless() as us:
        fault = await refused(data / "ledger.sqlite3", LedgerUnwritable)
        with pytest.raises(LedgerUnwritable):
            open_reader(data / "ledger.sqlite3")
    assert f"uid {us} cannot" in fault.found
    assert fault.paste == f"chown -R {us} {data}"


@posix
async def test_folder_that_we_may_not_enter_is_refused_with_what_we_know(data: Path) -> None:
    (data / "inner").mkdir()
    data.chmod(0o000)
    with powerless() as us:
        fault = await refused(data / "ledger.sqlite3", LedgerUnwritable)
        inner = await refused(data / "inner" / "ledger.sqlite3", LedgerUnwritable)
    data.chmod(0o755)
    assert "mode 0000" in fault.found
    assert f"uid {us} cannot reach" in inner.found


async def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    fault = await refused(tmp_path / "file" / "x" / "ledger.sqlite3", LedgerUnwritable)
    assert "whose folder is not there" in fault.found


@posix
async def test_file_without_rights_is_refused(data: Path) -> None:
    async with opened(data / "ledger.sqlite3"):
        pass
    (data / "ledger.sqlite3").chmod(0o444)
    with powerless() as us:
        fault = await refused(data / "ledger.sqlite3", LedgerUnwritable)
    assert f"uid {us} cannot write" in fault.found


# --- the file ------------------------------------------------------------------------------


@posix
async def test_only_its_owner_may_read_the_files(ledger: Ledger) -> None:
    ledger.begin(entry())
    assert await ledger.flush()
    found = sorted(ledger.path.parent.iterdir())
    names = [each.name.removeprefix("ledger.sqlite3")[:7] for each in found]
    assert names == ["", "-shm", "-spool-", "-wal"]
    assert {each.stat().st_mode & 0o777 for each in found} == {0o600}


@posix
def test_only_its_owner_may_read_a_file_that_a_link_leads_to(tmp_path: Path) -> None:
    link, file = tmp_path / "ledger.sqlite3", tmp_path / "disk" / "ledger.sqlite3"
    file.parent.mkdir()
    link.symlink_to(file)
    before = os.umask(0o022)
    try:
        open_writer(link, 1.0).close()
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o600


@posix
async def test_folder_of_the_default_place_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = default_path()
    assert path is not None
    async with opened(path):
        assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("platform", "environ", "expected"),
    [
        ("linux", {"HOME": "/h"}, "/h/.local/state/keyproxy/ledger.sqlite3"),
        ("linux", {"HOME": "/h", "XDG_STATE_HOME": "/s"}, "/s/keyproxy/ledger.sqlite3"),
        (
            "linux",
            {"HOME": "/h", "XDG_STATE_HOME": "relative"},
            "/h/.local/state/keyproxy/ledger.sqlite3",
        ),
        (
            "darwin",
            {"HOME": "/h", "XDG_STATE_HOME": "/s"},
            "/h/Library/Application Support/keyproxy/ledger.sqlite3",
        ),
        ("win32", {"LOCALAPPDATA": "/L"}, "/L/keyproxy/ledger.sqlite3"),
        ("linux", {"HOME": "/h", "STATE_DIRECTORY": "/var/lib/k"}, "/var/lib/k/ledger.sqlite3"),
        ("linux", {"STATE_DIRECTORY": "/var/lib/k:/var/lib/x"}, "/var/lib/k/ledger.sqlite3"),
        (
            "linux",
            {"HOME": "/h", "STATE_DIRECTORY": "relative"},
            "/h/.local/state/keyproxy/ledger.sqlite3",
        ),
    ],
)
def test_default_place_is_the_users_state_folder(
    platform: str, environ: dict[str, str], expected: str
) -> None:
    assert default_path(environ, platform) == Path(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("shop", r"shop-[0-9a-f]{8}"), ("my ünit/é $x", r"_x-[0-9a-f]{8}"), ("a" * 90, "a{40}-.{8}")],
)
def test_each_working_folder_has_a_place_of_its_own_in_dev(
    tmp_path: Path, name: str, expected: str
) -> None:
    environ = {"HOME": "/h", "STATE_DIRECTORY": "/var/lib/k"}
    folder = tmp_path / name
    folder.mkdir(parents=True)
    path = dev_path(folder, environ, "linux")
    assert path is not None
    assert path.parent == Path("/h/.local/state/keyproxy")
    assert re.fullmatch(expected + r"\.sqlite3", path.name)
    (tmp_path / "link").symlink_to(folder)
    assert dev_path(tmp_path / "link", environ, "linux") == path
    (tmp_path / "other" / folder.name).mkdir(parents=True)
    assert dev_path(tmp_path / "other" / folder.name, environ, "linux") != path


async def test_old_calls_go_and_unsettled_ones_stay(path: Path) -> None:
    async with opened(path, clock=lambda: NOW) as ledger:
        for number in range(450):
            ledger.begin(entry(f"old_{number}", at=NOW - 401 * DAY))
            ledger.complete(f"old_{number}", outcome(), 1.5)
        ledger.begin(entry("young", at=NOW - 399 * DAY))
        ledger.complete("young", outcome(), 1.5)
        ledger.begin(entry("unsettled", at=NOW - 500 * DAY))
    async with opened(path, clock=lambda: NOW) as ledger:
        async with asyncio.timeout(20):
            while len(rows(path)) > 2:
                await ledger.flush()
    assert set(rows(path)) == {"young", "unsettled"}


# --- questions -----------------------------------------------------------------------------


async def book(ledger: Ledger, id: str, cost: str | None, source: str, **more: Any) -> None:
    said = {name: more.pop(name) for name in ("served", "usage") if name in more}
    status = more.pop("http_status", 200)
    ledger.begin(entry(id, **more))
    given = None if cost is None else Decimal(cost)
    ledger.complete(id, over(status, "complete", given, source, **said), 1)


@pytest.fixture
async def booked(ledger: Ledger) -> Ledger:
    """Four calls: two clients, two apps, two days, one of unknown cost."""
    usage = Usage(100, 10)
    await book(ledger, "1", "0.10", "exact", client="ann", served="a/b", usage=usage)
    await book(ledger, "2", "0.25", "computed", client="ann", at=NOW - DAY, usage=usage)
    await book(ledger, "3", None, "estimated", client="bob", http_status=None)
    await book(ledger, "4", "0.01", "exact", client="ann", app="shop", http_status=429)
    return ledger


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("day", [("2026-10-01", "0.25", 1), ("2026-10-02", "0.14", 3)]),
        ("app", [("default", "0.38", 3), ("shop", "0.01", 1)]),
        ("client", [("ann", "0.35", 2), ("bob", "0.03", 1), ("shop/ann", "0.01", 1)]),
        ("model", [("openai/gpt-4o-mini", "0.29", 3), ("a/b", "0.10", 1)]),
        ("status", [("200", "0.35", 2), ("complete", "0.03", 1), ("429", "0.01", 1)]),
    ],
)
async def test_summary_by(booked: Ledger, by: By, expected: list[tuple[str, str, int]]) -> None:
    found = await summed(booked, by)
    shown = [(row.name, row.spend, row.calls) for row in found.rows]
    assert shown == [(name, Decimal(usd), calls) for name, usd, calls in expected]
    total = found.total
    assert (total.exact, total.computed, total.estimated) == (
        Decimal("0.11"),
        Decimal("0.25"),
        Decimal("0.03"),
    )
    assert (total.calls, total.input_tokens, total.output_tokens) == (4, 200, 20)


async def test_summary_of_a_span_and_of_the_largest(booked: Ledger) -> None:
    found = await summed(booked, "client", since=NOW, until=NOW + 1, top=1)
    assert [row.name for row in found.rows] == ["ann"]
    assert (found.left_out, found.total.calls) == (2, 3)


async def test_running_windows_are_read_back_with_open_reservations(booked: Ledger) -> None:
    assert await booked.spent(NOW - DAY + 1) == {
        ("default", "ann"): Decimal("0.10"),
        ("default", "bob"): Decimal("0.03"),
        ("shop", "ann"): Decimal("0.01"),
    }


async def test_what_another_living_process_may_give_back_is_not_the_least_that_was_spent(
    ledger: Ledger,
) -> None:
    async with opened(ledger.path, clock=lambda: NOW) as other:
        other.begin(entry("req_open"))
        other.begin(entry("req_cut", generation_id=GENERATION))
        other.complete("req_cut", outcome(None), 1.5)
        other.begin(entry("req_done"))
        other.complete("req_done", outcome(), 1.5)
        assert await other.flush()
        open_and_cut = Decimal("0.06")
        assert await ledger.spent(NOW) == {("default", "192.0.2.1"): COST + open_and_cut}
        assert await ledger.spent(NOW, is_least=True) == {("default", "192.0.2.1"): COST}


def test_missing_ledger_is_told_apart(path: Path) -> None:
    with pytest.raises(LedgerMissing):
        open_reader(path)
    assert not path.exists()


@posix
async def test_ledger_that_may_only_be_read_is_read(data: Path) -> None:
    path = data / "ledger.sqlite3"
    async with opened(path) as ledger:
        ledger.begin(entry())
    path.chmod(0o444)
    data.chmod(0o555)
    with powerless(), contextlib.closing(open_reader(path)) as reader:
        assert reader.execute("SELECT id FROM calls").fetchall() == [("req_1",)]
        with pytest.raises(sqlite3.OperationalError):
            reader.execute("DELETE FROM calls")


async def test_what_was_given_back_is_given_back_once_and_forgotten_with_its_call(
    ledger: Ledger, path: Path
) -> None:
    ledger.begin(entry())
    ledger.note("req_1", GENERATION)
    ledger.complete("req_1", outcome(None), 1.5)
    [row] = await ledger.unsettled(10)
    assert [await ledger.release(row), await ledger.release(row)] == [True, False]
    assert await ledger.left("req_1", 1) == (True, False)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("DELETE FROM calls")  # as old rows go
        assert other.execute("SELECT * FROM released").fetchall() == []
