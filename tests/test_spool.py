"""What the ledger does not hold yet outlives the process that kept it."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyproxy.call import End
from keyproxy.ledger.entry import Entry
from keyproxy.ledger.file import LedgerFault
from keyproxy.ledger.ledger import opened
from keyproxy.ledger.opening import open_writer
from keyproxy.ledger.recovery import recover, write_orphans
from keyproxy.ledger.spool import HALF_BYTES, Spool, orphans
from keyproxy.ledger.tables import beginning, begun, ended
from keyproxy.record import Attempt
from tests import records

if sys.platform != "win32":
    import resource

posix = pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "[ledger].sqlite3"


def spools(path: Path) -> list[Path]:
    return [each for each in path.parent.iterdir() if "-spool-" in each.name]


def kept(path: Path) -> list[Any]:
    """What the next process finds; nothing is left of it afterwards."""
    return [value for values in orphans(path) for value in values]


def add(spool: Spool, value: object, order: int, written: int = 0) -> bool:
    """By an order of its own; the ledger has them up to ``written``."""
    is_kept = spool.add(value, written)
    spool.ordered(order)
    return is_kept


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """A disk that is full for files that grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def killed(spool: Spool) -> None:
    """The system closes what a process had open."""
    spool.close(is_empty=False)


def test_what_was_kept_is_found_once_in_its_order(path: Path) -> None:
    spool = Spool(path)
    values = [["ä", [1, 2.5, None]], "req_1", [["\ud800"], []]]
    assert all(add(spool, value, order) for order, value in enumerate(values, 1))
    killed(spool)
    assert kept(path) == values
    assert kept(path) == []
    assert spools(path) == []


def test_what_a_living_process_keeps_is_its_own(path: Path) -> None:
    spool = Spool(path)
    assert add(spool, "req_1", 1)
    assert kept(path) == []
    assert spool.is_there()
    killed(spool)
    assert kept(path) == ["req_1"]


def test_nothing_is_left_of_one_that_is_empty(path: Path) -> None:
    spool = Spool(path)
    assert add(spool, "req_1", 1)
    spool.close()
    assert spools(path) == []


def test_nothing_is_kept_beyond_its_room_until_the_ledger_has_caught_up(path: Path) -> None:
    spool, text, count = Spool(path), "x" * 1000, 0
    while add(spool, [count, text], count + 1):
        count += 1
    first_half = int(spool._last[0])
    assert 2 * HALF_BYTES - 3 * 1100 < count * 1023 < 2 * HALF_BYTES
    assert not add(spool, text, count + 1, first_half - 1)
    assert add(spool, [count, text], count + 1, first_half)
    killed(spool)
    assert [number for number, _ in kept(path)] == [*range(first_half, count + 1)]


def test_what_the_ledger_has_is_forgotten(path: Path) -> None:
    """A ledger that is begun anew must not get the calls of the one before."""
    spool, text = Spool(path), "x" * 1000
    count = 2 * HALF_BYTES // 1100
    assert all(add(spool, [number, text], number + 1) for number in range(count))
    assert add(spool, "last", count + 1, count)
    killed(spool)
    assert kept(path) == ["last"]


def test_what_no_order_has_yet_is_kept(path: Path) -> None:
    """Those of before are written; then it is put in line, too."""
    spool = Spool(path)
    assert add(spool, "before", 7)
    assert spool.add("between", 6)
    assert spool.add("after", 7)
    spool.ordered(9)
    assert add(spool, "last", 10, 8)
    killed(spool)
    assert kept(path) == ["before", "between", "after", "last"]


def test_what_is_larger_than_its_room_is_not_kept(path: Path) -> None:
    spool = Spool(path)
    assert add(spool, "before", 1)
    assert not add(spool, "x" * HALF_BYTES, 2)
    assert add(spool, "after", 3)
    killed(spool)
    assert kept(path) == ["before", "after"]


@given(st.lists(st.tuples(st.integers(0, 90_000), st.integers(0, 40)), max_size=60))
def test_all_that_the_ledger_lacks_is_found(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]]
) -> None:
    """``steps``: how long each value is, and how far the ledger is behind by then."""
    path = tmp_path_factory.mktemp("spool") / "ledger"
    spool, held, written = Spool(path), list[tuple[int, str]](), 0
    for order, (size, behind) in enumerate(steps, 1):
        written = max(written, order - 1 - behind)
        value = f"{order} " + "x" * size
        if add(spool, value, order, written):
            held.append((order, value))
    killed(spool)
    found = kept(path)
    lacking = [value for order, value in held if order > written]
    assert found[len(found) - len(lacking) :] == lacking


@pytest.mark.parametrize("cut_at", range(23))
def test_a_file_that_is_not_whole_breaks_nothing(path: Path, cut_at: int) -> None:
    spool = Spool(path)
    add(spool, "req_1", 1)
    killed(spool)
    [file] = spools(path)
    whole = file.read_bytes()
    assert len(whole) == 22
    file.write_bytes(whole[:cut_at])
    assert kept(path) == ["req_1"] * (cut_at == 22)
    assert spools(path) == []


@posix
def test_a_full_disk_is_nothing_to_those_who_add(path: Path) -> None:
    spool = Spool(path)
    with no_file_beyond(1000):
        assert add(spool, "before", 1)
        assert not add(spool, "x" * 2000, 2)
    assert add(spool, "after", 3)
    killed(spool)
    assert kept(path) == ["before", "after"]


@posix
def test_nothing_is_left_on_a_disk_that_has_no_room_for_one(path: Path) -> None:
    """It is tried again each second, or at each start."""
    with no_file_beyond(0), pytest.raises(OSError):  # noqa: PT011  # systems say it in many ways
        Spool(path)
    assert spools(path) == []


@posix
def test_a_disk_that_is_full_as_the_other_half_begins_costs_none_of_it(path: Path) -> None:
    spool = Spool(path)
    first, second = "x" * (HALF_BYTES - 1000), "y" * 2000
    assert add(spool, first, 1)
    with no_file_beyond(HALF_BYTES):
        assert not add(spool, second, 2)
    assert add(spool, second, 3)
    assert add(spool, "after", 4)
    killed(spool)
    assert kept(path) == [first, second, "after"]


@pytest.mark.parametrize("at", [4, 8, 12, 16])
def test_what_was_broken_off_ends_what_is_read(path: Path, at: int) -> None:
    """The end of a process may meet any of its stores; the call had not gone out then."""
    spool = Spool(path)
    add(spool, "req_1", 1)
    whole = spool._at
    add(spool, "req_2", 2)
    killed(spool)
    [file] = spools(path)
    content = bytearray(file.read_bytes())
    content[whole + at - 4] ^= 255
    file.write_bytes(content)
    assert kept(path) == ["req_1"]


@posix
def test_what_is_no_file_is_passed_over(path: Path) -> None:
    spool = Spool(path)
    add(spool, "req_1", 1)
    killed(spool)
    [file] = spools(path)
    others = [file.with_name(f"{file.name}{end}") for end in ("-folder", "-pipe", "-link")]
    others[0].mkdir()
    os.mkfifo(others[1])
    path.write_bytes(b"what the link leads to")
    others[2].symlink_to(path)
    assert kept(path) == ["req_1"]
    assert sorted(spools(path)) == sorted(others)
    assert path.exists()


@posix
def test_a_disk_without_locks_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(OSError, match="No locks"):
        Spool(path)
    assert spools(path) == []


@posix
def test_what_another_user_wrote_is_not_even_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(path)
    add(spool, "req_1", 1)
    killed(spool)
    with monkeypatch.context() as patched:
        patched.setattr("os.geteuid", lambda: os.getuid() + 1)
        assert kept(path) == []
    assert kept(path) == ["req_1"]


@posix
def test_a_disk_that_names_another_owner_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process could not take what is there for ours."""
    monkeypatch.setattr("os.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(OSError, match="belong to another user"):
        Spool(path)
    assert spools(path) == []


@pytest.mark.parametrize("value", [End.KILLED, Decimal(1)], ids=repr)
def test_what_no_row_is_made_of_is_refused(path: Path, value: object) -> None:
    spool = Spool(path)
    with pytest.raises(ValueError, match="unmarshallable"):
        spool.add((value,), 0)
    killed(spool)


def test_a_link_and_what_it_leads_to_are_one_ledger(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    spool = Spool(link)
    add(spool, "req_1", 1)
    killed(spool)
    assert kept(path) == ["req_1"]


# --- into the ledger -----------------------------------------------------------------------


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_writer(path, 1.0)) as connection:
        yield connection


def under_way(id: str, attempts: int = 1) -> Any:
    """As the spool gives a call back that has begun so many attempts."""
    entry: Entry = records.entry(id)
    first = entry.attempts[0]
    for _ in range(1, attempts):
        attempt = Attempt("m", "k", provider="groq")
        attempt.begin(first.begun_at, first.reserved)
        entry.attempts.append(attempt)
    rows = begun(beginning(entry, "writer_gone"), entry)
    return [list(rows.call), [list(each) for each in rows.attempts]]


def calls(connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return connection.execute("SELECT id, attempts, ended FROM calls ORDER BY id").fetchall()


def test_a_call_that_the_file_lacks_is_written(connection: sqlite3.Connection) -> None:
    recover([under_way("req_1"), under_way("req_2", 3)], connection)
    assert calls(connection) == [("req_1", 1, None), ("req_2", 3, None)]
    assert connection.execute("SELECT count(*) FROM several_attempts").fetchone() == (3,)


def test_what_the_file_has_of_a_call_is_later(connection: sqlite3.Connection) -> None:
    recover([under_way("req_1"), under_way("req_2")], connection)
    connection.execute("UPDATE calls SET ended = 'complete', cost = 1")
    recover([under_way("req_1"), under_way("req_2", 2)], connection)
    assert calls(connection) == [("req_1", 1, "complete"), ("req_2", 2, None)]


def test_a_call_that_ended_is_written_as_it_ended_once(connection: sqlite3.Connection) -> None:
    recover([under_way("req_1")], connection)
    entry, record = records.entry("req_1"), records.over(cost=Decimal("0.01"), source="exact")
    entry.end(record, 1.0)
    rows = ended(beginning(entry, "writer_gone"), entry, record, 1.0)
    recover([under_way("req_1"), rows, under_way("req_2")], connection)
    assert calls(connection) == [("req_1", 1, "complete"), ("req_2", 1, None)]
    connection.execute("UPDATE calls SET cost = 5")
    recover([rows], connection)
    assert connection.execute("SELECT DISTINCT cost FROM calls").fetchall() == [(5,)]


def test_a_call_that_was_taken_back_is_none(connection: sqlite3.Connection) -> None:
    again = [under_way("req_2"), ("req_2", 1), under_way("req_2", 2)]
    recover([under_way("req_1"), ("req_1", 1), ("req_unknown", 1), *again], connection)
    assert calls(connection) == [("req_2", 2, None)]


def test_a_call_that_was_taken_back_is_none_where_its_row_had_been_written(
    connection: sqlite3.Connection,
) -> None:
    """One that has gone out since, by a further attempt, stays."""
    recover([under_way("req_1"), under_way("req_2", 2)], connection)
    recover([("req_1", 1), ("req_2", 1)], connection)
    assert calls(connection) == [("req_2", 2, None)]


def test_a_faulty_row_takes_no_other_with_it(connection: sqlite3.Connection) -> None:
    faulty = under_way("bad")
    faulty[0][2] = float("nan")
    recover([faulty, under_way("good")], connection)
    assert calls(connection) == [("good", 1, None)]


SHAPES: tuple[object, ...] = (
    *(1, None, [], [[]], [[], []], [["id"], []], [[1, 2], 3]),
    *({"a": 1}, [[None] * 99, [[]]]),
)


@pytest.mark.parametrize("shape", SHAPES, ids=repr)
def test_what_is_no_call_takes_no_other_with_it(
    connection: sqlite3.Connection, shape: object
) -> None:
    recover([shape, under_way("req_1"), shape], connection)
    assert calls(connection) == [("req_1", 1, None)]


async def test_what_was_taken_back_is_taken_back_for_the_next_one(path: Path) -> None:
    async with opened(path) as ledger:
        for id in ("stays", "goes"):
            ledger.begin(records.entry(id))
        ledger.withdraw("goes")
        [file] = spools(path)
        copy = file.with_name(f"copy{file.name.removeprefix(path.name)}")
        copy.write_bytes(file.read_bytes())
    with closing(open_writer(path.with_name("copy"), 1.0)) as connection:
        write_orphans(path.with_name("copy"), connection)
        assert calls(connection) == [("stays", 1, None)]


async def test_calls_are_written_while_there_is_room_for_others(path: Path) -> None:
    """Else a few long ones would have those that follow stand nowhere."""
    async with opened(path) as ledger:
        ledger._writer.moment_seconds = 3600.0
        count = HALF_BYTES // 10_000 + 1
        for number in range(count):
            ledger.begin(records.entry(f"req_{number}", models=("m" * 10_000,)))
        with closing(open_writer(path, 1.0)) as connection:
            async with asyncio.timeout(10):
                while len(calls(connection)) < count:
                    await asyncio.sleep(0.01)


async def test_a_spool_that_was_removed_is_made_anew(path: Path) -> None:
    async with opened(path) as ledger:
        assert await ledger.flush()
        [file] = spools(path)
        file.unlink()
        ledger._writer._chore_at = 0.0
        assert await ledger.flush()
        assert len(spools(path)) == 1
    assert spools(path) == []


async def test_a_ledger_that_cannot_have_a_spool_is_refused_and_let_go(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 245)  # and what SQLite adds; a name has 255 bytes
    with pytest.raises(LedgerFault):
        async with opened(path):
            pass
    assert list(tmp_path.iterdir()) == [path]


async def test_another_process_writes_what_one_that_is_gone_could_not(path: Path) -> None:
    spool = Spool(path)
    add(spool, under_way("req_1"), 1)
    async with opened(path) as ledger:
        assert await ledger.flush()
        killed(spool)
        ledger._writer._chore_at = 0.0
        [told] = await ledger.unsettled(9)
    assert (told.id, told.attempt.ended) == ("req_1", "killed")
    assert spools(path) == []
