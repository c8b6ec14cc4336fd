"""In which order the homes of a call are tried, and what is said where none can take it."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from keyproxy.call import Client
from keyproxy.dialects import CHAT, EMBEDDINGS, RESPONSES, Dialect
from keyproxy.errors import Refusal
from keyproxy.price import Price, Rates
from keyproxy.routing.homes import Home, Homes, Place
from keyproxy.routing.memory import Memory
from keyproxy.routing.qualify import Facts
from keyproxy.routing.retries import A_MINUTE, Retries
from keyproxy.routing.router import Fallback, Plan, Router, Way
from keyproxy.routing.speed import Pace
from keyproxy.upstream.faults import Fault
from keyproxy.upstream.openrouter import OPENROUTER
from keyproxy.upstream.takes import RESPONSES as RESPONSES_FIELDS
from keyproxy.upstream.takes import Takes
from tests.conftest import Clock
from tests.test_qualify import FAST, SEALED, call, ids, provider

SLOW = provider("slow", native=lambda model: model)
MAKER = provider(
    "maker",
    author="maker",
    native=lambda model: model,
    takes={name: Takes(fields=RESPONSES_FIELDS | {"messages"}) for name in ("chat", "responses")},
)
LISTS = {
    "fast": ids("small"),
    "slow": ids("maker/small", "maker/other"),
    "maker": ids("maker/small"),
}
USD = {"fast": "0.000002", "slow": "0.000001", "maker": "0.000003", "openrouter": "0.000004"}
ANN = Client("ann", "192.0.2.1")


def facts(place: Place) -> Facts:
    usd = Decimal(USD[place.home.provider])
    return Facts(Price(Rates(prompt=usd, completion=usd)))


@pytest.fixture
def router(clock: Clock) -> Router:
    homes = Homes((FAST, SLOW, MAKER, OPENROUTER), listed=LISTS.get)
    return Router("default", homes, Memory(clock), facts=facts)


def plan(router: Router, style: Dialect = CHAT, **said: Any) -> Plan:
    return router.plan(call(said, style), ANN)


def order(router: Router, style: Dialect = CHAT, **said: Any) -> list[str]:
    options = plan(router, style, **said).options
    return [option.place.home.provider for option in options]


def test_as_listed_where_nothing_else_is_said(router: Router) -> None:
    assert order(router) == ["fast", "slow", "maker", "openrouter"]


def test_cheapest_by_the_operator_or_the_call(router: Router) -> None:
    cheap = ["slow", "fast", "maker", "openrouter"]
    assert order(replace(router, usual=Way("cheapest"))) == cheap
    assert order(replace(router, ways={"maker/small": Way("cheapest")})) == cheap
    assert order(replace(router, ways={"maker/other": Way("cheapest")})) != cheap
    assert order(router, model="maker/small:floor") == cheap
    assert order(router, provider={"sort": "price"}) == cheap


def test_fastest_by_what_calls_met(router: Router) -> None:
    assert order(router, model="maker/small:nitro")[0] != "maker"
    for _ in range(40):
        router.memory.speeds.saw_whole(Home("maker", "maker/small"), 20, 0.1, 100)
        router.memory.speeds.saw_whole(Home("fast", "small"), 20, 9.0, 100)
    assert order(router, model="maker/small:nitro")[0] == "maker"
    router.memory.speeds.saw_stream(Home("fast", "small"), 20, Pace(0.1, 0.001))


def test_what_rests_comes_last(router: Router) -> None:
    router.memory.rests.failed(Home("fast", "small"), Fault.LOAD, 60)
    router.memory.rests.failed(Home("maker", "maker/small"), Fault.LOAD, 30)
    assert order(router) == ["slow", "openrouter", "maker", "fast"]


def test_the_order_of_a_call(router: Router) -> None:
    found = order(router, provider={"order": ["maker", "azure", "slow"]})
    assert found == ["maker", "openrouter", "slow", "fast"]
    assert order(router, provider={"only": ["slow"]}) == ["slow", "openrouter"]


def test_several_models_one_after_the_other(router: Router) -> None:
    found = plan(router, models=["maker/other"]).options
    assert [(each.place.home.provider, each.place.model) for each in found] == [
        ("fast", "maker/small"),
        ("slow", "maker/small"),
        ("maker", "maker/small"),
        ("openrouter", "maker/small"),
        ("slow", "maker/other"),
        ("openrouter", "maker/other"),
    ]
    at_openrouter = found[3].edits
    assert (at_openrouter.changes, at_openrouter.dropped) == ({}, ["models"])
    assert found[5].edits.changes == {"model": "maker/other"}


def test_a_list_of_models_goes_up_as_it_is_where_only_openrouter_has_them(router: Router) -> None:
    [only] = plan(router, model="a/b", models=["c/d"]).options
    assert (only.edits.changes, only.edits.dropped) == ({}, [])


def tries(router: Router, **said: Any) -> list[tuple[str | None, list[str]]]:
    """Of each option, the model in the body that goes up, where that is written anew, and what is
    left out."""
    options = plan(router, **said).options
    return [(each.edits.changes.get("model"), each.edits.dropped) for each in options]


LOW = Way(max_price={"input": 1.5})
AT = {"a/one": (("openrouter", None),), "b/two": (("slow", "two"),), "c/as": (("openrouter", "c"),)}


@pytest.mark.parametrize(
    ("said", "tried"),
    [
        ({"model": "a/one", "models": ["b/two"]}, [(None, ["models"])]),
        ({"model": "b/two", "models": ["a/one"]}, [("a/one", ["models"])]),
        (
            {"model": "x/y", "models": ["a/one", "b/two"]},
            [(None, ["models"]), ("a/one", ["models"])],
        ),
        ({"model": "x/y", "models": ["c/as"]}, [(None, ["models"]), ("c", ["models"])]),
        ({"model": "x/y", "models": ["a/one"]}, [(None, [])]),
    ],
)
def test_no_list_goes_up_with_a_model_that_openrouter_is_no_home_of(
    router: Router, said: dict[str, Any], tried: list[tuple[str | None, list[str]]]
) -> None:
    own = replace(router, homes=replace(router.homes, at=AT))
    assert tries(own, top_a=0.5, **said) == tried


def advised(model: str) -> dict[str, Any]:
    advisor = {"type": "openrouter:advisor", "parameters": {"model": model}}
    return {"model": "x/y", "tools": [advisor]}


def test_no_tool_has_openrouter_ask_a_model_that_may_not_be_asked_there(router: Router) -> None:
    own = replace(router, homes=replace(router.homes, at=AT), ways={"d/low": LOW})
    assert order(own, **advised("a/one")) == ["openrouter"]
    for model in ("b/two", "B/Two:free", "c/as", "d/low"):
        with pytest.raises(Refusal, match="a tool in it runs at none of them") as caught:
            plan(own, **advised(model))
        assert (caught.value.code, caught.value.param) == ("no_provider_qualifies", "tools")
        assert model in str(caught.value.hint)


def test_a_list_is_led_by_the_model_that_it_was_asked_for_by(router: Router) -> None:
    """Also while OpenRouter fails for that one: it knows itself whom to ask."""
    router.memory.rests.failed(Home("openrouter", "a/b"), Fault.LOAD, 60)
    assert tries(router, model="a/b", models=["c/d"]) == [(None, [])]


def test_a_route_at_openrouter_goes_on_to_its_next_model(router: Router) -> None:
    named = replace(router, routes={"quick": Way(fallback="model")})
    asked = call({"model": "quick"}, routes={"quick": ("a/b", "c/d")})
    assert asked.said is not None
    bodies = [each.edits.body(asked.said) for each in named.plan(asked, ANN).options]
    assert [json.loads(body) for body in bodies] == [{"model": "a/b"}, {"model": "c/d"}]


@pytest.mark.parametrize(
    ("ways", "said"),
    [
        ({"maker/other": LOW}, {"model": "maker/small", "models": ["maker/other"]}),
        ({"maker/other": LOW}, {"model": "quick"}),
        ({"maker/other": Way()}, {"model": "low"}),
    ],
)
def test_each_model_has_its_own_highest_price(
    router: Router, ways: dict[str, Way], said: dict[str, Any]
) -> None:
    """Also where it is called in a list, or by a route."""
    both = ("maker/small", "maker/other")
    routes = {"quick": Way(), "low": Way(max_price={"input": 1.5, "output": 9})}
    named = replace(router, ways=ways, routes=routes)
    found = named.plan(call(said, routes={"quick": both, "low": both}), ANN).options
    homes = [each.place.home.provider for each in found if each.place.model == "maker/other"]
    assert homes == ["slow"]
    assert len(found) == (2 if said["model"] == "low" else 5)


@pytest.mark.parametrize("model", ["Maker/Other", "maker/other:free", "maker/other-2026"])
def test_no_other_spelling_of_a_model_passes_its_highest_price(router: Router, model: str) -> None:
    same = replace(router.homes, same=lambda name: {name, name.removesuffix("-2026")})
    low = Way(max_price={"input": 0.5})
    with pytest.raises(Refusal, match="dearer than is allowed"):
        plan(replace(router, homes=same, ways={"maker/other": low}), model=model)


def test_each_model_has_its_own_choice_and_says_whether_another_home_is_asked(
    router: Router,
) -> None:
    ways = {"maker/small": Way(fallback="none"), "maker/other": Way("cheapest")}
    own = replace(router, ways=ways, homes=replace(router.homes, providers=(OPENROUTER, SLOW)))
    found = plan(own, models=["maker/other"]).options
    assert [(each.place.home.provider, each.fallback) for each in found] == [
        ("openrouter", "none"),
        ("slow", "none"),
        ("slow", "model"),
        ("openrouter", "model"),
    ]


@pytest.mark.parametrize(
    ("usual", "own", "route", "fallbacks"),
    [
        ("provider", None, "model", ["model", "model"]),
        ("none", None, "model", ["model", "model"]),
        ("provider", "none", "model", ["none", "model"]),
        ("provider", "provider", None, ["provider", "provider"]),
        ("none", "provider", None, ["none", "none"]),
        ("none", None, None, ["none", "none"]),
    ],
)
def test_how_far_a_route_goes_on(
    router: Router,
    usual: Fallback,
    own: Fallback | None,
    route: Fallback | None,
    fallbacks: list[Fallback],
) -> None:
    """As it says itself; but a model that no other home may be asked for stays the last."""
    named = replace(
        router,
        usual=Way(fallback=usual),
        ways={"a/b": Way(fallback=own)},
        routes={"quick": Way(fallback=route)},
    )
    asked = call({"model": "quick"}, routes={"quick": ("a/b", "c/d")})
    assert [each.fallback for each in named.plan(asked, ANN).options] == fallbacks


def test_embeddings_take_the_first_home_and_never_change_it(router: Router) -> None:
    """Vectors of two homes are not of one space, however well the one does now."""
    both = replace(FAST, takes={"embeddings": Takes(fields=frozenset({"model", "input"}))})
    homes = replace(router.homes, providers=(OPENROUTER, both))
    own = replace(router, homes=homes, usual=Way("cheapest"))
    assert order(own, EMBEDDINGS, input="x") == ["openrouter"]
    router.memory.rests.failed(Home("openrouter", "maker/small"), Fault.LOAD, 60)
    assert order(own, EMBEDDINGS, input="x") == ["openrouter"]


def test_a_call_that_wants_no_backup_has_one_home_for_each_model(router: Router) -> None:
    only: dict[str, Any] = {"provider": {"allow_fallbacks": False}}
    assert order(router, **only) == ["fast"]
    found = plan(router, models=["maker/other"], **only).options
    assert [(each.place.home.provider, each.place.model) for each in found] == [
        ("fast", "maker/small"),
        ("slow", "maker/other"),
    ]
    named = {"order": ["slow", "maker"], "allow_fallbacks": False}
    assert order(router, provider=named) == ["slow", "maker", "openrouter"]


def test_what_a_route_names_comes_before_what_the_call_names(router: Router) -> None:
    at = {"maker/small": [("slow", "s")], "a/b": [("openrouter", "a/b")]}
    way = Way(at=at, order=[("openrouter", "a/b"), ("slow", "s")], fallback="model")
    routes = {"exact": ("maker/small", "a/b")}
    asked = call({"model": "exact", "models": ["maker/other"]}, routes=routes)
    named = replace(router, routes={"exact": way})
    homes = [("openrouter", "a/b"), ("slow", "s"), ("slow", "maker/other")]
    homes.append(("openrouter", "maker/other"))
    assert [each.place.home for each in named.plan(asked, ANN).options] == homes
    rows = [row for row in named.table(asked, ANN) if row.why_not is None]
    assert [(row.provider, row.native_id) for row in rows] == homes


def test_a_conversation_stays_where_its_cache_is_warm(router: Router) -> None:
    cheapest = replace(router, usual=Way("cheapest"))
    thread = plan(cheapest).conversation
    cheapest.memory.stays.served(thread, Home("maker", "maker/small"))
    assert order(cheapest)[0] == "maker"
    assert order(router)[0] == "fast"  # where the order decides, it decides each time
    assert order(cheapest, messages=[{"role": "user", "content": "else"}])[0] == "slow"


def test_sealed_reasoning_goes_to_who_sealed_it(router: Router) -> None:
    assert order(router, RESPONSES, **SEALED) == ["maker", "openrouter"]
    first = replace(router.homes, providers=(OPENROUTER, MAKER))
    assert order(replace(router, homes=first), RESPONSES, **SEALED) == ["maker", "openrouter"]
    thread = plan(router, RESPONSES, **SEALED).conversation
    router.memory.stays.served(thread, Home("openrouter", "maker/small"))
    assert order(router, RESPONSES, **SEALED) == ["openrouter"]


@pytest.mark.parametrize(
    ("said", "param", "words"),
    [
        ({"seed": 1}, "seed", "none of them takes the field seed"),
        ({"provider": {"only": ["azure"]}}, "provider", "the field provider leaves none"),
        ({"model": "a/b"}, "model", "no provider that is used here has this model"),
    ],
)
def test_nobody_can_take_it(router: Router, said: dict[str, Any], param: str, words: str) -> None:
    own = replace(router, homes=replace(router.homes, providers=(FAST, SLOW)))
    with pytest.raises(Refusal) as caught:
        plan(own, **said)
    refusal = caught.value
    assert (refusal.code, refusal.status, refusal.param) == ("no_provider_qualifies", 404, param)
    assert words in refusal.message
    assert "Fast" not in refusal.message
    assert refusal.hint


def test_nobody_is_known_yet(router: Router) -> None:
    homes = replace(router.homes, providers=(FAST,), listed=lambda provider: None)
    with pytest.raises(Refusal) as caught:
        plan(replace(router, homes=homes))
    assert (caught.value.code, caught.value.retry_after_seconds) == ("overloaded", 2.0)


def test_two_replicas_choose_the_same(clock: Clock, router: Router) -> None:
    twin = replace(router, memory=Memory(clock), usual=Way("cheapest"))
    for text in map(str, range(20)):
        said: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
        same = replace(router, usual=Way("cheapest"))
        assert order(twin, **said) == order(same, **said)


def test_further_attempts_are_a_share_of_calls_and_some_a_minute(clock: Clock) -> None:
    retries = Retries(clock)
    assert [retries.take() for _ in range(A_MINUTE + 1)] == [True] * A_MINUTE + [False]
    for _ in range(10):
        retries.called()
    assert [retries.take() for _ in range(3)] == [True, True, False]
    clock.now += 60
    assert retries.take()


def test_the_table_for_the_operator(router: Router) -> None:
    rows = list(router.table(call({"seed": 1, "model": "maker/small:floor"}), ANN))
    assert [(row.provider, row.why_not and row.why_not.why) for row in rows] == [
        ("openrouter", None),
        ("fast", "field"),
        ("slow", "field"),
        ("maker", "field"),
    ]
    assert None not in (rows[0].cost, rows[0].first_output_seconds)
    [*_, last] = router.table(call({"model": "maker/other"}), ANN)
    assert (last.provider, last.native_id, last.why_not and last.why_not.why) == (
        "maker",
        None,
        "id",
    )
