"""How soon homes answer and how much models write: damped averages of what calls met. Pure.

Only answers feed them: a failure says nothing of speed, and one that comes fast must not look it.
In memory and bounded; a restart begins with the priors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from keyproxy.dataclass import dataclass, field
from keyproxy.routing.homes import Home
from keyproxy.routing.recent import Recent

HALF_SAMPLES = 20
"""After so many further ones a sample counts half."""
FRESH_SECONDS = 1800.0
"""What was seen counts in full for so long after the last sample, then half each ``FADING``."""
FADING_SECONDS = 300.0
MOST_RISE = 4.0
"""One reasoning call that takes minutes does not bench a home: it counts as so many times the
expected at most."""
_LESS = 0.5 ** (1 / HALF_SAMPLES)
_MOST_KEPT = 2048
_PROMPT_CLASSES = (1_000, 8_000, 64_000)
_WHOLE_TOKENS = 300


class Pace(NamedTuple):
    """Seconds to the first output, and from there for each token of it."""

    first_output_seconds: float
    seconds_per_token: float


PRIORS: Mapping[str, Pace] = MappingProxyType(
    {
        "cerebras": Pace(0.4, 1 / 1000),
        "groq": Pace(0.4, 1 / 300),
        "gemini": Pace(0.9, 1 / 150),
        "mistral": Pace(0.7, 1 / 80),
        "openai": Pace(0.9, 1 / 80),
        "xai": Pace(0.9, 1 / 80),
        "anthropic": Pace(1.2, 1 / 70),
        "deepinfra": Pace(0.8, 1 / 50),
        "openrouter": Pace(1.2, 1 / 70),
    }
)
"""Where nothing was seen yet: orders of magnitude, from what vendors and comparisons published
until November 2026. One slow answer corrects one that is too good."""
UNKNOWN = Pace(1.0, 1 / 50)
"""Of a host that nobody has published."""


def prompt_class(tokens: int) -> int:
    """0 to 3: what is compared with what, since a long prompt takes longer everywhere."""
    return sum(tokens >= least for least in _PROMPT_CLASSES)


@dataclass(slots=True)
class Average:
    """The mean of the newest samples; ``prior`` counts as one, and alone where there are none."""

    prior: float
    value: float = 0.0
    weight: float = 0.0
    at: float = 0.0

    def add(self, sample: float, now: float) -> None:
        sample = min(sample, MOST_RISE * self.expected(now))
        weight = self.weight * self._fading(now) * _LESS
        self.value = (self.value * weight + sample) / (weight + 1)
        self.weight, self.at = weight + 1, now

    def expected(self, now: float) -> float:
        weight = self.weight * self._fading(now)
        return (self.value * weight + self.prior) / (weight + 1)

    def _fading(self, now: float) -> float:
        old_seconds = now - self.at - FRESH_SECONDS
        return 1.0 if old_seconds <= 0 else 0.5 ** (old_seconds / FADING_SECONDS)


class _Kind(NamedTuple):
    """Answers that are compared with each other."""

    home: Home
    is_streaming: bool
    prompt: int


@dataclass(eq=False)
class Speeds:
    """How soon each home answers, by kinds of calls."""

    clock: Callable[[], float] = time.monotonic
    _paces: Recent[_Kind, tuple[Average, Average]] = field(
        default_factory=lambda: Recent(_MOST_KEPT), init=False
    )

    def expected(self, home: Home, prompt_tokens: int, *, is_streaming: bool) -> Pace:
        """Of a whole answer, all its seconds are in those for each token."""
        kind = _Kind(home, is_streaming, prompt_class(prompt_tokens))
        if (averages := self._paces.used(kind)) is None:
            return _prior(kind)
        now = self.clock()
        return Pace(*(average.expected(now) for average in averages))

    def saw_stream(self, home: Home, prompt_tokens: int, pace: Pace) -> None:
        """A stream came to its end."""
        self._saw(_Kind(home, True, prompt_class(prompt_tokens)), pace)

    def saw_whole(self, home: Home, prompt_tokens: int, seconds: float, output_tokens: int) -> None:
        """A whole answer came, so many seconds after it was asked for."""
        kind = _Kind(home, False, prompt_class(prompt_tokens))
        self._saw(kind, Pace(0.0, seconds / max(1, output_tokens)))

    def _saw(self, kind: _Kind, pace: Pace) -> None:
        now = self.clock()
        averages = self._paces.used(kind)
        if averages is None:
            first, token = _prior(kind)
            averages = self._paces.put(kind, (Average(first), Average(token)))
        for average, sample in zip(averages, pace, strict=True):
            average.add(sample, now)


def _prior(kind: _Kind) -> Pace:
    first, token = PRIORS.get(kind.home.provider, UNKNOWN)
    first *= 1 + kind.prompt / 2
    if kind.is_streaming:
        return Pace(first, token)
    return Pace(0.0, first / _WHOLE_TOKENS + token)


@dataclass(eq=False)
class Outputs:
    """How many tokens each model writes for each app."""

    clock: Callable[[], float] = time.monotonic
    _means: Recent[tuple[str, str], Average] = field(
        default_factory=lambda: Recent(_MOST_KEPT), init=False
    )

    def expected(self, app: str, model: str, most: int | None) -> float:
        """Tokens; ``most`` is the cap of the call."""
        mean = self._means.used((app, model))
        tokens = float(_WHOLE_TOKENS) if mean is None else mean.expected(self.clock())
        return tokens if most is None else min(tokens, most)

    def saw(self, app: str, model: str, tokens: int) -> None:
        key = app, model
        mean = self._means.used(key) or self._means.put(key, Average(_WHOLE_TOKENS))
        mean.add(tokens, self.clock())
