"""Whose fault a provider's error is, by its status and its words, and when to ask again. Pure.

A status alone tells too little: an empty account is a 402, a 429 or a 400, depending on whom one
asks (docs of OpenAI, Anthropic, Google, Groq, Cerebras, Mistral, xAI: "Errors", November 2026).
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple


class Fault(StrEnum):
    """Why a try of a call did not bring its answer: one word, in the log as in the ledger."""

    NOT_SENT = "not_sent"  # there was no connection: nothing was taken, nothing is billed
    LOAD = "load"  # refused for rate or load: elsewhere it may be taken, here later
    ACCOUNT = "account"  # the key, or who pays for it: no call will be taken here
    UNCERTAIN = "uncertain"  # it may have been taken, and billed
    CALLER = "caller"  # no other provider would take it
    CONTEXT = "context"  # as the caller's, but a larger context may take it
    CONFIG = "config"  # this provider does not have the model that we think it has
    FIELD = "field"  # nor takes the field that we think it takes: another provider may


class Said(NamedTuple):
    """What an error says, in whichever of five shapes; None where it says nothing of the kind.

    ``words``: its code, type, status and reasons, in small letters.
    """

    message: str | None
    code: str | int | None
    type: str | None
    param: str | None
    words: frozenset[str]


COMMON: Mapping[int, Fault] = MappingProxyType(
    {
        401: Fault.ACCOUNT,
        402: Fault.ACCOUNT,
        403: Fault.ACCOUNT,
        404: Fault.CONFIG,
        429: Fault.LOAD,
        498: Fault.LOAD,
        503: Fault.LOAD,
        529: Fault.LOAD,
    }
)
"""What a status says where nothing else does; other 4xx are the caller's, all else uncertain."""
_WORDS: Mapping[str, Fault] = MappingProxyType(
    {
        "context_length_exceeded": Fault.CONTEXT,
        "model_not_found": Fault.CONFIG,
        "rate_limit_exceeded": Fault.LOAD,
        "insufficient_quota": Fault.ACCOUNT,
        "invalid_api_key": Fault.ACCOUNT,
    }
)
_OF_REQUEST = frozenset({"invalid_request_error", "invalid_request", "invalid_argument"})
_TOO_LONG = re.compile(
    r"context[ _](?:length|window)|prompt is too long|maximum (?:context|prompt) length"
    r"|input token count|reduce the length|too many tokens",
    re.I,
)
_UNKNOWN_FIELD = re.compile(
    r"extra inputs are not permitted|property '[^']*' is unsupported|unknown name \""
    r"|unsupported parameter|unrecognized request argument",
    re.I,
)
_UNKNOWN = frozenset({"unsupported_parameter", "unknown_parameter", "extra_forbidden"})
_WITHIN = re.compile(  # what Cerebras begins with "body.n:" is at the top
    r"^'?(?!body\.\w+:)[a-z_]+[.\[][^:]*:|cannot find field.* at '|\" at '", re.I
)
_MODERATED = re.compile(r"moderat|flagged|content[ _]policy|content[ _]filter|safety", re.I)
OWN_WORDS = r"(?:[^'\"`]|(?<=\w)'s )*"
"""Of a message: up to what it quotes."""
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_LONGEST_MESSAGE = 20_000
_JUDGED = 2_000
"""Characters of a message that tell whose fault it is: callers may have written the rest, which
takes long to look through."""


def said(body: Any) -> Said | None:
    """What an error's JSON says: an object or a text under ``error``, the bare object, pydantic's
    list under ``detail``, or one of these in a list. None where it is none of them."""
    if isinstance(body, list) and body:
        body = body[0]
    if not isinstance(body, dict):
        return None
    error = body.get("error")
    if isinstance(error, str):
        error = {**body, "message": error}
    elif not isinstance(error, dict):
        error = body
    message: Any = error.get("message", error.get("detail"))
    if isinstance(message, dict):  # Mistral wraps pydantic's list
        message = message.get("detail", message)
    kinds: list[Any] = [error.get(name) for name in ("code", "type", "status")]
    param = error.get("param")
    if isinstance(message, list):
        first = message[0] if message and isinstance(message[0], dict) else {}
        where = first.get("loc")
        param = ".".join(map(str, where[1:])) if isinstance(where, list) else param
        kinds += [each.get("type") for each in message if isinstance(each, dict)]
        message = first.get("msg")
    details = error.get("details")
    if isinstance(details, list):
        kinds += [each.get("reason") for each in details if isinstance(each, dict)]
    words = frozenset(kind.lower() for kind in kinds if isinstance(kind, str) and len(kind) <= 200)
    code = error.get("code")
    if not isinstance(message, str) and not words:
        return None
    return Said(
        message[:_LONGEST_MESSAGE] if isinstance(message, str) else None,
        code if type(code) in (int, str) else None,
        error["type"] if isinstance(error.get("type"), str) else None,
        param if isinstance(param, str) else None,
        words,
    )


def by(
    *,
    words: Mapping[str, Fault] = MappingProxyType({}),
    texts: Mapping[str, Fault] = MappingProxyType({}),
) -> Callable[[int, Any], Fault]:
    """A provider's ``classify``: by expressions for its messages, by its own words, which are codes
    and types in small letters, by those of all, and by the status.

    Messages repeat what callers wrote: an expression that benches a home begins as they do (``^``),
    and reads their ``OWN_WORDS``."""

    def classify(status: int, body: Any) -> Fault:
        error = said(body)
        if status < 400:  # a head of good cheer, and an error behind it
            code = str(error.code) if error else ""
            status = 400 if error and error.words & _OF_REQUEST else 500
            status = int(code) if re.fullmatch("[45][0-9][0-9]", code) else status
        if error is not None:
            message = (error.message or "")[:_JUDGED]
            for text, fault in texts.items():
                if re.search(text, message, re.I):
                    return fault
            for word, fault in (*words.items(), *_WORDS.items()):
                if word in error.words:
                    return fault
            if status in (400, 413, 422) and _TOO_LONG.search(message):
                return Fault.CONTEXT
            if status in (400, 422) and _is_of_unknown_field(error, message):
                return Fault.FIELD
            if status == 403 and _MODERATED.search(message):
                return Fault.CALLER
        usual = Fault.CALLER if 400 <= status < 500 else Fault.UNCERTAIN
        return COMMON.get(status, usual)

    return classify


def _is_of_unknown_field(error: Said, message: str) -> bool:
    """Whether a field at the top is not known there. One within another is the caller's own."""
    if re.search(r"[.\[]", error.param or "") or _WITHIN.search(message):
        return False
    is_told = not _UNKNOWN.isdisjoint(error.words)
    return is_told or _UNKNOWN_FIELD.search(message) is not None


classify = by()
"""Of a provider of which nothing else is known."""


def rest_seconds(headers: Mapping[str, str], body: Any) -> float | None:
    """How long an error asks us to wait: the first of ``retry-after-ms``, ``Retry-After`` and
    Google's ``RetryInfo`` that can be read. ``headers`` by names in any case."""
    return next(_waits(headers, body), None)


def _waits(headers: Mapping[str, str], body: Any) -> Iterator[float]:
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        yield milliseconds / 1000
    after = headers.get("retry-after")
    if (seconds := _number(after)) is not None:
        yield seconds
    elif after is not None:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            yield max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    error = body[0] if isinstance(body, list) and body else body
    error = error.get("error") if isinstance(error, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    for detail in details if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and (seconds := _number(delay.removesuffix("s"))) is not None:
            yield seconds


def _number(text: str | None) -> float | None:
    if text is None or not _SECONDS.fullmatch(text.strip()):
        return None
    number = float(text)
    return number if math.isfinite(number) else None
