"""The shipped table: what models each provider has, under which ids, and what they take.

For whoever cannot be asked, or tells no prices. ``scripts/renew-models`` writes it; its rows have
the form of OpenRouter's list. Read when a provider of it is used, and not before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from keyproxy.price import Price
from keyproxy.upstream.openrouter import price_of_row

_FILE = Path(__file__).with_name("shipped_models.json")


class ShippedModel(NamedTuple):
    """A model at a provider. ``model``: OpenRouter's id of it; None where nobody has told that.
    ``inputs``: kinds of what it reads: ``text``, ``image``, ``file``, ``audio``. ``lacks``: what of
    calls it refuses, in the words of ``takes.LACKS``."""

    native_id: str
    model: str | None
    price: Price | None
    inputs: frozenset[str]
    lacks: frozenset[str]


def date() -> str:
    """When the table was made: YYYY-MM-DD."""
    return str(_table()["date"])


@cache
def models_of(provider: str) -> Mapping[str, ShippedModel]:
    """By native id; none of a provider that is not in the table."""
    return {id: _model(row) for id, row in rows_of(provider).items()}


@cache
def native_ids(provider: str) -> Mapping[str, str]:
    """The id at ``provider`` of each model that has one there, by OpenRouter's id."""
    return {each.model: id for id, each in models_of(provider).items() if each.model is not None}


@cache
def rows_of(provider: str) -> Mapping[str, Mapping[str, Any]]:
    """Rows as they stand in the table, by native id; their JSON has the form of OpenRouter's."""
    return {row["id"]: row for row in _table()["models"].get(provider, ())}


def _model(row: Mapping[str, Any]) -> ShippedModel:
    inputs = frozenset(row["architecture"]["input_modalities"])
    lacks = frozenset(row.get("lacks", ()))
    return ShippedModel(row["id"], row["model"], price_of_row(row), inputs, lacks)


@cache
def _table() -> dict[str, Any]:
    table = json.loads(_FILE.read_bytes())
    assert isinstance(table, dict)  # noqa: S101 - our own file, which a test reads
    return table
