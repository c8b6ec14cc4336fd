"""Bytes to one JSON object, read so strictly that every later reader agrees. Pure.

Refused are: duplicate keys at any depth, NaN and Infinity, a byte order mark, trailing data,
other encodings than UTF-8, lone surrogates, absurd nesting and element counts.
Sources: RFC 8259; "An Exploration of JSON Interoperability Vulnerabilities" (Bishop Fox, 2021).
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from json.encoder import encode_basestring as _quoted
from operator import itemgetter
from typing import Any

from multidict import CIMultiDictProxy

from keyproxy.errors import Refusal
from keyproxy.strict_json.pieces import (
    MAX_AT_ONCE,
    MAX_DEPTH,
    PIECE,
    SHORT,
    TOO_DEEP,
    NotRead,
    Reader,
    check_depth,
    has_half_pair,
    is_flat,
    unique,
)

MAX_COMMAS = 250_000
"""More elements than any honest call."""
THREAD_BYTES = SHORT  # less is read on the event loop
THREAD_COMMAS = 1_000
SMALL_BYTES = 4_000  # whatever is in them, they take less than that
_SECOND_TYPE = re.compile(r",[ \t]*(?:[\w.+*-]+/|$)", re.A)
_ELEMENT_BYTES = 200
KEPT_TIMES = 3
"""So much more memory than its bytes a large body takes while what was read of it is kept: as one
text, and in parts. (More, where it has many short ones, which are bounded in number.)"""
_TIMES, _TIMES_ESCAPED, _TIMES_WIDE = 5, 8, 14  # measured: benchmarks/memory.py
_JSON_TYPE = re.compile(r'application/json(?:[ \t]*;[ \t]*charset="?utf-8"?)?[ \t]*', re.I | re.A)


def whole_number(value: Any) -> int | None:
    """The whole number that a JSON value is, in any spelling (``2e3``); None if it is none."""
    if type(value) is int:
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def check_media_type(headers: CIMultiDictProxy[str]) -> None:
    """Raises ``unsupported_media_type`` unless the body says it is plain UTF-8 JSON.

    The type forces browsers of other origins into a preflight; a coding would hide the body.
    """
    types = headers.getall("Content-Type", ())
    if len(types) != 1 or not _JSON_TYPE.fullmatch(types[0]):
        is_twice = _SECOND_TYPE.search(",".join(types))  # a page's two fields are joined so
        raise Refusal(
            "unsupported_media_type",
            "The header Content-Type is there twice; send it once, as application/json."
            if is_twice
            else "Send the body as Content-Type: application/json, in UTF-8.",
        )
    if "Content-Encoding" in headers:
        for coding in headers.getall("Content-Encoding"):
            if coding.strip().lower() != "identity":
                raise Refusal("unsupported_media_type", "Send the body without Content-Encoding.")


def is_large(raw: bytes) -> bool:
    """Parsing it would hold the event loop for more than about 2 ms."""
    size = len(raw)
    return size >= THREAD_BYTES or (
        size > SMALL_BYTES
        and (
            _has_more(raw, THREAD_COMMAS, b",")
            or _has_more(raw, THREAD_COMMAS, b"{", b"[")
            or _has_more(raw, 4 * THREAD_COMMAS, b'"')
        )
    )


def _has_more(raw: bytes, most: int, *marks: bytes) -> bool:
    """Whether it holds more than ``most`` of them. To leave bytes out is many times faster than to
    count them, where they are few."""
    rest = raw
    for mark in marks:
        rest = rest.replace(mark, b"", most + 1)
    return len(raw) - len(rest) > most


def reading_bytes(raw: bytes) -> int:
    """The most memory that reading, checking and writing it anew takes, besides ``raw`` itself.

    A text takes one byte a character, or four for all of it where one character needs them. Looks
    at the body piece by piece: the interpreter lock is free between them.
    """
    pieces = [(at, at + PIECE + 1) for at in range(0, len(raw), PIECE)]
    times = _TIMES
    if not raw.isascii():
        times = _TIMES_WIDE
    elif any(raw.rfind(b"\\u", *piece) >= 0 for piece in pieces):  # faster than ``find``
        times = _TIMES_ESCAPED
    commas = sum(raw.count(b",", *piece) for piece in pieces)
    return times * len(raw) + _ELEMENT_BYTES * min(commas, MAX_COMMAS)


def read(raw: bytes) -> tuple[dict[str, Any], Reader]:
    """The one JSON object in ``raw``, and its reader. Raises ``invalid_json``."""
    try:
        return load(raw)
    except NotRead as error:
        raise Refusal("invalid_json", str(error)) from error


def load(raw: bytes) -> tuple[dict[str, Any], Reader]:
    """As ``read``, also for JWTs and key sets. Raises ``NotRead``, a ``ValueError``."""
    text = ""
    try:
        if len(raw) > MAX_COMMAS and raw.count(b",") > MAX_COMMAS:
            raise NotRead(f"The JSON body has too many elements, or more than {MAX_COMMAS} commas.")
        text = raw.decode()
        containers = _containers(raw)
        is_short = containers <= MAX_AT_ONCE or (containers <= THREAD_COMMAS and is_flat(raw))
        reader = Reader(text, _DECODER, None if is_short else PIECE)
        value = reader.whole()
    except (ValueError, RecursionError) as error:
        raise NotRead(_why(raw, text, error)) from error
    if type(value) is not dict:
        raise NotRead("The body must be one JSON object.")
    if MAX_DEPTH < containers <= MAX_AT_ONCE:
        check_depth(value)
    if has_half_pair(text):
        raise NotRead("The JSON body holds half of a surrogate pair.")
    return value, reader


def _containers(raw: bytes) -> int:
    """How many objects and lists it holds at most; too many to be read at once, if it is long."""
    size = len(raw)
    return size - len(raw.replace(b"{", b"").replace(b"[", b"")) if size < SHORT else size


def _why(raw: bytes, text: str, error: Exception) -> str:
    """What is wrong with a body, for whoever wrote it; ``text``: as far as it is one."""
    if not raw or raw.isspace():
        return "The call has no body; it must be one JSON object."
    if raw.startswith(codecs.BOM_UTF8):
        return "The body begins with a byte order mark; send UTF-8 without one."
    if isinstance(error, NotRead):
        return str(error)
    if isinstance(error, UnicodeDecodeError):
        return "The body is not UTF-8."
    if isinstance(error, RecursionError):
        return TOO_DEEP
    place = ""
    if isinstance(error, json.JSONDecodeError) and error.doc is text:  # else of a piece
        place = f": see line {error.lineno}, column {error.colno}"
    return f"The body is not valid JSON{place}."


def let_go(value: Any) -> None:
    """Free what ``read`` made, one object or list after the other: as a whole it would keep
    the interpreter lock for some milliseconds."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        inner = node.values() if type(node) is dict else node
        waiting += [item for item in inner if type(item) is dict or type(item) is list]
        node.clear()


def rewritten(
    raw: bytes,
    parsed: Mapping[str, Any],
    reader: Reader,
    changes: Mapping[str, Any],
    removed: Collection[str] = (),
) -> bytes:
    """``raw``, which ``read`` took as ``parsed``, no empty one, with top-level fields set and those
    of ``removed`` taken out, each with its comma; all else stays to the byte.

    A field that is there changes its value in place, a new one comes last.
    """
    if not removed and parsed.keys().isdisjoint(changes):
        return _extended(raw, changes)  # most calls are only given a cap
    text, parts, copied = reader.text, list[bytes](), 0
    if sought := parsed.keys() & {*changes, *removed}:
        kept_end, has_kept = text.index("{") + 1, False
        for name, start, end in _members(reader) if removed else _named(reader, sought):
            if name in removed:
                parts += _encoded(text, copied, kept_end)
                copied = end if has_kept else _after_comma(reader, end)
            else:
                if name in changes:
                    parts += (*_encoded(text, copied, start), *_written(changes[name]))
                    copied = end
                kept_end, has_kept = end, True
            sought.discard(name)
            if not sought:
                break
    parts += _encoded(text, copied, len(text))
    body = b"".join(parts)
    new = {name: value for name, value in changes.items() if name not in parsed}
    mark = "" if removed and parsed.keys() <= {*removed} else ", "
    return _extended(body, new, mark) if new else body


def _extended(raw: bytes, new: Mapping[str, Any], mark: str = ", ") -> bytes:
    """A body with fields that it has not, short ones, the first behind ``mark``."""
    end = _before_space(raw, raw.rindex(b"}"))
    parts: list[str] = []
    for name, value in new.items():
        parts += (mark, _quoted(name), ": ")
        _write(parts, value)
        mark = ", "
    return b"".join((raw[:end], "".join(parts).encode(), raw[end:]))


def _after_comma(reader: Reader, end: int) -> int:
    """Past the comma behind a member that ends there, if there is another one."""
    at = reader.after_space(end)
    return at + 1 if reader.text[at] == "," else end


def _before_space(raw: bytes, end: int) -> int:
    """Where the white space begins that ends there; there is more before it."""
    if raw[end - 1] > 32:
        return end
    while not (piece := raw[max(0, end - PIECE) : end].rstrip(b" \t\n\r")):
        end -= PIECE
    return max(0, end - PIECE) + len(piece)


def _encoded(text: str, start: int, end: int) -> list[bytes]:
    if end - start <= PIECE:
        return [text[start:end].encode()]
    return [text[at : min(at + PIECE, end)].encode() for at in range(start, end, PIECE)]


def _written(value: Any) -> list[bytes]:
    """As JSON that is no longer than it must be (escapes would triple what is not ASCII), with
    the numbers of ``read`` as they were written."""
    parts: list[str] = []
    _write(parts, value)
    return ["".join(parts[at : at + 1_000]).encode() for at in range(0, len(parts), 1_000)]


def _write(parts: list[str], value: Any) -> None:
    if type(value) is int:  # most are a cap
        parts.append(str(value))
    elif isinstance(value, str):
        parts.append('"')
        for start in range(0, len(value), PIECE):
            parts.append(_quoted(value[start : start + PIECE])[1:-1])
        parts.append('"')
    elif isinstance(value, dict):
        mark = "{"
        for name, inner in value.items():
            parts += (mark, _quoted(name), ": ")
            _write(parts, inner)
            mark = ", "
        parts.append("}" if value else "{}")
    elif isinstance(value, list):
        mark = "["
        for inner in value:
            parts.append(mark)
            _write(parts, inner)
            mark = ", "
        parts.append("]" if value else "[]")
    else:
        parts.append(value.text if isinstance(value, _Number) else json.dumps(value))


def _members(reader: Reader) -> Iterator[tuple[str, int, int]]:
    """Each top-level name of a valid, non-empty object, and where its value begins and ends."""
    text = reader.text
    end = text.index("{")
    while text[end] != "}":
        name, start = reader.value(text.index('"', end))
        start = reader.after_space(reader.after_space(start) + 1)
        end = reader.end(start)
        yield name, start, end
        end = reader.after_space(end)


def _named(reader: Reader, names: Collection[str]) -> Iterable[tuple[str, int, int]]:
    """Those of ``_members`` that have these names, which are there; it may be all of them.

    A plain name that stands once in the text stands there: else it would have to be spelled with
    escapes, as ``\\u00..``. So what stands before it need not be read once more.
    """
    text, found = reader.text, []
    for name in names:
        quoted = f'"{name}"'
        at = (
            text.find(quoted)
            if len(text) < SHORT and name.isascii() and name.isidentifier()
            else -1
        )
        if at < 0 or text.rfind(quoted) > at or text.rfind("\\u00") >= 0:  # faster than ``find``
            return _members(reader)
        start = reader.after_space(reader.after_space(at + len(quoted)) + 1)
        found.append((name, start, reader.end(start)))
    return sorted(found, key=itemgetter(1))


def _no_constant(name: str) -> Any:
    raise NotRead(f"{name} is not JSON.")


def _integer(text: str) -> int:
    if len(text) > 64:
        raise NotRead("A number in the JSON body has too many digits.")
    return int(text)


class _Number(float):
    """A number that remembers how it was written."""

    __slots__ = ("text",)
    text: str


def _number(text: str) -> float:
    value = _Number(text)
    value.text = text
    if len(text) > 64 or value in (float("inf"), float("-inf")):
        raise NotRead("A number in the JSON body is too large.")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=unique, parse_constant=_no_constant, parse_int=_integer, parse_float=_number
)
