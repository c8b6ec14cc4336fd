"""The tables ``[models."…"]`` and ``[routes.NAME]``: what they mean, and every fault at once."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from typing import Any

import pytest

from keyproxy.errors import SettingsFaults
from keyproxy.settings import Settings
from tests.conftest import KEY

KEYS = {
    "OPENROUTER_API_KEY": KEY,
    "GROQ_API_KEY": "gsk_" + "GroqExample00" * 4,
    "KEYPROXY_PROVIDERS": "groq,openrouter",
    "KEYPROXY_LEDGER": "off",
}


def read(text: str, **variables: str) -> Settings:
    document = tomllib.loads(text)
    return Settings.from_environ("dev", KEYS | variables, routes=document)


def faults(text: str, **variables: str) -> str:
    with pytest.raises(SettingsFaults) as caught:
        read(text, **variables)
    return str(caught.value)


def test_a_model_may_name_its_homes_their_prices_and_how_one_is_chosen() -> None:
    [model] = read(
        """
        [models."openai/gpt-oss-120b"]
        choose = "cheapest"
        at = ["openrouter", "groq:openai/gpt-oss-120b"]
        max_price = { input = 1, output = 2.5 }
        fallback = "none"
        [models."openai/gpt-oss-120b".price.groq]
        input = 0.15
        output = 0.6
        """
    ).routes
    assert (model.name, model.is_model) == ("openai/gpt-oss-120b", True)
    assert (model.choose, model.fallback) == ("cheapest", "none")
    assert model.at == (("openrouter", None), ("groq", "openai/gpt-oss-120b"))
    assert model.max_price == {"input": 1, "output": Decimal("2.5")}
    assert model.price == {"groq": {"input": Decimal("0.15"), "output": Decimal("0.6")}}


def test_a_route_stands_for_several_models() -> None:
    fast, exact = read(
        """
        [routes.fast]
        models = ["openai/gpt-oss-120b", "google/gemini-3.5-flash"]
        fallback = "model"
        [routes.exact]
        at = ["groq:llama-3.3-70b-versatile", "openrouter:meta-llama/llama-3.3-70b-instruct"]
        """
    ).routes
    assert (fast.name, fast.is_model, fast.fallback) == ("fast", False, "model")
    assert fast.models == ("openai/gpt-oss-120b", "google/gemini-3.5-flash")
    assert exact.at[0] == ("groq", "llama-3.3-70b-versatile")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("models = 1", "models", "tables [models.NAME]"),
        ('[models."gpt"]', "models.gpt", "the id of a model"),
        ('[routes."a/b"]\nmodels = ["a/b"]', "routes.a/b", "letters, digits"),
        ('[routes.a]\nchoose = "fastest"', "routes.a", "either models, or at"),
        ('[routes.a]\nmodels = ["gpt"]', "routes.a.models", "ids of models"),
        ("[routes.a]\nmodels = []", "routes.a.models", "ids of models"),
        ('[routes.a]\nat = ["groq"]', "routes.a.at", "PROVIDER:ID"),
        ('[models."a/b"]\nat = ["xai"]', "models.a/b.at", "groq, openrouter"),
        ('[models."a/b"]\nat = ["Groq"]', "models.a/b.at", "providers, with the id"),
        ('[models."a/b"]\nchose = "order"', "models.a/b.chose", "choose perhaps?"),
        ('[models."a/b"]\nchoose = "best"', "models.a/b.choose", "order, cheapest, fastest"),
        ('[models."a/b"]\nfallback = "model"', "models.a/b.fallback", "none, provider"),
        ('[models."a/b"]\nmodels = ["c/d"]', "models.a/b.models", "one of choose"),
        ('[models."a/b"]\nmax_price = 1', "models.a/b.max_price", "USD for a million"),
        ('[models."a/b"]\nmax_price = {in = 1}', "models.a/b.max_price.in", "USD for a million"),
        ('[models."a/b".price.xai]\ninput = 1', "models.a/b.price.xai", "groq, openrouter"),
        ('[models."a/b".price.groq]\ninput = 1', "models.a/b.price.groq", "input and output"),
        ('[models."a/b".price.groq]\ninput = -1', "models.a/b.price.groq.input", "USD"),
    ],
)
def test_faults_say_where_and_what_is_expected(text: str, place: str, words: str) -> None:
    told = faults(text)
    assert told.startswith(f"{place} ")
    assert words in told


def test_an_alias_is_no_route_and_stands_for_none() -> None:
    route = '[routes.fast]\nmodels = ["a/b"]'
    assert "which is a route, too" in faults(route, KEYPROXY_MODEL_ALIASES="fast=a/b")
    assert "stands for the route" in faults(route, KEYPROXY_MODEL_ALIASES="quick=fast")


def test_how_a_home_is_chosen_for_all_and_for_an_app() -> None:
    assert read("").choose == "order"
    settings: Any = Settings.from_environ(
        "dev", KEYS | {"KEYPROXY_CHOOSE": "fastest"}, {"a": {"KEYPROXY_CHOOSE": "cheapest"}}
    )
    assert [app.choose for app in settings.all_apps] == ["fastest", "cheapest"]
    assert "KEYPROXY_FALLBACK" in faults("", KEYPROXY_FALLBACK="model")


def test_the_demo_has_no_routes() -> None:
    document = tomllib.loads('[models."a/b"]\nchoose = "best"')
    assert Settings.from_environ("demo", {}, routes=document).routes == ()


def test_a_highest_price_for_all_and_for_an_app() -> None:
    settings: Any = Settings.from_environ(
        "dev",
        KEYS | {"KEYPROXY_MAX_PRICE": "input=1.0, output=5"},
        {"a": {"KEYPROXY_MAX_PRICE": "input=0.5"}},
    )
    assert [app.max_price for app in settings.all_apps] == [
        {"input": 1, "output": 5},
        {"input": Decimal("0.5")},
    ]
    for text in ("1", "input", "input=-1", "in=1", "input=1,input=2"):
        assert "KEYPROXY_MAX_PRICE" in faults("", KEYPROXY_MAX_PRICE=text)
