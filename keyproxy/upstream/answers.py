"""What an error answer of the upstream becomes before it goes down. Pure.

Errors pass with their status. Their bodies are small JSON; the account's user id and balance
are taken out, and what is not readable becomes JSON of the same status, in the shape that the
caller's SDK parses.
"""

from __future__ import annotations

import json
from typing import Any

from keyproxy.dialects import Dialect
from keyproxy.errors import messages_type
from keyproxy.upstream import headers
from keyproxy.upstream.provider import Provider

MAX_ERROR_BYTES = 256 * 1024
UNAUTHORIZED = (
    "The upstream did not accept this call (401). That is between this server and the upstream:"
    " nothing that is asked of people here can change it."
)
UNAFFORDABLE = (
    "The account behind this address cannot pay for this call; fewer max_tokens may help."
)


def cleaned(provider: Provider, raw: bytes, status: int) -> bytes | None:
    """The error body without what belongs to the account; None when that cannot be told."""
    body = headers.loads(raw) if len(raw) <= MAX_ERROR_BYTES else None
    if not isinstance(body, dict):
        return None
    error, private = body.get("error"), provider.private_names
    is_of_account = status in provider.cannot_pay
    if is_of_account and not isinstance(error, dict):
        return None
    try:
        if not _is_private(body, private) and not is_of_account:
            return raw
        _strip(body, private)
        if isinstance(error, dict) and is_of_account:
            error["message"] = UNAFFORDABLE
        return json.dumps(body, separators=(",", ":")).encode()
    except RecursionError:
        return None


def holds_key(raw: bytes, search: headers.KeySearch) -> bool:
    """Whether a key stands in ``raw``, or would if its JSON were written anew; True where that
    cannot be told."""
    try:
        anew = json.dumps(headers.loads(raw)) if b"\\" in raw else ""
    except RecursionError:
        return True
    return search.is_in(raw) or search.is_in(anew.encode())


def of_account(provider: Provider, raw: bytes, search: headers.KeySearch) -> bytes | None:
    """What was asked for with the key, written anew without what belongs to the account.

    None for what is no JSON object, and for one that holds a key, behind escapes too.
    """
    body = headers.loads(raw)
    if not isinstance(body, dict):
        return None
    try:
        _strip(body, provider.private_names)
        shown = json.dumps(body, separators=(",", ":")).encode()
    except RecursionError:
        return None
    return None if search.is_in(raw) or search.is_in(shown) else shown


def unreadable(status: int, dialect: Dialect) -> bytes:
    """JSON in place of an error page that nobody's SDK could parse."""
    message = f"The upstream answered {status} without a readable body."
    return _shaped(status, dialect, messages_type(status), message)


def unauthorized(dialect: Dialect) -> bytes:
    """The body of a 401 that is between the upstream and us.

    Its own words ("User not found") would send a page's user to log in, and may quote the key.
    """
    return _shaped(401, dialect, "api_error", UNAUTHORIZED)


def _shaped(status: int, dialect: Dialect, kind: str, message: str) -> bytes:
    """``kind``: what it is called in the shape of Anthropic."""
    if dialect.errors == "anthropic":
        body: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": message}}
    else:
        body = {
            "error": {
                "code": status,
                "message": message,
                "type": "upstream_error",
                "metadata": {"source": "upstream"},
            }
        }
    return json.dumps(body).encode()


def _is_private(value: Any, names: frozenset[str]) -> bool:
    if isinstance(value, dict):
        return not names.isdisjoint(value) or any(
            _is_private(each, names) for each in value.values()
        )
    return isinstance(value, list) and any(_is_private(each, names) for each in value)


def _strip(value: Any, names: frozenset[str]) -> None:
    if isinstance(value, dict):
        for name in names & value.keys():
            del value[name]
        for item in value.values():
            _strip(item, names)
    elif isinstance(value, list):
        for item in value:
            _strip(item, names)
