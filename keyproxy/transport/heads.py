"""How large the head of a request may be, and which ones are refused that the parser lets through.

Pure. Credentials have the length of the request line; other fields may be larger.
"""

from __future__ import annotations

from aiohttp.http import RawRequestMessage

from keyproxy.call import CREDENTIAL_FIELDS

MAX_LINE_BYTES = 8190  # aiohttp's and Apache's default: the request line, a credential
MAX_FIELD_BYTES = 32 * 1024  # cookies of sites that keep sessions in them (supabase/ssr#78)
MAX_FIELDS = 128  # aiohttp's default
MAX_HEAD_BYTES = 64 * 1024
_CREDENTIALS = frozenset(name.lower().encode() for name in CREDENTIAL_FIELDS)


def fault_in(message: RawRequestMessage) -> str | None:
    """The code of the refusal, if there must be one. The parser bounds each field, not the sum."""
    if not _is_plain(message):
        return "bad_request"
    size = len(message.path)
    for name, value in message.raw_headers:
        of_field = len(name) + len(value)
        if of_field > MAX_LINE_BYTES and name.lower() in _CREDENTIALS:
            return "head_too_large"
        size += of_field + len(": \r\n")
    return "head_too_large" if size > MAX_HEAD_BYTES else None


def _is_plain(message: RawRequestMessage) -> bool:
    """Whether every reader finds the end of this request at the same place.

    The parser does not enforce the framing of HTTP/0.9 and 2.0, takes any list of codings that
    ends in "chunked", and takes one in HTTP/1.0, where it is a fault (RFC 9112 6.1).
    """
    if message.version not in ((1, 0), (1, 1)):
        return False
    codings = message.headers.getall("Transfer-Encoding", [])
    is_chunked = [coding.strip().lower() for coding in codings] == ["chunked"]
    return not codings or (is_chunked and message.version == (1, 1))
