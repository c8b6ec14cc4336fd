"""Every change of the ledger's rows. ``queries`` has what is only read.

Each function takes the connection last, and belongs to the ledger's thread; times are unix times.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any

from keyproxy.call import Cost, End, Told, Usage
from keyproxy.ledger.entry import Entry, Unsettled, from_pico, to_pico

if TYPE_CHECKING:  # it writes log lines, which `keyproxy usage --help` need not load
    from keyproxy.record import Attempt, Record

GONE_AFTER_SECONDS = 60.0
"""A writer that has not said for so long that it lives has gone."""
ROWS_AT_ONCE = 32
"""In one statement: SQLite before 3.32 took 999 values, and Python keeps 128 statements."""
_MOST_COUNT = 1 << 53

Row = tuple[object, ...]
"""A whole row in the order of its table's columns, its id first, with ``_NULL`` for NULL."""

Rows = tuple[Row, ...]
"""A call's: its own first, then those of its attempts."""
_TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
_WAITS = ("queue_seconds", "first_byte_seconds", "longest_gap_seconds")
_BEGINNING = ("id", "booked_by", "begun_at", "app", "client", "endpoint", "models")
_END = ("http_status", "ended", "duration_seconds", "served", "is_byok", *_TOKENS, *_WAITS)
_NULL = -1  # in a Row: Python looks for an adapter of each None, truth value and word of an enum
_NO_END = (_NULL,) * len(_END)
_MONEY = ("reserved", "cost", "counted", "cost_source", "is_settled")
_OF_CALL = ("provider", "native_model", "key", "generation_id", "attempts", *_MONEY, *_END)
_OF_ATTEMPT = (
    *("call_id", "n", "provider", "native_model", "key", "class", "http_status", "answer_id"),
    *("begun_at", "connect_seconds", "first_output_seconds", "duration_seconds", *_MONEY),
    *("price_source", "rates", "ended"),
)
_NULLABLE = {
    *("reserved", "generation_id", "cost", "answer_id", "class", "price_source", "rates", *_END),
    *("connect_seconds", "first_output_seconds"),
}
_SWEEP = """
    DELETE FROM calls WHERE rowid IN (
        SELECT rowid FROM calls WHERE begun_at < ? AND is_settled ORDER BY begun_at LIMIT ?)"""
_ADOPT = f"""
    UPDATE calls SET booked_by = :me, ended = coalesce(ended, '{End.KILLED}')
    WHERE is_settled = 0 AND booked_by != :me
      AND booked_by NOT IN (SELECT id FROM writers WHERE seen_at > :gone)"""  # noqa: S608  # our own word
_ADOPT_ATTEMPTS = f"""
    UPDATE attempts SET ended = '{End.KILLED}' WHERE ended IS NULL AND call_id IN (
        SELECT id FROM calls WHERE booked_by = :me AND is_settled = 0 AND ended = '{End.KILLED}')"""  # noqa: S608  # our own word
_UNSETTLED = """
    SELECT calls.id, n, attempts.begun_at AS at, app, client, endpoint, models,
      attempts.provider, attempts.native_model, attempts.key, answer_id AS generation_id,
      attempts.reserved, served, attempts.cost, attempts.counted, attempts.cost_source,
      attempts.http_status, attempts.ended, tries
    FROM calls JOIN attempts ON call_id = id AND attempts.is_settled = 0
    WHERE calls.is_settled = 0 AND next_try_at <= :now AND booked_by = :me
      AND calls.ended IS NOT NULL
    ORDER BY next_try_at, calls.begun_at LIMIT :limit"""
_SETTLE = """
    UPDATE attempts SET is_settled = 1, cost = coalesce(:cost, cost),
      counted = coalesce(:counted, counted), cost_source = coalesce(:source, cost_source)
    WHERE call_id = :id AND n = :n AND is_settled = 0
      AND call_id IN (SELECT id FROM calls WHERE id = :id AND booked_by = :me)"""
# As ``Entry.standing`` and ``Entry.is_final`` have it.
_ADD_UP = """
    UPDATE calls SET (cost, counted, is_settled, cost_source) = (
      SELECT sum(cost), sum(counted), min(is_settled),
        CASE WHEN max(cost_source = 'estimated') THEN 'estimated'
             WHEN max(cost_source = 'computed' AND cost != 0) THEN 'computed'
             WHEN max(cost_source = 'exact') THEN 'exact' ELSE 'computed' END
      FROM attempts WHERE call_id = :id)
    WHERE id = :id"""


def beginning(entry: Entry, writer: str) -> Row:
    """The columns of a call that never change, which its rows begin with."""
    texts = entry.app, entry.client, entry.endpoint, ",".join(entry.models)
    return _storable(entry.id), writer, entry.at, *map(_storable, texts)


def rows_of(begun: Row, entry: Entry, record: Record | None = None, seconds: float = 0.0) -> Rows:
    """The row of a call that begins with ``begun``, and those of its attempts; without a record, of
    one under way."""
    attempts = entry.attempts
    rows = [_row_of_attempt(begun[0], n, attempt) for n, attempt in enumerate(attempts, 1)]
    last = attempts[-1]
    ids = [id for attempt in attempts if (id := attempt.generation_id) is not None]
    if len(attempts) == 1:
        money = rows[0][_MONEY_AT]
    else:
        is_final = int(last.ended is not None and entry.is_final)
        cost, counted, source = entry.standing
        money = _pico(entry.reserved), _pico(cost), to_pico(counted), source, is_final
    names = last.provider, _storable(last.native_model), _storable(last.key)
    call = (*begun, *names, _storable(ids[-1] if ids else None), len(attempts), *money)
    end = _NO_END if record is None else _end(last, record, seconds)
    return (*call, *end), *rows


def _row_of_attempt(id: object, n: int, attempt: Attempt) -> Row:
    cost, counted, source = attempt.standing
    row = (
        *(id, n, attempt.provider, _storable(attempt.native_model), _storable(attempt.key)),
        *(attempt.fault, attempt.http_status, _storable(attempt.answer_id), attempt.begun_at),
        *(attempt.connect_seconds, attempt.first_output_seconds, attempt.duration_seconds),
        *(_pico(attempt.reserved), _pico(cost), to_pico(counted), source),
        int(attempt.ended is not None and attempt.is_final),
        *(attempt.price_source, attempt.rates, attempt.ended),
    )
    return tuple([_NULL if value is None else value for value in row])


_MONEY_AT = slice(_OF_ATTEMPT.index("reserved"), _OF_ATTEMPT.index("is_settled") + 1)


def _end(last: Attempt, record: Record, seconds: float) -> Row:
    usage, tokens = record.usage, _tokens(record.usage)
    row = (
        *(last.http_status, last.ended, seconds, _storable(record.served)),
        None if usage is None else int(usage.is_byok),
        *[tokens.get(name) for name in _TOKENS],
        *(record.queue_seconds, record.first_byte_seconds, record.longest_gap_seconds),
    )
    return tuple([_NULL if value is None else value for value in row])


def _pico(amount: Decimal | None) -> int:
    return _NULL if amount is None else to_pico(amount)


def _tokens(usage: Usage | None) -> dict[str, int]:
    """Those counts that are known, within what SQLite can hold."""
    counts = {} if usage is None else {name: getattr(usage, name) for name in _TOKENS}
    return {name: min(max(n, 0), _MOST_COUNT) for name, n in counts.items() if n is not None}


def _storable(text: str | None) -> str | int:
    """``text`` as SQLite can hold it: a lone surrogate or NUL of somebody's becomes ``?``."""
    if text is None:
        return _NULL
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def book(calls: Sequence[Rows], connection: sqlite3.Connection) -> None:
    """Write the whole rows of these calls, begun or complete, ``ROWS_AT_ONCE`` at most, and those
    of their attempts: a statement for each table."""
    connection.execute(_BOOKING(len(calls)), list(chain.from_iterable(rows[0] for rows in calls)))
    attempts = list(chain.from_iterable(rows[1:] for rows in calls))
    for start in range(0, len(attempts), ROWS_AT_ONCE):
        some = attempts[start : start + ROWS_AT_ONCE]
        connection.execute(_BOOKING_ATTEMPTS(len(some)), list(chain.from_iterable(some)))
    for rows in calls:
        if len(rows) > 2:  # one of them may have been settled by another process meanwhile
            connection.execute(_ADD_UP, {"id": rows[0][0]})


def _booking(table: str, key: str, columns: Sequence[str], changing: Sequence[str]) -> Booking:
    """A row that went missing, or into a file that is gone, is made whole by its completion. What
    does not change is left alone, and its index with it."""
    changed = ", ".join(f"{n} = excluded.{n}" for n in changing)
    row = ", ".join(f"nullif(?, {_NULL})" if name in _NULLABLE else "?" for name in columns)

    @functools.cache
    def of(rows: int) -> str:
        return f"""
        INSERT INTO {table} ({", ".join(columns)}) VALUES {", ".join([f"({row})"] * rows)}
        ON CONFLICT ({key}) DO UPDATE SET {changed}
        WHERE NOT ({table}.is_settled AND {table}.cost_source = 'exact')"""  # noqa: S608  # our own names

    return of


Booking = Callable[[int], str]
"""The statement that writes so many rows."""
_BOOKING = _booking("calls", "id", (*_BEGINNING, *_OF_CALL), ("booked_by", *_OF_CALL))
_BOOKING_ATTEMPTS = _booking("attempts", "call_id, n", _OF_ATTEMPT, _OF_ATTEMPT[2:])


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
        return False
    connection.execute(_ADD_UP, changes)
    news: dict[str, object] = {} if told is None else {**_tokens(told.usage)}
    if told is not None and told.model is not None:
        news["served"] = _storable(told.model)
    if news:
        connection.execute(
            f"UPDATE calls SET {', '.join(f'{name} = ?' for name in news)}"  # noqa: S608  # our own names
            " WHERE id = ? AND attempts = ?",
            (*news.values(), id, n),
        )
    return True


def is_of(id: str, writer: str, connection: sqlite3.Connection) -> bool:
    """Whether no other writer has the row."""
    row = connection.execute("SELECT booked_by FROM calls WHERE id = ?", (id,)).fetchone()
    return row is None or row[0] == writer


def delete(id: str, connection: sqlite3.Connection) -> None:
    """Take a row out again, whose call never went out."""
    connection.execute("DELETE FROM calls WHERE id = ?", (id,))


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
    found = connection.execute(_UNSETTLED, asked)
    names = [column[0] for column in found.description]
    return [_unsettled(dict(zip(names, row, strict=True))) for row in found]


def _unsettled(known: dict[str, Any]) -> Unsettled:
    known["models"] = tuple(filter(None, known["models"].split(",")))
    for name in ("reserved", "cost", "counted"):
        known[name] = None if known[name] is None else from_pico(known[name])
    return Unsettled(**known)
