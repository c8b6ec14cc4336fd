"""What runs inside Redis or Valkey: the look and the count as one step, in one round trip; how
windows and places are put to it, and what its replies mean.

The ``limits`` library's own calls are not enough: they count one window in each round trip,
so two replicas look at the same room and both take it, and a refused call stays counted in the
windows before the one that refused. A script sees all windows and the places in flight at
once, and nothing else runs meanwhile. Time is the server's own (TIME, PTTL), so replicas whose
clocks differ agree. One server: the names of keys in calendar windows are made in here, which
Redis Cluster would not allow.

Pure. All names begin with ``keyproxy:`` and are bounded, whatever a client calls itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from keyproxy.limits.connection import Arguments
from keyproxy.limits.windows import Place, Span, Standing, Verdict, Window

Act = Literal["take", "look", "adjust"]

ROLLING = -1
ALIGNED = -2
"""In place of ``begins``: a window that begins with its first call, or with the calendar."""

COUNT = """
-- KEYS: the windows, then the client's places in flight.
-- ARGV: what to do (take, look, adjust), windows, most places (0: none asked for),
-- lease in ms, the call's name among the places; then for each window, times in ms: amount,
-- cost, length, begins, ends, floor, owed, left.
-- Returns: is admitted, is crowded, then count, time left and begin for each window.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local act, windows, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local lease, name = tonumber(ARGV[4]), ARGV[5]
local late = 60000 -- replicas may be that late at the end of a span they named themselves
local seen, blocked = {}, false

local function write(window, count)
  if window.exists then
    redis.call('INCRBY', window.key, string.format('%.0f', count - window.count))
  else
    redis.call('SET', window.key, string.format('%.0f', count), 'PXAT',
      string.format('%.0f', window.dies))
    window.exists = true
  end
  window.count = count
end

for i = 1, windows do
  local at = 5 + (i - 1) * 8
  local window = {key = KEYS[i], amount = tonumber(ARGV[at + 1]), cost = tonumber(ARGV[at + 2])}
  local length, begins = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local ends, floor = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6])
  local owed, left = tonumber(ARGV[at + 7]), tonumber(ARGV[at + 8])
  if begins == -2 then
    begins = now - now % length
    if ends ~= begins + length then floor, owed = 0, 0 end -- news of another window
    ends = begins + length
    window.dies = ends
  elseif begins >= 0 then
    window.dies = math.max(now, ends) + late
  end
  if begins >= 0 then
    window.key = window.key .. '@' .. string.format('%.0f', begins / 1000)
  end
  local found = redis.call('GET', window.key)
  window.exists, window.count = found and true or false, tonumber(found or 0)
  if begins == -1 then
    local lives = redis.call('PTTL', window.key)
    if lives == -1 then -- somebody took its end away
      redis.call('PEXPIRE', window.key, length)
      lives = length
    end
    if lives < 0 then lives = left > 0 and left or length end
    ends = now + lives
    window.dies = ends
  end
  window.begins, window.ends = begins, ends
  -- What a replica knows of this window and the server lost or never heard. A window that has
  -- nothing to tell must not be written: it begins with the call that is counted in it.
  local known = math.max(0, math.max(window.count, floor) + owed)
  if known ~= window.count then write(window, known) end
  if act == 'adjust' and window.exists then
    write(window, math.max(0, window.count + window.cost))
  end
  -- Not count + cost: beyond 2^53 that sum would be rounded.
  if window.cost > math.max(0, window.amount - window.count) then blocked = true end
  seen[i] = window
end

local crowded, places = false, KEYS[windows + 1]
if most > 0 then
  redis.call('ZREMRANGEBYSCORE', places, '-inf', now)
  crowded = redis.call('ZCARD', places) >= most
end

local admitted = act == 'take' and not blocked and not crowded
if admitted then
  for i = 1, windows do write(seen[i], seen[i].count + seen[i].cost) end
  if most > 0 then
    redis.call('ZADD', places, now + lease, name)
    redis.call('PEXPIRE', places, lease)
  end
end

local reply = {admitted and 1 or 0, crowded and 1 or 0}
for i = 1, windows do
  reply[#reply + 1] = seen[i].count
  reply[#reply + 1] = math.max(0, seen[i].ends - now)
  reply[#reply + 1] = seen[i].begins
end
return reply
"""

RENEW = """
-- KEYS: places in flight, one for each open call. ARGV: lease in ms, then the calls' names.
-- A lease that was lost is taken again: its call is open.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 1, #KEYS do
  redis.call('ZADD', KEYS[i], now + tonumber(ARGV[1]), ARGV[i + 1])
  redis.call('PEXPIRE', KEYS[i], ARGV[1])
end
return #KEYS
"""

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


def verdict(windows: Sequence[Window], numbers: Sequence[int]) -> Verdict:
    """What the storage answered to ``count``; each window with the span it was counted in."""
    is_admitted, is_crowded, *rest = numbers
    each = zip(windows, rest[::3], rest[1::3], rest[2::3], strict=True)
    standings = [
        Standing(_resolved(window, begins), units, milliseconds / 1000)
        for window, units, milliseconds, begins in each
    ]
    return Verdict(bool(is_admitted), tuple(standings), bool(is_crowded))


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
