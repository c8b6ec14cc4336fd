"""Bytes to one JSON object, read so strictly that every later reader agrees. Pure.

Refused are: duplicate keys at any depth, NaN and Infinity, a byte order mark, trailing data,
other encodings than UTF-8, lone surrogates, absurd nesting and element counts.
Sources: RFC 8259; "An Exploration of JSON Interoperability Vulnerabilities" (Bishop Fox, 2021).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from secrets import token_hex
from typing import Any

from multidict import CIMultiDictProxy

from keyproxy.errors import Refusal

MAX_COMMAS = 250_000
"""More elements than any honest call; the C scanner holds the interpreter lock throughout."""
MAX_CONTAINERS = 50_000
"""Objects and lists: each costs many times what a number does, with the lock held for much of it.
Ten thousand messages with several parts each stay below."""
MAX_DEPTH = 64  # tool schemas seen in the wild stay below 20
THREAD_BYTES = 128 << 10  # about 1 ms of parsing, on the event loop
THREAD_COMMAS = 1_000
_SPACE = re.compile(r"[ \t\n\r]*")
_JSON_TYPE = re.compile(r'application/json(?:[ \t]*;[ \t]*charset="?utf-8"?)?[ \t]*', re.I | re.A)
# The next bracket, past whole strings; an open one takes the rest, so that one pass is all.
# At most 1,000 steps a match: the interpreter lock is held throughout each.
_BRACKET = re.compile(
    rb"""(?:[^\[\]{}"]++|"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)){0,1000}+([\[\]{}]?)""", re.S
)


def check_media_type(headers: CIMultiDictProxy[str]) -> None:
    """Raises ``unsupported_media_type`` unless the body says it is plain UTF-8 JSON.

    The type forces browsers of other origins into a preflight; a coding would hide the body.
    """
    types = headers.getall("Content-Type", [])
    if len(types) != 1 or not _JSON_TYPE.fullmatch(types[0]):
        raise Refusal(
            "unsupported_media_type",
            "Send the body as Content-Type: application/json, in UTF-8.",
            must_close=True,
        )
    codings = [coding.strip().lower() for coding in headers.getall("Content-Encoding", [])]
    if any(coding != "identity" for coding in codings):
        raise Refusal(
            "unsupported_media_type", "Send the body without Content-Encoding.", must_close=True
        )


def is_large(raw: bytes) -> bool:
    """Parsing it would hold the event loop for more than about 2 ms."""
    return (
        len(raw) >= THREAD_BYTES
        or raw.count(b",") > THREAD_COMMAS
        or raw.count(b"{") + raw.count(b"[") > THREAD_COMMAS
        or raw.count(b'"') > 4 * THREAD_COMMAS
    )


def parse(raw: bytes) -> dict[str, Any]:
    """The one JSON object in ``raw``. Raises ``invalid_json``."""
    if raw.count(b",") > MAX_COMMAS:
        raise _invalid(f"The JSON body has too many elements, or more than {MAX_COMMAS} commas.")
    if raw.count(b"{") + raw.count(b"[") > MAX_CONTAINERS and _has_more(raw, MAX_CONTAINERS):
        raise _invalid(
            f"The JSON body has too many elements: more than {MAX_CONTAINERS} objects and lists."
        )
    _check_depth(raw)
    try:
        text = raw.decode("utf-8", "strict")
        value = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise _invalid("The body is not UTF-8.") from error
    except _Ambiguous as error:
        raise _invalid(str(error)) from error
    except RecursionError as error:
        raise _invalid("The JSON body is nested too deeply.") from error
    except ValueError as error:
        raise _invalid("The body is not valid JSON.") from error
    if not isinstance(value, dict):
        raise _invalid("The body must be one JSON object.")
    if b"\\u" in raw:
        _check_surrogates(text, value)
    return value


def rewritten(raw: bytes, changes: Mapping[str, Any]) -> bytes:
    """``raw``, a body that ``parse`` took, with top-level fields set; all else stays to the byte.

    A field that is there changes its value in place, a new one comes last.
    """
    text = raw.decode()
    parts, copied = [], 0
    missing = dict(changes)
    end = 0
    for name, start, end in _members(text):
        if name in missing:
            parts += [text[copied:start], _written(missing.pop(name))]
            copied = end
    parts.append(text[copied:end])
    parts += [f", {_written(name)}: {_written(value)}" for name, value in missing.items()]
    parts.append(text[end:])
    return "".join(parts).encode()


def _written(value: Any) -> str:
    """As JSON that is no longer than it must be (escapes would triple what is not ASCII), with
    the numbers of ``parse`` as they were written."""
    if isinstance(value, (str, int)):  # most are a name or a cap
        return json.dumps(value, ensure_ascii=False)
    texts: list[str] = []
    mark = token_hex(8)  # nobody can write it beforehand
    written = json.dumps(_marked(value, mark, texts), ensure_ascii=False)
    for index, text in enumerate(texts):
        written = written.replace(f'"{mark}{index}"', text, 1)
    return written


def _marked(value: Any, mark: str, texts: list[str]) -> Any:
    """``value`` with a text in place of each number that remembers its own."""
    if isinstance(value, _Number):
        texts.append(value.text)
        return f"{mark}{len(texts) - 1}"
    if isinstance(value, dict):
        return {name: _marked(item, mark, texts) for name, item in value.items()}
    if isinstance(value, list):
        return [_marked(item, mark, texts) for item in value]
    return value


def _members(text: str) -> Iterator[tuple[str, int, int]]:
    """Each top-level name of a valid, non-empty object, and where its value begins and ends."""
    end = text.index("{")
    while text[end] != "}":
        name, start = _DECODER.raw_decode(text, text.index('"', end))
        start = _after_space(text, _after_space(text, start) + 1)
        _, end = _DECODER.raw_decode(text, start)
        yield name, start, end
        end = _after_space(text, end)


def _after_space(text: str, index: int) -> int:
    match = _SPACE.match(text, index)
    return index if match is None else match.end()


class _Ambiguous(ValueError):
    """Valid for some JSON readers, and read differently by others."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Ambiguous("A key stands twice in the same JSON object.")
    return found


def _no_constant(name: str) -> Any:
    raise _Ambiguous(f"{name} is not JSON.")


def _integer(text: str) -> int:
    if len(text) > 64:
        raise _Ambiguous("A number in the JSON body has too many digits.")
    return int(text)


class _Number(float):
    """A number that remembers how it was written."""

    __slots__ = ("text",)
    text: str


def _number(text: str) -> float:
    value = _Number(text)
    value.text = text
    if len(text) > 64 or value in (float("inf"), float("-inf")):
        raise _Ambiguous("A number in the JSON body is too large.")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_integer, parse_float=_number
)


def _has_more(raw: bytes, most: int) -> bool:
    """Whether there are more objects and lists than ``most``; brackets in strings are none."""
    opened = (1 for match in _BRACKET.finditer(raw) if match[1] in (b"{", b"["))
    return sum(islice(opened, most + 1)) > most


def _check_depth(raw: bytes) -> None:
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return
    depth = 0
    for count, match in enumerate(_BRACKET.finditer(raw)):
        if match[1] in (b"{", b"["):
            depth += 1
        elif match[1]:
            depth -= 1
        if depth > MAX_DEPTH:
            raise _invalid("The JSON body is nested too deeply.")
        if count > MAX_COMMAS * 2:
            raise _invalid("The JSON body has too many elements.")


def _check_surrogates(text: str, value: dict[str, Any]) -> None:
    """A lone surrogate cannot be written as UTF-8 again; readers replace or drop it."""
    if not re.search(r"\\u[dD][89a-fA-F]", text):
        return
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise _invalid("The JSON body holds half of a surrogate pair.") from error


def _invalid(message: str) -> Refusal:
    return Refusal("invalid_json", message)
