"""What somebody was told of and not yet that it is over, kept for the next process.

A table of its own, made by the first that has something to keep: an older keyproxy does not miss
it. Each function takes the connection last, and belongs to the ledger's thread.
"""

from __future__ import annotations

import sqlite3

from keyproxy.ledger.tables import GONE_AFTER_SECONDS

_TABLE = """
    CREATE TABLE IF NOT EXISTS told (
        booked_by TEXT NOT NULL, id TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (booked_by, id)
    ) WITHOUT ROWID"""
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
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'told'").fetchall():
        return []
    connection.execute(_ADOPT, {"me": writer, "gone": now - GONE_AFTER_SECONDS})
    found = connection.execute("SELECT text FROM told WHERE booked_by = ?", (writer,))
    return [text for (text,) in found]
