"""The two forms that JWTs and key sets are written in, read strictly: base64url and JSON.

What two readers could take for different things is no value (RFC 8725 2.4, RFC 8259 4): a
name given twice, NaN, padding, bits behind the last byte. Knows no keys and no claims.
"""

from __future__ import annotations

import json
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from keyproxy.strict_json.pieces import unique

_MAX_DIGITS = 32  # nothing that a claim counts has more; Python's own limit depends on its version


def from_base64url(text: str) -> bytes:
    """The bytes of ``text``, which is their only spelling. Raises ``ValueError``."""
    raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    # The decoder passes over what it does not know, and over bits behind the last byte.
    if urlsafe_b64encode(raw).rstrip(b"=") != text.encode():
        raise ValueError("no base64url, or not its only spelling")
    return raw


def from_json(raw: bytes) -> dict[str, Any]:
    """The JSON object in ``raw``. Raises ``ValueError``."""
    try:
        # Decoded here, because ``json`` would take UTF-16 and UTF-32 too.
        found = _DECODER.decode(raw.decode())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError("a number beyond all bounds")
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number beyond all bounds")
    return number


_DECODER = json.JSONDecoder(
    object_pairs_hook=unique, parse_int=_integer, parse_float=_number, parse_constant=_number
)
