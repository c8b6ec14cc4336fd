"""The tables of the ledger, and whether those of a file are these.

``PRAGMA user_version`` says which ones a file has. A file with others, and one of another
program, are left as they are.
"""

from __future__ import annotations

import sqlite3

APPLICATION_ID = 0x6B70_7278  # "kprx": tells our files from other programs' (PRAGMA application_id)
VERSION = 2  # 1 had no column for what budgets count, and was never released


class OlderSchema(Exception):
    """The file has the tables of an older keyproxy."""


class NewerSchema(Exception):
    """The file was written by a newer keyproxy."""


class ForeignSchema(Exception):
    """The file is a database of another program."""


def _create(connection: sqlite3.Connection) -> None:
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
            reserved INTEGER,           -- pico-USD (1e-12); NULL: nobody knows what it may cost
            cost INTEGER,               -- pico-USD; the reservation until more is known
            counted INTEGER NOT NULL,   -- pico-USD; what budgets count
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


def is_made(connection: sqlite3.Connection) -> bool:
    """Whether the tables are there. Raises OlderSchema, NewerSchema, ForeignSchema."""
    [version] = connection.execute("PRAGMA user_version").fetchone()
    [application] = connection.execute("PRAGMA application_id").fetchone()
    [tables] = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise ForeignSchema
    if version > VERSION:
        raise NewerSchema
    if 0 < version < VERSION:
        raise OlderSchema
    return bool(version)


def make(connection: sqlite3.Connection) -> None:
    """Make the tables where there are none. Raises as ``is_made``, and ``sqlite3.Error``."""
    if is_made(connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        if is_made(connection):  # another process may have been here while we waited
            return
        _create(connection)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
