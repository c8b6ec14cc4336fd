"""Every change of the ledger's rows. ``queries`` has what is only read.

Each function takes the connection last, and belongs to the ledger's thread; times are unix times.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any

from keyproxy.call import Cost, End, Usage
from keyproxy.ledger import schema
from keyproxy.ledger.entry import Entry, Unsettled, from_pico, is_final, standing, to_pico

if TYPE_CHECKING:  # it writes log lines, which `keyproxy usage --help` need not load
    from keyproxy.record import Record

GONE_AFTER_SECONDS = 60.0
"""A writer that has not said for so long that it lives has gone."""
ROWS_AT_ONCE = 32
"""In one statement: SQLite before 3.32 took 999 values, and Python keeps 128 statements."""
_MOST_COUNT = 1 << 53

Row = tuple[object, ...]
"""A whole row of ``calls``, in the order of ``_COLUMNS``, its id first, with ``_NULL`` for NULL."""

_ATTEMPT_OF = f"INSERT OR REPLACE INTO attempts {schema.ONE_ATTEMPT} WHERE id = ?"
_TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
_BEGINNING = ("id", "booked_by", "begun_at", "app", "client", "endpoint", "models", "reserved")
_END = ("http_status", "ended", "duration_seconds", "served", "is_byok", *_TOKENS)
_NULL = -1  # in a Row: Python looks for an adapter of each None, truth value and word of an enum
_NO_END = (_NULL,) * len(_END)
_CHANGING = ("key", "generation_id", "cost", "counted", "cost_source", "is_settled", *_END)
_COLUMNS = (*_BEGINNING, *_CHANGING)
_NULLABLE = {"reserved", "generation_id", "cost", *_END}
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
_FIELDS = tuple(field.name for field in fields(Unsettled))
_UNSETTLED = f"""
    SELECT {", ".join({"at": "begun_at"}.get(name, name) for name in _FIELDS)}
    FROM calls
    WHERE is_settled = 0 AND next_try_at <= :now AND booked_by = :me AND ended IS NOT NULL
    ORDER BY next_try_at, begun_at LIMIT :limit"""  # noqa: S608  # our own names


def beginning(entry: Entry, writer: str) -> Row:
    """The columns of a call that never change, which its rows begin with."""
    texts = entry.app, entry.client, entry.endpoint, ",".join(entry.models)
    return _storable(entry.id), writer, entry.at, *map(_storable, texts), _pico(entry.reserved)


def row_of(begun: Row, entry: Entry, record: Record | None = None, seconds: float = 0.0) -> Row:
    """The row of a call that begins with ``begun``; without a record, of one under way."""
    names = _storable(entry.key), _storable(entry.generation_id)
    if record is None:
        reserved = begun[-1]
        counted = 0 if reserved == _NULL else reserved
        return *begun, *names, reserved, counted, "estimated", 0, *_NO_END
    (cost, counted, source), usage = standing(entry, record.cost), record.usage
    status, tokens = record.upstream_status, _tokens(usage)
    return (
        *(*begun, *names, _pico(cost), to_pico(counted), source),
        *(int(is_final(record.cost, entry.generation_id)), _NULL if status is None else status),
        *(str(record.ended), seconds, _storable(record.served)),
        _NULL if usage is None else int(usage.is_byok),
        *[tokens.get(name, _NULL) for name in _TOKENS],
    )


def settled(cost: Cost | None, usage: Usage | None, served: str | None) -> Mapping[str, object]:
    """What changes in the row of a call that is settled; None of each: what is there stays."""
    changes: dict[str, object] = {"is_settled": True, **_tokens(usage)}
    if cost is not None:
        changes |= {"cost": to_pico(cost.usd), "counted": to_pico(cost.counted)}
        changes["cost_source"] = cost.source
    if served is not None:
        changes["served"] = _storable(served)
    return changes


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


def book(rows: Sequence[Row], connection: sqlite3.Connection) -> None:
    """Write these whole rows, begun or complete, by one statement; ``ROWS_AT_ONCE`` at most."""
    connection.execute(_booking(len(rows)), list(chain.from_iterable(rows)))
    for row in rows:
        connection.execute(_ATTEMPT_OF, (row[0],))


@functools.cache
def _booking(rows: int) -> str:
    """A row that went missing, or into a file that is gone, is made whole by its completion. What
    does not change is left alone, and its index with it."""
    changed = ", ".join(f"{n} = excluded.{n}" for n in ("booked_by", *_CHANGING))
    row = ", ".join(f"nullif(?, {_NULL})" if name in _NULLABLE else "?" for name in _COLUMNS)
    places = ", ".join([f"({row})"] * rows)
    return f"""
        INSERT INTO calls ({", ".join(_COLUMNS)}) VALUES {places}
        ON CONFLICT (id) DO UPDATE SET {changed}
        WHERE NOT (calls.is_settled AND calls.cost_source = 'exact')"""  # noqa: S608  # our own names


def sweep(before: float, most: int, connection: sqlite3.Connection) -> int:
    """Let settled rows that began before then go, ``most`` at once; how many went."""
    return connection.execute(_SWEEP, (before, most)).rowcount


def update(
    id: str, writer: str, changes: Mapping[str, object], connection: sqlite3.Connection
) -> bool:
    """Change a row of the writer's that is not settled; whether there was one."""
    changed = connection.execute(
        f"UPDATE calls SET {', '.join(f'{name} = ?' for name in changes)}"  # noqa: S608  # our own names
        " WHERE id = ? AND booked_by = ? AND is_settled = 0",
        (*changes.values(), id, writer),
    )
    connection.execute(_ATTEMPT_OF, (id,))
    return changed.rowcount == 1


def is_of(id: str, writer: str, connection: sqlite3.Connection) -> bool:
    """Whether no other writer has the row."""
    row = connection.execute("SELECT booked_by FROM calls WHERE id = ?", (id,)).fetchone()
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
    if connection.execute(_ADOPT, asked).rowcount:
        connection.execute(_ADOPT_ATTEMPTS, asked)
    return [_unsettled(row) for row in connection.execute(_UNSETTLED, asked)]


def _unsettled(row: Sequence[Any]) -> Unsettled:
    known = dict(zip(_FIELDS, row, strict=True))
    known["models"] = tuple(filter(None, known["models"].split(",")))
    for name in ("reserved", "cost", "counted"):
        known[name] = None if known[name] is None else from_pico(known[name])
    return Unsettled(**known)
