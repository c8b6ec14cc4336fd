"""Calls of the ledger as a table, one in full, or JSON.

Names of clients and models are other people's: nothing in them reaches a terminal as a command.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from keyproxy.commands.line import print_columns
from keyproxy.commands.usage_text import exact, usd
from keyproxy.console import printable
from keyproxy.ledger.lookup import MONEY, Found, Row

_COLUMNS = ("time (UTC)", "status", "model", "tokens", "seconds", "USD", "client", "request id")
_RIGHT = ("tokens", "seconds", "USD")
_GAP = 2
_NAMES: Mapping[str, str] = {"id": "request_id", "booked_by": "", "tries": "", "next_try_at": ""}
"""Columns that are called otherwise in JSON, or are nobody's business there."""


def print_json(found: Found, path: Path) -> None:
    """One object; money as decimal texts, exact."""
    document = {
        "ledger": str(path),
        "calls": [_facts(row) for row in found.rows],
        "calls_left_out": found.left_out,
    }
    print(json.dumps(document, indent=2))


def _facts(row: Row) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, value in row.items():
        if name in ("models", "native_model"):
            value = None if value is None else value.split(",")
            facts[name if name == "models" else "native_models"] = value
        elif name in MONEY:
            facts[f"{name}_usd"] = None if value is None else exact(value)
        elif name == "begun_at":
            facts[name] = datetime.fromtimestamp(value, UTC).isoformat().replace("+00:00", "Z")
        elif name in ("is_settled", "is_byok"):
            facts[name] = None if value is None else bool(value)
        elif name == "rates":
            facts[name] = None if value is None else json.loads(value)
        elif name not in ("tried", "attempts") and (shown := _NAMES.get(name, name)):
            facts[shown] = value
    if "tried" in row:
        facts["attempts"] = [_facts(attempt) for attempt in row["tried"]]
    return facts


def print_calls(found: Found, path: Path, *, is_one: bool) -> None:
    """A line a call; one that was asked for by its id in full."""
    where = printable(str(path))
    if not found.rows:
        print(f"No such call in {where}" if is_one else f"No such calls in {where}")
    elif is_one and len(found.rows) == 1:
        _print_one(found.rows[0])
    else:
        _print_table(found)
        if found.left_out:
            calls = "call" if found.left_out == 1 else "calls"
            print(f"\n{found.left_out:,} more {calls}: --top, or a narrower question")


def _print_table(found: Found) -> None:
    """Whole lines where they are read by a program; on a terminal two lines a call, if need be."""
    money = iter(usd([row["cost"] for row in found.rows if row["cost"] is not None]))
    lines = [_cells(row, "" if row["cost"] is None else next(money)) for row in found.rows]
    widths = [max(map(cell_len, column)) for column in zip(_COLUMNS, *lines, strict=True)]
    needed = sum(widths) + _GAP * (len(widths) - 1)
    is_terminal = sys.stdout.isatty()
    console = Console(
        width=None if is_terminal else needed, highlight=False, markup=False, emoji=False
    )
    if needed > console.width:
        for cells in lines:
            at, status, model, tokens, seconds, cost, client, id = cells
            figures = ((tokens, "tok"), (seconds, "s"), (cost, "USD"))
            known = [f"{text} {unit}" for text, unit in figures if text]
            print("  ".join([at, status, model, *known]))
            print(f"{'':<{_GAP}}{id}  {client}")
        return
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for name in _COLUMNS:
        table.add_column(name, no_wrap=True, justify="right" if name in _RIGHT else "left")
    for cells in lines:
        table.add_row(*cells)
    console.print(table)


def _cells(row: Row, cost: str) -> list[str]:
    tokens = [row[name] for name in ("input_tokens", "output_tokens") if row[name] is not None]
    seconds = row["duration_seconds"]
    client = row["client"] if row["app"] == "default" else f"{row['app']}/{row['client']}"
    cells = [
        f"{datetime.fromtimestamp(row['begun_at'], UTC):%Y-%m-%d %H:%M:%S}",
        _status(row),
        row["served"] or row["models"],
        f"{sum(tokens):,}" if tokens else "",
        "" if seconds is None else f"{seconds:.1f}",
        f"~{cost}" if cost and row["cost_source"] == "estimated" else cost,
        client,
        row["id"],
    ]
    return [printable(cell) for cell in cells]


def _status(row: Row) -> str:
    """``200``, ``200 client_left``, ``killed``, ``under way``."""
    if row["ended"] is None:
        return "under way"
    status = "" if row["http_status"] is None else str(row["http_status"])
    return status if row["ended"] == "complete" else f"{status} {row['ended']}".strip()


def _print_one(row: Row) -> None:
    print_columns(_lines(row))
    if len(tried := row["tried"]) > 1:
        print("\nattempts")
        print_columns((_attempt(attempt) for attempt in tried), indent=2)


def _lines(row: Row) -> Iterator[tuple[str, str]]:
    at = datetime.fromtimestamp(row["begun_at"], UTC)
    known = {
        "request id": row["id"],
        "provider's id": row["generation_id"] or _last(row, "answer_id"),
        "time": f"{at:%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC",
        "app": row["app"],
        "client": row["client"],
        "endpoint": row["endpoint"],
        "asked for": row["models"].replace(",", ", "),
        "served": row["served"],
        "provider": row.get("provider"),
        "key": row["key"],
        "status": _status(row),
        **_waits(row),
        "tokens": _tokens(row),
        "cost": _cost(row["cost"], row["cost_source"]),
        "budgets count": None if row["counted"] == row["cost"] else f"{exact(row['counted'])} USD",
        "set aside": None if row["reserved"] is None else f"{exact(row['reserved'])} USD",
    }
    yield from ((name, printable(text)) for name, text in known.items() if text)


def _last(row: Row, name: str) -> Any:
    return row["tried"][-1].get(name) if row["tried"] else None


def _cost(cost: Decimal | None, source: str) -> str:
    return "unknown" if cost is None else f"{exact(cost)} USD, {source}"


def _waits(row: Row) -> dict[str, str]:
    """Whose wait it was, as far as that is known; a ledger of before knows only the last."""
    known = {
        "before it went out": row.get("queue_seconds"),
        "connecting": _last(row, "connect_seconds"),
        "to the first byte": row.get("first_byte_seconds"),
        "longest gap": row.get("longest_gap_seconds"),
        "from out to end": row["duration_seconds"],
    }
    return {name: f"{seconds:.3f} s" for name, seconds in known.items() if seconds is not None}


def _tokens(row: Row) -> str:
    known = {
        "in": row["input_tokens"],
        "cached": row["cached_tokens"],
        "out": row["output_tokens"],
        "reasoning": row["reasoning_tokens"],
    }
    return ", ".join(f"{count:,} {name}" for name, count in known.items() if count is not None)


def _attempt(row: Row) -> list[str]:
    seconds = row["duration_seconds"]
    cells = [
        f"{row['n']}",
        row["provider"],
        row["native_model"],
        _status(row),
        row["class"] or "",
        "" if seconds is None else f"{seconds:.3f} s",
        _cost(row["cost"], row["cost_source"]),
        row["answer_id"] or "",
    ]
    return [printable(cell) for cell in cells]
