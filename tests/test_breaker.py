"""Which homes rest, and until when."""

from __future__ import annotations

import pytest

from keyproxy.routing.breaker import LONGEST_SECONDS, REST_SECONDS, Rests
from keyproxy.routing.homes import Home
from keyproxy.upstream.faults import Fault
from tests.conftest import Clock

HOME = Home("groq", "a")


@pytest.fixture
def rests(clock: Clock) -> Rests:
    return Rests(clock)


def fail(rests: Rests, times: int = 1, fault: Fault = Fault.UNCERTAIN) -> None:
    for _ in range(times):
        rests.tries(HOME)
        rests.failed(HOME, fault, None)


@pytest.mark.parametrize(
    ("fault", "said", "seconds"),
    [
        (Fault.LOAD, None, REST_SECONDS),
        (Fault.LOAD, 42.0, 42.0),
        (Fault.LOAD, 0.2, 1.0),
        (Fault.LOAD, 86_400.0, LONGEST_SECONDS),
        (Fault.ACCOUNT, None, LONGEST_SECONDS),
        (Fault.CONFIG, None, LONGEST_SECONDS),
        (Fault.FIELD, None, 0.0),
        (Fault.UNCERTAIN, None, 0.0),
        (Fault.NOT_SENT, None, 0.0),
    ],
)
def test_one_failure(rests: Rests, fault: Fault, said: float | None, seconds: float) -> None:
    rests.failed(HOME, fault, said)
    assert rests.seconds(HOME) == seconds
    assert rests.seconds(Home("groq", "b")) == 0.0


def test_three_in_a_row_rest(rests: Rests) -> None:
    fail(rests, 2)
    assert rests.seconds(HOME) == 0.0
    fail(rests)
    assert rests.seconds(HOME) == REST_SECONDS


def test_what_is_answered_between_breaks_the_row(rests: Rests) -> None:
    fail(rests, 2)
    rests.answered(HOME)
    fail(rests, 2)
    assert rests.seconds(HOME) == 0.0


def test_half_of_six_in_a_minute_rest(rests: Rests, clock: Clock) -> None:
    fail(rests)
    for _ in range(3):
        rests.answered(HOME)
        fail(rests)
    assert rests.seconds(HOME) == REST_SECONDS
    clock.now += 120
    rests.answered(HOME)
    fail(rests)
    assert rests.seconds(HOME) == 0.0


def test_one_call_tries_a_home_whose_rest_is_over(rests: Rests, clock: Clock) -> None:
    fail(rests, 3)
    clock.now += REST_SECONDS
    assert rests.seconds(HOME) == 0.0
    rests.tries(HOME)
    assert rests.seconds(HOME) > 0  # for others
    rests.answered(HOME)
    assert rests.seconds(HOME) == 0.0


def test_a_rest_doubles_each_time_the_try_fails(rests: Rests, clock: Clock) -> None:
    fail(rests, 3)
    for seconds in (30.0, 60.0, 120.0, 240.0, 300.0, 300.0):
        clock.now += LONGEST_SECONDS
        fail(rests)
        assert rests.seconds(HOME) == seconds
    clock.now += LONGEST_SECONDS
    rests.answered(HOME)
    fail(rests, 3)
    assert rests.seconds(HOME) == REST_SECONDS


def test_a_try_that_nobody_tells_the_end_of_is_not_waited_for_for_ever(
    rests: Rests, clock: Clock
) -> None:
    fail(rests, 3)
    clock.now += REST_SECONDS
    rests.tries(HOME)
    clock.now += REST_SECONDS
    assert rests.seconds(HOME) == 0.0


def test_what_is_off_is_asked_again_after_a_reload(rests: Rests) -> None:
    rests.failed(HOME, Fault.CONFIG, None)
    rests.reloaded()
    assert rests.seconds(HOME) == 0.0


def test_what_is_off_is_on_again_once_it_answers(rests: Rests) -> None:
    """It is tried where no other home is left."""
    rests.failed(HOME, Fault.CONFIG, None)
    rests.tries(HOME)
    rests.answered(HOME)
    assert rests.seconds(HOME) == 0.0


def test_faults_of_the_caller_tell_nothing_of_a_home(rests: Rests) -> None:
    fail(rests, 9, Fault.CALLER)
    assert rests.seconds(HOME) == 0.0


@pytest.mark.parametrize("fault", [Fault.LOAD, Fault.CONFIG, Fault.ACCOUNT])
def test_what_it_refuses_wakes_no_home_that_rests(rests: Rests, fault: Fault) -> None:
    """Whoever writes a faulty call may choose where it goes."""
    rests.failed(HOME, fault, 60.0)
    rests.failed(HOME, Fault.CALLER, None)
    assert rests.seconds(HOME) >= 60.0


def test_a_home_that_refuses_is_there(rests: Rests, clock: Clock) -> None:
    fail(rests, 2)
    rests.failed(HOME, Fault.CALLER, None)
    fail(rests)
    assert rests.seconds(HOME) == 0.0
    fail(rests, 2)
    clock.now += REST_SECONDS
    rests.tries(HOME)
    rests.failed(HOME, Fault.CALLER, None)
    assert rests.seconds(HOME) == 0.0


def test_models_that_nobody_has_push_out_no_rest(rests: Rests) -> None:
    """OpenRouter is asked for whatever a caller names."""
    rests.failed(HOME, Fault.LOAD, 60.0)
    for number in range(5000):
        rests.failed(Home("openrouter", f"made/up-{number}"), Fault.CONFIG, None)
    assert rests.seconds(HOME) == 60.0
    assert rests.seconds(Home("openrouter", "made/up-4999")) == LONGEST_SECONDS
    assert rests.seconds(Home("openrouter", "made/up-0")) == 0.0


def test_the_account_of_one_app_tells_nothing_of_anothers(clock: Clock) -> None:
    rests = Rests(clock)
    one, other = (rests.of({HOME.provider: account}) for account in ("a", "b"))
    for fault in (Fault.ACCOUNT, Fault.LOAD):
        one.failed(HOME, fault, 9.0)
        assert (one.seconds(HOME), other.seconds(HOME)) == (9.0, 0.0)
        one.answered(HOME)
        assert one.seconds(HOME) == 0.0


def test_a_model_that_one_account_may_not_call_is_there_for_others(clock: Clock) -> None:
    """Vendors do not tell that from one that they do not have."""
    rests = Rests(clock)
    one, other = (rests.of({HOME.provider: account}) for account in ("a", "b"))
    one.failed(HOME, Fault.CONFIG, None)
    assert (one.seconds(HOME), other.seconds(HOME)) == (LONGEST_SECONDS, 0.0)
    rests.reloaded()
    assert one.seconds(HOME) == 0.0


def test_that_a_home_fails_is_known_to_all(clock: Clock) -> None:
    rests = Rests(clock)
    one, other = (rests.of({HOME.provider: account}) for account in ("a", "b"))
    for app in (one, other, one):
        app.failed(HOME, Fault.UNCERTAIN, None)
    assert one.seconds(HOME) == other.seconds(HOME) == REST_SECONDS
    clock.now += REST_SECONDS
    assert one.seconds(HOME) == 0.0
    one.tries(HOME)
    assert other.seconds(HOME) > 0  # one call tries it for all
    other.failed(HOME, Fault.CALLER, None)
    assert one.seconds(HOME) == 0.0
