"""xAI (docs.x.ai: "REST API reference", "Responses API", "Errors", "Models and pricing"; November
2026). Errors are a text under ``error``; a list with prices is for key holders."""

from __future__ import annotations

from decimal import Decimal
from functools import partial

from keyproxy.call import ToldCost
from keyproxy.dialects import names
from keyproxy.upstream import faults
from keyproxy.upstream.faults import OWN_WORDS, Fault
from keyproxy.upstream.provider import Listing, Provider, models_in, without_author
from keyproxy.upstream.takes import CHAT, RESPONSES, Takes

XAI = Provider(
    name="xai",
    title="xAI",
    base="https://api.x.ai/v1",
    keys_page="https://console.x.ai",
    takes={
        "chat": Takes(
            # Penalties are refused even at 0; `reasoning_effort` by most older models, as the
            # shipped table says.
            fields=CHAT
            | names("logprobs top_logprobs seed n stream_options user reasoning_effort"),
            asks_usage=True,
            inputs=names("image"),
        ),
        "responses": Takes(
            fields=RESPONSES | names("include prompt_cache_key store top_logprobs user"),
            stores=True,
            inputs=names("image file"),
        ),
    },
    listing=Listing("/language-models", read_models=partial(models_in, name="models")),
    author="x-ai",
    slug="xai",
    native=without_author("x-ai"),
    classify=faults.by(
        texts={
            r"^(?:incorrect|invalid) api key": Fault.ACCOUNT,
            f"^your team{OWN_WORDS}(?:used all available credits|spending limit)": Fault.ACCOUNT,
            r"not supported on this model|does not support parameter": Fault.FIELD,
        }
    ),
    told_cost=ToldCost("cost_in_usd_ticks", Decimal("1e-10")),
    conversation_header="x-grok-conv-id",
)
