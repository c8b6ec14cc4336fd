"""Cerebras (inference-docs.cerebras.ai: "API reference", "OpenAI compatibility", "Error codes",
"Rate limits"; its SDK 1.91.0, November 2026)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from keyproxy.dialects import names
from keyproxy.upstream.openrouter import price_of_row
from keyproxy.upstream.provider import Listing, Model, Provider, models_in, without_author
from keyproxy.upstream.takes import CHAT, ECHOES, TURN, Takes


def _with_facts(model: Model, row: Mapping[str, Any]) -> Model:
    """Its public list tells prices as OpenRouter's does, and lengths under names of its own."""
    limits = row.get("limits")
    lengths = limits if isinstance(limits, dict) else {}
    length = lengths.get("max_context_length")
    renamed = {
        "id": model.id,
        "pricing": row.get("pricing"),
        "context_length": length,
        "max_completion_tokens": lengths.get("max_completion_tokens"),
    }
    return Model(model.id, length if type(length) is int else None, price_of_row(renamed))


CEREBRAS = Provider(
    name="cerebras",
    title="Cerebras",
    base="https://api.cerebras.ai/v1",
    keys_page="https://cloud.cerebras.ai",
    takes={
        "chat": Takes(
            # Penalties and biases are in its SDK, and were seen refused: by model, perhaps.
            fields=CHAT
            | names(
                "logprobs top_logprobs seed reasoning_effort service_tier stream_options user n"
            ),
            # Other proxies leave out `prompt_cache_key`, though its SDK knows it: it finds its
            # cache without.
            strict_turns=ECHOES,
            turn=TURN,
            inputs=names("image"),
            # "Unsupported JSON schema fields": seen of these two, in tools as well.
            schema_words=names("minItems maxItems"),
        )
    },
    listing=Listing(
        "/models",
        priced=Listing(
            "/public/v1/models", is_public=True, read_models=partial(models_in, more=_with_facts)
        ),
    ),
    slug="cerebras",
    native=without_author(),
    # Whether it bills on when its client leaves is not documented: cut, and estimated.
)
