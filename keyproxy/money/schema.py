"""The tables of the ledger and how an older file becomes a newer one.

``PRAGMA user_version`` counts the migrations a file has been through. A file of a newer
keyproxy, and one of another program, are left as they are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

APPLICATION_ID = 0x6B70_7278  # "kprx": tells our files from other programs' (PRAGMA application_id)


class NewerSchema(Exception):
    """The file was written by a newer keyproxy."""


class ForeignSchema(Exception):
    """The file is a database of another program."""


def _first(connection: sqlite3.Connection) -> None:
    connection.execute(
        """CREATE TABLE calls (
            id TEXT NOT NULL UNIQUE,    -- the request id
            writer TEXT NOT NULL,       -- the process that books and settles it
            begun_at REAL NOT NULL,     -- unix seconds
            app TEXT NOT NULL,
            client TEXT NOT NULL,
            endpoint TEXT NOT NULL,
            models TEXT NOT NULL,       -- asked for, comma-separated
            served TEXT,
            key TEXT NOT NULL,          -- its public label
            generation_id TEXT,
            reserved INTEGER NOT NULL,  -- pico-USD (1e-12)
            cost INTEGER NOT NULL,      -- pico-USD; the reservation until more is known
            cost_source TEXT NOT NULL CHECK (cost_source IN ('exact', 'computed', 'estimated')),
            is_settled INTEGER NOT NULL,
            is_byok INTEGER,
            http_status INTEGER,
            ended TEXT,                 -- how; NULL while under way
            duration_seconds REAL,
            input_tokens INTEGER,
            output_tokens INTEGER,
            cached_tokens INTEGER,
            reasoning_tokens INTEGER,
            tries INTEGER NOT NULL DEFAULT 0,     -- of settling
            next_try_at REAL NOT NULL DEFAULT 0
        )"""
    )
    connection.execute("CREATE INDEX calls_begun_at ON calls (begun_at)")
    connection.execute("CREATE INDEX calls_unsettled ON calls (next_try_at) WHERE is_settled = 0")
    connection.execute("CREATE TABLE writers (id TEXT NOT NULL UNIQUE, seen_at REAL NOT NULL)")


def _second(connection: sqlite3.Connection) -> None:
    connection.execute(
        """CREATE TABLE newer (
            id TEXT NOT NULL UNIQUE,
            writer TEXT NOT NULL,
            begun_at REAL NOT NULL,
            app TEXT NOT NULL,
            client TEXT NOT NULL,
            endpoint TEXT NOT NULL,
            models TEXT NOT NULL,
            served TEXT,
            key TEXT NOT NULL,
            generation_id TEXT,
            reserved INTEGER,           -- NULL: nobody knows what the call may cost
            cost INTEGER,               -- NULL: nobody knows what it has cost
            cost_source TEXT NOT NULL CHECK (cost_source IN ('exact', 'computed', 'estimated')),
            is_settled INTEGER NOT NULL,
            is_byok INTEGER,
            http_status INTEGER,
            ended TEXT,
            duration_seconds REAL,
            input_tokens INTEGER,
            output_tokens INTEGER,
            cached_tokens INTEGER,
            reasoning_tokens INTEGER,
            tries INTEGER NOT NULL DEFAULT 0,
            next_try_at REAL NOT NULL DEFAULT 0,
            counted INTEGER NOT NULL    -- pico-USD; what budgets count
        )"""
    )
    connection.execute("INSERT INTO newer SELECT *, cost FROM calls")
    connection.execute("DROP TABLE calls")
    connection.execute("ALTER TABLE newer RENAME TO calls")
    connection.execute("CREATE INDEX calls_begun_at ON calls (begun_at)")
    connection.execute("CREATE INDEX calls_unsettled ON calls (next_try_at) WHERE is_settled = 0")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_first, _second)
"""Each runs once, in its order, all of them in one transaction. Never changed, only added to."""


def check(connection: sqlite3.Connection) -> int:
    """The file's version, 0 for an empty one. Raises NewerSchema, ForeignSchema."""
    [version] = connection.execute("PRAGMA user_version").fetchone()
    [application] = connection.execute("PRAGMA application_id").fetchone()
    [tables] = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise ForeignSchema
    if version > len(MIGRATIONS):
        raise NewerSchema
    return int(version)


def show_as_new(connection: sqlite3.Connection, version: int) -> None:
    """Let a file of an older ``version``, which may only be read, be read as one of this."""
    if version < 2:
        connection.execute("CREATE TEMP VIEW calls AS SELECT *, cost AS counted FROM main.calls")


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the file to this version. Raises NewerSchema, ForeignSchema, ``sqlite3.Error``."""
    if check(connection) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        # Looked at again: another process may have been here while we waited.
        for migration in MIGRATIONS[check(connection) :]:
            migration(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
