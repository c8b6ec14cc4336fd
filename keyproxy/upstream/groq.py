"""Groq (console.groq.com/docs: "API reference", "OpenAI compatibility", "Errors", "Rate limits";
refused fields also from its users' threads; November 2026)."""

from __future__ import annotations

from functools import partial

from keyproxy.dialects import names
from keyproxy.upstream import faults
from keyproxy.upstream.faults import Fault
from keyproxy.upstream.provider import Listing, Provider, models_in
from keyproxy.upstream.takes import CHAT, ECHOES, NOTES, RESPONSES, TURN, Takes

GROQ = Provider(
    name="groq",
    title="Groq",
    base="https://api.groq.com/openai/v1",
    keys_page="https://console.groq.com/keys",
    takes={
        "chat": Takes(
            fields=CHAT
            | names(
                "frequency_penalty presence_penalty seed user service_tier"
                " reasoning_effort include_reasoning"
            ),
            # A stream tells its usage unasked, and its SDK (1.7.0) has no way to ask for it.
            drops=NOTES | names("stream_options"),
            bounds_length=True,
            strict_turns=ECHOES,
            turn=TURN,
            inputs=names("image"),
        ),
        # Beta, and stateless: `store` is never kept, and whether it may be said is not documented.
        "responses": Takes(
            fields=RESPONSES | names("service_tier user"),
            bounds_length=True,
            inputs=names("image"),
        ),
    },
    listing=Listing("/models", read_models=partial(models_in, context="context_window")),
    slug="groq",
    classify=faults.by(
        words={
            "tool_use_failed": Fault.CALLER,
            # In a 413: the call is longer than what a minute may bring; others may take it.
            "rate_limit_exceeded": Fault.LOAD,
        },
    ),
    on_hangup="drain",
)
