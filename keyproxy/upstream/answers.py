"""What an answer of the upstream becomes before it goes down. Pure.

Errors pass with their status. Their bodies are small JSON; the account's user id and balance
are taken out, and what is not readable becomes JSON of the same status, in the shape that the
caller's SDK parses. Five shapes come: an object or a text under ``error``, the bare object, a list
under ``detail``, any of these in a list. One that has the dialect's shape already stays as it is.
"""

from __future__ import annotations

import json
import re
from typing import Any

import structlog

from keyproxy.dialects import CATALOGUE, Dialect
from keyproxy.errors import Refusal
from keyproxy.key_forms import STARS
from keyproxy.transport import refusals
from keyproxy.transport.reply import Reply
from keyproxy.upstream import faults
from keyproxy.upstream.faults import Fault
from keyproxy.upstream.headers import KeySearch
from keyproxy.upstream.provider import Fetched, Provider

MAX_ERROR_BYTES = 256 * 1024
_MOST_DIGITS = 4000  # Python reads no integer of more than 4300
# Of accounts, organisations and people there, as the texts of errors name them. Each word is read
# once: what is repeated in an error may be a caller's.
_IDS = re.compile(
    rb"\b(?:org|proj|user|acct|team)[-_][\w-]{8,}"
    rb"|(?<=organization )[0-9a-f-]{32,36}|(?<=team )[0-9a-f-]{32,36}"
    rb"|(?<=projects/)\d{6,}|(?<=project )\d{6,}",
    re.I,
)
_ESCAPED = re.compile(rb"\\(?:u00([0-7][0-9a-fA-F])|([\"\\/]))")
_DIGIT = re.compile(rb"\d")
_log = structlog.get_logger("keyproxy.upstream")
UNAUTHORIZED = (
    "The upstream did not accept this call (401). That is between this server and the upstream:"
    " nothing that is asked of people here can change it."
)
UNAFFORDABLE = (
    "The account behind this address cannot pay for this call; fewer max_tokens may help."
)
UNUSABLE = (
    "The account behind this address cannot be used for this call. That is between this server and"
    " the upstream: nothing that is asked of people here can change it."
)


def invalid(why: str) -> Refusal:
    """An answer that must not be handed on."""
    return Refusal("upstream_invalid", "The upstream's answer cannot be passed on.", hint=why)


def check_head(reply: Reply) -> None:
    """Raises ``upstream_invalid`` for an answer that must not be handed on."""
    status = reply.status
    if not (200 <= status < 300 or 400 <= status < 600) or status in (204, 205):
        raise invalid(f"status {status} is not one that may pass")
    codings = reply.headers.get(b"content-encoding")
    if codings and any(coding.lower() != b"identity" for coding in codings):
        raise invalid("it is compressed, which was not asked for")


def loads(raw: bytes) -> Any:
    """Somebody else's JSON in UTF-8, or None; never raises. (Left alone, ``json`` would read UTF-16
    and UTF-32, too, in which no search for a key finds it.)"""
    try:
        text = raw.decode("utf-8-sig")
        return json.loads(text, parse_int=lambda digits: int(digits[:_MOST_DIGITS]))
    except (ValueError, RecursionError):
        return None


def read(provider: Provider, path: str, fetched: Fetched, search: KeySearch) -> Fetched:
    """What came from ``path``, read, and as it may be shown; for a thread, since the list is about
    a megabyte. Raises ``upstream_invalid``."""
    status, raw = fetched.status, fetched.raw
    body = loads(raw)
    if holds_key(raw, search):
        _log.error("the upstream's answer held a key", path=path)
        raise invalid("it holds a key")
    if 400 <= status < 600:
        shown = cleaned(provider, raw, body, status) or in_place(status, CATALOGUE)
        return fetched._replace(raw=shown)
    if not fetched.is_public:
        raw = cleaned(provider, raw, body, status) or b""
    if status != 200 or not isinstance(body, dict) or not raw:
        raise invalid("it cannot be read")
    if not provider.listing.holds(path):
        return fetched._replace(raw=raw)
    try:
        rows, rest = provider.listing.read(body)
    except (TypeError, RecursionError) as error:
        raise invalid("it is no list of models") from error
    return fetched._replace(raw=rest, rows=rows)


def holds_key(raw: bytes, search: KeySearch) -> bool:
    """Whether a key stands in ``raw``, as it is or behind JSON's escapes."""
    return search.is_in(raw) or (b"\\" in raw and search.is_in(_ESCAPED.sub(_letter, raw)))


def _letter(escaped: re.Match[bytes]) -> bytes:
    return escaped[2] or bytes([int(escaped[1], 16)])


def shown_error(
    provider: Provider,
    dialect: Dialect,
    status: int,
    raw: bytes,
    body: Any,
    kind: str,
    fault: Fault,
) -> bytes | None:
    """An error's ``raw``, or ``body``, its JSON, in the dialect's shape and without what belongs to
    the account; None when that cannot be told. ``kind``: its type."""
    if not kind.startswith("application/json"):
        may_be_told = kind.startswith("text/plain") and status not in provider.cannot_pay
        return _masked(raw) if may_be_told else None
    if not _is_of(dialect, body):
        shaped = _in_shape(dialect, status, body)
        if shaped is None:
            return None
        raw, body = shaped, loads(shaped)
    if fault is Fault.ACCOUNT and status == 400:  # a status that is else the caller's own fault
        body["error"]["message"] = UNUSABLE
        raw = json.dumps(body).encode()
    shown = cleaned(provider, raw, body, status)
    return None if shown is None else _masked(shown)


def _is_of(dialect: Dialect, body: Any) -> bool:
    """Whether an error's JSON has the dialect's own shape."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return False
    if dialect.errors == "anthropic":
        return body.get("type") == "error" and isinstance(error.get("type"), str)
    return isinstance(error.get("message"), str)


def _in_shape(dialect: Dialect, status: int, body: Any) -> bytes | None:
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


def _masked(raw: bytes) -> bytes:
    """``raw`` without the ids of accounts and organisations in its texts."""
    # Without a digit it is a word.
    return _IDS.sub(lambda id: STARS.encode() if _DIGIT.search(id[0]) else id[0], raw)


def cleaned(provider: Provider, raw: bytes, body: Any, status: int) -> bytes | None:
    """``raw``, or ``body``, its JSON, without what belongs to the account; None when that cannot
    be told."""
    if not isinstance(body, dict) or (status >= 400 and len(raw) > MAX_ERROR_BYTES):
        return None
    is_of_account = status in provider.cannot_pay
    error: Any = body.get("error")
    if is_of_account and not isinstance(error, dict):
        return None
    try:
        if not _strip(body, provider.private_names) and not is_of_account:
            return raw
        if is_of_account:
            error["message"] = UNAFFORDABLE
        return json.dumps(body, separators=(",", ":")).encode()
    except RecursionError:
        return None


def _strip(value: Any, names: frozenset[str]) -> int:
    """Take ``names`` out of ``value``, at any depth; how many there were."""
    if isinstance(value, list):
        return sum(_strip(item, names) for item in value)
    if not isinstance(value, dict):
        return 0
    private = names & value.keys()
    for name in private:
        del value[name]
    return len(private) + sum(_strip(item, names) for item in value.values())


def in_place(status: int, dialect: Dialect) -> bytes:
    """JSON in place of an error page that nobody's SDK could parse, and of a 401, which is between
    the upstream and us: its own words ("User not found") would send a page's user to log in, and
    may quote the key."""
    is_ours = status == 401
    message = (
        UNAUTHORIZED if is_ours else f"The upstream answered {status} without a readable body."
    )
    if dialect.errors == "anthropic":
        return refusals.anthropic_body(status, message, {"type": "api_error"} if is_ours else {})
    fields = {"type": "upstream_error", "metadata": {"source": "upstream"}}
    return refusals.openai_body(status, message, fields)
