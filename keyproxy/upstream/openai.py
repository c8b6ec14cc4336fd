"""OpenAI (platform.openai.com/docs: "API reference", "Error codes", "Rate limits"; its SDK 3.57.0,
November 2026)."""

from __future__ import annotations

from keyproxy.dialects import names
from keyproxy.upstream import faults
from keyproxy.upstream.faults import Fault
from keyproxy.upstream.provider import Provider, without_author
from keyproxy.upstream.takes import CHAT, EMBEDDINGS, RESPONSES, Takes

_CACHE = names("prompt_cache_key prompt_cache_options prompt_cache_retention")
_OWN = names("user metadata safety_identifier store service_tier stream_options")

OPENAI = Provider(
    name="openai",
    title="OpenAI",
    base="https://api.openai.com/v1",
    keys_page="https://platform.openai.com/api-keys",
    takes={
        "chat": Takes(
            fields=CHAT
            | _CACHE
            | _OWN
            | names(
                "frequency_penalty presence_penalty logit_bias logprobs top_logprobs seed n"
                " prediction modalities audio functions function_call reasoning_effort verbosity"
                " web_search_options"
            ),
            # Its models of 2025 and later refuse the older spelling; older ones take either.
            length="max_completion_tokens",
            bounds_length=True,
            asks_usage=True,
            strict_turns=names("reasoning reasoning_content reasoning_details"),
            inputs=names("image file audio"),
        ),
        "responses": Takes(
            fields=RESPONSES
            | _CACHE
            | _OWN
            | names(
                "background context_management include max_tool_calls top_logprobs truncation image"
            ),
            bounds_length=True,
            stores=True,
            inputs=names("image file audio"),
        ),
        "embeddings": Takes(fields=EMBEDDINGS | names("dimensions user")),
    },
    author="openai",
    slug="openai",
    native=without_author("openai"),
    classify=faults.by(
        words={
            "insufficient_quota": Fault.ACCOUNT,
            "credit_balance_exhausted": Fault.ACCOUNT,
            "billing_hard_limit_reached": Fault.ACCOUNT,
            "billing_not_active": Fault.ACCOUNT,
            "content_policy_violation": Fault.CALLER,
            "invalid_prompt": Fault.CALLER,
        }
    ),
)
