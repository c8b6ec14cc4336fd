"""What the ledger does not hold yet outlives the process that kept it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyproxy.ledger.spool import HALF_BYTES, Spool, left


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
