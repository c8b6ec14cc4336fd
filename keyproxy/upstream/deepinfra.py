"""DeepInfra by its layers for OpenAI's and Anthropic's clients (docs.deepinfra.com: "OpenAI API",
"Anthropic messages", "Rate limits"; November 2026). Errors are FastAPI's, fields hardly judged."""

from __future__ import annotations

from typing import Any

from keyproxy.upstream.provider import KeyReport, Listing, Provider, ToldCost
from keyproxy.upstream.takes import CHAT, EMBEDDINGS, MESSAGES, NOTES, Takes, names


def read_key(status: int, body: Any) -> KeyReport:
    """Anybody may read the list of models, and there is nothing else that costs nothing."""
    return KeyReport(status, is_verdict=status == 401)


DEEPINFRA = Provider(
    name="deepinfra",
    title="DeepInfra",
    base="https://api.deepinfra.com/v1/openai",
    messages_base="https://api.deepinfra.com/anthropic/v1",
    key_variable="DEEPINFRA_API_KEY",
    keys_page="https://deepinfra.com/dash/api_keys",
    takes={
        # It ignores what it does not know: taken is what it is documented to do.
        "chat": Takes(
            fields=CHAT
            | names(
                "frequency_penalty presence_penalty repetition_penalty min_p top_k seed n logprobs"
                " top_logprobs reasoning_effort service_tier stream_options user prompt_cache_key"
            ),
            drops=NOTES,
            effort="reasoning_effort",
            inputs=frozenset({"image"}),
        ),
        "messages": Takes(
            fields=MESSAGES,
            drops=NOTES | names("fallbacks"),
            inputs=frozenset({"image"}),
        ),
        "embeddings": Takes(fields=EMBEDDINGS | names("dimensions"), drops=NOTES),
    },
    read_key=read_key,
    listing=Listing("/models", is_public=True),
    slug="deepinfra",
    native=lambda model: model,  # the same shape, in other case
    told_cost=ToldCost("estimated_cost"),
)
