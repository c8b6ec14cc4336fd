"""What choosing a home is worth: calls and homes without sockets, on a clock of its own.

``python -m tests.routing_world`` prints, for each world, how long the calls waited and what they
cost beside the best that could be had, what share went to the bad home, and how many turns met a
warm prompt cache. The same for everybody: lots are drawn from a seed.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from keyproxy.price import Price, Rates
from keyproxy.routing.breaker import Rests
from keyproxy.routing.choose import Candidate, Choice, expected_cost, expected_wait, ordered
from keyproxy.routing.homes import Home
from keyproxy.routing.speed import Outputs, Pace, Speeds
from keyproxy.routing.sticky import WARM_SECONDS, Stays
from keyproxy.upstream.faults import Fault

MODEL = "openai/gpt-oss-120b"
WARM_UP_CALLS = 50
_REFUSED_SECONDS = 0.2  # until a 429 or a 500 is there


class State(NamedTuple):
    """How a home is at one moment. ``calls_per_minute``: more are answered 429."""

    pace: Pace
    calls_per_minute: float = float("inf")
    fails: float = 0.0  # share of calls answered 500


def price(prompt: str, completion: str, cached: str) -> Price:
    """USD for a million tokens."""
    usd = (Decimal(each) / 1_000_000 for each in (prompt, completion, cached))
    return Price(Rates(**dict(zip(("prompt", "completion", "input_cache_read"), usd, strict=True))))


GROQ, CEREBRAS, DEEPINFRA = (
    Home("groq", MODEL),
    Home("cerebras", "gpt-oss-120b"),
    Home("deepinfra", MODEL),
)
HOMES = (GROQ, CEREBRAS, DEEPINFRA)
PRICES = {
    GROQ: price("0.15", "0.60", "0.075"),
    CEREBRAS: price("0.35", "0.75", "0.35"),
    DEEPINFRA: price("0.05", "0.45", "0.05"),
}


@dataclass(frozen=True)
class World:
    """``states`` tell how each home is, by the second. ``bad``: the one that nobody should use
    while it is so."""

    name: str
    states: Mapping[Home, Callable[[float], State]]
    bad: Home | None = None
    calls_per_second: float = 0.5
    prices: Mapping[Home, Price] = field(default_factory=lambda: PRICES)


CROSSING = {
    GROQ: price("0.10", "0.90", "0.05"),
    CEREBRAS: price("0.30", "0.40", "0.15"),
    DEEPINFRA: price("0.60", "0.60", "0.60"),
}
"""Which one is cheapest depends on how long a call's prompt and answer are."""
_USUAL = {
    GROQ: State(Pace(0.35, 1 / 350)),
    CEREBRAS: State(Pace(0.45, 1 / 900)),
    DEEPINFRA: State(Pace(0.9, 1 / 60)),
}
_CRAWLING = State(Pace(6.0, 1 / 15))


def _always(**changed: State) -> dict[Home, Callable[[float], State]]:
    states = {home: changed.get(home.provider, state) for home, state in _USUAL.items()}
    return {home: lambda at, state=state: state for home, state in states.items()}  # type: ignore[misc]


def _flapping(at: float) -> State:
    return _CRAWLING if at % 600 < 200 else _USUAL[CEREBRAS]


def _starting(at: float) -> State:
    """A model that nobody had called: minutes until it is loaded."""
    return State(Pace(12.0, 1 / 60)) if at < 240 else _USUAL[GROQ]


WORLDS = (
    World("as published", _always()),
    World("one slow home", _always(cerebras=_CRAWLING), CEREBRAS),
    World("one flaps", {**_always(), CEREBRAS: _flapping}, CEREBRAS),
    World("a cold start", {**_always(), GROQ: _starting}, GROQ),
    World(
        "a storm of 429",
        _always(cerebras=State(Pace(0.45, 1 / 900), calls_per_minute=6)),
        CEREBRAS,
        calls_per_second=2.0,
    ),
    World("prices cross", _always(), prices=CROSSING),
    World("one fails", _always(groq=State(Pace(0.35, 1 / 350), fails=0.5)), GROQ),
)


class Result(NamedTuple):
    """Of the calls behind the first ``WARM_UP_CALLS``. ``wait`` and ``bill``: times the best;
    ``bad`` and ``warm``: shares."""

    calls: int
    wait: float
    bill: float
    bad: float
    warm: float
    failed: float


@dataclass
class _Turns:
    """A conversation: each turn is longer than the last."""

    key: bytes
    left: int
    prompt_tokens: int
    cached_tokens: int = 0  # of the prompt, where the last turn went


@dataclass
class Run:
    world: World
    choice: Choice
    listed: Sequence[Home] = HOMES
    seed: int = 1
    now: float = 0.0
    open: dict[Home, list[float]] = field(default_factory=dict)  # when calls there will end
    asked: dict[Home, list[float]] = field(default_factory=dict)  # when calls were taken

    def __post_init__(self) -> None:
        self.lots = random.Random(self.seed)
        self.speeds = Speeds(self._clock)
        self.outputs = Outputs(self._clock)
        self.stays = Stays(self._clock)
        self.rests = Rests(self._clock)
        self.open = {home: [] for home in self.listed}
        self.asked = {home: [] for home in self.listed}

    def _clock(self) -> float:
        return self.now

    def calls(self, number: int) -> Result:
        """So many calls; what became of them."""
        waits = best_waits = bills = best_bills = 0.0
        bad = warm = turns = failed = counted = 0
        known: list[tuple[float, int, _Turns]] = []
        begins = 0.0
        for made in range(number):
            begins += self.lots.expovariate(self.world.calls_per_second)
            if known and known[0][0] <= begins:
                self.now, _, turn = heapq.heappop(known)
                self.now = max(self.now, begins)
            else:
                self.now = begins
                left, words = self.lots.randint(1, 8), self.lots.randint(200, 3000)
                turn = _Turns(self.lots.randbytes(16), left, words)
            output = max(20, int(self.lots.lognormvariate(5.5, 0.6)))
            is_bad_now = self._is_bad()
            warm_at = self.stays.warm(turn.key)
            home, wait = self._serve(turn, output)
            if made >= WARM_UP_CALLS:
                counted += 1
                waits += wait
                best_waits += min(self._wait(each, output) for each in self._well())
                failed += home is None
                bad += is_bad_now and home == self.world.bad
                if home is not None:
                    bills += self._bill(home, turn, output, warm_at)
                    best_bills += min(
                        self._bill(each, turn, output, warm_at) for each in self._well()
                    )
                    turns += warm_at is not None
                    warm += warm_at is not None and warm_at == home
            turn.left -= 1
            if turn.left:
                turn.cached_tokens = turn.prompt_tokens
                turn.prompt_tokens += output + 100
                again = self.now + self.lots.uniform(10, WARM_SECONDS / 2)
                heapq.heappush(known, (again, made, turn))
        return Result(
            counted,
            waits / best_waits,
            bills / best_bills,
            bad / counted,
            warm / max(1, turns),
            failed / counted,
        )

    def _serve(self, turn: _Turns, output: int) -> tuple[Home | None, float]:
        """Who answered, and how long that took with all that was tried before."""
        waited = 0.0
        order = ordered(
            [self._candidate(home, turn) for home in self.listed],
            self.choice,
            turn.key,
            self.stays.warm(turn.key),
        )
        for home in order[:3]:
            state = self.world.states[home](self.now)
            lately = [at for at in self.asked[home] if at > self.now - 60]
            self.asked[home] = lately
            self.rests.tries(home)
            is_full = len(lately) >= state.calls_per_minute
            if is_full or self.lots.random() < state.fails:
                waited += _REFUSED_SECONDS
                self.rests.failed(home, Fault.LOAD if is_full else Fault.UNCERTAIN, None)
                self.stays.failed(turn.key, home)
                continue
            self.rests.answered(home)
            lately.append(self.now)
            first, token = state.pace
            pace = Pace(first * self.lots.lognormvariate(0, 0.4), token)
            self.speeds.saw_stream(home, turn.prompt_tokens, pace)
            self.outputs.saw("default", MODEL, output)
            self.stays.served(turn.key, home)
            heapq.heappush(self.open[home], self.now + first + output * token)
            return home, waited + self._wait(home, output)
        return None, waited

    def _candidate(self, home: Home, turn: _Turns) -> Candidate:
        tokens = self.outputs.expected("default", MODEL, None)
        if self.choice == "cheapest":
            score = expected_cost(self.world.prices[home], turn.prompt_tokens, tokens)
        else:
            ends = self.open[home]
            while ends and ends[0] <= self.now:
                heapq.heappop(ends)
            pace = self.speeds.expected(home, turn.prompt_tokens, is_streaming=True)
            score = expected_wait(pace, tokens, len(ends), is_streaming=True)
        return Candidate(home, score, self.rests.seconds(home))

    def _bill(self, home: Home, turn: _Turns, output: int, warm_at: Home | None) -> float:
        """USD of a turn, of which what the last one said is read from the cache of its home."""
        rates = self.world.prices[home].rates
        cached = turn.cached_tokens if home == warm_at else 0
        cost = rates.prompt * (turn.prompt_tokens - cached) + rates.input_cache_read * cached
        return float(cost + rates.completion * output)

    def _wait(self, home: Home, output: int) -> float:
        """The mean of its waits now: luck is no merit of a choice."""
        return expected_wait(self.world.states[home](self.now).pace, output, 0, is_streaming=True)

    def _well(self) -> list[Home]:
        """Homes that the best choice may take: none that mostly refuses."""
        return [
            home
            for home in self.listed
            if not self.world.states[home](self.now).fails
            and self.world.states[home](self.now).calls_per_minute == float("inf")
        ]

    def _is_bad(self) -> bool:
        bad = self.world.bad
        return bad is not None and self.world.states[bad](self.now) != _USUAL[bad]


def main() -> None:
    print(f"{'world':16} {'choose':9} {'wait':>6} {'bill':>6} {'bad':>6} {'warm':>6} {'failed':>6}")
    choices: tuple[Choice, ...] = ("order", "cheapest", "fastest")
    for world in WORLDS:
        for choice in choices:
            each = Run(world, choice).calls(2000)
            ratios = f"{each.wait:6.2f} {each.bill:6.2f}"
            shares = f"{each.bad:6.1%} {each.warm:6.1%} {each.failed:6.1%}"
            print(f"{world.name:16} {choice:9} {ratios} {shares}")


if __name__ == "__main__":
    main()
