"""Cerebras (inference-docs.cerebras.ai: "API reference", "OpenAI compatibility", "Error codes",
"Rate limits"; its SDK 1.91.0, November 2026)."""

from __future__ import annotations

from keyproxy.upstream.provider import Provider, without_author
from keyproxy.upstream.takes import CHAT, ECHOES, TURN, Takes, names

CEREBRAS = Provider(
    name="cerebras",
    title="Cerebras",
    base="https://api.cerebras.ai/v1",
    key_variable="CEREBRAS_API_KEY",
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
            effort="reasoning_effort",
            strict_turns=ECHOES,
            turn=TURN,
            inputs=names("image"),
            # "Unsupported JSON schema fields": seen of these two, in tools as well.
            schema_words=names("minItems maxItems"),
        )
    },
    slug="cerebras",
    native=without_author(),
    # Whether it bills on when its client leaves is not documented: cut, and estimated.
)
