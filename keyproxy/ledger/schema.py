"""The tables of the ledger, and how those of an earlier keyproxy become them.

Each attempt has a row, also the only one of a call: whoever adds them up need not know how many a
call had, and each is settled by itself. The call's row holds the sum; its thread writes both in one
transaction, by a statement for each table, so that a plain call costs the loop a tuple more.

Each change of the tables takes away a name that the older ones need: a process of theirs that has
the file open finds out with its next statement, looks at the version and leaves the file alone.
"""

from __future__ import annotations

import sqlite3

VERSION = 3  # 2 had no attempts; 1 had no column for what budgets count, and was never released
OLDEST = 2
"""What ``renew`` makes today's tables of."""

_ATTEMPTS = """CREATE TABLE attempts (
            call_id TEXT NOT NULL,      -- of calls
            n INTEGER NOT NULL,         -- 1 is the first
            provider TEXT NOT NULL,
            native_model TEXT NOT NULL, -- the model's name there; several, comma-separated
            key TEXT NOT NULL,          -- its public label
            class TEXT,                 -- of the failure; NULL where there was none
            http_status INTEGER,
            answer_id TEXT,             -- the answer's own; some providers can be asked by it
            begun_at REAL NOT NULL,     -- unix seconds
            connect_seconds REAL,
            first_output_seconds REAL,
            duration_seconds REAL,
            reserved INTEGER,           -- these four as in calls
            cost INTEGER,
            counted INTEGER NOT NULL,
            cost_source TEXT NOT NULL CHECK (cost_source IN ('exact', 'computed', 'estimated')),
            price_source TEXT,          -- who says what a token costs
            rates TEXT,                 -- JSON: USD for one of each
            is_settled INTEGER NOT NULL,
            ended TEXT,                 -- how; NULL while under way
            PRIMARY KEY (call_id, n)
        ) WITHOUT ROWID"""
_SWEPT = """CREATE TRIGGER calls_gone AFTER DELETE ON calls BEGIN
            DELETE FROM attempts WHERE call_id = OLD.id;
        END"""
_TABLES = (
    """CREATE TABLE calls (
            id TEXT NOT NULL UNIQUE,    -- the request id
            booked_by TEXT NOT NULL,    -- the process that settles it: of writers
            begun_at REAL NOT NULL,     -- unix seconds
            app TEXT NOT NULL,
            client TEXT NOT NULL,
            endpoint TEXT NOT NULL,
            models TEXT NOT NULL,       -- asked for, comma-separated
            served TEXT,
            key TEXT NOT NULL,          -- its public label
            generation_id TEXT,         -- OpenRouter's
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
            next_try_at REAL NOT NULL DEFAULT 0,
            provider TEXT NOT NULL DEFAULT 'openrouter',  -- these two of the last attempt
            native_model TEXT,
            attempts INTEGER NOT NULL DEFAULT 1,  -- how many; money is the sum of theirs
            queue_seconds REAL,
            first_byte_seconds REAL,
            longest_gap_seconds REAL
        )""",
    "CREATE INDEX calls_begun_at ON calls (begun_at)",
    "CREATE INDEX calls_unsettled ON calls (next_try_at) WHERE is_settled = 0",
    "CREATE TABLE writers (id TEXT NOT NULL UNIQUE, seen_at REAL NOT NULL)",
    _ATTEMPTS,
    _SWEPT,
)
_ONE_ATTEMPT = """
    SELECT id AS call_id, 1 AS n, 'openrouter' AS provider, models AS native_model, key,
      NULL AS class, http_status, generation_id AS answer_id, begun_at, NULL AS connect_seconds,
      NULL AS first_output_seconds, duration_seconds, reserved, cost, counted, cost_source,
      NULL AS price_source, NULL AS rates, is_settled, ended
    FROM main.calls"""
_AS_CALLS = """
    SELECT *, 'openrouter' AS provider, NULL AS native_model, 1 AS attempts, NULL AS queue_seconds,
      NULL AS first_byte_seconds, NULL AS longest_gap_seconds
    FROM main.calls"""
_FROM_VERSION_2 = (
    "ALTER TABLE calls RENAME COLUMN writer TO booked_by",
    "ALTER TABLE calls ADD COLUMN provider TEXT NOT NULL DEFAULT 'openrouter'",
    "ALTER TABLE calls ADD COLUMN native_model TEXT",
    "ALTER TABLE calls ADD COLUMN attempts INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE calls ADD COLUMN queue_seconds REAL",
    "ALTER TABLE calls ADD COLUMN first_byte_seconds REAL",
    "ALTER TABLE calls ADD COLUMN longest_gap_seconds REAL",
    _ATTEMPTS,
    _SWEPT,
    f"INSERT INTO attempts {_ONE_ATTEMPT} ORDER BY id",
)


def create(connection: sqlite3.Connection) -> None:
    """Make the tables."""
    for statement in _TABLES:
        connection.execute(statement)


def renew(connection: sqlite3.Connection) -> None:
    """Make today's tables of those of ``OLDEST``; every call of before was one attempt."""
    for statement in _FROM_VERSION_2:
        connection.execute(statement)


def show_renewed(connection: sqlite3.Connection) -> None:
    """Let this connection read tables of ``OLDEST`` as if they were today's."""
    connection.execute(f"CREATE TEMP VIEW attempts AS {_ONE_ATTEMPT}")
    connection.execute(f"CREATE TEMP VIEW calls AS {_AS_CALLS}")
