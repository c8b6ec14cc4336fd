"""The tables of the ledger."""

from __future__ import annotations

import sqlite3

VERSION = 2  # of the tables; 1 had no column for what budgets count, and was never released

_TABLES = (
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
        )""",
    "CREATE INDEX calls_begun_at ON calls (begun_at)",
    "CREATE INDEX calls_unsettled ON calls (next_try_at) WHERE is_settled = 0",
    "CREATE TABLE writers (id TEXT NOT NULL UNIQUE, seen_at REAL NOT NULL)",
)


def create(connection: sqlite3.Connection) -> None:
    """Make the tables."""
    for statement in _TABLES:
        connection.execute(statement)
