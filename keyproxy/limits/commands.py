"""How windows and places are put to the scripts in Redis, and what their replies mean.

Pure. All names begin with ``keyproxy:`` and are bounded, whatever a client calls itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from keyproxy.limits.connection import Arguments
from keyproxy.limits.script import ALIGNED, COUNT, RENEW, ROLLING
from keyproxy.limits.windows import Place, Span, Standing, Window

Act = Literal["take", "look", "adjust"]

_LONGEST_KEY = 64
_LEASES_A_COMMAND = 500


def _name(script: str) -> str:
    """What EVALSHA calls a script; no secret depends on it."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


_COUNT_NAME, _RENEW_NAME = _name(COUNT), _name(RENEW)
SCRIPTS: Mapping[str, str] = {_COUNT_NAME: COUNT, _RENEW_NAME: RENEW}


class News(NamedTuple):
    """What the storage may not know of a window: it holds at least ``floor`` units, and
    ``owed`` more. ``left``: milliseconds of it; ``span``: which one of the calendar it is."""

    floor: int = 0
    owed: int = 0
    left: int = 0
    span: Span | None = None


class Told(NamedTuple):
    """What the storage says of a window, with the span it was counted in; milliseconds."""

    window: Window
    units: int
    left: int

    @property
    def standing(self) -> Standing:
        left = max(0, self.window.amount - self.units)
        excess = max(0, self.units - self.window.amount)
        return Standing(self.window, left, self.left / 1000, excess)


class Reply(NamedTuple):
    is_admitted: bool
    is_crowded: bool
    windows: tuple[Told, ...]

    @property
    def standings(self) -> tuple[Standing, ...]:
        return tuple([told.standing for told in self.windows])


def count(
    act: Act,
    windows: Sequence[Window],
    news: Sequence[News],
    *,
    place: Place | None = None,
    name: str = "",
    lease_seconds: float,
) -> Arguments:
    """The one command for a call. ``name`` is the call's own, among those in flight."""
    keys = [_window_key(window) for window in windows]
    keys.append("keyproxy:open" if place is None else _place_key(place))
    most = 0 if place is None else place.most
    arguments: list[str | int] = ["EVALSHA", _COUNT_NAME, len(keys), *keys]
    arguments += [act, len(windows), most, round(lease_seconds * 1000), name]
    for window, known in zip(windows, news, strict=True):
        arguments += [window.amount, window.cost, window.seconds * 1000]
        arguments += [*_begins_ends(window, known), known.floor, known.owed, known.left]
    return arguments


def reply(windows: Sequence[Window], numbers: Sequence[int]) -> Reply:
    """What the storage answered to ``count``."""
    told = [
        Told(_resolved(window, numbers[at + 2]), numbers[at], numbers[at + 1])
        for window, at in zip(windows, range(2, len(numbers), 3), strict=True)
    ]
    return Reply(bool(numbers[0]), bool(numbers[1]), tuple(told))


def release(place: Place, name: str) -> Arguments:
    """Gives a place back."""
    return ("ZREM", _place_key(place), name)


def renewals(held: Mapping[Place, str], lease_seconds: float) -> Iterator[Arguments]:
    """Renew the leases of all calls in flight, by their names."""
    pairs = [(_place_key(place), name) for place, name in held.items()]
    for at in range(0, len(pairs), _LEASES_A_COMMAND):
        keys, names = zip(*pairs[at : at + _LEASES_A_COMMAND], strict=True)
        yield ("EVALSHA", _RENEW_NAME, len(keys), *keys, round(lease_seconds * 1000), *names)


def _begins_ends(window: Window, news: News) -> tuple[int, int]:
    if window.span is not None:
        return window.span.begins * 1000, window.span.ends * 1000
    if window.is_aligned:  # the end says which window the news is of
        return ALIGNED, 0 if news.span is None else news.span.ends * 1000
    return ROLLING, 0


def _resolved(window: Window, begins: int) -> Window:
    """The window with the span it was counted in, by the storage's clock."""
    if not window.is_aligned or window.span is not None:
        return window
    at = begins // 1000
    return window._replace(span=Span(at, at + window.seconds))


def _window_key(window: Window) -> str:
    return f"keyproxy:{window.name}:{window.seconds}:{_bounded(window.key)}"


def _place_key(place: Place) -> str:
    return f"keyproxy:open:{_bounded(place.key)}"


def _bounded(key: str) -> str:
    """Long keys by their hash; no app's name begins with ``#``."""
    if len(key) <= _LONGEST_KEY and key.isascii():
        return key
    return f"#{hashlib.blake2b(key.encode(errors='surrogatepass'), digest_size=16).hexdigest()}"
