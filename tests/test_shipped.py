"""The shipped table of models is whole, dated, and read as a list of OpenRouter's is."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from keyproxy.price import Price, Rates
from keyproxy.upstream import shipped
from keyproxy.upstream.openrouter import price_of_row
from keyproxy.upstream.takes import LACKS
from tests.fakes.vendors import VENDORS

PROVIDERS = ["openai", "anthropic", "gemini", "groq", "cerebras", "deepinfra", "mistral", "xai"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_row_has_a_price_that_is_understood(provider: str) -> None:
    models = shipped.models_of(provider)
    assert len(models) >= 5
    for each in models.values():
        assert each.price is not None, each.native_id
        assert 0 < each.price.rates.prompt < Decimal("0.001"), each.native_id
        assert "text" in each.inputs, each.native_id
        assert each.model is None or each.model.count("/") == 1, each.native_id


@pytest.mark.parametrize(
    ("provider", "model", "native_id"),
    [
        ("openai", "openai/gpt-4o-mini", "gpt-4o-mini"),
        ("openai", "openai/gpt-5-chat", "gpt-5-chat-latest"),
        ("anthropic", "anthropic/claude-sonnet-4.6", "claude-sonnet-4-6"),
        ("anthropic", "anthropic/claude-opus-5", "claude-opus-5"),
        ("gemini", "google/gemini-3.5-flash", "gemini-3.5-flash"),
        ("groq", "openai/gpt-oss-120b", "openai/gpt-oss-120b"),
        ("groq", "meta-llama/llama-3.3-70b-instruct", "llama-3.3-70b-versatile"),
        ("cerebras", "openai/gpt-oss-120b", "gpt-oss-120b"),
        ("cerebras", "z-ai/glm-4.7", "zai-glm-4.7"),
        ("deepinfra", "openai/gpt-oss-120b", "openai/gpt-oss-120b"),
        ("deepinfra", "deepseek/deepseek-v4-flash", "deepseek-ai/DeepSeek-V4-Flash"),
        ("deepinfra", "anthropic/claude-sonnet-4.6", "anthropic/claude-sonnet-4-6"),
        ("mistral", "mistralai/mistral-medium-3-5", "mistral-medium-3.5"),
        ("xai", "x-ai/grok-4.3", "grok-4.3"),
    ],
)
def test_models_have_the_ids_of_their_providers(provider: str, model: str, native_id: str) -> None:
    assert shipped.native_ids(provider)[model] == native_id


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_model_has_one_id_at_a_provider(provider: str) -> None:
    told = [each.model for each in shipped.models_of(provider).values() if each.model]
    assert len(told) == len(set(told)) == len(shipped.native_ids(provider))


def test_other_precisions_are_no_other_name_of_a_model() -> None:
    """``-Turbo`` and ``-FP8`` may be other weights."""
    for id, each in shipped.models_of("deepinfra").items():
        if id.lower().endswith(("-turbo", "-fp8", "-ultra")):
            assert each.model is None, id


def test_prices_step_with_the_length_of_the_prompt() -> None:
    price = shipped.models_of("gemini")["gemini-2.5-pro"].price
    assert price is not None
    assert price.at(200_001).prompt == 2 * price.at(200_000).prompt


def test_a_prompt_and_its_answer_fit_into_a_context() -> None:
    """OpenAI's since GPT-5 have 272,000 for the prompt, and room for the answer beside that."""
    for id, context, writes in (("gpt-5", 400_000, 128_000), ("gpt-4o", 128_000, 16_384)):
        price = shipped.models_of("openai")[id].price
        assert price is not None
        assert (price.context_length, price.max_completion_tokens) == (context, writes)


def test_prices_are_those_of_their_date() -> None:
    rates = Rates(Decimal("1.5e-7"), Decimal("6e-7"), input_cache_read=Decimal("7.5e-8"))
    price = shipped.models_of("openai")["gpt-4o-mini"].price
    assert isinstance(price, Price)
    named = ("prompt", "completion", "input_cache_read")
    assert [getattr(price.rates, each) for each in named] == [getattr(rates, n) for n in named]
    assert date(2026, 11, 1) <= date.fromisoformat(shipped.date()) <= date.today()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_a_model_lacks_is_said_in_known_words(provider: str) -> None:
    for each in shipped.models_of(provider).values():
        assert each.lacks <= LACKS.keys(), each.native_id


@pytest.mark.parametrize(
    ("provider", "native_id"),
    [(name, model.id) for name in PROVIDERS for model in VENDORS[name].models],
)
def test_what_a_model_refuses_is_what_the_fake_of_it_refuses(provider: str, native_id: str) -> None:
    fake, row = VENDORS[provider].model(native_id), shipped.models_of(provider).get(native_id)
    assert fake is not None
    lacks = frozenset() if row is None else row.lacks
    sometimes = lacks & {"sampling while thinking"}
    always = frozenset().union(*(LACKS[word] for word in lacks - sometimes))
    assert (
        always | ({"json_schema"} & fake.refuses if "schemas" in lacks else set()) == fake.refuses
    )
    assert frozenset().union(*(LACKS[word] for word in sometimes)) == fake.unless_idle
    price = None if row is None else row.price
    assert fake.writes in (None, price and price.max_completion_tokens)


def test_who_is_not_in_the_table_has_no_models() -> None:
    assert shipped.models_of("house") == {}
    assert shipped.native_ids("openrouter") == {}


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-4o-mini-2024-07-18"])
def test_an_image_takes_as_much_at_openai_as_by_openrouter(model: str) -> None:
    """48,169 tokens: with fewer set aside, a call with images could cost more than its budget."""
    own = shipped.models_of("openai")[model].price
    row = {**shipped.rows_of("openai")[model], "id": f"openai/{model}"}
    listed = price_of_row(row)
    assert own is not None
    assert listed is not None
    assert own.image_tokens == listed.image_tokens == 48_169
