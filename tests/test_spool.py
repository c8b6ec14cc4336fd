"""What the ledger does not hold yet outlives the process that kept it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyproxy.ledger.entry import Entry
from keyproxy.ledger.ledger import opened
from keyproxy.ledger.opening import open_writer
from keyproxy.ledger.spool import HALF_BYTES, Spool, left
from keyproxy.ledger.tables import beginning, begun, ended, recover
from keyproxy.record import Attempt
from tests import records


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "[ledger].sqlite3"


def spools(path: Path) -> list[Path]:
    return [each for each in path.parent.iterdir() if "-spool-" in each.name]


def kept(path: Path) -> list[Any]:
    """What the next process finds; nothing is left of it afterwards."""
    return [value for values in left(path) for value in values]


def killed(spool: Spool) -> None:
    """The system closes what a process had open."""
    spool.close(is_empty=False)


def test_what_was_kept_is_found_once_in_its_order(path: Path) -> None:
    spool = Spool(path)
    values = [["ä", [1, 2.5, None]], "req_1", [["\ud800"], []]]
    assert all(spool.keep(value, order, 0) for order, value in enumerate(values, 1))
    killed(spool)
    assert kept(path) == values
    assert kept(path) == []
    assert spools(path) == []


def test_what_a_living_process_keeps_is_its_own(path: Path) -> None:
    spool = Spool(path)
    assert spool.keep("req_1", 1, 0)
    assert kept(path) == []
    assert spool.is_there()
    killed(spool)
    assert kept(path) == ["req_1"]


def test_nothing_is_left_of_one_that_is_empty(path: Path) -> None:
    spool = Spool(path)
    assert spool.keep("req_1", 1, 0)
    spool.close()
    assert spools(path) == []


def test_nothing_is_kept_beyond_its_room_until_the_ledger_has_caught_up(path: Path) -> None:
    spool, text, count = Spool(path), "x" * 1000, 0
    while spool.keep([count, text], count + 1, 0):
        count += 1
    first_half = spool._last[0]
    assert 2 * HALF_BYTES - 3 * 1100 < count * 1016 < 2 * HALF_BYTES
    assert not spool.keep("too early", count + 1, first_half - 1)
    assert spool.keep("last", count + 1, first_half)
    killed(spool)
    *found, last = kept(path)
    assert [number for number, _ in found] == [*range(first_half, count)]
    assert last == "last"


def test_what_is_larger_than_its_room_is_not_kept(path: Path) -> None:
    spool = Spool(path)
    assert spool.keep("before", 1, 0)
    assert not spool.keep("x" * HALF_BYTES, 2, 1)
    assert spool.keep("after", 3, 2)
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
        if spool.keep(value, order, written):
            held.append((order, value))
    killed(spool)
    found = kept(path)
    lacking = [value for order, value in held if order > written]
    assert found[len(found) - len(lacking) :] == lacking


@pytest.mark.parametrize("cut_at", [0, 3, 4, 100, HALF_BYTES - 1, HALF_BYTES])
def test_a_file_that_is_not_whole_breaks_nothing(path: Path, cut_at: int) -> None:
    spool = Spool(path)
    spool.keep("req_1", 1, 0)
    killed(spool)
    [file] = spools(path)
    file.write_bytes(file.read_bytes()[:cut_at])
    assert kept(path) == (["req_1"] if cut_at == HALF_BYTES else [])
    assert spools(path) == []


@pytest.mark.parametrize("at", [4, 8, 12, 16])
def test_what_was_broken_off_ends_what_is_read(path: Path, at: int) -> None:
    """The end of a process may meet any of its stores; the call had not gone out then."""
    spool = Spool(path)
    spool.keep("req_1", 1, 0)
    whole = spool._at
    spool.keep("req_2", 2, 0)
    killed(spool)
    [file] = spools(path)
    content = bytearray(file.read_bytes())
    content[whole + at - 4] ^= 255
    file.write_bytes(content)
    assert kept(path) == ["req_1"]


def test_a_file_that_cannot_be_read_is_passed_over(path: Path) -> None:
    path.with_name(f"{path.name}-spool-folder").mkdir()
    spool = Spool(path)
    spool.keep("req_1", 1, 0)
    killed(spool)
    assert kept(path) == ["req_1"]


def test_a_link_and_what_it_leads_to_are_one_ledger(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    spool = Spool(link)
    spool.keep("req_1", 1, 0)
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
    again = [under_way("req_2"), "req_2", under_way("req_2", 2)]
    recover([under_way("req_1"), "req_1", "req_unknown", *again], connection)
    assert calls(connection) == [("req_2", 2, None)]


def test_a_faulty_row_takes_no_other_with_it(connection: sqlite3.Connection) -> None:
    faulty = under_way("bad")
    faulty[0][2] = float("nan")
    recover([faulty, under_way("good")], connection)
    assert calls(connection) == [("good", 1, None)]


async def test_another_process_writes_what_one_that_is_gone_could_not(path: Path) -> None:
    spool = Spool(path)
    spool.keep(under_way("req_1"), 1, 0)
    async with opened(path) as ledger:
        assert await ledger.flush()
        killed(spool)
        ledger._writer._chore_at = 0.0
        [told] = await ledger.unsettled(9)
    assert (told.id, told.attempt.ended) == ("req_1", "killed")
    assert spools(path) == []
