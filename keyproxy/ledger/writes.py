"""What the ledger's thread changes in the file. ``reading`` has what is only read.

Each function takes the connection last, and belongs to the thread; times are unix times.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Mapping, Sequence
from itertools import chain

from keyproxy.call import End
from keyproxy.ledger.entry import COLUMNS, UNSETTLED_COLUMNS, Unsettled
from keyproxy.ledger.writer import Row

GONE_AFTER_SECONDS = 60.0
"""A writer that has not said for so long that it lives has gone."""

# A row that went missing, or into a file that is gone, is made whole by its completion.
_ROW = f"({', '.join('?' for _ in COLUMNS)})"
_BOOK = f"""
    INSERT INTO calls ({", ".join(COLUMNS)}) VALUES %s
    ON CONFLICT (id) DO UPDATE SET {", ".join(f"{n} = excluded.{n}" for n in COLUMNS[1:])}
    WHERE NOT (calls.is_settled AND calls.cost_source = 'exact')"""  # noqa: S608  # our own names
_SWEEP = """
    DELETE FROM calls WHERE rowid IN (
        SELECT rowid FROM calls WHERE begun_at < ? AND is_settled ORDER BY begun_at LIMIT ?)"""
_ADOPT = f"""
    UPDATE calls SET writer = :me, ended = coalesce(ended, '{End.KILLED}')
    WHERE is_settled = 0 AND writer != :me
      AND writer NOT IN (SELECT id FROM writers WHERE seen_at > :gone)"""  # noqa: S608  # our own word
_UNSETTLED = f"""
    SELECT {", ".join(UNSETTLED_COLUMNS)}
    FROM calls
    WHERE is_settled = 0 AND next_try_at <= :now AND writer = :me AND ended IS NOT NULL
    ORDER BY next_try_at, begun_at LIMIT :limit"""  # noqa: S608  # our own names


def book(rows: Sequence[Row], connection: sqlite3.Connection) -> None:
    """Write these whole rows, begun or complete, by one statement."""
    connection.execute(_booking(len(rows)), list(chain.from_iterable(rows)))


@functools.cache
def _booking(rows: int) -> str:
    return _BOOK % ", ".join([_ROW] * rows)


def sweep(before: float, most: int, connection: sqlite3.Connection) -> int:
    """Let settled rows that began before then go, ``most`` at once; how many went."""
    return connection.execute(_SWEEP, (before, most)).rowcount


def update(
    id: str, writer: str, said: Mapping[str, object], connection: sqlite3.Connection
) -> bool:
    """Change a row of the writer's that is not settled; whether there was one."""
    changes = ", ".join(f"{name} = ?" for name in said)
    changed = connection.execute(
        f"UPDATE calls SET {changes} WHERE id = ? AND writer = ? AND is_settled = 0",  # noqa: S608  # our own names
        (*said.values(), id, writer),
    )
    return changed.rowcount == 1


def is_of(id: str, writer: str, connection: sqlite3.Connection) -> bool:
    """Whether no other writer has the row."""
    row = connection.execute("SELECT writer FROM calls WHERE id = ?", (id,)).fetchone()
    return row is None or row[0] == writer


def delete(id: str, connection: sqlite3.Connection) -> None:
    """Take a row out again, whose call never went out."""
    connection.execute("DELETE FROM calls WHERE id = ?", (id,))


def postpone(id: str, until: float, connection: sqlite3.Connection) -> None:
    """Count a try, and let the next one wait until then (unix time)."""
    connection.execute(
        "UPDATE calls SET tries = tries + 1, next_try_at = ? WHERE id = ?", (until, id)
    )


def unsettled(
    writer: str, now: float, limit: int, connection: sqlite3.Connection
) -> list[Unsettled]:
    """The writer's rows that are due, with those of writers that are gone, which are its now."""
    asked = {"me": writer, "now": now, "gone": now - GONE_AFTER_SECONDS, "limit": limit}
    connection.execute("DELETE FROM writers WHERE seen_at <= :gone", asked)
    connection.execute(_ADOPT, asked)
    return [Unsettled.of_row(row) for row in connection.execute(_UNSETTLED, asked)]
