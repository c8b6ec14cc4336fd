"""What processes that are gone have left in their spools, written into the ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from keyproxy.ledger.spool import orphans
from keyproxy.ledger.tables import COUNT, FAULTS_OF_ONE, HAS_ENDED, NULL, Rows, book, delete

_PATIENCE_SECONDS = 0.5
_HAS = """
    SELECT 1 FROM calls WHERE id = ? AND (attempts > ? OR attempts = ? AND (ended NOT NULL OR ?))"""
_log = structlog.get_logger("keyproxy.ledger")


def write_orphans(ledger: Path, connection: sqlite3.Connection) -> None:
    """All of them. Raises ``sqlite3.Error``, after which the rest is still there."""
    for left in orphans(ledger):
        recover(left, connection)


def take_over(ledger: Path) -> None:
    """Write what was left, if the file can be written just now."""
    address = f"{ledger.absolute().as_uri()}?mode=rw"
    how: Any = {"uri": True, "isolation_level": None, "timeout": _PATIENCE_SECONDS}
    with suppress(OSError, sqlite3.Error), closing(sqlite3.connect(address, **how)) as connection:
        write_orphans(ledger, connection)


def recover(left: Iterable[Any], connection: sqlite3.Connection) -> None:
    """Write calls as far as the file does not have them, ``Rows`` of those that began or ended; and
    take out those that were taken back, of which there are the id and the count of attempts."""
    found: dict[str, Rows | int] = {}
    for each in left:
        with _noted():
            call, attempts = each
            if isinstance(call, str):
                found[call] = int(attempts)
            else:
                found[str(call[0])] = Rows(tuple(call), tuple(map(tuple, attempts)))
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        for id, rows in found.items():
            with _noted():
                if isinstance(rows, int):
                    delete(id, rows, connection)
                    continue
                count, is_under_way = rows.call[COUNT], rows.call[HAS_ENDED] == NULL
                if not connection.execute(_HAS, (id, count, count, is_under_way)).fetchone():
                    book([rows], connection)


@contextmanager
def _noted() -> Iterator[None]:
    """What is wrong with one call takes no other with it."""
    try:
        yield
    except (*FAULTS_OF_ONE, LookupError):
        _log.exception("a call of a process that is gone could not be written")
