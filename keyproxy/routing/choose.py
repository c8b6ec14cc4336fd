"""In which order the homes that qualify for a call are tried. Pure.

Nothing is drawn by lot and nothing is tried out: two replicas that know the same choose the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple

from keyproxy.price import Price
from keyproxy.routing.homes import Home
from keyproxy.routing.speed import Pace

Choice = Literal["order", "cheapest", "fastest"]
EQUAL = {"cheapest": 1.02, "fastest": 1.15}
"""Up to so many times the best is as good as the best."""
STREAM_TOKENS = 100
"""A reader has begun to read by then; how long the rest takes matters less."""
CROWD = 8
"""With so many calls in flight at a home the next one is expected to wait twice as long."""


class Candidate(NamedTuple):
    """A home that qualifies. ``score``: expected USD or seconds, None where that is not known;
    ``order`` does not ask. ``rests_seconds``: how much longer it rests, 0 for one that is well."""

    home: Home
    score: float | None = None
    rests_seconds: float = 0.0


def ordered(
    candidates: Iterable[Candidate],
    choice: Choice,
    conversation: bytes = b"",
    stays_at: Home | None = None,
) -> list[Home]:
    """Homes, the one to try first in front. Those that rest come last, the one due soonest first.

    ``candidates`` as the operator lists them. ``conversation`` decides between equal ones, and the
    home that it ``stays_at`` is first while it is well.
    """
    listed = list(candidates)
    well = [each for each in listed if not each.rests_seconds]
    resting = [each for each in listed if each.rests_seconds]
    resting.sort(key=lambda each: each.rests_seconds)
    if choice != "order":
        well = _scored(well, EQUAL[choice], conversation)
        well.sort(key=lambda each: each.home != stays_at)
    return [each.home for each in (*well, *resting)]


def expected_cost(price: Price | None, input_tokens: int, output_tokens: float) -> float | None:
    """USD that a call of so many tokens is expected to cost, at the rates of its length."""
    if price is None:
        return None
    rates = price.at(input_tokens)
    tokens = float(rates.prompt) * input_tokens + float(rates.output) * output_tokens
    return tokens + float(rates.request)


def expected_wait(pace: Pace, output_tokens: float, in_flight: int, *, is_streaming: bool) -> float:
    """Seconds until a stream can be read along, or a whole answer is there."""
    tokens = min(STREAM_TOKENS, output_tokens) if is_streaming else output_tokens
    return (pace.first_output_seconds + tokens * pace.seconds_per_token) * (1 + in_flight / CROWD)


def _scored(well: Sequence[Candidate], equal: float, conversation: bytes) -> list[Candidate]:
    known = [each.score for each in well if each.score is not None]
    most = min(known, default=0.0) * equal

    def place(candidate: Candidate) -> tuple[float, int]:
        if candidate.score is None:
            return float("inf"), 0
        if candidate.score > most:
            return candidate.score, 0
        return -1.0, -_weight(conversation, candidate.home)

    return sorted(well, key=place)


def _weight(conversation: bytes, home: Home) -> int:
    """Of rendezvous hashing (Thaler and Ravishankar, 1998): the home of the highest weight is the
    same everywhere, and losing another home moves no conversation of its."""
    said = b"\0".join((conversation, home.provider.encode(), home.native_id.encode()))
    return int.from_bytes(blake2b(said, digest_size=8).digest())
