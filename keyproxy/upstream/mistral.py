"""Mistral (docs.mistral.ai: "API", "Error glossary", "Rate limits and usage tiers"; its SDK 3.7.0,
November 2026). What it does not know it refuses (422), at the top as within messages."""

from __future__ import annotations

from keyproxy.dialects import names
from keyproxy.upstream import faults
from keyproxy.upstream.faults import Fault
from keyproxy.upstream.provider import Listing, Provider, models_in, without_author
from keyproxy.upstream.takes import CHAT, ECHOES, EMBEDDINGS, NOTES, TURN, Takes

MISTRAL = Provider(
    name="mistral",
    title="Mistral",
    base="https://api.mistral.ai/v1",
    keys_page="https://console.mistral.ai/api-keys",
    takes={
        "chat": Takes(
            # `seed` is `random_seed` there, which is none of the words that are changed.
            fields=(CHAT - names("max_completion_tokens"))
            | names("frequency_penalty presence_penalty prediction reasoning_effort"),
            drops=NOTES | names("stream_options"),  # a stream tells its usage unasked
            length="max_tokens",
            strict_turns=ECHOES,
            turn=TURN | {"prefix"},
            inputs=names("image"),
        ),
        "embeddings": Takes(fields=EMBEDDINGS),
    },
    listing=Listing("/models", read_models=lambda body: models_in(body, "max_context_length")),
    author="mistralai",
    slug="mistral",
    native=without_author("mistralai"),
    classify=faults.by(texts={"too large for model": Fault.CONTEXT}),
    on_hangup="drain",
)
