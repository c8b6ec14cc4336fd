"""Google's Gemini by its layer for OpenAI's clients, which is beta (ai.google.dev/gemini-api/docs:
"OpenAI compatibility", "Rate limits", "Troubleshooting"; November 2026)."""

from __future__ import annotations

from typing import Any

from keyproxy.dialects import names
from keyproxy.upstream import faults
from keyproxy.upstream.faults import Fault
from keyproxy.upstream.provider import Listing, Model, Provider, models_in, without_author
from keyproxy.upstream.takes import CHAT, ECHOES, EMBEDDINGS, TURN, Takes


def read_models(body: Any) -> tuple[Model, ...]:
    """Its list names a model ``models/gemini-…``, which calls may leave out."""
    return tuple(each._replace(id=each.id.removeprefix("models/")) for each in models_in(body))


GEMINI = Provider(
    name="gemini",
    title="Gemini",
    base="https://generativelanguage.googleapis.com/v1beta/openai",
    keys_page="https://aistudio.google.com/apikey",
    takes={
        "chat": Takes(
            # An unknown name is refused. Which of OpenAI's others are known differs by model and
            # month (seen to fail: store, top_k, frequency_penalty), so that none is taken for it.
            fields=CHAT | names("n reasoning_effort stream_options"),
            asks_usage=True,
            strict_turns=ECHOES - {"name"},
            turn=TURN | {"name", "extra_content"},
            inputs=names("image audio"),
        ),
        "embeddings": Takes(fields=EMBEDDINGS | names("dimensions")),
    },
    listing=Listing("/models", read_models=read_models),
    author="google",
    slug="google-ai-studio",
    native=without_author("google"),
    classify=faults.by(
        words={
            "api_key_invalid": Fault.ACCOUNT,
            "api_key_expired": Fault.ACCOUNT,
            "quota_exceeded": Fault.ACCOUNT,  # the day's, until midnight in California
            "permission_denied": Fault.ACCOUNT,
            "failed_precondition": Fault.ACCOUNT,  # billing is off, or not offered in the country
            "resource_exhausted": Fault.LOAD,
            "unavailable": Fault.LOAD,
            "deadline_exceeded": Fault.UNCERTAIN,
        },
        texts={
            "^api key (?:not valid|expired)": Fault.ACCOUNT,
            "permission to access the file": Fault.CALLER,  # a file that the caller named
        },
    ),
    on_hangup="drain",
)
