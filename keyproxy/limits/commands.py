"""How windows and places are put to the scripts that run inside Redis or Valkey, and what their
replies mean: the look and the count are one step there, in one round trip.

The ``limits`` library's own calls are not enough: they count one window in each round trip,
so two replicas look at the same room and both take it, and a refused call stays counted in the
windows before the one that refused. ``count.lua`` sees all windows and the places in flight at
once, and nothing else runs meanwhile. Time is the server's own (TIME, PTTL), so replicas whose
clocks differ agree. One server: the names of keys in calendar windows are made in the script, which
Redis Cluster would not allow.

Pure, once the scripts are read. All names begin with ``keyproxy:`` and are bounded, whatever a
client calls itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from keyproxy.limits.connection import Arguments
from keyproxy.limits.windows import Change, Place, Verdict, Window

Act = Literal["take", "look", "adjust"]

_ROLLING = (-1, 0)
"""In place of the span of a window that begins with its first call."""

_LONGEST_KEY = 64
_PROCESS = os.urandom(6).hex()
_LEASES_A_COMMAND = 500


def _script(name: str) -> tuple[str, str]:
    """What EVALSHA calls a script that lies beside this file, and its text."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), text


_COUNT, _RENEW = _script("count.lua"), _script("renew.lua")
SCRIPTS: Mapping[str, str] = dict([_COUNT, _RENEW])


class News(NamedTuple):
    """What the storage may not know of a window: it holds at least ``floor`` units, and
    ``owed`` more. ``left``: milliseconds of it."""

    floor: int = 0
    owed: int = 0
    left: int = 0


def count(
    act: Act,
    changes: Sequence[Change],
    news: Sequence[News],
    place: Place | None,
    lease_seconds: float,
) -> Arguments:
    """The one command for a call."""
    keys = [_window_key(window) for window, _ in changes]
    keys.append("keyproxy:open" if place is None else _place_key(place))
    most, name = (0, "") if place is None else (place.most, _name(place))
    arguments: list[str | int] = ["EVALSHA", _COUNT[0], len(keys), *keys]
    arguments += [act, len(changes), most, round(lease_seconds * 1000), name]
    for (window, units), known in zip(changes, news, strict=True):
        begins, ends = window.span or _ROLLING
        arguments += [window.amount, units, window.seconds * 1000, begins, ends * 1000]
        arguments += [known.floor, known.owed, known.left]
    return arguments


def verdict(changes: Sequence[Change], numbers: Sequence[int]) -> Verdict:
    """What the storage answered to ``count``."""
    is_admitted, is_crowded, *rest = numbers
    each = zip(changes, rest[::2], rest[1::2], strict=True)
    found = [(window, units, left / 1000) for (window, _), units, left in each]
    return Verdict(bool(is_admitted), found, bool(is_crowded))


def release(place: Place) -> Arguments:
    """Gives a place back."""
    return ("ZREM", _place_key(place), _name(place))


def renewals(held: Iterable[Place], lease_seconds: float) -> Iterator[Arguments]:
    """Renew the leases of all calls in flight, by their names."""
    pairs = [(_place_key(place), _name(place)) for place in held]
    for at in range(0, len(pairs), _LEASES_A_COMMAND):
        keys, names = zip(*pairs[at : at + _LEASES_A_COMMAND], strict=True)
        yield ("EVALSHA", _RENEW[0], len(keys), *keys, round(lease_seconds * 1000), *names)


def _window_key(window: Window) -> str:
    name = f"{window.name}-open" if window.is_open else window.name
    return f"keyproxy:{name}:{window.seconds}:{_bounded(window.key)}"


def _name(place: Place) -> str:
    """The call's own name among those in flight, whichever replica they are of."""
    return f"{_PROCESS}:{place.number}"


def _place_key(place: Place) -> str:
    return f"keyproxy:open:{_bounded(place.key)}"


def _bounded(key: str) -> str:
    """Long keys by their hash; no app's name begins with ``#``."""
    if len(key) <= _LONGEST_KEY and key.isascii():
        return key
    return f"#{hashlib.blake2b(key.encode(errors='surrogatepass'), digest_size=16).hexdigest()}"
