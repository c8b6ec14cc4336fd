"""Errors in the shape that a dialect's SDKs read, whoever sends them. Pure.

Five come: an object or a text under ``error``, the bare object, a list under ``detail``, any of
these in a list. One that has the dialect's shape already stays as it is.
"""

from __future__ import annotations

import re
from typing import Any

from keyproxy.dialects import Dialect
from keyproxy.transport import refusals
from keyproxy.upstream import faults

# Of accounts, organisations and people there, as the texts of errors name them.
_IDS = re.compile(
    rb"\b(?:org|proj|user|acct|team)[-_](?=[\w-]*\d)[\w-]{8,}"
    rb"|(?<=organization )[0-9a-f-]{32,36}|(?<=team )[0-9a-f-]{32,36}"
    rb"|(?<=projects/)\d{6,}|(?<=project )\d{6,}",
    re.I,
)


def is_of(dialect: Dialect, body: Any) -> bool:
    """Whether an error's JSON has the dialect's own shape."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return False
    if dialect.errors == "anthropic":
        return body.get("type") == "error" and isinstance(error.get("type"), str)
    return isinstance(error.get("message"), str)


def in_shape(dialect: Dialect, status: int, body: Any) -> bytes | None:
    """An error in the dialect's shape, with the code, type and field that its JSON tells; None
    where that says nothing."""
    said = faults.said(body)
    if said is None or said.message is None:
        return None
    if dialect.errors == "anthropic":
        return refusals.anthropic_body(status, said.message, {})
    fields = {
        "code": status if said.code in (None, "") else said.code,
        "type": said.type or "upstream_error",
        "param": said.param,
        "metadata": {"source": "upstream"},
    }
    return refusals.openai_body(status, said.message, fields)


def masked(raw: bytes) -> bytes:
    """``raw`` without the ids of accounts and organisations in its texts."""
    return _IDS.sub(b"***", raw)
