"""Values at a few known places of a JSON document of any size, fed in pieces. Pure.

Only the wanted values are kept, each up to a bound; megabytes of text, images or embeddings
around them pass at the speed of a byte search. A name inside a string or at any other place is
never taken for a wanted one. It is no validator: of a broken document it may find anything.
A small document that is here as a whole is decoded instead, which finds the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from keyproxy.strict_json.pieces import unique

Place = tuple[str | None, ...]
"""The names on the way to a value; None is "in any element of an array"."""

MAX_VALUE_BYTES = 64 * 1024  # a usage object has about 600 bytes
MAX_WHOLE_BYTES = 16 * 1024
"""To decode at once. Below ``_MAX_STEPS``, so that no such document is beyond a skimmer."""
_MAX_NAME_BYTES = 80  # of a wanted one with every character escaped
_MAX_STEPS = 20_000  # brackets and quotes met singly; some 50 ms
_STEPS_FOR_A_PIECE = 16  # an honest one takes fewer, thanks to _UNWANTED
_TEXT = rb'(?:[^"\\]++|\\.)*+'
_REST_OF_STRING = re.compile(_TEXT, re.S)
_GAP = re.compile(rb'[^"\[\]{}]*+')
# What is of no interest goes by whole strings, and by whole values of a few levels: a choice's
# log probabilities have four. Each is atomic: before Python 3.11.5, a repetition that never gives
# back did not return to its last whole item when the next one broke off (cpython 100061).
_ITEM = rb'(?>[^"\[\]{}]++|"' + _TEXT + rb'")'
for _ in range(4):
    _ITEM = rb'(?>[^"\[\]{}]++|"%b"|[\[{]%b*+[\]}])' % (_TEXT, _ITEM)
_UNWANTED = re.compile(_ITEM + rb"*+", re.S)
# A name without escapes and a value that is no container, whole: most of what a document has.
_MEMBER = re.compile(
    rb'[\s,]*+"([^"\\]{0,%d}+)"\s*+:\s*+("%b"|[^"\[\]{},\s]++)(?=\s*+[,}])'
    % (_MAX_NAME_BYTES, _TEXT),
    re.S,
)
_QUOTE, _OPEN = b'"', b"{["
_SPACE = b" \t\r\n"  # as JSON has it


REFUSED: Final = object()
"""A value that is there and cannot be trusted: not JSON, too long, or said twice."""


class Wanted:
    """The places to look for; made once. ``tree``: by names from the top, each place at its end."""

    def __init__(self, places: Iterable[Place]) -> None:
        self.places = frozenset(places)
        self.ways = frozenset(place[:end] for place in self.places for end in range(len(place)))
        self.tree: dict[str | None, Any] = {}
        for place in self.places:
            node = self.tree
            for name in place[:-1]:
                node = node.setdefault(name, {})
            node[place[-1]] = place


def read_whole(data: bytes, wanted: Wanted) -> dict[Place, Any] | None:
    """What a ``Skimmer`` finds in ``data``; None where only that can tell: it is not one small
    object, whole and with no name said twice in any other."""
    if len(data) > MAX_WHOLE_BYTES:
        return None
    document = _loads(data)
    if type(document) is not dict:
        return None
    found: dict[Place, Any] = {}
    pick(document, wanted.tree, found)
    return found


def pick(value: Any, tree: Mapping[str | None, Any], found: dict[Any, Any]) -> None:
    """Add what stands in ``value`` by the names of ``tree``, called as at their end; no nulls."""
    if type(value) is dict:
        for name in tree:
            if name not in value or (member := value[name]) is None:
                continue
            inner = tree[name]
            if type(inner) is dict:
                pick(member, inner, found)
            else:
                found[inner] = member
    elif type(value) is list and None in tree:
        for item in value:
            pick(item, tree[None], found)


class Skimmer:
    """One for each document. ``found`` may be relied on once ``is_whole``; nulls are not in it."""

    def __init__(self, wanted: Wanted) -> None:
        self.found: dict[Place, Any] = {}
        self.is_whole = False
        self._wanted = wanted
        # For each open container that leads to a wanted place: the member at which it stands.
        self._names: list[str | None] = []
        self._depth = 0  # open containers below those: inside a wanted value, or of no interest
        self._kept: bytearray | None = None  # the name or the wanted value that is being read
        self._limit = 0
        self._before = b""  # the last byte outside strings that is no space
        self._is_in_string = False
        self._is_in_name = False
        self._is_escaped = False
        self._is_broken = False
        self._steps = 0

    def feed(self, data: bytes) -> None:
        """Read on. What follows the end of the document is not looked at."""
        self._steps = max(0, self._steps - _STEPS_FOR_A_PIECE)
        at = 0
        while at < len(data) and not self.is_whole and not self._is_broken:
            read = self._read_string if self._is_in_string else self._read_gap
            at = read(data, at)

    def _read_string(self, data: bytes, at: int) -> int:
        """Read to the string's end, or as far as it is here; returns where that is."""
        end, is_closed = self._end_of_string(data, at)
        self._keep(data[at:end])
        if is_closed:
            self._is_in_string = False
            self._close_string()
        return end

    def _read_gap(self, data: bytes, at: int) -> int:
        """Read up to the next bracket or string, and enter it; returns where that is."""
        if self._depth:
            match = _UNWANTED.match(data, at)
        elif self._is_before_name() and (member := _MEMBER.match(data, at)):
            place = (*self._names[:-1], member[1].decode(errors="replace"))
            if place in self._wanted.places:
                self._put(place, member[2])
            self._before = _QUOTE
            return member.end()
        else:
            match = _GAP.match(data, at)
        end = match.end() if match else at
        gap = data[at:end]
        self._keep(gap)
        if not self._depth and (seen := gap.rstrip(_SPACE)):
            self._before = seen[-1:]
        if end == len(data):
            return end
        self._step(data[end : end + 1])
        return end + 1

    def _is_before_name(self) -> bool:
        is_in_object = bool(self._names) and self._names[-1] is not None
        return is_in_object and self._kept is None and self._before != b":"

    def _step(self, mark: bytes) -> None:
        """One bracket or opening quote."""
        self._steps += 1
        if (not self._names and (mark != b"{" or self._before)) or self._steps > _MAX_STEPS:
            self._is_broken = True  # not one object, or one made to waste time
            return
        is_in_value = self._depth > 0 or self._before == b":"
        if not is_in_value and self._kept is not None:
            self._close_value()  # a number, true, false or null has ended
        if mark == _QUOTE:
            self._is_in_string = True
            if not is_in_value and self._names[-1] is not None:
                self._is_in_name = True
                self._kept, self._limit = bytearray(), _MAX_NAME_BYTES + 3
            self._keep(mark)
        elif mark in _OPEN:
            self._keep(mark)
            self._open(mark)
        else:
            self._keep(mark)
            self._close()
        self._before = mark

    def _open(self, mark: bytes) -> None:
        leads_on = (
            self._kept is None and not self._depth and tuple(self._names) in self._wanted.ways
        )
        if leads_on:
            self._names.append("" if mark == b"{" else None)
        else:
            self._depth += 1

    def _close(self) -> None:
        if self._depth:
            self._depth -= 1
            if not self._depth and self._kept is not None:
                self._close_value()
            return
        self._names.pop()
        self.is_whole = not self._names

    def _close_string(self) -> None:
        if self._depth or self._kept is None:
            return
        if self._is_in_name:
            self._is_in_name = False
            name = _loads(bytes(self._kept)) if len(self._kept) < self._limit else REFUSED
            self._names[-1] = name if isinstance(name, str) else ""
            self._kept = None
            if tuple(self._names) in self._wanted.places:
                self._kept, self._limit = bytearray(), MAX_VALUE_BYTES + 99
        else:
            self._close_value()

    def _close_value(self) -> None:
        raw, self._kept = bytes(self._kept or b""), None
        self._put(tuple(self._names), raw.strip(_SPACE + b":,"))

    def _put(self, place: Place, raw: bytes) -> None:
        value = _loads(raw) if len(raw) <= MAX_VALUE_BYTES else REFUSED
        if value is not None:
            is_again = place in self.found and None not in place
            self.found[place] = REFUSED if is_again else value

    def _keep(self, data: bytes) -> None:
        """Keep so much that it can be told when it was too long."""
        if self._kept is not None:
            self._kept += data[: self._limit - len(self._kept)]

    def _end_of_string(self, data: bytes, at: int) -> tuple[int, bool]:
        """Where the string, or what is here of it, ends; and whether it does end there."""
        if self._is_escaped:
            at += 1
            self._is_escaped = False
        end = data.find(_QUOTE, at)
        if data.find(b"\\", at, end if end >= 0 else len(data)) >= 0:
            # Slower than a search for one byte, but it knows what is escaped.
            match = _REST_OF_STRING.match(data, at)
            end = match.end() if match else at
            if data[end : end + 1] != _QUOTE:
                self._is_escaped = end < len(data)
                return len(data), False
        return (end + 1, True) if end >= 0 else (len(data), False)


def _loads(raw: bytes) -> Any:
    """The value, its numbers as int or Decimal; REFUSED when not all readers agree on it."""
    try:
        text = raw.strip(_SPACE).decode()
        value, end = _DECODER.raw_decode(text)  # ``decode`` looks for space by expressions
    except (ValueError, ArithmeticError, RecursionError):
        return REFUSED
    return value if end == len(text) else REFUSED


def _integer(text: str) -> int | Decimal:
    """An ``int`` would forget the sign of ``-0``."""
    return Decimal(text) if text[0] == "-" else int(text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=unique, parse_int=_integer, parse_float=Decimal, parse_constant=Decimal
)
