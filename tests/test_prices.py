"""Rows to prices, and prices to money: exact, and never too low."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyproxy.call import Ask, Usage
from keyproxy.price import (
    KINDS,
    Price,
    computed,
    dearest,
    fitting_max_tokens,
    nano,
    worst_case,
)
from keyproxy.upstream.openrouter import price_of_providers, price_of_row

SOL: dict[str, Any] = {
    "id": "openai/gpt-6.1-sol",
    "context_length": 1_050_000,
    "architecture": {"input_modalities": ["text", "image", "file"]},
    "pricing": {
        "prompt": "0.000002",
        "completion": "0.00001",
        "web_search": "0.01",
        "input_cache_read": "0.0000001",
        "input_cache_write": "0.0000025",
        "overrides": [
            {
                "min_prompt_tokens": 272_000,
                "prompt": "0.000004",
                "completion": "0.000015",
                "input_cache_read": "0.0000002",
                "input_cache_write": "0.000005",
            }
        ],
    },
    "top_provider": {"context_length": 1_050_000, "max_completion_tokens": 128_000},
}


def priced(model: str = "example/model", context: int | None = 100_000, **pricing: Any) -> Price:
    row = {
        "id": model,
        "context_length": context,
        "pricing": {"prompt": "0.000002", "completion": "0.00001"} | pricing,
    }
    price = price_of_row(row)
    assert price is not None
    return price


def test_a_row_has_its_prices_to_the_digit_and_its_lengths() -> None:
    price = price_of_row(SOL)
    assert price is not None
    assert price.rates.prompt == Decimal("0.000002")
    assert price.rates.input_cache_write == Decimal("0.0000025")
    assert (price.context_length, price.max_completion_tokens) == (1_050_000, 128_000)
    assert price.reads_files


ODD: tuple[Any, ...] = (
    "-1", "-0.1", "NaN", "Infinity", "1e-6", "1E-6", "+1", " 1", "1\n", "", ".1", "1.", "0x1",
    "1_000", "9" * 6000, "0." + "1" * 6000, "\u0661", 0.1, 1, True, None, [], {},
)  # fmt: skip


@pytest.mark.parametrize(
    "pricing",
    [
        {},
        None,
        [],
        {"prompt": "0.1"},
        {"completion": "0.1"},
        *({"prompt": value, "completion": "0.1"} for value in ODD),
        {"prompt": "0.1", "completion": "0.1", "request": "-1"},
        {"prompt": "0.1", "completion": "0.1", "image": 0.5},
        {"prompt": "0.1", "completion": "0.1", "discount": -0.5},
        {"prompt": "0.1", "completion": "0.1", "discount": 1.5},
        {"prompt": "0.1", "completion": "0.1", "discount": float("nan")},
        {"prompt": "0.1", "completion": "0.1", "overrides": {}},
        {"prompt": "0.1", "completion": "0.1", "overrides": [1]},
        {"prompt": "0.1", "completion": "0.1", "overrides": [{"prompt": "-1"}]},
        {"prompt": "0.1", "completion": "0.1", "overrides": [{"min_prompt_tokens": "9"}]},
        {"prompt": "0.1", "completion": "0.1", "overrides": [{}] * 65},
        {"prompt": "0", "completion": "0"},
        {"prompt": "0", "completion": "0", "image_output": "0.00003"},
    ],
)
def test_a_row_that_is_not_understood_has_no_price(pricing: Any) -> None:
    assert price_of_row({"id": "example/model", "pricing": pricing}) is None


@pytest.mark.parametrize(
    ("model", "is_free"),
    [
        ("google/gemma-4-31b-it:free", True),
        ("openrouter/free", True),
        ("google/gemma-4-31b-it", False),
        ("google/free", False),
        ("google/gemma:free-trial", False),
    ],
)
def test_zero_is_free_only_under_a_name_that_says_so(model: str, is_free: bool) -> None:
    price = price_of_row({"id": model, "pricing": {"prompt": "0", "completion": "0"}})
    assert (price is not None) is is_free
    assert price is None or worst_case(price, Ask(10**6, has_media=True)) == 0


def test_the_worst_case_is_every_byte_as_a_token_at_the_dearest_input_and_the_whole_cap() -> None:
    price = price_of_row(SOL)
    assert price is not None
    cost = worst_case(price, Ask(1000, max_output_tokens=100))
    assert cost == 1000 * Decimal("0.0000025") + 100 * Decimal("0.00001")


def test_input_is_never_longer_than_the_models_context() -> None:
    price = priced(context=500)
    assert worst_case(price, Ask(10**6, max_output_tokens=100)) == Decimal("0.002")
    assert worst_case(price, Ask(0, max_output_tokens=100, has_media=True)) == Decimal("0.002")


@pytest.mark.parametrize(
    ("change", "costs"),
    [
        ({"answers": 3}, "0.005"),
        ({"answers": 0}, "0.002"),
        ({"max_output_tokens": None}, "1.002"),
        ({"predicted_tokens": 50}, "0.0035"),
        ({"images": 2}, "0.068536"),
        ({"has_long_cache": True}, "0.003"),  # no price of its own
        ({"rounds": 2}, "0.402"),
        ({"searches": 2, "results": 5}, "0.043"),
        ({"requests": 4}, "0.003"),
    ],
)
def test_each_thing_asked_for_adds_its_price(change: dict[str, Any], costs: str) -> None:
    ask = replace(Ask(1000, max_output_tokens=100), **change)
    assert worst_case(priced(), ask) == Decimal(costs)


@pytest.mark.parametrize(
    ("pricing", "ask", "costs"),
    [
        ({"request": "0.01"}, Ask(0, 1, requests=2), "0.02001"),
        ({"image": "0.01"}, Ask(0, 1, images=1), "0.042778"),
        ({"image_token": "0.000004"}, Ask(0, 1, images=1), "0.065546"),
        ({"audio": "0.00001"}, Ask(0, 1, has_media=True), "1.00001"),
        ({"audio": "0.00001"}, Ask(0, 1), "0.00001"),
        ({"audio_output": "0.1"}, Ask(0, 1), "0.1"),
        ({"image_output": "0.1"}, Ask(0, 1), "0.1"),
        ({"internal_reasoning": "0.1"}, Ask(0, 1), "0.1"),
        ({"input_cache_write_1h": "0.000004"}, Ask(1, 1, has_long_cache=True), "0.000014"),
        ({"input_cache_write_1h": "0.000004"}, Ask(1, 1), "0.000012"),
        ({"web_search": "0.01"}, Ask(0, 1, searches=1, results=5), "0.03001"),
    ],
)
def test_each_kind_of_price_counts_where_it_can(
    pricing: dict[str, Any], ask: Ask, costs: str
) -> None:
    assert worst_case(priced(**pricing), ask) == Decimal(costs)


@pytest.mark.parametrize(
    ("price", "ask"),
    [
        (priced(), Ask(1, 1, is_unbounded=True)),
        (priced(), Ask(1, 1, has_media=True, has_files=True)),  # OCR is paid by the page
        (priced(context=None), Ask(1, 1, has_media=True)),
        (priced(context=None), Ask(1, 1, rounds=2)),
        (priced(context=None), Ask(1)),
    ],
)
def test_what_nothing_bounds_has_no_worst_case(price: Price, ask: Ask) -> None:
    assert worst_case(price, ask) is None
    assert fitting_max_tokens(price, ask, Decimal(100)) is None


def test_long_prompts_count_at_their_tier_strictly_above_the_threshold() -> None:
    price = priced(overrides=[{"min_prompt_tokens": 10, "prompt": "0.00001"}])
    assert computed(price, Usage(10, 0), Ask(10)) == 10 * Decimal("0.000002")
    assert computed(price, Usage(11, 0), Ask(11)) == 11 * Decimal("0.00001")
    assert worst_case(price, Ask(10, 1)) == Decimal("0.00003")
    assert worst_case(price, Ask(11, 1)) == Decimal("0.00012")


def test_the_later_tier_wins_and_a_cheaper_tier_lowers_no_worst_case() -> None:
    tiers = [
        {"min_prompt_tokens": 10, "prompt": "0.00001"},
        {"min_prompt_tokens": 20, "prompt": "0.000001"},
    ]
    price = priced(overrides=tiers)
    assert computed(price, Usage(30, 0), Ask(30)) == 30 * Decimal("0.000001")
    assert worst_case(price, Ask(30, 1)) == 30 * Decimal("0.00001") + Decimal("0.00001")


def test_prices_by_the_hour_count_whenever_they_raise_the_cost() -> None:
    night = {"utc_start": "00:00", "utc_end": "08:00", "prompt": "0.000001", "completion": "0.1"}
    price = priced(overrides=[night])
    assert computed(price, Usage(10, 1), Ask(10)) == Decimal("0.10002")
    assert worst_case(price, Ask(10, 1)) == Decimal("0.10002")


@pytest.mark.parametrize(
    ("used", "costs"),
    [
        (Usage(14, 6), "0.000088"),
        (Usage(1000, 0, cached_tokens=900), "0.00029"),
        (Usage(1000, 0, cache_write_tokens=1000), "0.0025"),
        (Usage(1000, 0, cached_tokens=500, cache_write_tokens=500), "0.0013"),
        (Usage(0, 100, reasoning_tokens=60), "0.001"),
        (Usage(0, 10, reasoning_tokens=60), "0.0007"),  # counted apart
        (Usage(0, 0, web_searches=2), "0.02"),
        (Usage(-5, -5, cached_tokens=-5, web_searches=-1), "0"),
    ],
)
def test_usage_costs_what_its_tokens_do(used: Usage, costs: str) -> None:
    price = price_of_row(SOL)
    assert price is not None
    assert computed(price, used) == Decimal(costs)


def test_thoughts_have_a_price_of_their_own_where_the_row_has_one() -> None:
    price = priced(internal_reasoning="0.000003")
    assert computed(price, Usage(0, 10, reasoning_tokens=6)) == Decimal("0.000058")


@pytest.mark.parametrize("used", [Usage(None, 1), Usage(1, None)])
def test_half_a_usage_costs_nothing_that_is_known(used: Usage) -> None:
    assert computed(priced(), used) is None


def test_without_the_call_its_tokens_are_taken_for_the_dearest_kinds() -> None:
    price = priced(audio="0.1", input_cache_write="0.2", input_cache_write_1h="0.3")
    used = Usage(2, 0, cache_write_tokens=1)
    assert computed(price, used, Ask(2)) == Decimal("0.200002")
    assert computed(price, used) == Decimal("0.4")


def test_of_several_models_the_dearest_counts_and_an_unknown_one_spoils_it() -> None:
    cheap, dear = priced(), priced(completion="0.001")
    ask = Ask(0, max_output_tokens=10)
    assert dearest([cheap, dear], ask) == Decimal("0.01")
    assert dearest([cheap, None], ask) is None
    assert dearest([], ask) is None


def test_the_output_cap_that_fits_is_the_highest_one() -> None:
    price, ask = priced(), Ask(1000, max_output_tokens=4096)
    assert fitting_max_tokens(price, ask, Decimal("0.0120")) == 1000
    assert fitting_max_tokens(price, ask, Decimal("0.01199999")) == 999
    assert fitting_max_tokens(price, ask, Decimal("0.00201")) == 1
    assert fitting_max_tokens(price, ask, Decimal("0.002009")) is None
    assert fitting_max_tokens(price, ask, Decimal(-1)) is None
    assert fitting_max_tokens(price, ask, Decimal(100)) == 4096
    assert fitting_max_tokens(price, replace(ask, answers=0), Decimal(100)) is None


@pytest.mark.parametrize(
    ("amount", "nanos"),
    [("0", 0), ("1", 10**9), ("0.0000000001", 1), ("0.000000001", 1), ("0.0000000011", 2)],
)
def test_nano_dollars_are_rounded_up(amount: str, nanos: int) -> None:
    assert nano(Decimal(amount)) == nanos


@given(st.decimals(min_value=0, max_value=2 * 10**6, places=40))
def test_nano_dollars_are_never_below_an_amount_and_by_less_than_one_above(usd: Decimal) -> None:
    assert 0 <= nano(usd) - Fraction(usd) * 10**9 < 1


def test_costs_are_rounded_up_to_a_nano_dollar() -> None:
    price = priced(prompt="0.0000000001", completion="0.0000000001")
    assert worst_case(price, Ask(1, max_output_tokens=1)) == Decimal("1e-9")
    assert computed(price, Usage(11, 0)) == Decimal("2e-9")


ENDPOINT = {"tag": "azure", "context_length": 10, "max_completion_tokens": 5}


def provider(prompt: str, completion: str, tag: str = "azure", **more: Any) -> dict[str, Any]:
    pricing = {"prompt": prompt, "completion": completion, "discount": 0} | more
    return {**ENDPOINT, "tag": tag, "pricing": pricing}


def test_of_several_providers_each_price_is_the_dearest() -> None:
    tier = {"min_prompt_tokens": 5, "completion": "0.9"}
    listed = [provider("0.1", "0.2", overrides=[tier]), provider("0.05", "0.4")]
    price = price_of_providers(listed)
    assert price is not None
    assert (price.rates.prompt, price.rates.completion) == (Decimal("0.1"), Decimal("0.4"))
    assert price.at(5).completion == Decimal("0.4")
    assert price.at(6).completion == Decimal("0.9")


def test_a_tier_of_a_provider_counts_only_where_a_call_can_get_it() -> None:
    listed = [provider("0.1", "0.2"), provider("0.2", "0.4", tag="openai/priority")]
    usual, all_of_them = price_of_providers(listed), price_of_providers(listed, with_tiers=True)
    assert usual is not None
    assert all_of_them is not None
    assert (usual.rates.prompt, all_of_them.rates.prompt) == (Decimal("0.1"), Decimal("0.2"))


@pytest.mark.parametrize("listed", [[], [1], [{}], [provider("0.1", "0.2"), provider("-1", "-1")]])
def test_one_provider_that_is_not_understood_leaves_no_bound(listed: list[Any]) -> None:
    assert price_of_providers(listed) is None


thorough = settings(max_examples=100, deadline=None)
usd = st.decimals(0, 1, places=12).map(lambda amount: format(amount, "f"))
kinds = st.fixed_dictionaries({}, optional=dict.fromkeys(KINDS, usd))
tiers = st.lists(
    st.builds(
        lambda rates, above, start: {**rates, "min_prompt_tokens": above, "utc_start": start},
        kinds,
        st.none() | st.integers(-1, 3000),
        st.none() | st.just("08:00"),
    ),
    max_size=3,
)
prices = st.builds(
    lambda rates, overrides, context: price_of_row(
        {
            "id": "example/model:free",
            "context_length": context,
            "pricing": {"prompt": "0.1", "completion": "0", **rates, "overrides": overrides},
        }
    ),
    kinds,
    tiers,
    st.none() | st.integers(1, 4000),
)
sizes = st.integers(0, 2000)
asks = st.builds(
    Ask,
    text_tokens=sizes,
    max_output_tokens=st.none() | st.integers(1, 2000),
    answers=st.integers(0, 3),
    contexts=st.integers(1, 3),
    rounds=st.integers(1, 3),
    requests=st.integers(1, 3),
    images=st.integers(0, 2),
    predicted_tokens=sizes,
    searches=st.integers(0, 3),
    results=st.integers(5, 25),
    has_media=st.booleans(),
    has_long_cache=st.booleans(),
)


@st.composite
def usages(draw: st.DrawFn, price: Price, ask: Ask) -> Usage:
    """Whatever an answer to the call could report."""
    most = ask.text_tokens + ask.images * price.image_tokens
    if price.context_length is not None:
        limit = price.context_length * ask.contexts
        most = limit * ask.rounds if ask.has_media or ask.rounds > 1 else min(most, limit)
    cap = ask.max_output_tokens or price.context_length or 0
    cap = min(cap, price.context_length or cap) + ask.predicted_tokens
    inputs = draw(st.integers(0, most))
    cached = draw(st.integers(0, inputs))
    outputs = draw(st.integers(0, cap * ask.answers * ask.rounds))
    return Usage(
        inputs,
        outputs,
        cached,
        draw(st.integers(0, inputs - cached)),
        draw(st.integers(0, outputs)),
        web_searches=draw(st.integers(0, ask.searches)),
    )


@thorough
@given(prices, asks, st.data())
def test_no_usage_within_the_bounds_costs_more_than_was_reserved(
    price: Price, ask: Ask, data: st.DataObject
) -> None:
    worst = worst_case(price, ask)
    if worst is not None:
        cost = computed(price, data.draw(usages(price, ask)), ask)
        assert cost is not None
        assert cost <= worst


@thorough
@given(prices, prices, asks, st.data())
def test_the_dearer_of_two_prices_bounds_both(
    one: Price, other: Price, ask: Ask, data: st.DataObject
) -> None:
    worst = worst_case(one.dearer(other), ask)
    for price in (one, other):
        alone = worst_case(price, ask)
        assert worst is None or alone is None or alone <= worst
        if worst is not None and alone is not None:
            cost = computed(price, data.draw(usages(price, ask)), ask)
            assert cost is not None
            assert cost <= worst


@thorough
@given(prices, st.lists(asks, max_size=4), asks)
def test_a_price_says_the_same_whatever_it_was_asked_before(
    price: Price, before: list[Ask], ask: Ask
) -> None:
    new = replace(price)
    for other in before:
        worst_case(price, other)
    assert worst_case(price, ask) == worst_case(new, ask)


@thorough
@given(prices, asks, st.integers(1, 5000), st.integers(0, 5000))
def test_a_higher_output_cap_never_costs_less(price: Price, ask: Ask, cap: int, more: int) -> None:
    low = worst_case(price, replace(ask, max_output_tokens=cap))
    high = worst_case(price, replace(ask, max_output_tokens=cap + more))
    assert (low is None) == (high is None)
    assert low is None or high is None or low <= high


@thorough
@given(prices, asks, st.decimals(-1, 2000, places=12))
def test_what_is_said_to_fit_does_and_one_token_more_does_not(
    price: Price, ask: Ask, left: Decimal
) -> None:
    ask = replace(ask, max_output_tokens=ask.max_output_tokens or 100)
    fits = fitting_max_tokens(price, ask, left)
    worst = worst_case(price, ask)
    assert worst is None or not ask.answers or (fits is None or fits > 0)
    if fits and worst is not None and worst > left:
        cost = worst_case(price, replace(ask, max_output_tokens=fits))
        above = worst_case(price, replace(ask, max_output_tokens=fits + 1))
        assert cost is not None
        assert above is not None
        assert cost <= left < above


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | usd,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from([
            *KINDS, "id", "pricing", "overrides", "discount", "context_length", "top_provider",
            "min_prompt_tokens", "architecture", "input_modalities", "tag",
        ]) | st.text(max_size=4), inner, max_size=6,
    ),
    max_leaves=20,
)  # fmt: skip


@thorough
@given(json_values, json_values)
def test_no_json_breaks_the_reading_of_rows(row: Any, pricing: Any) -> None:
    for candidate in (row, {"id": "a/b", "pricing": pricing}):
        price = price_of_row(candidate)
        assert price is None or price.rates.prompt >= 0
        price_of_providers([candidate])
