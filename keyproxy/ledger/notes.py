"""What stands beside the rows of calls, for other processes: what somebody was told of and not yet
that it is over, and which reservations were given back for a process that had gone.

Tables of their own, made by the first that has something to say: an older keyproxy does not miss
them. Each function takes the connection last, and belongs to the ledger's thread.
"""

from __future__ import annotations

import sqlite3

from keyproxy.ledger.tables import GONE_AFTER_SECONDS

_TABLE = """
    CREATE TABLE IF NOT EXISTS told (
        booked_by TEXT NOT NULL, id TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (booked_by, id)
    ) WITHOUT ROWID"""
_RELEASED = """
    CREATE TABLE IF NOT EXISTS released (
        call_id TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (call_id, n)
    ) WITHOUT ROWID"""
_SWEPT = """
    CREATE TRIGGER IF NOT EXISTS released_gone AFTER DELETE ON calls BEGIN
        DELETE FROM released WHERE call_id = OLD.id;
    END"""
_ADOPT = """
    UPDATE OR REPLACE told SET booked_by = :me
    WHERE booked_by NOT IN (SELECT id FROM writers WHERE seen_at > :gone)"""


def keep(id: str, text: str | None, writer: str, connection: sqlite3.Connection) -> None:
    """Keep ``text`` under ``id``; None: nothing any more."""
    connection.execute(_TABLE)
    if text is None:
        connection.execute("DELETE FROM told WHERE booked_by = ? AND id = ?", (writer, id))
    else:
        connection.execute("INSERT OR REPLACE INTO told VALUES (?, ?, ?)", (writer, id, text))


def kept(writer: str, now: float, connection: sqlite3.Connection) -> list[str]:
    """What the writer keeps, with that of writers that are gone, which is its now."""
    if not _has("told", connection):
        return []
    connection.execute(_ADOPT, {"me": writer, "gone": now - GONE_AFTER_SECONDS})
    found = connection.execute("SELECT text FROM told WHERE booked_by = ?", (writer,))
    return [text for (text,) in found]


def release(id: str, n: int, writer: str, connection: sqlite3.Connection) -> bool:
    """Whether it is for this writer to give back what was set aside for an attempt: its process is
    gone, and nobody has."""
    connection.execute(_RELEASED)
    connection.execute(_SWEPT)
    claimed = connection.execute(
        "INSERT OR IGNORE INTO released SELECT id, ? FROM calls WHERE id = ? AND booked_by = ?",
        (n, id, writer),
    )
    return claimed.rowcount == 1


def left(id: str, n: int, writer: str, connection: sqlite3.Connection) -> tuple[bool, bool]:
    """Whether no other writer has a call, and none has given back what was set aside for its
    ``n``-th attempt."""
    row = connection.execute("SELECT booked_by FROM calls WHERE id = ?", (id,)).fetchone()
    is_released = False
    if _has("released", connection):
        asked = "SELECT 1 FROM released WHERE call_id = ? AND n = ?"
        is_released = connection.execute(asked, (id, n)).fetchone() is not None
    return row is None or row[0] == writer, not is_released


def _has(table: str, connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,))
    return found.fetchone() is not None
