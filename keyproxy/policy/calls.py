"""The body's bytes to a Call: what is checked here is what is sent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyproxy.call import Call, Endpoint
from keyproxy.errors import Refusal
from keyproxy.policy import body, fields
from keyproxy.policy.models import Models

MAX_MODELS = 16  # a fallback list of more is a mistake or an attack; OpenRouter's docs show 3


def read(
    endpoint: Endpoint, raw: bytes, models: Models, headers: tuple[tuple[str, str], ...], query: str
) -> Call:
    """The call in ``raw``, checked whole; its body is ``raw`` itself.

    Raises ``invalid_json``, ``model_missing``, ``model_not_allowed``, ``field_not_allowed``.
    """
    parsed = body.parse(raw)
    asked = _models(parsed)
    for param, model in asked:
        models.check(model, param)
    fields.check(endpoint.style, parsed)
    stream = parsed.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise Refusal("invalid_json", "The field stream must be true or false.", param="stream")
    return Call(
        endpoint=endpoint,
        path=endpoint.path,
        body=raw,
        query=query,
        models=tuple(dict.fromkeys(model for _, model in asked)),
        is_streaming=stream is True,
        headers=headers,
    )


def _models(parsed: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each model the call may be answered by, with the field that names it."""
    asked: list[tuple[str, str]] = []
    if "model" in parsed:
        asked.append(("model", _named(parsed["model"], "model")))
    if "models" in parsed:
        fallbacks = parsed["models"]
        if not isinstance(fallbacks, list) or not 0 < len(fallbacks) <= MAX_MODELS:
            raise Refusal(
                "model_missing",
                f"The field models must be a list of 1 to {MAX_MODELS} model ids.",
                param="models",
            )
        asked += [("models", _named(model, "models")) for model in fallbacks]
    if not asked:
        raise Refusal(
            "model_missing",
            "Name the model: without one the provider account's default would answer.",
            param="model",
        )
    return asked


def _named(value: Any, param: str) -> str:
    if not isinstance(value, str) or not value:
        raise Refusal("model_missing", f"The field {param} must hold model ids.", param=param)
    return value
