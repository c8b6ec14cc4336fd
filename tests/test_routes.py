"""What clients may name and ask for where there are several providers, before the fakes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keyproxy.routing.retries import A_MINUTE
from tests.conftest import Proxy, Start, refused
from tests.fakes import server
from tests.fakes.books import Plan
from tests.fakes.server import Fakes
from tests.fakes.vendor import Strictness
from tests.routed import HI, MODEL, asked, failing, proxy_before

FOUR = ("groq", "cerebras", "deepinfra", "openrouter")
OSS = "openai/gpt-oss-120b"
ROUTES = f"""
[routes.quick]
models = ["{OSS}", "z-ai/glm-4.7"]
fallback = "model"
[routes.exact]
at = ["cerebras:zai-glm-4.7", "groq:{OSS}"]
[routes.cheap]
choose = "cheapest"
at = ["cerebras:gpt-oss-120b", "groq:{OSS}", "deepinfra:{OSS}"]
[routes.dear]
models = ["{OSS}"]
max_price = {{ input = 0.06 }}
"""


@pytest.fixture
async def fakes() -> AsyncIterator[Fakes]:
    async with server.serving(*FOUR) as running:
        yield running


async def provider_of(proxy: Proxy, model: str, **said: Any) -> str:
    async with proxy.post({"model": model, **HI, **said}) as answer:
        assert answer.status == 200, await answer.read()
        return str(answer.headers["X-Keyproxy-Provider"])


async def test_a_route_is_called_like_a_model(fakes: Fakes) -> None:
    async with proxy_before(fakes, more=ROUTES) as proxy:
        assert await provider_of(proxy, "quick") == "groq"
        assert await provider_of(proxy, "exact") == "cerebras"
    assert [seen.json["model"] for seen in fakes.calls] == ["zai-glm-4.7", OSS][::-1]


async def test_a_route_is_open_where_one_of_its_models_is(fakes: Fakes) -> None:
    async with proxy_before(fakes, more=ROUTES, ALLOWED_MODELS="z-ai/*") as proxy:
        assert await provider_of(proxy, "quick") == "cerebras"  # the other is not allowed
        async with proxy.post({"model": OSS, **HI}) as answer:
            await refused(answer, 403, "model_not_allowed")
        async with proxy.post({"model": "cheap", **HI}) as answer:
            await refused(answer, 403, "model_not_allowed")
    assert asked(fakes) == ["cerebras"]


async def test_the_cheapest_of_several_homes(fakes: Fakes) -> None:
    async with proxy_before(fakes, more=ROUTES) as proxy:
        assert await provider_of(proxy, "cheap") == "deepinfra"
        assert await provider_of(proxy, f"{OSS}:floor") == "deepinfra"
        assert await provider_of(proxy, OSS) == "groq"
    async with proxy_before(fakes, CHOOSE="cheapest") as proxy:
        assert await provider_of(proxy, OSS) == "deepinfra"


async def test_a_highest_price(fakes: Fakes) -> None:
    async with proxy_before(fakes, more=ROUTES) as proxy:
        assert await provider_of(proxy, "dear") == "deepinfra"


DEAR = """
[models."a/one"]
at = ["groq:fails/503"]
[models."b/two"]
at = ["groq:fails/whole", "deepinfra:fails/whole"]
max_price = { input = 1 }
price = { groq = { input = 2, output = 2 }, deepinfra = { input = 1, output = 2 } }
[routes.both]
models = ["a/one", "b/two"]
fallback = "model"
"""


@pytest.mark.parametrize("model", ["a/one:free", "A/One", "a/one:floor", "a/ONE:thinking"])
async def test_no_other_spelling_of_a_model_goes_to_another_home(fakes: Fakes, model: str) -> None:
    """OpenRouter knows them all; the operator does not name it."""
    places = '[models."a/one"]\nat = ["groq:fails/whole"]\n'
    is_there = model.endswith(("One", ":floor"))
    async with proxy_before(fakes, more=places) as proxy, proxy.post({"model": model, **HI}) as got:
        if is_there:
            assert got.headers["X-Keyproxy-Provider"] == "groq"
        else:
            await refused(got, 404, "no_provider_qualifies")
    assert asked(fakes) == ["groq"] * is_there


@pytest.mark.parametrize("said", [{"model": "a/one", "models": ["b/two"]}, {"model": "both"}])
async def test_a_model_is_nowhere_called_above_its_highest_price(
    fakes: Fakes, said: dict[str, Any]
) -> None:
    async with (
        proxy_before(fakes, more=DEAR, MAX_PRICE="input=0,output=5") as proxy,
        proxy.post({"model": "b/two", **HI}) as answer,
    ):
        await refused(answer, 404, "no_provider_qualifies")
    assert fakes.calls == []
    async with proxy_before(fakes, more=DEAR) as proxy:
        assert await provider_of(proxy, **said) == "deepinfra"
    assert asked(fakes) == ["groq", "deepinfra"]


async def test_no_call_raises_the_operators_highest_price(fakes: Fakes) -> None:
    high = {"max_price": {"input": 1000, "prompt": 1000, "output": 1000, "completion": 1000}}
    words = {"ALLOWED_FEATURES": "provider"}
    async with proxy_before(fakes, MAX_PRICE="input=0.06,output=9", **words) as proxy:
        assert await provider_of(proxy, OSS, provider=high) == "deepinfra"
    assert asked(fakes) == ["deepinfra"]


async def test_a_model_without_a_further_home_is_the_last_that_is_asked(fakes: Fakes) -> None:
    """It is this model that says so, wherever it stands in a list or a route."""
    more = """
[models."a/one"]
at = ["groq:fails/503"]
[models."b/two"]
at = ["cerebras:fails/503"]
fallback = "none"
[models."c/three"]
at = ["deepinfra:fails/whole"]
[routes.all]
models = ["a/one", "b/two", "c/three"]
fallback = "model"
"""
    for said in ({"model": "a/one", "models": ["b/two", "c/three"]}, {"model": "all"}):
        for fake in fakes.values():
            fake.seen.clear()
        async with proxy_before(fakes, more=more) as proxy, proxy.post({**said, **HI}) as answer:
            assert answer.status == 503
            assert asked(fakes) == ["groq", "cerebras"]


async def test_a_conversation_stays_where_it_was(fakes: Fakes) -> None:
    async with proxy_before(fakes, CHOOSE="cheapest", ALLOWED_FEATURES="provider") as proxy:
        first = await provider_of(proxy, OSS, session_id="s1", provider={"sort": "throughput"})
        assert first != "deepinfra"
        assert await provider_of(proxy, OSS, session_id="s1") == first
        assert await provider_of(proxy, OSS, session_id="s2") == "deepinfra"


async def test_a_vendors_own_id_is_the_models(fakes: Fakes) -> None:
    async with proxy_before(fakes, ALLOWED_MODELS="z-ai/*") as proxy:
        raw = json.dumps({"model": "zai-glm-4.7", **HI}).encode()
        async with proxy.post(raw) as answer:
            assert (answer.status, answer.headers["X-Keyproxy-Provider"]) == (200, "cerebras")
        async with proxy.post({"model": "gpt-4o", **HI}) as answer:
            await refused(answer, 403, "model_not_allowed")
    [seen] = fakes.calls
    assert seen.body == raw  # it is called so there
    async with proxy_before(fakes, MODEL_ALIASES="mine=zai-glm-4.7") as proxy:
        assert await provider_of(proxy, "mine") == "cerebras"


async def test_the_callers_order_and_models(fakes: Fakes) -> None:
    async with proxy_before(fakes, ALLOWED_FEATURES="provider") as proxy:
        order = {"order": ["deepinfra", "groq"]}
        assert await provider_of(proxy, OSS, provider=order) == "deepinfra"
        assert await provider_of(proxy, OSS, provider={"only": ["Cerebras"]}) == "cerebras"
        only = {"only": ["azure"]}
        assert await provider_of(proxy, OSS, provider=only) == "openrouter"
        assert fakes.calls[-1].json["provider"] == only
        models = ["google/gemini-3.5-flash", OSS]
        assert await provider_of(proxy, models[0], models=models) == "openrouter"
        assert "models" not in fakes.calls[-1].json  # others may take the second one
        models[1] = "x-ai/grok-4.3"
        assert await provider_of(proxy, models[0], models=models) == "openrouter"
        assert fakes.calls[-1].json["models"] == models


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ({"sort": "price"}, "deepinfra"),
        ({"sort": {"by": "price", "partition": "none"}}, "deepinfra"),
        ({"sort": "throughput", "only": ["groq", "deepinfra"]}, "groq"),
        ({"ignore": ["Groq"]}, "cerebras"),
        ({"order": ["cerebras"], "allow_fallbacks": False}, "cerebras"),
        ({"max_price": {"prompt": 0.06, "completion": "0.5"}}, "deepinfra"),
        ({"require_parameters": True}, "groq"),  # a field that is not taken is never left out
        ({"preferred_max_latency": 0.1, "preferred_min_throughput": {"p90": 9}}, "groq"),
        ({"zdr": True}, "openrouter"),
        ({"data_collection": "deny"}, "openrouter"),
        ({"quantizations": ["fp8"]}, "openrouter"),
        ({"enforce_distillable_text": True}, "openrouter"),
    ],
)
async def test_each_word_of_provider_is_kept_here_or_goes_to_openrouter(
    fakes: Fakes, provider: dict[str, Any], name: str
) -> None:
    async with proxy_before(fakes, ALLOWED_FEATURES="provider") as proxy:
        assert await provider_of(proxy, OSS, provider=provider) == name
    [seen] = fakes.calls
    assert seen.json.get("provider") == (provider if name == "openrouter" else None)


async def test_what_only_openrouter_promises_is_refused_without_it() -> None:
    async with (
        server.serving("groq", "cerebras") as fakes,
        proxy_before(fakes, ALLOWED_FEATURES="provider") as proxy,
    ):
        for provider in ({"zdr": True}, {"only": ["azure"]}, {"quantizations": ["fp8"]}):
            async with proxy.post({"model": OSS, **HI, "provider": provider}) as answer:
                error = await refused(answer, 404, "no_provider_qualifies")
                assert error["param"] == "provider"
        assert fakes.calls == []


async def test_nitro_is_the_fastest_where_its_tier_is_allowed(fakes: Fakes) -> None:
    async with proxy_before(fakes, ALLOWED_FEATURES="priority") as proxy:
        assert await provider_of(proxy, f"{OSS}:nitro") in ("groq", "cerebras")
    [seen] = fakes.calls
    assert "service_tier" not in seen.json
    async with proxy_before(fakes) as proxy, proxy.post({"model": f"{OSS}:nitro", **HI}) as answer:
        await refused(answer, 403, "model_not_allowed")


@pytest.mark.parametrize(
    ("provider", "tried"),
    [
        ({"allow_fallbacks": False}, ["groq"]),
        ({"allow_fallbacks": False, "only": ["groq", "deepinfra"]}, ["groq"]),
        ({"allow_fallbacks": False, "order": ["groq", "deepinfra"]}, ["groq", "deepinfra"]),
        ({"allow_fallbacks": False, "order": ["groq"]}, ["groq"]),
        ({"allow_fallbacks": True}, ["groq", "cerebras"]),
    ],
)
async def test_nobody_else_is_shown_a_call_that_wants_no_fallback(
    fakes: Fakes, provider: dict[str, Any], tried: list[str]
) -> None:
    more = failing(groq="503", cerebras="whole", deepinfra="whole")
    async with (
        proxy_before(fakes, more=more, ALLOWED_FEATURES="provider") as proxy,
        proxy.post({"model": MODEL, **HI, "provider": provider}) as answer,
    ):
        assert answer.status == (503 if len(tried) == 1 else 200)
    assert asked(fakes) == tried


async def test_embeddings_that_fail_are_made_nowhere_else() -> None:
    """Vectors of another home may not be of the same space."""
    model, path = "openai/text-embedding-3-small", "/api/v1/embeddings"
    async with server.serving("openai", "openrouter") as fakes:
        fakes["openai"].plan = lambda seen, body: Plan("503")
        async with (
            proxy_before(fakes, ALLOWED_ENDPOINTS=f"POST {path}") as proxy,
            proxy.post({"model": model, "input": "Grüße"}, path=path) as answer,
        ):
            assert answer.status == 503
            assert answer.headers["X-Keyproxy-Provider"] == "openai"
    assert asked(fakes) == ["openai"]


@pytest.mark.parametrize(("model", "other"), [("a/one", "b/two"), ("b/two", "a/one")])
async def test_openrouter_is_told_of_no_model_that_it_may_not_answer(
    fakes: Fakes, model: str, other: str
) -> None:
    """Only OpenRouter takes the field, and only one of the models may go there."""
    places = '[models."a/one"]\nat = ["openrouter:fails/whole"]\n'
    places += '[models."b/two"]\nat = ["groq:fails/whole"]\n'
    async with proxy_before(fakes, more=places) as proxy:
        assert await provider_of(proxy, model, models=[other], top_a=0.5) == "openrouter"
    [seen] = fakes.calls
    assert seen.json == {"model": "fails/whole", "top_a": 0.5, **HI}


async def test_no_tool_has_openrouter_ask_a_model_that_may_not_be_asked_there(
    fakes: Fakes,
) -> None:
    places = '[models."b/two"]\nat = ["groq:fails/whole"]\n'
    advisor = {"type": "openrouter:advisor", "parameters": {"model": "b/two"}}
    said = {"model": "google/gemini-3.5-flash", "tools": [advisor], **HI}
    words = {"ALLOWED_FEATURES": "tools:openrouter:advisor"}
    async with proxy_before(fakes, more=places, **words) as proxy, proxy.post(said) as answer:
        error = await refused(answer, 404, "no_provider_qualifies")
    assert error["param"] == "tools"
    assert fakes.calls == []


async def test_openrouter_alone_may_have_routes(fakes: Fakes) -> None:
    async with server.serving("openrouter") as alone:
        route = f'[routes.quick]\nmodels = ["{OSS}"]\n'
        async with proxy_before(alone, more=route) as proxy:
            assert await provider_of(proxy, "quick") == "openrouter"
        assert alone.calls[0].json["model"] == OSS


async def test_a_route_at_openrouter_alone_goes_on_to_its_next_model() -> None:
    async with server.serving("openrouter") as alone:
        models = '"fails/503", "fails/whole"'
        route = f'[routes.quick]\nmodels = [{models}]\nfallback = "model"\n'
        async with proxy_before(alone, more=route) as proxy:
            assert await provider_of(proxy, "quick") == "openrouter"
        assert [seen.json["model"] for seen in alone.calls] == ["fails/503", "fails/whole"]


async def test_one_length_goes_up_and_it_is_within_the_cap(fakes: Fakes) -> None:
    """Vendors refuse both in one call, and read either."""
    lengths = [(900, 800), (900, 50), (50, 900), (None, 900), (900, None), (-1, 900)]
    async with proxy_before(fakes, MAX_TOKENS="100") as proxy:
        for plain, newer in lengths:
            said = {"max_tokens": plain, "max_completion_tokens": newer}
            told = {name: value for name, value in said.items() if value is not None}
            assert await provider_of(proxy, OSS, **told) == "groq"
    sent = [
        {name: value for name, value in seen.json.items() if name.startswith("max_")}
        for seen in fakes.calls
    ]
    assert sent == [
        {"max_tokens": 100},
        {"max_completion_tokens": 50},
        {"max_tokens": 50},
        {"max_completion_tokens": 100},
        {"max_tokens": 100},
        {"max_tokens": 100},
    ]


async def test_a_model_that_nobody_is_known_to_have(fakes: Fakes) -> None:
    async with server.serving("groq") as alone, proxy_before(alone) as proxy:
        async with asyncio.timeout(5):
            while proxy.service.assembly.lists.of("groq") is None:
                await asyncio.sleep(0)
        async with proxy.post({"model": "google/gemini-3.5-flash", **HI}) as answer:
            error = await refused(answer, 404, "no_provider_qualifies")
        assert error["param"] == "model"
        assert alone.calls == []


async def test_a_route_goes_on_to_its_next_model_where_it_may(fakes: Fakes) -> None:
    """Only with ``fallback = "model"``: another model is another answer."""
    fakes["groq"].plan = lambda seen, body: Plan("rate")
    at = f'at = ["groq:{OSS}", "cerebras:zai-glm-4.7"]\n'
    more = f'[routes.stays]\n{at}[routes.goes]\n{at}fallback = "model"\n'
    async with proxy_before(fakes, more=more) as proxy:
        async with proxy.post({"model": "stays", **HI}) as answer:
            assert answer.status == 429
        assert await provider_of(proxy, "goes") == "cerebras"
    assert asked(fakes) == ["groq", "cerebras"]  # groq rests by then


async def test_xai_is_told_which_calls_belong_together_and_not_by_whom(fakes: Fakes) -> None:
    async with server.serving("xai") as alone, proxy_before(alone) as proxy:
        for session in ("s1", "s1", "s2"):
            await provider_of(proxy, "x-ai/grok-4.3", session_id=session)
    marks = [seen.headers["x-grok-conv-id"] for seen in alone.calls]
    assert marks[0] == marks[1] != marks[2]
    assert all(len(mark) == 32 for mark in marks)


async def test_a_large_call_goes_its_way_off_the_loop(fakes: Fakes) -> None:
    turns = [{"role": "assistant", "content": "x" * 1000, "reasoning": "y"}] * 200
    body = {"model": OSS, "messages": [*turns, *HI["messages"]]}
    fakes["groq"].plan = lambda seen, body: Plan("rate")
    async with proxy_before(fakes) as proxy, proxy.post(body) as answer:
        assert answer.headers["X-Keyproxy-Provider"] == "cerebras"
        assert answer.headers["X-Keyproxy-Removed"] == "messages.reasoning"
    assert "reasoning" not in fakes.calls[-1].json["messages"][0]


async def test_a_home_that_the_budget_does_not_hold_is_left_out_while_another_fits(
    fakes: Fakes,
) -> None:
    """Groq's worst case is above what is left, DeepInfra's below."""
    body = {"model": OSS, "max_tokens": 1000, **HI}
    async with proxy_before(fakes, TOTAL_BUDGET="0.0006/day", UNPRICED="refuse") as proxy:
        async with proxy.post(body) as answer:
            assert answer.headers["X-Keyproxy-Provider"] == "deepinfra"
        async with proxy.post(body | {"max_tokens": 100_000}) as answer:
            await refused(answer, 402, "call_too_costly")
    assert asked(fakes) == ["deepinfra"]


GROK = "x-ai/grok-4.3"


async def test_a_model_that_openrouter_calls_otherwise_has_the_price_of_what_is_called() -> None:
    """3 and 15 USD, not what the caller's name stands for in its list, or nothing."""
    more = f'[models."house/grok"]\nat = ["openrouter:{GROK}"]\n'
    async with server.serving("openrouter") as alone:
        said = {"max_tokens": 1000, **HI}
        limits = {"TOTAL_BUDGET": "0.01/day", "UNPRICED": "refuse"}
        async with proxy_before(alone, more=more, **limits) as proxy:
            async with proxy.post({"model": "house/grok", **said}) as answer:
                await refused(answer, 402, "call_too_costly")
            assert await provider_of(proxy, "house/grok", max_tokens=100) == "openrouter"
        async with proxy_before(alone, more=more, MAX_PRICE="input=1,output=5") as proxy:
            prices = proxy.service.assembly.accounting.prices
            assert prices is not None
            await prices.loaded(20)
            async with proxy.post({"model": "house/grok", **said}) as answer:
                await refused(answer, 404, "no_provider_qualifies")
        assert [seen.json["model"] for seen in alone.calls] == [GROK]


async def test_a_model_of_a_route_that_the_budget_does_not_hold_is_left_out() -> None:
    """What is set aside is the price of the one model that is asked, not of the dearest."""
    models = f'"openai/gpt-6.1-sol", "{OSS}"'
    route = f'[routes.quick]\nmodels = [{models}]\nfallback = "model"\n'
    async with server.serving("openrouter") as alone:
        async with proxy_before(alone, more=route, TOTAL_BUDGET="0.005/day") as proxy:
            assert await provider_of(proxy, "quick", max_tokens=1000) == "openrouter"
        assert [seen.json["model"] for seen in alone.calls] == [OSS]


async def test_a_home_that_the_budget_does_not_hold_costs_no_further_attempt() -> None:
    """The process has few of them: one for each that failed, none for one that was not made."""
    dear, numbers = "x-ai/grok-4.3", range(A_MINUTE)
    prices = "price.openai = { input = 0, output = 0 }\n"
    more = "".join(f'[models."a/{n}"]\nat = ["openai:fails/{n}"]\n{prices}' for n in numbers)
    async with server.serving("openai", "openrouter") as some:
        some["openai"].plan = lambda seen, body: Plan("500")
        async with proxy_before(some, more=more, TOTAL_BUDGET="0.009/day") as proxy:
            for n in numbers:
                said = {"models": [dear, OSS], "max_tokens": 1000}
                assert await provider_of(proxy, f"a/{n}", **said) == "openrouter"
        calls = [(seen.vendor, seen.json["model"]) for seen in some.calls]
        each = [(("openai", f"fails/{n}"), ("openrouter", OSS)) for n in numbers]
        assert calls == [call for both in each for call in both]


async def test_what_is_too_long_for_one_home_goes_on_to_a_longer_one_only(fakes: Fakes) -> None:
    more = f"""
[routes.alike]
at = ["groq:{OSS}", "cerebras:gpt-oss-120b"]
fallback = "model"
[routes.longer]
at = ["groq:{OSS}", "openai:gpt-6.1-sol"]
fallback = "model"
"""
    async with server.serving("groq", "cerebras", "openai") as some:
        for name in ("groq", "cerebras"):
            some[name].plan = lambda seen, body: Plan("context")
        async with proxy_before(some, more=more) as proxy:
            async with proxy.post({"model": "alike", **HI}) as answer:
                assert answer.status == 400
            assert asked(some) == ["groq"]
            assert await provider_of(proxy, "longer") == "openai"


async def test_an_app_may_set_a_highest_price(fakes: Fakes) -> None:
    async with proxy_before(fakes, more=ROUTES, MAX_PRICE="input=0.06,output=9") as proxy:
        assert await provider_of(proxy, OSS) == "deepinfra"
    app = '[apps.cheap]\nmax_price = { input = 0.06 }\nallowed_origins = ["https://a.example"]\n'
    async with proxy_before(fakes, more=app) as proxy:
        headers = {"Origin": "https://a.example"}
        async with proxy.post({"model": OSS, **HI}, headers=headers) as answer:
            assert answer.headers["X-Keyproxy-Provider"] == "deepinfra"
        assert await provider_of(proxy, OSS) == "groq"


@pytest.mark.parametrize("path", ["completions", "rerank", "images", "audio/speech"])
async def test_other_endpoints_are_openrouters_alone(path: str) -> None:
    path = f"/api/v1/{path}"
    said = {"input": "x", "prompt": "x", "query": "x", "documents": ["x"], "voice": "alloy"}
    wanted = {
        "completions": ("prompt",),
        "rerank": ("query", "documents"),
        "images": ("prompt",),
        "audio/speech": ("input", "voice"),
    }[path.removeprefix("/api/v1/")]
    body = {"model": OSS, **{name: said[name] for name in wanted}}
    for names in (("groq", "openrouter"), ("groq",)):
        async with (
            server.serving(*names) as fakes,
            proxy_before(fakes, ALLOWED_ENDPOINTS=f"POST {path}") as proxy,
            proxy.post(body, path=path) as answer,
        ):
            if "openrouter" in names:  # the fake has none of these
                assert answer.headers["X-Keyproxy-Provider"] == "openrouter", await answer.text()
                assert [seen.target for seen in fakes["openrouter"].calls] == [path]
            else:
                await refused(answer, 404, "no_provider_qualifies")
            assert fakes["groq"].calls == []


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"temperature": 0.5}, "temperature"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format",
        ),
    ],
)
async def test_the_operator_may_know_better_what_a_provider_takes(
    said: dict[str, Any], field: str
) -> None:
    async with server.serving("groq") as fakes:
        [fake] = fakes.values()
        model = fake.vendor.models[-1]
        assert model.id == "llama-3.3-70b-versatile"
        lax = model._replace(refuses=frozenset())
        fake.vendor = replace(fake.vendor, models=(lax,), strict={"chat": Strictness()})
        call = {"model": model.canonical, **HI, **said}
        opened = f"fields = ['{field}']"
        async with proxy_before(fakes, of_each=opened) as proxy, proxy.post(call) as answer:
            assert answer.status == 200, await answer.text()
        [seen] = fakes.calls
        assert {name: seen.json[name] for name in said} == said
        if field != "temperature":  # which this model takes anyway
            async with proxy_before(fakes) as proxy, proxy.post(call) as answer:
                await refused(answer, 404, "no_provider_qualifies")
            assert len(fakes.calls) == 1


async def test_a_call_counts_once_however_often_it_is_tried(fakes: Fakes) -> None:
    more = failing(groq="503", cerebras="503", deepinfra="whole")
    async with (
        proxy_before(fakes, more=more, RATE_LIMIT="10/hour") as proxy,
        proxy.post({"model": MODEL, **HI}) as answer,
    ):
        assert answer.status == 200
        assert ";r=9;" in answer.headers["RateLimit"]
    assert len(fakes.calls) == 3


async def test_where_openrouter_alone_is_used_no_answer_says_which_way_it_came(
    start: Start,
) -> None:
    async with (await start()).post() as answer:
        assert answer.status == 200
        assert not [name for name in answer.headers if name.lower().startswith("x-keyproxy")]


async def test_an_app_pays_with_its_own_key_at_each_provider(fakes: Fakes, tmp_path: Path) -> None:
    own = f"gsk_{'Own00' * 10}"
    (tmp_path / "mine").write_text(own)
    more = f"""
[apps.web]
allowed_origins = "https://web.example"
providers = "groq"
groq_api_key_file = "{tmp_path / "mine"}"
"""
    async with proxy_before(fakes, more=more) as proxy:
        web = {"Origin": "https://web.example"}
        async with proxy.post({"model": OSS, **HI}, headers=web) as answer:
            await refused(answer, 502, "upstream_key_rejected")  # the fake knows another
        assert fakes["groq"].calls[-1].keys == [own]
        assert await provider_of(proxy, OSS) == "groq"
        assert fakes["groq"].calls[-1].keys == [fakes["groq"].key]
        async with proxy.post({"model": "z-ai/glm-4.7", **HI}, headers=web) as answer:
            assert answer.status in (403, 404)  # Cerebras is none of this app's
    assert {seen.vendor for seen in fakes.calls} == {"groq"}
