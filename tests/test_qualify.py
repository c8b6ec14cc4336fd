"""Where a model can be called, which of these homes can take a call, and why the others cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from keyproxy.call import Call, Endpoint
from keyproxy.dialects import CHAT, MESSAGES, RESPONSES, Dialect
from keyproxy.policy import calls
from keyproxy.policy.check import Policy
from keyproxy.policy.models import Models
from keyproxy.policy.opened import Features
from keyproxy.price import Price, Rates
from keyproxy.routing.edits import Edits
from keyproxy.routing.homes import At, Home, Homes, Place, parted
from keyproxy.routing.preferences import Preferences, preferences
from keyproxy.routing.qualify import REASONS, Asked, Facts, No, qualify
from keyproxy.upstream.openrouter import OPENROUTER
from keyproxy.upstream.provider import Model, Provider
from keyproxy.upstream.takes import CHAT as CHAT_FIELDS
from keyproxy.upstream.takes import MESSAGES as MESSAGES_FIELDS
from keyproxy.upstream.takes import NOTES, Takes
from keyproxy.upstream.takes import RESPONSES as RESPONSES_FIELDS

OPEN = Features.of(["many", "priority", "provider", "web", "fallbacks", "tools:openrouter:advisor"])


def ids(*names: str) -> Mapping[str, Model]:
    return {name: Model(name) for name in names}


def provider(name: str, **values: Any) -> Provider:
    chat = Takes(fields=CHAT_FIELDS, drops=NOTES, inputs=frozenset({"image"}))
    said = {"title": name.capitalize(), "slug": name, "takes": {"chat": chat}} | values
    return Provider(name=name, base="https://x.example", keys_page="https://x.example", **said)


FAST = provider("fast", native=lambda model: model.partition("/")[2], slug="fast-host")
MAKER = provider(
    "maker",
    author="maker",
    native=lambda model: model.removeprefix("maker/") if model.startswith("maker/") else None,
    takes={
        "chat": Takes(fields=CHAT_FIELDS, drops=NOTES, is_named_only=True),
        "responses": Takes(fields=RESPONSES_FIELDS | {"store"}, stores=True),
        "messages": Takes(fields=MESSAGES_FIELDS, betas=frozenset({"tools-2026"})),
    },
)
THINKER = provider(
    "thinker",
    native=lambda model: None,
    takes={
        "chat": Takes(
            fields=CHAT_FIELDS | {"reasoning_effort"},
            drops=NOTES,
            bounds_length=True,
        )
    },
)
SOMETIMES = "sampling while thinking"
LISTS = {"fast": ids("small", "large"), "maker": ids("small")}
HOMES = Homes((FAST, MAKER, OPENROUTER), listed=LISTS.get)


def homes_of(model: str, homes: Homes = HOMES) -> list[str]:
    return [":".join(place.home) for place in homes.of(model).places]


def call(
    said: dict[str, Any],
    style: Dialect = CHAT,
    routes: Mapping[str, tuple[str, ...]] = {},
    **headers: str,
) -> Call:
    raw = json.dumps({"model": "maker/small"} | said).encode()
    endpoint = Endpoint("POST", f"/api/v1{style.path}", style)
    models = Models(["*"], OPEN)
    policy = Policy(models, features=OPEN, counts_money=True, is_routed=True, routes=routes)
    passed = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return calls.read(endpoint, raw, policy, passed, "")


def asked(said: dict[str, Any], style: Dialect = CHAT, **more: Any) -> Asked:
    found = call(said, style)
    assert found.said is not None
    return replace(Asked(found, found.said, preferences(found.said)), **more)


def verdict(asked: Asked, name: str = "fast", **facts: Any) -> str:
    """The word for why not, with the field that is to blame, or "yes"."""
    places = {place.home.provider: place for place in HOMES.of(asked.said.answering[0]).places}
    places["thinker"] = Place(Home("thinker", "t"), THINKER, "maker/small")
    found = qualify(asked, places[name], Facts(**facts))
    if isinstance(found, Edits):
        return "yes"
    assert found.why in REASONS
    return f"{found.why} {found.param}" if found.param else found.why


@pytest.mark.parametrize(
    ("model", "homes"),
    [
        ("maker/small", ["fast:small", "maker:small", "openrouter:maker/small"]),
        ("other/large", ["fast:large", "openrouter:other/large"]),
        ("maker/large", ["fast:large", "openrouter:maker/large"]),
        ("other/huge", ["openrouter:other/huge"]),
        ("maker/small:floor", ["fast:small", "maker:small", "openrouter:maker/small:floor"]),
        ("maker/small:free", ["openrouter:maker/small:free"]),
        ("maker/small:free:nitro", ["openrouter:maker/small:free:nitro"]),
    ],
)
def test_a_rule_holds_where_the_list_has_what_comes_of_it(model: str, homes: list[str]) -> None:
    assert homes_of(model) == homes


def test_an_id_is_taken_as_the_list_has_it() -> None:
    """OpenRouter's ids are all small letters; DeepInfra has ``Qwen/Qwen3-32B``."""
    other = replace(HOMES, providers=(FAST,), listed=lambda provider: ids("Small", "LARGE"))
    assert homes_of("maker/small", other) == ["fast:Small"]
    assert homes_of("maker/huge", other) == []


LLAMA = "meta-llama/llama-3.3-70b-instruct"


@pytest.mark.parametrize("model", [LLAMA, LLAMA.title(), LLAMA.upper()])
def test_what_the_operator_names_is_called_as_its_home_has_it(model: str) -> None:
    """By the table or the list, where that is there; who calls may use other letters."""
    named = Homes(
        (provider("house", native=lambda model: model), provider("groq")),
        listed=lambda provider: ids(LLAMA.title()),
        at={LLAMA: [("house", None), ("groq", None)]},
    )
    found = [f"house:{LLAMA.title()}", "groq:llama-3.3-70b-versatile"]
    assert homes_of(model, named) == found
    assert homes_of(model, replace(named, at={})) == found


def test_what_the_operator_names_needs_no_list() -> None:
    at = {"maker/small": [("openrouter", None), ("fast", "tiny-fp8"), ("gone", None)]}
    named = replace(HOMES, at=at, listed=lambda provider: None)
    assert homes_of("maker/small", named) == ["openrouter:maker/small", "fast:tiny-fp8"]
    assert named.of("maker/small").waits_for == ()


@pytest.mark.parametrize(
    ("model", "homes"),
    [
        ("Maker/SMALL", ["fast:tiny", "openrouter:Maker/SMALL"]),
        ("maker/small:free", ["openrouter:maker/small:free"]),
        ("Maker/small:thinking:floor", ["openrouter:Maker/small:thinking:floor"]),
        ("maker/small-2026", ["openrouter:maker/small-2026"]),
        ("other/large", []),
        ("other/large:free", []),
        ("other/large:exacto", ["fast:exact"]),
        ("other/LARGE-2026", []),
        ("named/there:free", []),
    ],
)
def test_no_other_spelling_of_a_model_goes_where_the_operator_does_not_name_it(
    model: str, homes: list[str]
) -> None:
    """Variants and second names are known to OpenRouter alone."""
    at: dict[str, At] = {
        "maker/small": [("fast", "tiny"), ("openrouter", None)],
        "other/large": [("gone", None)],
        "other/large:exacto": [("fast", "exact")],
        "named/there": [("openrouter", "a/b")],
    }
    named = replace(HOMES, at=at, same=lambda name: {name, name.removesuffix("-2026")})
    assert homes_of(model, named) == homes
    assert named.has(model) is bool(homes)


def test_a_list_that_is_not_there_yet_is_waited_for() -> None:
    found = replace(HOMES, listed=lambda provider: None).of("maker/small")
    assert [place.home.provider for place in found.places] == ["openrouter"]
    assert found.waits_for == ("fast", "maker")


def test_a_provider_may_be_kept_to_some_models() -> None:
    kept = replace(HOMES, allows={"fast": lambda model: model == "other/large"})
    assert homes_of("maker/small", kept) == ["maker:small", "openrouter:maker/small"]
    assert homes_of("other/large", kept) == ["fast:large", "openrouter:other/large"]


def test_a_table_is_believed_without_a_list() -> None:
    groq = provider("groq", native=lambda model: None)
    found = Homes((groq,)).of("meta-llama/llama-3.3-70b-instruct")
    assert [place.home for place in found.places] == [Home("groq", "llama-3.3-70b-versatile")]


@pytest.mark.parametrize(
    ("bare", "model"),
    [
        ("llama-3.3-70b-versatile", "meta-llama/llama-3.3-70b-instruct"),
        ("small", "maker/small"),
        ("large", None),
        ("gpt-5-mini", None),
    ],
)
def test_a_vendors_own_id_is_known_where_one_of_them_has_it(bare: str, model: str | None) -> None:
    homes = Homes((provider("groq"), MAKER, OPENROUTER), listed=LISTS.get)
    assert homes.canonical(bare) == model


def test_a_name_that_two_vendors_have_is_nobodys() -> None:
    other = provider("other", author="other", native=MAKER.native)
    twin = provider("twin", author="maker", native=MAKER.native)
    lists = LISTS | {"twin": ids("small")}
    assert Homes((MAKER, other), listed=lists.get).canonical("small") == "maker/small"
    assert Homes((MAKER, twin), listed=lists.get).canonical("small") is None


def test_suffixes_that_choose_a_home_are_no_part_of_the_model() -> None:
    assert parted("a/b:free:nitro") == ("a/b:free", "nitro")
    assert parted("a/b") == ("a/b", "")


PART = {"type": "image_url", "image_url": {"url": "https://x.example/i.png"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}


def user(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"messages": [], "user": "u"}, "yes"),
        ({"seed": 1}, "field seed"),
        (user(PART), "yes"),
        (user(AUDIO), "input"),
        ({"tools": [{"type": "openrouter:web_search"}]}, "tool tools"),
        ({"provider": {"only": ["Fast-Host"]}}, "yes"),
        ({"provider": {"only": ["fast"]}}, "yes"),
        ({"provider": {"only": ["azure"]}}, "choice provider"),
        ({"provider": {"ignore": ["fast-host"]}}, "choice provider"),
        ({"provider": {"order": ["azure"]}}, "yes"),
        ({"provider": {"order": ["azure"], "allow_fallbacks": False}}, "choice provider"),
        ({"provider": {"zdr": True}}, "choice provider"),
        ({"provider": {"data_collection": "deny"}}, "choice provider"),
        ({"provider": {"enforce_distillable_text": True}}, "choice provider"),
        ({"provider": {"enforce_distillable_text": False, "quantizations": []}}, "yes"),
        ({"provider": {"preferred_max_latency": 2, "require_parameters": True}}, "yes"),
    ],
)
def test_each_no_has_a_name(said: dict[str, Any], word: str) -> None:
    assert verdict(asked(said)) == word
    assert verdict(asked(said), "openrouter") == "yes"


def test_what_is_no_dialect_of_a_provider_or_only_a_poor_one() -> None:
    assert verdict(asked({"input": "x"}, RESPONSES)) == "dialect"
    assert verdict(asked({}), "maker") == "named"
    named = Place(Home("maker", "small"), MAKER, "maker/small", is_named=True)
    assert isinstance(qualify(asked({}), named, Facts()), Edits)


@pytest.mark.parametrize(
    ("beta", "name", "word"),
    [
        ("tools-2026", "maker", "yes"),
        ("tools-2026, other-2026", "maker", "beta anthropic-beta"),
        ("other-2026", "openrouter", "yes"),
    ],
)
def test_a_beta_that_is_not_listed(beta: str, name: str, word: str) -> None:
    found = call({"messages": [], "max_tokens": 5}, MESSAGES, anthropic_beta=beta)
    assert found.said is not None
    assert verdict(Asked(found, found.said), name) == word


def test_tools_that_run_upstream_run_at_their_vendor() -> None:
    tool = {"type": "web_search_20250305", "name": "web_search"}
    said = {"messages": [], "max_tokens": 5, "tools": [tool]}
    assert verdict(asked(said, MESSAGES), "maker") == "tool tools"
    anthropic = replace(MAKER, name="anthropic")
    place = Place(Home("anthropic", "small"), anthropic, "maker/small")
    assert isinstance(qualify(asked(said, MESSAGES), place, Facts()), Edits)


SEALED = {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}]}


@pytest.mark.parametrize(
    ("issuer", "model", "maker", "openrouter"),
    [
        (None, "maker/small", "yes", "yes"),
        ("maker", "maker/small", "yes", "sealed"),
        ("openrouter", "maker/small", "sealed", "yes"),
    ],
)
def test_sealed_reasoning_stays_with_its_issuer(
    issuer: str | None, model: str, maker: str, openrouter: str
) -> None:
    sealed = asked(SEALED | {"model": model}, RESPONSES, issuer=issuer)
    assert verdict(sealed, "maker") == maker
    assert verdict(sealed, "openrouter") == openrouter


def test_reasoning_by_its_id_alone_needs_a_home_that_stores_it() -> None:
    item = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "x"}]}
    assert verdict(asked({"input": [item]}, RESPONSES), "maker") == "sealed include"


@pytest.mark.parametrize(
    ("length", "context", "word"),
    [(50, 2000, "yes"), (50, 350, "context"), (1900, 2000, "context"), (None, 2000, "yes")],
)
def test_a_context_that_is_too_short(length: int | None, context: int, word: str) -> None:
    said: dict[str, Any] = {"max_tokens": length} if length else {}
    assert verdict(asked(said), context_tokens=context) == word


PRICE = Price(Rates(prompt=Decimal("0.000001"), completion=Decimal("0.000004")))


@pytest.mark.parametrize(
    ("most", "price", "word"),
    [
        ({"prompt": 1, "completion": 4}, PRICE, "yes"),
        ({"prompt": "0.99"}, PRICE, "price"),
        ({"completion": 3.9}, PRICE, "price"),
        ({"prompt": 1}, None, "price"),
        ({}, None, "yes"),
    ],
)
def test_a_highest_price(most: dict[str, Any], price: Price | None, word: str) -> None:
    said = asked({"provider": {"max_price": most}} if most else {})
    assert verdict(said, price=price) == word
    assert verdict(said, "openrouter", price=price) == "yes"  # it reads its own


def test_the_operators_highest_price_holds_everywhere() -> None:
    dear = asked({}, max_price={"input": 0.5})
    assert verdict(dear, price=PRICE) == "price"
    assert verdict(dear, "openrouter", price=PRICE) == "price"


@pytest.mark.parametrize("name", ["input", "prompt", "output", "completion"])
def test_no_call_raises_the_operators_highest_price(name: str) -> None:
    said: dict[str, Any] = {"provider": {"max_price": {name: 1000}}}
    assert verdict(asked(said, max_price={"input": 0.5}), price=PRICE) == "price"
    assert verdict(asked(said, max_price={"output": 0.5}), price=PRICE) == "price"


@pytest.mark.parametrize(
    ("said", "name", "word"),
    [
        ({"max_tokens": 200}, "thinker", "length max_tokens"),
        ({"max_completion_tokens": 200}, "thinker", "length max_completion_tokens"),
        ({"max_tokens": 100}, "thinker", "yes"),
        ({}, "thinker", "yes"),
        ({"max_tokens": -1}, "thinker", "yes"),
        ({"max_tokens": 200}, "fast", "yes"),  # which is not known to mind
    ],
)
def test_an_answer_longer_than_the_model_writes(said: dict[str, Any], name: str, word: str) -> None:
    assert verdict(asked(said), name, output_tokens=100) == word


def test_a_model_may_read_less_than_its_provider() -> None:
    assert verdict(asked(user(PART)), inputs=frozenset({"text"})) == "input"


FORM = {"type": "json_schema", "json_schema": {"name": "city", "schema": {}}}


@pytest.mark.parametrize(
    ("said", "lacks", "word"),
    [
        ({"temperature": 0.5}, "sampling", "field temperature"),
        ({"temperature": 0.5}, "penalties", "yes"),
        ({"temperature": 1, "top_p": 1}, "sampling", "yes"),  # as is done without them
        ({"temperature": 0.5}, "sampling while thinking", "field temperature"),
        ({"temperature": 0.5, "reasoning_effort": "low"}, SOMETIMES, "field temperature"),
        ({"temperature": 0.5, "reasoning_effort": "none"}, SOMETIMES, "yes"),
        ({"temperature": 0.5, "reasoning": {"effort": "none"}}, SOMETIMES, "yes"),
        ({"stop": ["END"]}, "stop", "field stop"),
        ({"reasoning_effort": "low"}, "effort", "field reasoning_effort"),
        ({"reasoning": {"effort": "low"}}, "effort", "field reasoning.effort"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "field tools"),
        ({"tools": [], "tool_choice": "auto"}, "tools", "yes"),
        ({"response_format": FORM}, "schemas", "field response_format"),
        ({"response_format": {"type": "json_object"}}, "schemas", "yes"),
    ],
)
def test_a_model_may_lack_what_others_have_there(
    said: dict[str, Any], lacks: str, word: str
) -> None:
    assert verdict(asked(said), "thinker", lacks=frozenset({lacks})) == word
    assert verdict(asked(said), "thinker") == "yes"


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ({"reasoning": {"effort": "low"}}, "field reasoning.effort"),
        ({"reasoning": {"summary": "auto"}}, "yes"),
        ({"reasoning": {"effort": None, "summary": None}}, "yes"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "field text.format"),
        ({"text": {"format": {"type": "text"}}}, "yes"),
    ],
)
def test_so_it_is_with_responses(said: dict[str, Any], word: str) -> None:
    lacks = frozenset({"effort", "schemas"})
    assert verdict(asked(said | {"input": "x"}, RESPONSES), "maker", lacks=lacks) == word


def test_how_a_call_wants_its_home_chosen() -> None:
    def choose(**said: Any) -> str | None:
        return asked(said).preferences.choose

    assert choose() is None
    assert choose(model="a/b:floor") == "cheapest"
    assert choose(model="a/b:nitro") == "fastest"
    assert choose(provider={"sort": "price"}) == "cheapest"
    assert choose(provider={"sort": {"by": "throughput"}}) == "fastest"
    assert choose(provider={"sort": "charm"}) is None


def test_the_order_of_a_call_and_where_openrouter_stands_in_it() -> None:
    def ranks(*order: str) -> list[str]:
        found = Preferences(order=order).ranks((FAST, MAKER, OPENROUTER))
        return sorted(found, key=found.__getitem__)

    assert ranks("maker", "azure", "fast-host") == ["maker", "openrouter", "fast"]
    assert ranks("fast") == ["fast", "maker", "openrouter"]
    assert ranks("azure") == ["openrouter", "fast", "maker"]


def test_the_reason_is_told_in_words() -> None:
    place = HOMES.of("maker/small").places[0]
    found = qualify(asked({"seed": 1}), place, Facts())
    assert found == No("field", "Fast does not take seed", "seed")
    found = qualify(asked({"stop": "x"}), place, Facts(lacks=frozenset({"stop"})))
    assert found == No("field", "small at Fast does not take stop", "stop")
