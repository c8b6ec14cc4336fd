"""DeepInfra by its layers for OpenAI's and Anthropic's clients (docs.deepinfra.com: "OpenAI API",
"Anthropic messages", "Rate limits"; November 2026). Errors are FastAPI's, fields hardly judged."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from keyproxy.call import ToldCost
from keyproxy.dialects import names
from keyproxy.price import Price, Rates
from keyproxy.upstream.provider import KeyReport, Listing, Model, Provider, models_in
from keyproxy.upstream.takes import CHAT, EMBEDDINGS, MESSAGES, Takes


def read_key(status: int, body: Any) -> KeyReport:
    """Anybody may read the list of models, and there is nothing else that costs nothing."""
    return KeyReport(status, is_verdict=status == 401)


def _with_facts(model: Model, row: Mapping[str, Any]) -> Model:
    """Its list tells prices in USD for a million tokens."""
    told = row.get("metadata")
    if not isinstance(told, dict):
        return model
    length, pricing = told.get("context_length"), told.get("pricing")
    kinds = {
        "prompt": "input_tokens",
        "completion": "output_tokens",
        "input_cache_read": "cache_read_tokens",
    }
    price = None
    if isinstance(pricing, dict) and pricing.keys() <= set(kinds.values()):
        usd = {kind: _per_token(pricing.get(name)) for kind, name in kinds.items()}
        if usd["prompt"] is not None and usd["completion"] is not None:
            rates = Rates(**{kind: each for kind, each in usd.items() if each is not None})
            price = Price(rates, context_length=length if type(length) is int else None)
    return Model(model.id, length if type(length) is int else None, price)


def _per_token(value: Any) -> Decimal | None:
    """None for what is no price, or one that nobody would take for one."""
    is_price = type(value) in (int, float) and 0 <= value < 10_000
    return Decimal(str(value)) / 1_000_000 if is_price else None


DEEPINFRA = Provider(
    name="deepinfra",
    title="DeepInfra",
    base="https://api.deepinfra.com/v1/openai",
    messages_base="https://api.deepinfra.com/anthropic/v1",
    keys_page="https://deepinfra.com/dash/api_keys",
    takes={
        # It ignores what it does not know: taken is what it is documented to do.
        "chat": Takes(
            fields=CHAT
            | names(
                "frequency_penalty presence_penalty repetition_penalty min_p top_k seed n logprobs"
                " top_logprobs reasoning_effort service_tier stream_options user prompt_cache_key"
            ),
            inputs=names("image"),
        ),
        "messages": Takes(fields=MESSAGES, inputs=names("image")),
        "embeddings": Takes(fields=EMBEDDINGS | names("dimensions")),
    },
    read_key=read_key,
    listing=Listing("/models", is_public=True, read_models=partial(models_in, more=_with_facts)),
    slug="deepinfra",
    told_cost=ToldCost("estimated_cost"),
)
