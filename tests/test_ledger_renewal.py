"""Ledgers of earlier versions: brought to today's tables whole, or left as they are."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from structlog.testing import capture_logs

from keyproxy.call import Cost
from keyproxy.ledger import schema
from keyproxy.ledger.file import LedgerUnwritable, ask, open_reader
from keyproxy.ledger.ledger import opened
from keyproxy.ledger.queries import summary
from tests.test_ledger import NOW, ROOT, entry, failing, outcome, posix, powerless

if sys.platform != "win32":
    import resource


OF_VERSION_2, OF_VERSION_3 = (
    gzip.decompress((Path(__file__).parent / f"ledger-{version}.sqlite3.gz").read_bytes())
    for version in (2, 3)
)
"""Nine calls of 2 October 2026, booked by the version of that time, which was then killed: 1 exact,
2 computed and to be asked about, 3 cut, 4 an error, 5 with a provider's own bill, 6 of a model
without a price, 7 without an answer, 8 and 9 under way, 9 without an id to ask by.

Version 3 had a row for each attempt. Seven calls, its writer alive: 1 exact, 2 left, 3 at another
provider, 4 with three attempts, of which the second may have cost, 5 with two, 6 and 7 under way, 7
with its second."""
IDS = [f"req_{number:024}" for number in range(10)]
SPENT = Decimal("0.121388")
COUNTED = Decimal("0.131388")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite3"
    path.write_bytes(OF_VERSION_2)
    return path


async def run(script: str, *arguments: Path | str) -> int | None:
    """The exit code of a Python of its own."""
    command = sys.executable, "-c", script, *map(str, arguments)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    return await process.wait()


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        yield connection


def held(path: Path, question: str) -> list[Any]:
    with reading(path) as connection:
        return connection.execute(question).fetchall()


def columns(path: Path, names: str, source: str) -> list[Any]:
    return held(path, f"SELECT {names} FROM {source}")  # noqa: S608  # words of these tests


def is_renewed(path: Path) -> bool:
    return held(path, "PRAGMA user_version") == [(schema.VERSION,)]


def copy_of(path: Path) -> Path:
    return path.with_name("ledger.sqlite3.bak")


def calls_of(path: Path) -> list[Any]:
    """What stands in the columns of before."""
    return columns(path, ", ".join(COLUMNS), "calls ORDER BY id")


COLUMNS = (
    *("id", "begun_at", "app", "client", "endpoint", "models", "served", "key", "generation_id"),
    *("reserved", "cost", "counted", "cost_source", "is_settled", "is_byok", "http_status"),
    *("ended", "duration_seconds", "input_tokens", "output_tokens", "cached_tokens"),
    *("reasoning_tokens", "tries", "next_try_at"),
)


async def renew(path: Path) -> None:
    async with opened(path, clock=lambda: NOW):
        pass


async def test_every_call_of_before_stays_as_it_was_and_was_one_attempt(path: Path) -> None:
    before = calls_of(path)
    assert len(before) == 9
    await renew(path)
    assert is_renewed(path)
    assert calls_of(path) == before
    same = "cost, counted, cost_source, is_settled, http_status, ended, reserved, key, begun_at"
    attempts = columns(path, f"call_id, {same}", "attempts ORDER BY call_id")
    assert attempts == columns(path, f"id, {same}", "calls ORDER BY id")
    told = held(path, "SELECT DISTINCT n, provider, class, price_source FROM attempts")
    assert told == [(1, "openrouter", None, None)]
    assert held(path, "SELECT count(*) FROM calls JOIN attempts ON answer_id = generation_id") == [
        (5,)
    ]
    assert held(path, "SELECT DISTINCT provider, attempts, queue_seconds FROM calls") == [
        ("openrouter", 1, None)
    ]


async def test_a_renewed_ledger_is_as_a_new_one(path: Path, tmp_path: Path) -> None:
    await renew(path)
    new = tmp_path / "new.sqlite3"
    await renew(new)
    kinds = "SELECT type, name FROM sqlite_schema ORDER BY name"
    assert held(path, kinds) == held(new, kinds)
    for table in ("calls", "attempts", "writers"):
        described = f"PRAGMA table_info({table})"
        names = [sorted(row[1:] for row in held(each, described)) for each in (path, new)]
        assert names[0] == names[1]


async def test_a_copy_of_the_file_in_its_old_tables_stays_beside_it(path: Path) -> None:
    before = calls_of(path)
    with capture_logs() as logs:
        await renew(path)
    copy = copy_of(path)
    assert held(copy, "PRAGMA user_version") == [(2,)]
    assert calls_of(copy) == before
    assert copy.stat().st_mode & 0o777 == 0o600
    assert [log["copy_of_before"] for log in logs] == [str(copy)]
    await renew(path)
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, copy.name]


async def test_the_copy_holds_what_was_in_the_log_of_the_file(path: Path) -> None:
    """A process of before that was killed leaves its newest rows there."""
    script = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
        "c.execute('UPDATE calls SET client = ?', ('in the log',)); c.commit(); os._exit(0)"
    )
    await run(script, path)
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0
    await renew(path)
    for each in (path, copy_of(path)):
        assert held(each, "SELECT DISTINCT client FROM calls") == [("in the log",)]


@pytest.mark.parametrize("is_new", [False, True])
async def test_usage_reads_ledgers_of_before_and_after(path: Path, *, is_new: bool) -> None:
    if is_new:
        await renew(path)
    found = ask(path, lambda connection: summary(connection, "client"))
    assert (found.total.calls, found.total.unknown) == (9, 1)
    assert (found.total.spend, found.total.counted) == (SPENT, COUNTED)
    [tries] = ask(path, lambda connection: summary(connection, "provider")).rows
    assert (tries.name, tries.spend, tries.input_tokens) == ("openrouter", SPENT, 2414)
    with contextlib.closing(open_reader(path)) as connection:
        assert connection.execute("SELECT DISTINCT attempts FROM calls").fetchall() == [(1,)]
        [sums] = connection.execute("SELECT count(*), sum(cost), sum(counted) FROM attempts")
    assert sums == (9, int(SPENT * 10**12), int(COUNTED * 10**12))


async def test_budgets_take_up_what_was_spent_before(path: Path) -> None:
    async with opened(path, clock=lambda: NOW) as ledger:
        spent = await ledger.spent(NOW - 86_400)
    assert sum(spent.values()) == COUNTED


async def test_calls_of_before_are_settled(path: Path) -> None:
    async with opened(path, clock=lambda: NOW) as ledger:
        found = {row.id[-1]: row for row in await ledger.unsettled(99)}
        assert sorted(found) == ["2", "3", "8", "9"]
        assert {found[n].attempt.ended for n in "89"} == {"killed"}
        true = Cost(Decimal("0.001"), Decimal("0.001"), "exact")
        assert await ledger.settle(found["3"].id, true)
        assert await ledger.settle(found["9"].id)
        assert sorted(row.id[-1] for row in await ledger.unsettled(99)) == ["2", "8"]
    stands = "cost, cost_source, is_settled, ended"
    settled = [(10**9, "exact", 1, "client_left"), (3 * 10**10, "estimated", 1, "killed")]
    for source in ("calls WHERE id", "attempts WHERE call_id"):
        assert columns(path, stands, f"{source} IN ('{IDS[3]}', '{IDS[9]}')") == settled


async def test_attempts_of_before_stand_as_they_did(path: Path) -> None:
    path.write_bytes(OF_VERSION_3)
    question = "SELECT * FROM attempts ORDER BY call_id, n"
    before, calls = held(path, question), calls_of(path)
    assert len(before) == 11
    with contextlib.closing(open_reader(path)) as older:
        assert older.execute(question).fetchall() == before
        spent = summary(older, "provider")
    await renew(path)
    assert is_renewed(path)
    assert (held(path, question), calls_of(path)) == (before, calls)
    assert held(path, "SELECT DISTINCT call_id FROM several_attempts") == [
        (f"req_{number:024}",) for number in (4, 5, 7)
    ]
    assert ask(path, lambda connection: summary(connection, "provider")) == spent
    assert {row.name: row.calls for row in spent.rows} == {"openrouter": 6, "groq": 4, "mistral": 1}


async def test_attempts_of_before_are_settled(path: Path) -> None:
    path.write_bytes(OF_VERSION_3)
    later = NOW + 1000.0  # its writer is gone
    async with opened(path, clock=lambda: later) as ledger:
        found = {(row.id[-1], row.n): row for row in await ledger.unsettled(99)}
        assert sorted(found) == [("2", 1), ("4", 2), ("6", 1), ("7", 2)]
        true = Cost(Decimal("0.001"), Decimal("0.001"), "exact")
        for row in found.values():
            assert await ledger.settle(row.id, true, n=row.n)
        assert await ledger.unsettled(99) == []
    sums = held(path, "SELECT cost / 1000000000 FROM calls WHERE is_settled ORDER BY id")
    assert [cost for (cost,) in sums] == [1, 1, 2, 5, 1, 1, 1]


# --- a renewal in trouble ------------------------------------------------------------------


KILLED_AT = """
import os, signal, sys
from pathlib import Path
from keyproxy.ledger import opening, schema

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

class Connection:
    "Counts the statements of the renewal, and dies before one."
    def __init__(self, connection):
        self.connection, self.left = connection, int(sys.argv[2])
    def execute(self, statement):
        if not self.left:
            kill()
        self.left -= 1
        return self.connection.execute(statement)

renew = schema.renew
schema.renew = lambda connection, version: renew(Connection(connection), version)
if sys.argv[2] == "copied":
    schema.renew = kill
if sys.argv[2] == "copying":
    Path.replace = kill
opening.open_writer(Path(sys.argv[1]), 1.0)
"""


@posix
@pytest.mark.parametrize("at", ["copying", "copied", "0", "1", "6", "9"])
async def test_a_renewal_that_is_killed_is_done_again(path: Path, at: str) -> None:
    before = calls_of(path)
    assert await run(KILLED_AT, path, at) == -signal.SIGKILL
    assert held(path, "PRAGMA user_version") == [(2,)]
    assert calls_of(path) == before
    await renew(path)
    assert is_renewed(path)
    assert calls_of(path) == calls_of(copy_of(path)) == before
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, copy_of(path).name]


def make_large(path: Path) -> None:
    """So that what is written anew takes more room than the file has."""
    path.write_bytes(OF_VERSION_3)
    with reading(path) as connection:
        for number in range(50):
            connection.execute(
                "INSERT INTO calls (id, booked_by, begun_at, app, client, endpoint, models, key,"
                " counted, cost_source, is_settled) VALUES (?, '', 1790981416, '', '', '', ?, '',"
                " 0, 'exact', 1)",
                (f"req_{number}", "x" * 4000),
            )
            connection.execute(
                "INSERT INTO attempts (call_id, n, provider, native_model, key, begun_at, counted,"
                " cost_source, rates, is_settled) VALUES (?, 1, 'groq', '', '', 1790981416, 0,"
                " 'exact', ?, 1)",
                (f"req_{number}", "x" * 4000),
            )
        connection.commit()


@posix
@pytest.mark.parametrize("room", [0.5, 1.0])
async def test_a_full_disk_leaves_the_file_as_it_is_and_says_so(path: Path, room: float) -> None:
    """It has no room for the copy, or for it alone."""
    make_large(path)
    before, limits = calls_of(path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(path.stat().st_size * room), limits[1]))
    try:
        with pytest.raises(LedgerUnwritable) as caught:
            await renew(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert ("without a copy" in caught.value.found) == (room < 1)
    assert copy_of(path).exists() == (room == 1)
    assert not is_renewed(path)
    assert calls_of(path) == before
    await renew(path)
    assert calls_of(path) == before


@posix
async def test_a_file_that_may_only_be_read_is_left_and_read() -> None:
    with TemporaryDirectory() as name:
        path = Path(name, "ledger.sqlite3")
        path.write_bytes(OF_VERSION_2)
        path.chmod(0o444)
        Path(name).chmod(0o555)
        with powerless():
            with pytest.raises(LedgerUnwritable):
                await renew(path)
            assert ask(path, lambda connection: summary(connection, "day")).total.spend == SPENT
        assert path.read_bytes() == OF_VERSION_2
        assert [each.name for each in Path(name).iterdir()] == [path.name]
        Path(name).chmod(0o700)


async def opening(path: Path) -> asyncio.subprocess.Process:
    script = (
        "import sys; from pathlib import Path; from keyproxy.ledger.opening import open_writer;"
        "input(); open_writer(Path(sys.argv[1]), 5.0)"
    )
    command = sys.executable, "-c", script, str(path)
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=subprocess.PIPE)


async def test_processes_that_renew_one_file_together_renew_it_once(path: Path) -> None:
    before = calls_of(path)
    processes = [await opening(path) for _ in range(4)]
    await asyncio.gather(*(each.communicate(b"\n") for each in processes))
    assert [each.returncode for each in processes] == [0] * 4
    assert is_renewed(path)
    assert calls_of(path) == calls_of(copy_of(path)) == before
    assert held(path, "SELECT count(*) FROM attempts") == [(9,)]


# --- an older process on a newer file ------------------------------------------------------


async def test_a_process_whose_file_is_renewed_logs_it_and_goes_on(tmp_path: Path) -> None:
    """As with a lost ledger: what it would write is of no use in tables it does not know."""
    path = tmp_path / "ledger.sqlite3"
    with capture_logs() as logs:
        async with opened(path) as ledger:
            ledger.begin(entry("req_before"))
            assert await ledger.flush()
            with reading(path) as newer:  # what every change of the tables does
                newer.execute("ALTER TABLE calls RENAME COLUMN booked_by TO of_process")
                newer.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
            ledger.begin(entry("req_after"))
            assert not await ledger.flush()
            assert failing(ledger)
            ledger.complete("req_before", outcome(), 1.5)
            ledger.complete("req_after", outcome(), 1.5)
            assert not await ledger.flush()
            assert await ledger.unsettled(9) == []
        assert ledger.losses == 2
    assert "newer keyproxy" in logs[0]["reason"]
    assert [log["event"] for log in logs] == [
        "the ledger cannot be written; calls go on",
        "the ledger is incomplete",
    ]
    assert held(path, "SELECT id, ended FROM calls") == [("req_before", None)]


BEFORE = "INSERT INTO calls (id, writer, begun_at) VALUES ('x', 'y', 0) ON CONFLICT (id) DO NOTHING"


async def test_a_renewed_file_takes_no_row_of_a_process_of_before(path: Path) -> None:
    with reading(path) as older:
        older.execute("SELECT count(*) FROM calls").fetchall()
        await renew(path)
        for statement in (BEFORE, "UPDATE calls SET cost = 0 WHERE id = 'x' AND writer = 'y'"):
            with pytest.raises(sqlite3.OperationalError, match="writer"):
                older.execute(statement)
