"""Anthropic (docs.anthropic.com: "Messages", "Errors", "Rate limits", "OpenAI SDK compatibility";
its SDK 2.14.0, November 2026)."""

from __future__ import annotations

from keyproxy.dialects import names
from keyproxy.upstream import faults
from keyproxy.upstream.faults import OWN_WORDS, Fault
from keyproxy.upstream.provider import Listing, Provider, without_author
from keyproxy.upstream.takes import CHAT, MESSAGES, Takes

_rule = without_author("anthropic")


def native(model: str) -> str | None:
    """``claude-sonnet-4-6`` for ``anthropic/claude-sonnet-4.6``."""
    found = _rule(model)
    return None if found is None else found.replace(".", "-")


ANTHROPIC = Provider(
    name="anthropic",
    title="Anthropic",
    base="https://api.anthropic.com/v1",
    keys_page="https://console.anthropic.com/settings/keys",
    key_header="x-api-key",
    key_form="{}",
    head=(("anthropic-version", "2023-06-01"),),
    takes={
        "messages": Takes(
            fields=MESSAGES
            | names(
                "cache_control compaction context_management inference_geo output_config"
                " service_tier speed"
            ),
            bounds_length=True,
            inputs=names("image file"),
            betas=None,
        ),
        # Meant for trials: it takes no cache marks, and ignores without a word what it does not
        # do. Nothing of that is taken here, so that it is refused aloud.
        "chat": Takes(
            fields=(CHAT - names("response_format")) | names("stream_options"),
            asks_usage=True,
            inputs=names("image"),
            is_bearer=True,
            is_named_only=True,
        ),
    },
    key_path="/models?limit=1",
    listing=Listing("/models?limit=1000"),
    author="anthropic",
    slug="anthropic",
    native=native,
    classify=faults.by(
        words={
            "billing_error": Fault.ACCOUNT,
            "rate_limit_error": Fault.LOAD,
            "overloaded_error": Fault.LOAD,
            "timeout_error": Fault.UNCERTAIN,
        },
        texts={
            "^your credit balance is too low": Fault.ACCOUNT,
            f"^(?:you|this|enforced){OWN_WORDS}(?:spend(?:ing)? limit|usage limit)": Fault.ACCOUNT,
        },
    ),
    refuses_key=frozenset({401, 403}),
)
