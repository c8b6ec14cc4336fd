"""JSON read in pieces, so that the interpreter lock can change hands between any two. Pure.

The C scanner keeps the lock for all of a text that it is given, which may be 20 MB. Here it is
given what is short; longer lists, objects and texts are put together in Python, with the same
result.
"""

from __future__ import annotations

import re
from itertools import pairwise
from json import JSONDecodeError, JSONDecoder
from typing import Any

PIECE = 64 << 10
"""Characters that take some tenths of a millisecond to read."""
SHORT = 2 * PIECE
"""Less is read without letting go of the lock where it has few parts: within about 1 ms, several
times as fast as in pieces."""
MAX_CONTAINERS = 50_000
"""Objects and lists: each costs many times what a number does, with the lock held for much of it.
Ten thousand messages with several parts each stay below."""
MAX_AT_ONCE = 400
"""So many of them may be in a text that the C scanner gets whole, whatever they hold: it could go
that deep within a stack of 64 KiB, and with Python's recursion limit."""
MAX_DEPTH = 64  # tool schemas seen in the wild stay below 20
TOO_DEEP = "The JSON body is nested too deeply."
_TWICE = "A key stands twice in the same JSON object."

_AS_LISTS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes({*range(256)} - {*b"[]{}"})
_MOST_QUOTES = 8_000
_SPACE = re.compile(r"[ \t\n\r]{0,65536}")
# Up to the next bracket, past short texts, or to a quote that opens another one.
_MARK = re.compile(r"""(?>(?:[^\[\]{}"]{1,1000}|"[^"\\]{0,100}"){0,200})([\[\]{}"]?)""")
_ESCAPE = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u%s[0-9a-fA-F]{4}|\\[^u]"
# Items and members that hold no others, up to the comma behind the last of them.
_TEXT = r'[ \t\n\r]{0,9}"[^"\\]{0,100}"[ \t\n\r]{0,9}'
_FLAT = rf'(?:[^\[\]{{}}",]{{1,64}}+|{_TEXT})'
_FLAT_ITEMS = re.compile(rf"((?:{_FLAT},){{0,199}}{_FLAT}),")
_FLAT_MEMBERS = re.compile(rf"((?:{_TEXT}:{_FLAT},){{0,199}}{_TEXT}:{_FLAT}),")
# Within a text, to where it can be cut; and from its beginning, past all but halves of a pair.
_WORDS = re.compile(rf"""(?>(?:[^"\\]{{1,100}}|{_ESCAPE % ""}){{0,500}})""", re.S)
_SURROGATE = re.compile(r"\\u[dD]")  # a half of a pair, or what looks like one at first
_PAIRS = re.compile(rf"(?>(?:[^\\]{{1,100}}|{_ESCAPE % '(?![dD][89a-fA-F])'}){{0,500}})", re.S)


class NotRead(ValueError):
    """Its text says why, in words fit for the caller."""


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these names and values; a hook for decoders. Raises ``NotRead``.

    Of a name that stands twice some readers take the first value and some the last.
    """
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotRead(_TWICE)
    return members


class Reader:
    """Reads one text, or values within, as ``decoder`` would. Raises ValueError.

    ``piece``: how much of it may be read at once; None for all, which then is short and flat.
    """

    def __init__(self, text: str, decoder: JSONDecoder, piece: int | None = PIECE) -> None:
        self.text = text
        self._scan = decoder.raw_decode
        self._long = {} if piece is None else _long(text, piece)

    def whole(self) -> Any:
        """The one value that the text holds."""
        value, end = self.value(self.after_space(0))
        if end != len(self.text) and (end := self.after_space(end)) != len(self.text):
            raise JSONDecodeError("trailing data", self.text, end)
        return value

    def value(self, start: int) -> tuple[Any, int]:
        """The value that begins there, and where it ends."""
        cuts = self._long.get(start)
        if cuts is None:
            return self._scan(self.text, start)
        if self.text[start] == '"':
            return self._words(cuts), cuts[-1] + 1
        return self._parts(start)

    def end(self, start: int) -> int:
        """Where the value ends that begins there."""
        cuts = self._long.get(start)
        return self.value(start)[1] if cuts is None else cuts[-1] + 1

    def after_space(self, start: int) -> int:
        if self.text[start : start + 1] > " ":
            return start
        match = _SPACE.match(self.text, start)
        while match is not None and match.end() > start:
            start = match.end()
            match = _SPACE.match(self.text, start)
        return start

    def _parts(self, start: int) -> tuple[Any, int]:
        """The list or the object that begins there, and where it ends."""
        text, mark = self.text, self.text[start]
        found: Any = [] if mark == "[" else {}
        last, flat = ("]", _FLAT_ITEMS) if mark == "[" else ("}", _FLAT_MEMBERS)
        at = self.after_space(start + 1)
        while text[at : at + 1] != last:
            if found:
                at = self._past(",", at)
            some = flat.match(text, at)
            if some is not None:
                _add(found, self._scan(f"{mark}{some[1]}{last}", 0)[0])
                at = self.after_space(some.end())
            if mark == "[":
                value, at = self.value(at)
                found.append(value)
            else:
                if text[at : at + 1] != '"':
                    raise ValueError("no name")
                name, at = self.value(at)
                value, at = self.value(self._past(":", self.after_space(at)))
                _add(found, {name: value})
            at = self.after_space(at)
        return found, at + 1

    def _past(self, mark: str, at: int) -> int:
        """Behind the ``mark`` that has to stand there, and the space that follows."""
        if self.text[at : at + 1] != mark:
            raise ValueError(f"no {mark}")
        return self.after_space(at + 1)

    def _words(self, cuts: list[int]) -> str:
        """What has no escapes is one piece, however long: it is just copied."""
        return "".join(self._scan(f'"{self.text[a:b]}"', 0)[0] for a, b in pairwise(cuts))


def _add(found: Any, more: Any) -> None:
    """Take over the items of another list, or the members of another object."""
    if type(found) is list:
        found += more
    elif found.keys().isdisjoint(more):
        found |= more
    else:
        raise NotRead(_TWICE)


def check_depth(value: dict[str, Any]) -> None:
    """Raises ``NotRead`` where it nests deeper than ``MAX_DEPTH``."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for each in level
            for item in (each.values() if type(each) is dict else each)
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return
    raise NotRead(TOO_DEEP)


def is_flat(raw: bytes) -> bool:
    """Whether a JSON text of not too many quotes surely nests no deeper than ``MAX_DEPTH``, by its
    brackets outside of texts. It may be none: as far as it is one, the same brackets count."""
    pieces = raw.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"', _MOST_QUOTES)
    if len(pieces) > _MOST_QUOTES:
        return False
    marks = b"".join(pieces[::2]).translate(_AS_LISTS, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not marks:
            break
        marks = marks.replace(b"[]", b"")  # those that hold no others
    return not marks


def has_half_pair(text: str) -> bool:
    """Whether a JSON text escapes half of a surrogate pair: no text, readers replace or drop it."""
    at = text.find("\\")
    if at < 0:
        return False
    starts = range(at, len(text), PIECE)  # an expression finds it faster than ``in``
    if not any(_SURROGATE.search(text, start, start + PIECE + 2) for start in starts):
        return False
    while at >= 0:
        end = _PAIRS.match(text, at)
        if end is None or end.end() == at:
            return True
        at = text.find("\\", end.end())
    return False


def _long(text: str, piece: int) -> dict[int, list[int]]:
    """Where what is longer than a piece begins, and where it can be cut.

    The last cut of each is its closing quote or bracket; only texts have others.
    """
    found: dict[int, list[int]] = {}
    opened: list[int] = []
    count = at = 0
    while at < len(text):
        match = _MARK.match(text, at)
        if match is None:  # it matches everywhere
            raise ValueError("no mark")
        at, mark = match.end(), match[1]
        if mark == '"':
            start = at - 1
            cuts = _cuts(text, at, piece)
            at = cuts[-1] + 1
            if at - start > piece:
                found[start] = cuts
        elif mark in ("{", "["):
            opened.append(at - 1)
            count += 1
            if len(opened) > MAX_DEPTH:
                raise NotRead(TOO_DEEP)
            if count > MAX_CONTAINERS:
                raise NotRead(
                    "The JSON body has too many elements:"
                    f" more than {MAX_CONTAINERS} objects and lists."
                )
        elif mark:
            if not opened:
                raise ValueError("nothing to close")
            start = opened.pop()
            if at - start > piece:
                found[start] = [at - 1]
    if opened:
        raise ValueError("not closed")
    return found


def _cuts(text: str, at: int, piece: int) -> list[int]:
    """Where the text that begins there can be cut; the last is at the quote that closes it."""
    cuts = [at]
    quote = text.find('"', at)
    if 0 <= quote - at <= piece and text[quote - 1] != "\\":
        return [at, quote]  # most are short, and their escapes are looked at when they are read
    while quote >= 0:
        escape = text.find("\\", at, quote)
        if escape < 0:
            cuts.append(quote)
            return cuts
        words = _WORDS.match(text, escape)
        if words is None or words.end() == escape:
            raise ValueError("no escape")
        at = words.end()
        for place in (escape, at):
            if place - cuts[-1] > piece:
                cuts.append(place)
        if at > quote:
            quote = text.find('"', at)
    raise ValueError("no end")
