"""Every change of the ledger's rows. ``queries`` has what is only read.

Each function takes the connection last, and belongs to the ledger's thread; times are unix times.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

from keyproxy.call import Cost, End, Told
from keyproxy.ledger.entry import Entry, Unsettled, from_pico, to_pico
from keyproxy.record import Attempt, Record

GONE_AFTER_SECONDS = 60.0
"""A writer that has not said for so long that it lives has gone."""
ROWS_AT_ONCE = 16, 4, 1
"""In one statement, the most first. SQLite before 3.32 took 999 values, and what it keeps of each
statement takes 20 KB a row."""

FAULTS_OF_ONE = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    ValueError,
    TypeError,
    OverflowError,
)
"""Not the file's: a constraint, a value or a text that SQLite does not take."""

Row = tuple[object, ...]
"""Values of a row in the order of its columns, the id of its call first, ``NULL`` for NULL."""


class Rows(NamedTuple):
    """What is written of a call: its row; those of its attempts, where there are several."""

    call: Row
    attempts: tuple[Row, ...] = ()


_TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
_tokens = attrgetter(*_TOKENS)
NULL = -1  # in a Row: Python looks for an adapter of each None, truth value and word of an enum
_BEGINNING = ("id", "booked_by", "begun_at", "app", "client", "endpoint", "models")
_MONEY = ("reserved", "cost", "counted", "cost_source")
_STANDING = (
    *("attempts", "provider", "native_model", "key", "generation_id", "attempt_answer_id"),
    *("attempt_price_source", *_MONEY, "is_settled"),
)
_ENDED = (
    *("attempt_class", "attempt_connect_seconds", "attempt_first_output_seconds", "attempt_rates"),
    *("http_status", "ended", "duration_seconds", "served", "is_byok", *_TOKENS),
    *("queue_seconds", "first_byte_seconds", "longest_gap_seconds"),
)
COUNT, HAS_ENDED = map((*_BEGINNING, *_STANDING, *_ENDED).index, ("attempts", "ended"))
"""Where a call's row says how many attempts it took, and how it ended."""
_UNDER_WAY: Row = (NULL,) * len(_ENDED)
_OF_ATTEMPT = (
    *("call_id", "n", "provider", "native_model", "key", "class", "http_status", "answer_id"),
    *("begun_at", "connect_seconds", "first_output_seconds", "duration_seconds", *_MONEY),
    *("price_source", "rates", "is_settled", "ended"),
)
_SWEEP = """
    DELETE FROM calls WHERE rowid IN (
        SELECT rowid FROM calls WHERE begun_at < ? AND is_settled ORDER BY begun_at LIMIT ?)"""
_ADOPT = f"""
    UPDATE calls SET booked_by = :me, ended = coalesce(ended, '{End.KILLED}')
    WHERE is_settled = 0 AND booked_by != :me
      AND booked_by NOT IN (SELECT id FROM writers WHERE seen_at > :gone)"""  # noqa: S608  # our own word
_ADOPT_ATTEMPTS = f"""
    UPDATE several_attempts SET ended = '{End.KILLED}' WHERE ended IS NULL AND call_id IN (
        SELECT id FROM calls WHERE booked_by = :me AND is_settled = 0 AND ended = '{End.KILLED}')"""  # noqa: S608  # our own word
_DUE = (
    "calls.is_settled = 0 AND next_try_at <= :now AND booked_by = :me AND calls.ended IS NOT NULL"
)
_UNSETTLED = f"""
    SELECT coalesce(native_model, models), key, begun_at AS at, reserved, provider, generation_id,
      cost, counted, cost_source, http_status, ended,
      id, 1, app, client, endpoint, models, served, tries, next_try_at
    FROM calls WHERE attempts = 1 AND {_DUE}
    UNION ALL
    SELECT a.native_model, a.key, a.begun_at, a.reserved, a.provider, a.answer_id,
      a.cost, a.counted, a.cost_source, a.http_status, a.ended,
      id, n, app, client, endpoint, models, served, tries, next_try_at
    FROM calls JOIN several_attempts AS a ON call_id = id AND a.is_settled = 0 WHERE {_DUE}
    ORDER BY next_try_at, at LIMIT :limit"""  # noqa: S608  # our own words
_FINAL = """
    SET is_settled = 1, cost = coalesce(:cost, cost), counted = coalesce(:counted, counted),
      cost_source = coalesce(:source, cost_source)"""
_SETTLE = f"""
    UPDATE calls {_FINAL}
    WHERE id = :id AND attempts = 1 AND :n = 1 AND is_settled = 0 AND booked_by = :me"""
_SETTLE_OF_SEVERAL = f"""
    UPDATE several_attempts {_FINAL} WHERE call_id = :id AND n = :n AND is_settled = 0
      AND call_id IN (SELECT id FROM calls WHERE id = :id AND booked_by = :me)"""  # noqa: S608  # our own words
# As ``Entry.cost`` has it.
_ADD_UP = """
    UPDATE calls SET (reserved, cost, counted, is_settled, cost_source) = (
      SELECT sum(reserved), sum(cost), sum(counted), min(is_settled),
        CASE WHEN max(cost_source = 'estimated') THEN 'estimated'
             WHEN max(cost_source = 'computed' AND cost != 0) THEN 'computed'
             WHEN max(cost_source = 'exact') THEN 'exact' ELSE 'computed' END
      FROM several_attempts WHERE call_id = :id)
    WHERE id = :id"""
_TELL = f"""
    UPDATE calls SET {", ".join([f"{name} = coalesce(?, {name})" for name in ("served", *_TOKENS)])}
    WHERE id = ? AND attempts = ?"""  # noqa: S608  # our own names
# What was settled of the first attempt while the next one began.
_KEEP_SETTLED = """
    INSERT OR IGNORE INTO several_attempts SELECT * FROM attempts
    WHERE call_id = :id AND is_settled AND cost_source = 'exact'"""


def beginning(entry: Entry, writer: str) -> Row:
    """The columns of a call that never change, which its rows begin with."""
    client, models = _storable(entry.client), _storable(",".join(entry.models))
    return entry.id, writer, entry.at, entry.app, client, entry.endpoint, models


def begun(beginning: Row, entry: Entry) -> Rows:
    """Of a call that begins so, whose last attempt is under way."""
    return _rows(beginning, entry, _UNDER_WAY)


def ended(beginning: Row, entry: Entry, record: Record, seconds: float) -> Rows:
    """Of a call that has ended, as ``record`` says, after so many seconds."""
    last, usage = entry.attempts[-1], record.usage
    tokens: Row = (None,) * 5 if usage is None else (int(usage.is_byok), *_tokens(usage))
    end = (
        *(last.fault, last.connect_seconds, last.first_output_seconds),
        *(last.rates, last.http_status, last.ended, seconds, record.served, *tokens),
        *(record.queue_seconds, record.first_byte_seconds, record.longest_gap_seconds),
    )
    return _rows(beginning, entry, _row(end))


def _rows(beginning: Row, entry: Entry, end: Row) -> Rows:
    attempts, count = entry.attempts, len(entry.attempts)
    last = attempts[-1]
    rows: tuple[Row, ...] = ()
    generation_id, answer_id = (last.answer_id, None) if last.is_told else (None, last.answer_id)
    if count > 1:  # their money is added up once it is written
        told = [id for each in attempts if (id := each.generation_id) is not None]
        generation_id = told[-1] if told else None
        rows = tuple([_row_of(beginning[0], n, each) for n, each in enumerate(attempts, 1)])
    standing = (
        *(count, last.provider, last.native_model, last.key, generation_id, answer_id),
        *(last.price_source, *_money(last)),
    )
    return Rows((*beginning, *_row(standing), *end), rows)


def _row_of(id: object, n: int, attempt: Attempt) -> Row:
    *money, is_final = _money(attempt)
    return _row(
        (
            *(id, n, attempt.provider, attempt.native_model, attempt.key, attempt.fault),
            *(attempt.http_status, attempt.answer_id, attempt.begun_at, attempt.connect_seconds),
            *(attempt.first_output_seconds, attempt.duration_seconds, *money),
            *(attempt.price_source, attempt.rates, is_final, attempt.ended),
        )
    )


def _row(values: Row) -> Row:
    return tuple([NULL if value is None else value for value in values])


def _money(attempt: Attempt) -> Row:
    reserved, cost, counted = attempt.reserved, attempt.cost, attempt.counted
    pico = costs = None if reserved is None else to_pico(reserved)
    if cost is not reserved:
        costs = None if cost is None else to_pico(cost)
    counts = costs if counted is cost else to_pico(counted)
    return pico, costs, counts, attempt.cost_source, int(attempt.is_final)


def _storable(text: str) -> str:
    """``text`` as SQLite can hold it: a lone surrogate or NUL of somebody's becomes ``?``."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def book(calls: Sequence[Rows], connection: sqlite3.Connection) -> None:
    """Write these calls, begun or ended, one of ``ROWS_AT_ONCE``: by one statement, where each
    needed one attempt."""
    several = [{"id": rows.call[0]} for rows in calls if rows.attempts]
    if several:
        connection.executemany(_KEEP_SETTLED, several)
    values = list(chain.from_iterable(rows.call for rows in calls))
    connection.execute(_BOOK(len(calls)), values)
    if several:
        connection.executemany(_BOOK_ATTEMPT, chain.from_iterable(rows.attempts for rows in calls))
        # One of them may have been settled by another process meanwhile.
        connection.executemany(_ADD_UP, several)


def _booking(
    table: str, key: str, columns: Sequence[str], changes: Sequence[str], more: str = "0"
) -> Statement:
    """A row that went missing, or into a file that is gone, is made whole by its completion. What
    does not change is left alone, and its index with it; a final cost, too, unless ``more``."""
    row = ", ".join([f"nullif(?, {NULL})"] * len(columns))

    @functools.cache
    def of(rows: int) -> str:
        return f"""
        INSERT INTO {table} ({", ".join(columns)}) VALUES {", ".join([f"({row})"] * rows)}
        ON CONFLICT ({key}) DO UPDATE SET {", ".join(changes)}
        WHERE NOT ({table}.is_settled AND {table}.cost_source = 'exact') OR {more}"""  # noqa: S608  # our own names

    return of


def _anew(columns: Sequence[str]) -> list[str]:
    return [f"{name} = excluded.{name}" for name in columns]


Statement = Callable[[int], str]
"""That writes so many rows."""
_BOOK = _booking(
    *("calls", "id", (*_BEGINNING, *_STANDING, *_ENDED)),
    _anew(("booked_by", *_STANDING, *_ENDED)),
    "excluded.attempts > calls.attempts",
)
_BOOK_ATTEMPT = _booking("several_attempts", "call_id, n", _OF_ATTEMPT, _anew(_OF_ATTEMPT[2:]))(1)


def sweep(before: float, most: int, connection: sqlite3.Connection) -> int:
    """Let settled rows that began before then go, ``most`` at once; how many went."""
    return connection.execute(_SWEEP, (before, most)).rowcount


def settle(
    id: str,
    n: int,
    writer: str,
    cost: Cost | None,
    told: Told | None,
    connection: sqlite3.Connection,
) -> bool:
    """Make what an attempt stands with final, or ``cost``; whether it was the writer's and was not
    settled. What is ``told`` of a call's last one is of the call, too."""
    changes = {"id": id, "n": n, "me": writer, "cost": None, "counted": None, "source": None}
    if cost is not None:
        changes |= {"cost": to_pico(cost.usd), "counted": to_pico(cost.counted)}
        changes["source"] = cost.source
    if not connection.execute(_SETTLE, changes).rowcount:
        if not connection.execute(_SETTLE_OF_SEVERAL, changes).rowcount:
            return False
        connection.execute(_ADD_UP, changes)
    if told is not None:
        served = None if told.model is None else _storable(told.model)
        connection.execute(_TELL, (served, *_tokens(told.usage), id, n))
    return True


def delete(id: str, attempts: int, connection: sqlite3.Connection) -> None:
    """Take the row out again of a call none of whose first ``attempts`` went out."""
    connection.execute("DELETE FROM calls WHERE id = ? AND attempts <= ?", (id, attempts))


def postpone(row: Unsettled, until: float, connection: sqlite3.Connection) -> None:
    """Count a try, and let the next one wait until then (unix time)."""
    connection.execute(
        "UPDATE calls SET tries = ?, next_try_at = ? WHERE id = ?", (row.tries + 1, until, row.id)
    )


def unsettled(
    writer: str, now: float, limit: int, connection: sqlite3.Connection
) -> list[Unsettled]:
    """The writer's attempts that are due, with those of writers that are gone, which are its
    now."""
    asked = {"me": writer, "now": now, "gone": now - GONE_AFTER_SECONDS, "limit": limit}
    connection.execute("DELETE FROM writers WHERE seen_at <= :gone", asked)
    if connection.execute(_ADOPT, asked).rowcount:
        connection.execute(_ADOPT_ATTEMPTS, asked)
    return [_unsettled(*row) for row in connection.execute(_UNSETTLED, asked)]


def _unsettled(
    model: str, key: str, at: float, reserved: int | None, provider: str, answer_id: str, *row: Any
) -> Unsettled:
    usd = None if reserved is None else from_pico(reserved)
    attempt = Attempt(model, key, provider=provider)
    attempt.begin(at, usd)
    cost, counted, attempt.cost_source, attempt.http_status, attempt.ended, *of_call = row
    attempt.answer_id, attempt.counted = answer_id, from_pico(counted)
    attempt.cost = None if cost is None else from_pico(cost)
    id, n, app, client, endpoint, models, served, tries, _ = of_call
    asked = tuple(filter(None, models.split(",")))
    return Unsettled(id, n, app, client, endpoint, asked, served, attempt, tries)
