"""A refusal as the client's SDK parses it: status, headers, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import structlog

from keyproxy.call import BASE
from keyproxy.dialects import DIALECTS
from keyproxy.errors import CODES, Refusal, messages_type
from keyproxy.floods import Floods, Refused
from keyproxy.record import new_request_id
from keyproxy.transport.messages import Response

PATIENCE_SECONDS = 5.0
"""A wait beyond this is for a person to decide; official SDKs would sit through it."""
_HEAD_FAULTS = {
    "bad_request": "The request's head is not valid HTTP/1.1.",
    "head_timeout": "The request's head did not arrive in time.",
    "uri_too_long": "The request target is too long.",
    "head_too_large": "The request's head is too large.",
    "overloaded": "Too many connections at the moment.",
}
_log = structlog.get_logger("keyproxy.server")
_TYPED = tuple(f"{BASE}{dialect.path}" for dialect in DIALECTS if dialect.errors == "anthropic")


def of_head(code: str) -> Refusal:
    """What a connection says to a head that is no request, and when there are too many."""
    return Refusal(code, _HEAD_FAULTS[code])


def internal() -> Refusal:
    """What strangers are told of a fault of ours."""
    return Refusal("internal_error", "Something went wrong here.")


def speaks_messages(path: str) -> bool:
    """Whether the caller's SDK expects Anthropic's error shape."""
    path = path.partition("?")[0]
    return path in _TYPED or path.startswith(tuple(f"{each}/" for each in _TYPED))


def body(refusal: Refusal, path: str, request_id: str, hint: str | None = None) -> bytes:
    """The JSON of design section 6; ``hint``, where it may be shown, says what to change."""
    message = refusal.message
    if hint:
        message += f" [{refusal.step}: {hint}]"
    fields: dict[str, Any]
    if speaks_messages(path):
        fields = {"error_type": refusal.code}
        if refusal.details is not None:
            fields["details"] = dict(refusal.details)
        return anthropic_body(refusal.status, message, fields, request_id)
    origin = {"source": "keyproxy", "request_id": request_id}
    fields = {"type": refusal.code, "param": refusal.param, "metadata": origin}
    return openai_body(refusal.status, message, fields)


def anthropic_body(
    status: int, message: str, fields: Mapping[str, Any], request_id: str | None = None
) -> bytes:
    """An error as SDKs of Anthropic's parse it; ``fields`` stand beside or over its own."""
    error = {"type": messages_type(status), "message": message, **fields}
    ids = {} if request_id is None else {"request_id": request_id}
    return json.dumps({"type": "error", "error": error, **ids}).encode()


def openai_body(status: int, message: str, fields: Mapping[str, Any]) -> bytes:
    """An error as SDKs of OpenAI's parse it; ``fields`` stand beside its own."""
    return json.dumps({"error": {"code": status, "message": message, **fields}}).encode()


def headers(refusal: Refusal) -> dict[str, str]:
    """The fields that go with it; CORS, request id and rate fields are added for every answer."""
    fields = {
        "Content-Type": "application/json; charset=utf-8",
        "Cache-Control": "no-store",
        "X-Keyproxy-Code": refusal.code,
        **refusal.headers,
    }
    if refusal.status == 401:  # RFC 9110 15.5.2, RFC 6750 3
        is_bare = refusal.code == "credential_missing"
        fields["WWW-Authenticate"] = "Bearer" if is_bare else 'Bearer error="invalid_token"'
    wait = refusal.retry_after_seconds
    if wait is not None:
        fields["Retry-After"] = str(max(1, math.ceil(wait)))
    if not CODES[refusal.code].curable or (wait or 0) > PATIENCE_SECONDS:
        fields["x-should-retry"] = "false"
    return fields


def alone(refusal: Refusal, floods: Floods, line: str, app: str | None) -> Response:
    """The answer to what is no call; ``line`` of the log, which is written here, is counted for
    ``app``."""
    request_id, status, code = new_request_id(), refusal.status, refusal.code
    if not floods.absorbs(Refused(code, status, app=app)):
        _log.info(line, request_id=request_id, http_status=status, code=code)
    fields = {"X-Content-Type-Options": "nosniff", "X-Request-Id": request_id}
    return Response(
        status,
        headers(refusal) | fields,
        body(refusal, "", request_id),
        must_close=refusal.must_close,
    )
