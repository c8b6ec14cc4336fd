"""Whatever an operator says and a call asks: it goes where it may, at no higher price. An oracle
tells both, from what the operator says alone."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from keyproxy.errors import Refusal
from keyproxy.routing.homes import At, Homes
from keyproxy.routing.memory import Memory
from keyproxy.routing.router import Plan, Router, Way
from keyproxy.upstream.openrouter import OPENROUTER
from tests.examples import examples
from tests.test_qualify import call, ids, provider
from tests.test_router import ANN, USD, facts

MODELS = ("a/one", "b/two", "c/three")
FAST, SLOW = (provider(name, native=lambda model: model) for name in ("fast", "slow"))
LISTS = {"fast": ids("a/one", "b/two"), "slow": ids("a/one", "c/three")}
PROVIDERS = ("fast", "slow", "openrouter")
"""A million tokens cost 2, 1 and 4 USD there."""

prices = st.sampled_from([{}, {"input": 3.0}, {"input": 1.5}, {"output": 0.5}])
fallbacks = st.sampled_from([None, "none", "provider", "model"])
ways = st.builds(Way, st.sampled_from(["order", "cheapest", "fastest"]), prices, fallbacks)
places = st.tuples(st.sampled_from(PROVIDERS), st.sampled_from([None, "own/id"]))
spelled = st.builds(
    lambda model, variant: model + variant,
    st.sampled_from([*MODELS, "A/One"]),
    st.sampled_from(["", "", "", ":free", ":floor", ":free:nitro"]),
)
calls = st.fixed_dictionaries(
    {"model": spelled | st.just("route")},
    optional={
        "models": st.lists(spelled, min_size=1, max_size=3),
        "top_a": st.just(0.5),
        "provider": st.sampled_from(
            [
                {"order": ["slow", "openrouter"]},
                {"only": ["fast"]},
                {"allow_fallbacks": False},
                {"max_price": {"input": 1000, "output": 1000}, "sort": "price"},
            ]
        ),
    },
)


def base(model: str) -> str:
    return model.lower().partition(":")[0]


def is_variant(model: str) -> bool:
    return ":free" in model


def may_go(at: dict[str, At], model: str) -> set[tuple[str, str]]:
    """The homes of a model as a call names it: providers, and what it is called there."""
    plain = model.removesuffix(":floor").removesuffix(":nitro")
    if (named := at.get(base(model))) is None:
        others = (name for name, known in LISTS.items() if plain in known)
        lower = (name for name, known in LISTS.items() if plain.lower() in known)
        found = {(name, plain.lower()) for name in (*others, *lower)}
        return found | {("openrouter", model)}
    if is_variant(model):
        return {("openrouter", model)} if ("openrouter", None) in named else set()
    return {(name, native or _own_spelling(name, model, plain)) for name, native in named}


def _own_spelling(name: str, model: str, plain: str) -> str:
    if name == "openrouter":
        return model
    return plain.lower() if plain.lower() in LISTS[name] else plain


@examples(150)
@given(
    at=st.dictionaries(st.sampled_from(MODELS), st.lists(places, min_size=1, max_size=4)),
    own=st.dictionaries(st.sampled_from(MODELS), ways),
    usual=ways,
    route=ways,
    stands_for=st.lists(st.sampled_from(MODELS), min_size=1, unique=True),
    asked=calls,
)
def test_a_call_goes_where_it_may_at_no_higher_price(
    at: dict[str, At],
    own: dict[str, Way],
    usual: Way,
    route: Way,
    stands_for: list[str],
    asked: dict[str, Any],
) -> None:
    homes = Homes((FAST, SLOW, OPENROUTER), listed=LISTS.get, at=at)
    routes = {"route": route}
    router = Router("default", homes, Memory(), usual, own, routes, facts)
    found = call(asked, routes={"route": tuple(stands_for)})
    try:
        plan = router.plan(found, ANN)
    except Refusal:
        return
    named = stands_for if asked["model"] == "route" else [asked["model"]]
    named = [*named, *asked.get("models", ())]
    assert plan.options
    for option in plan.options:
        assert found.said is not None
        sent = json.loads(option.edits.body(found.said))
        name = option.place.home.provider
        going = [sent["model"], *sent.get("models", ())]
        assert plan.is_whole or going == [option.place.home.native_id]
        for id in going:
            means = [model for model in named if (name, id) in may_go(at, model)]
            assert means, (name, id)
            assert any(_is_cheap(name, model, own, usual, asked, route) for model in means)
    _check_fallbacks(plan, own, asked)


def _is_cheap(
    name: str, model: str, own: dict[str, Way], usual: Way, asked: dict[str, Any], route: Way
) -> bool:
    said = own.get(base(model))
    limits = [usual.max_price if said is None else said.max_price]
    if asked["model"] == "route":
        limits = [route.max_price] + ([] if said is None else [said.max_price])
    price = float(USD[name]) * 1e6
    return all(price <= most for each in limits for most in each.values())


def _check_fallbacks(plan: Plan, own: dict[str, Way], asked: dict[str, Any]) -> None:
    for option in plan.options:
        said = own.get(base(option.place.model))
        if said is not None and said.fallback == "none":
            assert option.fallback == "none"


def test_the_oracle_knows_what_it_is_asked() -> None:
    assert may_go({}, "a/one") == {("fast", "a/one"), ("slow", "a/one"), ("openrouter", "a/one")}
    assert may_go({"a/one": [("slow", None)]}, "a/one:free") == set()
    assert may_go({"a/one": [("slow", "x")]}, "A/One:floor") == {("slow", "x")}
