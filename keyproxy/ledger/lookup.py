"""Single calls in the ledger: found by id, client, time, status, cost. Only reads.

A call that was refused before anything went up has no row: it stands in the log only.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from decimal import Decimal
from ipaddress import ip_network
from typing import Any, Literal, get_args

from keyproxy.dataclass import dataclass
from keyproxy.ledger.entry import from_pico, to_pico

Order = Literal["time", "cost", "seconds"]
"""The newest, dearest or slowest first."""
ORDERS: tuple[Order, ...] = get_args(Order)
MONEY = ("reserved", "cost", "counted")
"""Columns that hold whole pico-USD."""
_ORDERS: Mapping[Order, str] = {
    "time": "begun_at DESC",
    "cost": "cost DESC, begun_at DESC",
    "seconds": "duration_seconds DESC, begun_at DESC",
}
_FEW = 100  # calls whose attempts are asked for by one statement

Row = dict[str, Any]
"""A row by its columns, money as ``Decimal``; a call's own attempts, as rows, are its ``tried``."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a call must be; None asks for nothing.

    ``id``: the request's, or the one that the provider gave it. ``client``: as it is booked, or a
    network that its address lies in. ``status``: ``429``, ``5xx``, or how it ended, in a word.
    ``model``: a glob of what was asked for or served. ``usd`` and ``seconds``: at least so much.
    """

    id: str | None = None
    client: str | None = None
    app: str | None = None
    status: str | None = None
    model: str | None = None
    usd: Decimal | None = None
    seconds: float | None = None
    since: float = -math.inf
    until: float = math.inf


@dataclass(frozen=True, slots=True)
class Found:
    """``rows``: the first of them; ``left_out``: how many more there are."""

    rows: tuple[Row, ...]
    left_out: int


def find(connection: sqlite3.Connection, wanted: Wanted, order: Order, top: int) -> Found:
    """The calls that are ``wanted``, ``top`` at most."""
    connection.create_function("is_within", 2, _is_within, deterministic=True)
    asked, values = _conditions(wanted)
    connection.execute("BEGIN")  # all of one moment, while keyproxy writes
    try:
        cursor = connection.execute(
            f"SELECT * FROM calls WHERE {asked} ORDER BY {_ORDERS[order]} LIMIT :top",  # noqa: S608  # our own words
            {**values, "top": top},
        )
        rows = list(_rows(cursor))
        count = connection.execute(f"SELECT count(*) FROM calls WHERE {asked}", values)  # noqa: S608  # the same
        [(number,)] = count
        _add_attempts(connection, rows)
    finally:
        connection.execute("ROLLBACK")
    return Found(tuple(rows), number - len(rows))


_CONDITIONS: Mapping[str, str] = {
    "id": "(id = :id OR generation_id = :id OR attempt_answer_id = :id"
    " OR id IN (SELECT call_id FROM several_attempts WHERE answer_id = :id))",
    "client": "is_within(client, :client)",
    "app": "app = :app",
    "model": "(served GLOB :model OR models GLOB :model)",
    "usd": "cost >= :usd",
    "seconds": "duration_seconds >= :seconds",
    "since": "begun_at >= :since",
    "until": "begun_at < :until",
}


def _conditions(wanted: Wanted) -> tuple[str, dict[str, Any]]:
    """SQL, and the values that are named in it."""
    values = {name: value for name, value in asdict(wanted).items() if value is not None}
    texts = dict(_CONDITIONS)
    if wanted.usd is not None:
        values["usd"] = to_pico(wanted.usd)
    if (status := wanted.status) is not None:
        texts["status"] = "ended = :status"
        if status[0].isdigit():
            first, last = (int(status.replace("xx", digits)) for digits in ("00", "99"))
            texts["status"] = f"http_status BETWEEN {first} AND {last}"
    return " AND ".join(texts[name] for name in values), values


def _rows(cursor: sqlite3.Cursor) -> Iterator[Row]:
    """A ledger of before lacks the columns that came later."""
    names = [column[0] for column in cursor.description]
    for values in cursor:
        row = dict(zip(names, values, strict=True))
        for name in MONEY:
            row[name] = None if row[name] is None else from_pico(row[name])
        yield row


def _add_attempts(connection: sqlite3.Connection, rows: list[Row]) -> None:
    by_id = {row["id"]: row for row in rows}
    ids = list(by_id)
    for row in rows:
        row["tried"] = []
        for name in [name for name in row if name.startswith("attempt_")]:
            del row[name]  # it is told with the attempt
    for start in range(0, len(ids), _FEW):
        some = ids[start : start + _FEW]
        marks = ", ".join("?" * len(some))
        cursor = connection.execute(
            f"SELECT * FROM attempts WHERE call_id IN ({marks}) ORDER BY call_id, n",  # noqa: S608  # marks
            some,
        )
        for attempt in _rows(cursor):
            by_id[attempt.pop("call_id")]["tried"].append(attempt)


def _is_within(client: str, network: str) -> bool:
    """Whether a client is that one, or an address in a network, as the log shows addresses."""
    if client == network or "/" not in network:
        return client == network
    try:
        inner, outer = ip_network(client, strict=False), ip_network(network, strict=False)
    except ValueError:
        return False
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]
