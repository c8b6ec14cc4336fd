"""Each provider's facts, as one table; and that they agree with what the fakes take and say."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import keyproxy
from keyproxy import dialects
from keyproxy.key_forms import owner
from keyproxy.upstream.compatible import DIALECTS, compatible
from keyproxy.upstream.faults import Fault
from keyproxy.upstream.provider import Provider
from keyproxy.upstream.providers import PROVIDERS
from keyproxy.upstream.requests import key_rejected
from tests.fakes.vendor import Complaint
from tests.fakes.vendors import VENDORS

FACTS = {
    # name: dialects; length of chat, is usage asked for, does it store, hang-up, told cost
    "openrouter": ("audio…", None, False, False, "cut", "cost"),
    "openai": ("chat embeddings responses", "max_completion_tokens", True, True, "cut", None),
    "anthropic": ("chat messages", None, True, False, "cut", None),
    "gemini": ("chat embeddings", None, True, False, "drain", None),
    "groq": ("chat responses", None, False, False, "drain", None),
    "cerebras": ("chat", None, False, False, "cut", None),
    "deepinfra": ("chat embeddings messages", None, False, False, "cut", "estimated_cost"),
    "mistral": ("chat embeddings", "max_tokens", False, False, "drain", None),
    "xai": ("chat responses", None, True, True, "cut", "cost_in_usd_ticks"),
}
DIRECT = [provider for provider in PROVIDERS.values() if provider.name != "openrouter"]


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=str)
def test_what_is_known_of_each(provider: Provider) -> None:
    spoken, length, asks_usage, stores, hangup, told = FACTS[provider.name]
    if provider in DIRECT:
        assert " ".join(sorted(provider.takes)) == spoken
    else:
        assert set(provider.takes) == {dialect.name for dialect in dialects.DIALECTS}
    chat, responses = provider.takes["chat"], provider.takes.get("responses")
    assert (chat.length, chat.asks_usage, provider.on_hangup) == (length, asks_usage, hangup)
    assert (responses is not None and responses.stores) is stores
    assert (provider.told_cost and provider.told_cost.name) == told
    hint = f"run `keyproxy check`, then set a valid {provider.name.upper()}_API_KEY"
    assert key_rejected(provider).hint == hint


def test_ticks_are_ten_billionths_of_a_dollar() -> None:
    told = PROVIDERS["xai"].told_cost
    assert told is not None
    assert told.usd * 16_230_000 == Decimal("0.001623")


@pytest.mark.parametrize("provider", DIRECT, ids=str)
def test_a_provider_is_asked_where_and_how_its_fake_answers(provider: Provider) -> None:
    vendor = VENDORS[provider.name]
    bases = [base for base in (provider.base, provider.messages_base) if base]
    assert [re.sub("https://[^/]+", "", base) for base in bases] == list(vendor.bases)
    for name in provider.takes:
        dialect = next(each for each in dialects.DIALECTS if each.name == name)
        base = (name == "messages" and provider.messages_base) or provider.base
        assert (base + dialect.path).endswith(vendor.paths[name])
    own = {"gemini": "Google"}.get(provider.name, provider.title)
    assert owner(vendor.key) in (own, None)


@pytest.mark.parametrize(
    ("provider", "name"), [(each, name) for each in DIRECT for name in each.takes], ids=str
)
def test_no_field_is_sent_that_would_be_refused(provider: Provider, name: str) -> None:
    takes, strict = provider.takes[name], VENDORS[provider.name].strict[name]
    dialect = next(each for each in dialects.DIALECTS if each.name == name)
    assert takes.fields is not None
    assert takes.fields <= dialect.fields.keys(), "the policy lets no other field through"
    if strict.fields is not None:
        newer = {"prompt_cache_options", "compaction", "context_management", "image"}
        assert takes.fields - strict.fields <= newer, "in an SDK of November 2026"
    assert not takes.fields & strict.refused


@pytest.mark.parametrize("provider", DIRECT, ids=str)
def test_a_field_that_is_unknown_there_is_no_fault_of_the_caller(provider: Provider) -> None:
    """One within another is: the caller wrote it, and the policy lets nobody's nested names out."""
    vendor = VENDORS[provider.name]
    if provider.name in ("cerebras", "deepinfra", "xai"):
        return  # they do not tell the two apart
    for path, fault in ((("odd",), Fault.FIELD), (("messages", 0, "odd"), Fault.CALLER)):
        trouble = vendor.complain(Complaint("unknown", path))
        body = vendor.body_of(trouble, "messages" if "messages" in vendor.paths else "chat")
        assert provider.classify(trouble.status, body) is fault


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=str)
def test_the_models_of_a_list_are_read(provider: Provider) -> None:
    vendor = VENDORS[provider.name]
    path = re.sub("https://[^/]+", "", provider.base) + provider.listing.path.partition("?")[0]
    listed = provider.listing.read_models(vendor.lists[path].rows(vendor))
    assert [model.id for model in listed] == [model.id for model in vendor.models]
    assert provider.listing.is_public is vendor.lists[path].is_public
    no_list: tuple[Any, ...] = (None, [], {}, {"data": 7}, {"models": {}})
    for odd in no_list:
        with pytest.raises(TypeError):
            provider.listing.read_models(odd)


@pytest.mark.parametrize(
    ("name", "model", "native"),
    [
        ("openrouter", "x/y:free", "x/y:free"),
        ("openai", "openai/gpt-6.1-sol", "gpt-6.1-sol"),
        ("openai", "openai/gpt-6.1-sol:nitro", None),
        ("openai", "anthropic/claude-sonnet-4.6", None),
        ("openai", "openai", None),
        ("anthropic", "anthropic/claude-sonnet-4.6", "claude-sonnet-4-6"),
        ("anthropic", "openai/gpt-6.1-sol", None),
        ("gemini", "google/gemini-3.5-flash", "gemini-3.5-flash"),
        ("groq", "openai/gpt-oss-120b", "openai/gpt-oss-120b"),
        ("cerebras", "openai/gpt-oss-120b", "gpt-oss-120b"),
        ("deepinfra", "openai/gpt-oss-120b", "openai/gpt-oss-120b"),
        ("mistral", "mistralai/mistral-large", "mistral-large"),
        ("xai", "x-ai/grok-4.3", "grok-4.3"),
    ],
)
def test_a_rule_proposes_an_id(name: str, model: str, native: str | None) -> None:
    assert PROVIDERS[name].native(model) == native


@pytest.mark.parametrize("name", DIALECTS)
def test_any_other_host_speaks_what_it_is_said_to(name: str) -> None:
    house = compatible("openai-compatible", "house", "http://127.0.0.1:8000/v1", [name])
    assert set(house.takes) == {name}
    dialect = next(each for each in dialects.DIALECTS if each.name == name)
    assert (house.takes[name].fields or frozenset()) <= dialect.fields.keys()
    assert (house.key_header, house.key_form) == ("Authorization", "Bearer {}")


def test_a_host_in_anthropics_manner_wants_its_key_in_anthropics_header() -> None:
    house = compatible("anthropic-compatible", "house", "https://llm.example/v1")
    assert (house.key_header, house.key_form, set(house.takes)) == ("x-api-key", "{}", {"messages"})
    assert dict(house.head) == {"anthropic-version": "2023-06-01"}


def test_each_provider_has_a_file_of_a_page_or_two() -> None:
    folder = Path(keyproxy.__file__).parent / "upstream"
    for provider in DIRECT:
        assert len((folder / f"{provider.name}.py").read_text().splitlines()) <= 120
