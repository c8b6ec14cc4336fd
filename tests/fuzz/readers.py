"""JSON readers that agree only about honest bodies.

One reader keeps every member of an object with its place in the text. From it come those that
upstreams are known to use: the first or the last of two equal names counts, names are compared
without case, or cut at a NUL. Written apart from what they judge; RFC 8259.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple


class Member(NamedTuple):
    """A name, its value, and where the value stands in the text."""

    name: str
    value: Any
    start: int
    end: int


class Members(list[Member]):
    """An object as it is written: nothing merged, nothing forgotten."""


_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"((?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*)"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_ESCAPE = re.compile(
    r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|\\u(.{4})|\\(.)", re.S
)
_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}


def read(text: str) -> Any:
    """The value in ``text`` with objects as ``Members``. Raises ValueError."""
    value, end = _value(text, _skip(text, 0))
    if _skip(text, end) != len(text):
        raise ValueError("trailing data")
    return value


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _value(text: str, at: int) -> tuple[Any, int]:
    if text.startswith("{", at):
        return _object(text, at)
    if text.startswith("[", at):
        return _array(text, at)
    if match := _STRING.match(text, at):
        return _ESCAPE.sub(_unescaped, match[1]), match.end()
    for word, value in _WORDS.items():
        if text.startswith(word, at):
            return value, at + len(word)
    if match := _NUMBER.match(text, at):
        return json.loads(match[0]), match.end()
    raise ValueError(f"no value at {at}")


def _unescaped(match: re.Match[str]) -> str:
    high, low, unit, letter = match.groups()
    if high:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
    return chr(int(unit, 16)) if unit else _LETTERS.get(letter, letter)


def _array(text: str, at: int) -> tuple[list[Any], int]:
    items = []
    at = _skip(text, at + 1)
    while not text.startswith("]", at):
        value, at = _value(text, at)
        items.append(value)
        at = _next(text, at, "]")
    return items, at + 1


def _object(text: str, at: int) -> tuple[Members, int]:
    members = Members()
    at = _skip(text, at + 1)
    while not text.startswith("}", at):
        name, at = _value(text, at)
        at = _skip(text, at)
        if not isinstance(name, str) or not text.startswith(":", at):
            raise ValueError(f"no name at {at}")
        start = _skip(text, at + 1)
        value, at = _value(text, start)
        members.append(Member(name, value, start, at))
        at = _next(text, at, "}")
    return members, at + 1


def _next(text: str, at: int, closing: str) -> int:
    """Past a comma to the next element, or to the closing bracket."""
    at = _skip(text, at)
    if text.startswith(closing, at):
        return at
    if not text.startswith(",", at) or text.startswith(closing, _skip(text, at + 1)):
        raise ValueError(f"no comma at {at}")
    return _skip(text, at + 1)


def _same(name: str) -> str:
    return name


def folded(name: str) -> str:
    """A name as a reader takes it that compares without case or width."""
    return unicodedata.normalize("NFKC", name).casefold()


def _cut(name: str) -> str:
    return name.partition("\0")[0]


def views(members: list[Member]) -> Iterator[dict[str, Any]]:
    """What different readers make of one object's top level."""
    for spelled in (_same, folded, _cut):
        for ordered in (members, members[::-1]):
            yield {spelled(member.name): member.value for member in ordered}


def plain(value: Any) -> Any:
    """A value without places; no object in it may name anything twice."""
    if isinstance(value, Members):
        found = {member.name: plain(member.value) for member in value}
        assert len(found) == len(value), "a name stands twice"
        return found
    return [plain(item) for item in value] if isinstance(value, list) else value
