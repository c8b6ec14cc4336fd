"""In which order homes are tried: what was listed, what it costs, how soon it answers."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyproxy.attempts.attempts import Attempts
from keyproxy.call import Usage
from keyproxy.money.booking import Bookings
from keyproxy.policy.models import Models
from keyproxy.price import Override, Price, Rates
from keyproxy.record import Record
from keyproxy.routing import sticky
from keyproxy.routing.choose import (
    EQUAL,
    Candidate,
    Choice,
    expected_cost,
    expected_wait,
    ordered,
)
from keyproxy.routing.homes import Home, Homes, Place
from keyproxy.routing.memory import Memory
from keyproxy.routing.router import Router
from keyproxy.routing.speed import (
    FRESH_SECONDS,
    PRIORS,
    UNKNOWN,
    Outputs,
    Pace,
    Speeds,
    prompt_class,
)
from keyproxy.routing.sticky import LONG_WARM_SECONDS, WARM_SECONDS, Stays, conversation
from keyproxy.upstream.providers import PROVIDERS
from tests.conftest import Clock

GROQ, CEREBRAS, OPENROUTER = (
    Home("groq", "openai/gpt-oss-120b"),
    Home("cerebras", "gpt-oss-120b"),
    Home("openrouter", "openai/gpt-oss-120b"),
)
HOMES = (GROQ, CEREBRAS, OPENROUTER)
CONVERSATIONS = tuple(bytes([number]) * 16 for number in range(200))
SCORED: tuple[Choice, ...] = ("cheapest", "fastest")


def candidates(*scores: float | None) -> list[Candidate]:
    return [Candidate(home, score) for home, score in zip(HOMES, scores, strict=True)]


def test_order_is_as_listed_whatever_is_cheap_warm_or_asked() -> None:
    for listed in itertools.permutations(candidates(3.0, 1.0, 2.0)):
        homes = [each.home for each in listed]
        for stays_at in (None, *HOMES):
            assert ordered(listed, "order", CONVERSATIONS[0], stays_at) == homes


@pytest.mark.parametrize("choice", SCORED)
def test_the_best_is_first_and_the_rest_follow_by_what_they_take(choice: Choice) -> None:
    assert ordered(candidates(3.0, 1.0, 2.0), choice) == [CEREBRAS, OPENROUTER, GROQ]


@pytest.mark.parametrize("choice", SCORED)
def test_what_is_not_known_comes_last(choice: Choice) -> None:
    assert ordered(candidates(None, 9.0, None), choice) == [CEREBRAS, GROQ, OPENROUTER]
    assert ordered(candidates(None, None, None), choice) == [*HOMES]


@pytest.mark.parametrize("choice", SCORED)
def test_equal_homes_share_conversations_and_keep_each(choice: Choice) -> None:
    """By their names alone: every replica has the same."""
    scores = candidates(1.0, EQUAL[choice], EQUAL[choice] * 1.01)
    first = {key: ordered(scores, choice, key)[0] for key in CONVERSATIONS}
    again = {key: ordered(scores[::-1], choice, key)[0] for key in CONVERSATIONS}
    assert first == again
    shares = Counter(first.values())
    assert set(shares) == {GROQ, CEREBRAS}
    assert min(shares.values()) > len(CONVERSATIONS) / 4


@pytest.mark.parametrize("choice", SCORED)
def test_losing_a_home_moves_only_its_conversations(choice: Choice) -> None:
    every = candidates(1.0, 1.0, 1.0)
    for key in CONVERSATIONS:
        first, *others = ordered(every, choice, key)
        left = [each for each in every if each.home != first]
        assert ordered(left, choice, key) == others


@pytest.mark.parametrize("choice", SCORED)
def test_a_conversation_stays_where_it_is_warm(choice: Choice) -> None:
    order = ordered(candidates(3.0, 1.0, 2.0), choice, CONVERSATIONS[0], GROQ)
    assert order == [GROQ, CEREBRAS, OPENROUTER]
    gone = Home("mistral", "x")
    assert ordered(candidates(3.0, 1.0, 2.0), choice, CONVERSATIONS[0], gone)[0] == CEREBRAS


CHOICES = st.sampled_from(("order", *SCORED))
SCORES = st.lists(
    st.tuples(
        st.none() | st.floats(0, 1e3),
        st.just(0.0) | st.floats(0.1, 300),
    ),
    min_size=1,
    max_size=len(HOMES),
)


@given(SCORES, CHOICES, st.sampled_from((None, *HOMES)), st.binary(min_size=16, max_size=16))
def test_resting_homes_come_last_and_none_is_lost(
    scores: Sequence[tuple[float | None, float]],
    choice: Choice,
    stays_at: Home | None,
    key: bytes,
) -> None:
    listed = [Candidate(home, *each) for home, each in zip(HOMES, scores, strict=False)]
    order = ordered(listed, choice, key, stays_at)
    assert sorted(order) == sorted(each.home for each in listed)
    rests = {each.home: each.rests_seconds for each in listed}
    resting = [rests[home] for home in order if rests[home]]
    assert [rests[home] for home in order][len(order) - len(resting) :] == sorted(resting)


def test_expected_cost_follows_the_length_of_the_prompt() -> None:
    long = Override(200_000, is_at_times=False, rates=(("prompt", Decimal("2e-6")),))
    rates = Rates(prompt=Decimal("1e-6"), completion=Decimal("4e-6"))
    price = Price(rates, overrides=(long,))
    assert expected_cost(price, 1000, 500) == pytest.approx(0.003)
    assert expected_cost(price, 300_000, 500) == pytest.approx(0.602)
    assert expected_cost(None, 1000, 500) is None


def test_expected_wait_is_for_what_is_read_first_and_grows_with_the_crowd() -> None:
    pace = Pace(0.5, 0.01)
    assert expected_wait(pace, 1000, 0, is_streaming=True) == pytest.approx(1.5)
    assert expected_wait(pace, 20, 0, is_streaming=True) == pytest.approx(0.7)
    assert expected_wait(pace, 1000, 0, is_streaming=False) == pytest.approx(10.5)
    assert expected_wait(pace, 1000, 8, is_streaming=True) == pytest.approx(3.0)


def test_prompts_are_compared_with_those_of_their_length() -> None:
    lengths = (0, 999, 1000, 7999, 8000, 63_999, 64_000, 10**6)
    assert [*map(prompt_class, lengths)] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_without_samples_the_prior_holds() -> None:
    speeds = Speeds(Clock())
    assert speeds.expected(GROQ, 10, is_streaming=True) == PRIORS["groq"]
    house = Home("house", "llama")
    assert speeds.expected(house, 10, is_streaming=True) == UNKNOWN


def test_samples_move_the_average_for_their_kind_of_call_alone() -> None:
    speeds = Speeds(Clock())
    for _ in range(20):
        speeds.saw_stream(GROQ, 10, Pace(1.2, 0.02))
    pace = speeds.expected(GROQ, 10, is_streaming=True)
    assert pace == pytest.approx(Pace(1.2, 0.02), rel=0.15)
    assert speeds.expected(GROQ, 1000, is_streaming=True).seconds_per_token == pytest.approx(
        1 / 300
    )
    assert speeds.expected(CEREBRAS, 10, is_streaming=True) == PRIORS["cerebras"]
    whole = speeds.expected(GROQ, 10, is_streaming=False)
    assert whole.first_output_seconds == 0.0
    assert whole == Speeds(Clock()).expected(GROQ, 10, is_streaming=False)
    speeds.saw_whole(GROQ, 10, 60.0, 0)  # nothing was written
    assert speeds.expected(GROQ, 10, is_streaming=False) != whole


def test_one_slow_answer_does_not_bench_a_home_and_many_do() -> None:
    speeds = Speeds(Clock())
    before = speeds.expected(GROQ, 10, is_streaming=True).first_output_seconds
    speeds.saw_stream(GROQ, 10, Pace(300.0, 1 / 300))
    once = speeds.expected(GROQ, 10, is_streaming=True).first_output_seconds
    assert before < once <= 2.5 * before
    for _ in range(10):
        speeds.saw_stream(GROQ, 10, Pace(300.0, 1 / 300))
    assert speeds.expected(GROQ, 10, is_streaming=True).first_output_seconds > 20


def test_what_is_old_fades_to_the_prior() -> None:
    clock = Clock()
    speeds = Speeds(clock)
    for _ in range(50):
        speeds.saw_stream(GROQ, 10, Pace(9.0, 1.0))
    slow = speeds.expected(GROQ, 10, is_streaming=True)
    clock.now += FRESH_SECONDS
    assert speeds.expected(GROQ, 10, is_streaming=True) == slow
    clock.now += 4 * FRESH_SECONDS
    faded = speeds.expected(GROQ, 10, is_streaming=True)
    assert faded == pytest.approx(PRIORS["groq"], rel=0.2)


@pytest.mark.parametrize("is_streaming", [True, False])
@pytest.mark.parametrize("client_seconds", [0.0, 900.0])
def test_a_client_that_reads_slowly_makes_no_home_look_slow(
    is_streaming: bool, client_seconds: float
) -> None:
    """A thousand tokens in five seconds, whoever reads them."""
    clock = Clock()
    memory = Memory(clock)
    router = Router("default", Homes(()), memory)
    desk = Attempts(router, {}, cast(Bookings, None), Models(["*"]), clock=clock)
    record = Record("POST", "/", usage=Usage(output_tokens=1000), clock=clock, client_seconds=7.0)
    asked_at = clock.now
    record.first_byte_at = asked_at + 1.0
    record.waited(client_seconds, is_for_client=True)
    clock.now += 5.0 + client_seconds
    place, own = Place(GROQ, PROVIDERS["groq"], "a/b"), Speeds(clock)
    desk.learn(place, record, 10, asked_at, is_streaming=is_streaming, waited_before=7.0)
    if is_streaming:
        own.saw_stream(GROQ, 10, Pace(1.0, 4.0 / 1000))
    else:
        own.saw_whole(GROQ, 10, 5.0, 1000)
    expected = own.expected(GROQ, 10, is_streaming=is_streaming)
    assert memory.speeds.expected(GROQ, 10, is_streaming=is_streaming) == expected


def test_names_without_end_do_not_fill_the_memory() -> None:
    clock = Clock()
    speeds, stays, outputs = Speeds(clock), Stays(clock), Outputs(clock)
    for number in range(12_000):
        home = Home("openrouter", f"a/{number}")
        speeds.saw_stream(home, 10, Pace(1.0, 1.0))
        stays.served(str(number).encode(), home)
        outputs.saw("default", home.native_id, 10)
    assert len(speeds._paces) == len(outputs._means) == 2048
    assert len(stays._stays) == 10_000
    assert stays.issuer(b"11999") is not None
    assert stays.issuer(b"0") is None


def test_how_much_a_model_writes_is_bounded_by_the_cap() -> None:
    outputs = Outputs(Clock())
    assert outputs.expected("default", "a/b", None) == 300
    for _ in range(50):
        outputs.saw("default", "a/b", 40)
    assert outputs.expected("default", "a/b", None) == pytest.approx(40, rel=0.3)
    assert outputs.expected("default", "a/b", 16) == 16
    assert outputs.expected("other", "a/b", None) == 300


def test_a_conversation_stays_for_as_long_as_a_cache_lives() -> None:
    clock = Clock()
    stays = Stays(clock)
    key = CONVERSATIONS[0]
    assert stays.warm(key) is None
    stays.served(key, GROQ)
    clock.now += WARM_SECONDS - 1
    assert stays.warm(key) == GROQ
    stays.served(key, GROQ)
    clock.now += WARM_SECONDS
    assert stays.warm(key) is None
    stays.served(key, GROQ, for_long=True)
    clock.now += LONG_WARM_SECONDS - 1
    assert stays.warm(key) == GROQ


def test_nothing_draws_a_conversation_to_a_home_that_failed() -> None:
    """But for reasoning that it sealed, which only it can read."""
    stays, key = Stays(Clock()), CONVERSATIONS[0]
    stays.served(key, GROQ)
    stays.failed(key, CEREBRAS)
    assert stays.warm(key) == GROQ
    stays.failed(key, GROQ)
    assert stays.warm(key) is None
    assert stays.issuer(key) == GROQ


def turns(*messages: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


def test_turns_of_a_conversation_have_one_key() -> None:
    first = turns(("system", "Be short."), ("user", "Hello"))
    second = turns(("system", "Be short."), ("user", "Hello"), ("assistant", "Hi"), ("user", "?"))
    key = conversation("default", "ada", first)
    assert key == conversation("default", "ada", second)
    parts = [{"type": "text", "text": "Hello"}, {"type": "image_url", "image_url": {"url": "…"}}]
    assert key == conversation("default", "ada", turns(("system", "Be short."), ("user", parts)))


@pytest.mark.parametrize(
    "said",
    [
        turns(("system", "Be short."), ("user", "Hello there")),
        turns(("system", "Be long."), ("user", "Hello")),
        turns(("user", "Hello")),
        {**turns(("system", "Be short."), ("user", "Hello")), "prompt_cache_key": "x"},
        {**turns(("system", "Be short."), ("user", "Hello")), "metadata": {"user_id": "x"}},
        {"input": "Hello"},
        {"input": [{"role": "user", "content": "Hello"}], "instructions": "Be short"},
        {"messages": [None, 3, {"role": None}]},
        {"input": {}},
    ],
)
def test_other_conversations_have_other_keys(said: dict[str, Any]) -> None:
    usual = turns(("system", "Be short."), ("user", "Hello"))
    assert conversation("default", "ada", said) != conversation("default", "ada", usual)


def test_nobody_can_take_the_key_of_anothers_conversation() -> None:
    said = {**turns(("user", "Hello")), "session_id": "one"}
    keys = {
        conversation(app, client, body)
        for app, client in (("default", "ada"), ("default", "bob"), ("other", "ada"))
        for body in (said, turns(("user", "named")), {**said, "session_id": "two"})
    }
    assert len(keys) == 9
    assert conversation("a", "bc", said) != conversation("ab", "c", said)


def test_what_the_client_calls_it_counts_before_how_it_begins() -> None:
    one, other = turns(("user", "Hello")), turns(("user", "Bye"))
    for name in ("session_id", "prompt_cache_key"):
        keys = {conversation("a", "b", {**said, name: "s"}) for said in (one, other)}
        assert len(keys) == 1
    assert conversation("a", "b", {**one, "session_id": ["s"]}) == conversation("a", "b", one)


def test_a_key_needs_only_so_much_of_a_long_text() -> None:
    long = "x" * sticky._ENOUGH_CHARACTERS
    assert conversation("a", "b", {"input": long}) == conversation("a", "b", {"input": long + "y"})
