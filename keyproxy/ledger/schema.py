"""The tables of the ledger, and how those of an earlier keyproxy become them.

A call that needed one attempt, as nearly each does, is one row: its attempt stands in it. Those of
a call that needed several have a row each, settled by themselves, and the call's row holds the sum.
Who only reads asks the view ``attempts``, which shows both alike.

Each change of the tables takes away a name that the older ones need: a process of theirs that has
the file open finds out with its next statement, looks at the version and leaves the file alone.
"""

from __future__ import annotations

import sqlite3

VERSION = 4  # 3 had a row for each attempt, 2 none, 1 no column for what budgets count
OLDEST = 2
"""What ``renew`` makes today's tables of."""

_SEVERAL = """CREATE TABLE several_attempts (
            call_id TEXT NOT NULL,      -- of calls, one that needed several
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
_ATTEMPTS = """CREATE VIEW attempts AS
        SELECT * FROM several_attempts
        UNION ALL
        SELECT id, 1, provider, coalesce(native_model, models), key, attempt_class, http_status,
          coalesce(attempt_answer_id, generation_id), begun_at, attempt_connect_seconds,
          attempt_first_output_seconds, duration_seconds, reserved, cost, counted, cost_source,
          attempt_price_source, attempt_rates, is_settled, ended
        FROM calls WHERE attempts = 1"""
_SWEPT = """CREATE TRIGGER calls_gone AFTER DELETE ON calls BEGIN
            DELETE FROM several_attempts WHERE call_id = OLD.id;
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
            longest_gap_seconds REAL,
            attempt_class TEXT,         -- these as in several_attempts, where it needed one
            attempt_answer_id TEXT,     -- if it is not the generation's
            attempt_connect_seconds REAL,
            attempt_first_output_seconds REAL,
            attempt_price_source TEXT,
            attempt_rates TEXT
        )""",
    "CREATE INDEX calls_begun_at ON calls (begun_at)",
    "CREATE INDEX calls_unsettled ON calls (next_try_at) WHERE is_settled = 0",
    "CREATE TABLE writers (id TEXT NOT NULL UNIQUE, seen_at REAL NOT NULL)",
    _SEVERAL,
    _ATTEMPTS,
    _SWEPT,
)
_NEW_IN_4 = tuple(
    f"ALTER TABLE calls ADD COLUMN attempt_{column}"
    for column in (
        *("class TEXT", "answer_id TEXT", "connect_seconds REAL", "first_output_seconds REAL"),
        *("price_source TEXT", "rates TEXT"),
    )
)
_FROM_VERSION_2 = (
    "ALTER TABLE calls RENAME COLUMN writer TO booked_by",
    "ALTER TABLE calls ADD COLUMN provider TEXT NOT NULL DEFAULT 'openrouter'",
    "ALTER TABLE calls ADD COLUMN native_model TEXT",
    "ALTER TABLE calls ADD COLUMN attempts INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE calls ADD COLUMN queue_seconds REAL",
    "ALTER TABLE calls ADD COLUMN first_byte_seconds REAL",
    "ALTER TABLE calls ADD COLUMN longest_gap_seconds REAL",
    *_NEW_IN_4,
    _SEVERAL,
    _ATTEMPTS,
    _SWEPT,
)
_FROM_VERSION_3 = (
    "DROP TRIGGER calls_gone",
    "ALTER TABLE attempts RENAME TO several_attempts",
    *_NEW_IN_4,
    """UPDATE calls SET
         (attempt_class, attempt_answer_id, attempt_connect_seconds,
          attempt_first_output_seconds, attempt_price_source, attempt_rates) = (
           SELECT class, nullif(answer_id, generation_id), connect_seconds, first_output_seconds,
             price_source, rates
           FROM several_attempts WHERE call_id = id AND n = 1)
       WHERE attempts = 1""",
    """DELETE FROM several_attempts
       WHERE call_id IN (SELECT id FROM calls WHERE attempts = 1)""",
    _ATTEMPTS,
    _SWEPT,
)
_FROM = {0: _TABLES, 2: _FROM_VERSION_2, 3: _FROM_VERSION_3}
_OF_ONE = """
          {} AS attempt_class, {} AS attempt_answer_id, {} AS attempt_connect_seconds,
          {} AS attempt_first_output_seconds, {} AS attempt_price_source, {} AS attempt_rates"""
_NAMES = ["class", "answer_id", "connect_seconds", "first_output_seconds", "price_source", "rates"]
_SHOWN = {
    2: (
        f"""CREATE TEMP VIEW calls AS
        SELECT *, 'openrouter' AS provider, NULL AS native_model, 1 AS attempts,
          NULL AS queue_seconds, NULL AS first_byte_seconds, NULL AS longest_gap_seconds,
          {_OF_ONE.format(*["NULL"] * 6)}
        FROM main.calls""",  # noqa: S608  # our own words
        f"CREATE TEMP TABLE {_SEVERAL.removeprefix('CREATE TABLE ')}",
    ),
    3: (
        f"""CREATE TEMP VIEW calls AS
        SELECT calls.*,
          {_OF_ONE.format(*_NAMES)}
        FROM main.calls LEFT JOIN main.attempts ON attempts = 1 AND call_id = id""",  # noqa: S608  # the same
        """CREATE TEMP VIEW several_attempts AS
        SELECT * FROM main.attempts
        WHERE call_id IN (SELECT id FROM main.calls WHERE attempts > 1)""",
    ),
}


def renew(connection: sqlite3.Connection, version: int) -> None:
    """Make today's tables, of none (0) or of those of a version that is not older than
    ``OLDEST``."""
    for statement in _FROM[version]:
        connection.execute(statement)


def show_renewed(connection: sqlite3.Connection, version: int) -> None:
    """Let this connection read tables of that version as if they were today's."""
    for statement in (*_SHOWN[version], _ATTEMPTS.replace("VIEW", "TEMP VIEW")):
        connection.execute(statement)
