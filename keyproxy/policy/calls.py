"""The body's bytes to a Call: what is checked here is what is sent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keyproxy.call import Call, Endpoint
from keyproxy.errors import Refusal
from keyproxy.policy import bounds, caps, fields
from keyproxy.policy.features import NONE, Features, open_betas
from keyproxy.policy.models import Models
from keyproxy.policy.rules import Check
from keyproxy.strict_json import body
from keyproxy.strict_json.pieces import PIECE, Reader

MAX_MODELS = 16  # a fallback list of more is a mistake or an attack; OpenRouter's docs show 3


@dataclass(frozen=True, slots=True)
class Policy:
    """What one configuration allows. ``aliases``: a name of the operator's own -> a model id.

    ``counts_money``: calls say what they ask for, as far as it decides the price.
    """

    models: Models
    aliases: Mapping[str, str] = field(default_factory=dict)
    max_tokens: int | None = None
    features: Features = NONE
    counts_money: bool = False


def read(
    endpoint: Endpoint, raw: bytes, policy: Policy, headers: tuple[tuple[str, str], ...], query: str
) -> Call:
    """The call in ``raw``, checked whole.

    Its body is ``raw`` itself, or, when a cap or an alias changed a field, ``raw`` with that
    field written anew. Beta names in ``headers`` that are not open are left out. Raises
    ``invalid_json``, ``model_missing``, ``model_not_allowed``, ``field_not_allowed``.
    """
    parsed, reader = body.read(raw)
    try:
        return _checked(endpoint, raw, parsed, reader, policy, headers, query)
    finally:
        if len(raw) > PIECE:
            body.let_go(parsed)


def _checked(
    endpoint: Endpoint,
    raw: bytes,
    parsed: dict[str, Any],
    reader: Reader,
    policy: Policy,
    headers: tuple[tuple[str, str], ...],
    query: str,
) -> Call:
    said = fields.said(parsed)
    asked = _models(said)
    for param, model in asked:
        policy.models.check(policy.aliases.get(model, model), param)
    ids = tuple(policy.aliases.get(model, model) for _, model in asked)
    inspection = Check(
        endpoint.dialect, policy.features, policy.models, policy.aliases, policy.max_tokens, ids
    )
    fields.check(inspection, said)
    stream = said.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise Refusal("invalid_json", "The field stream must be true or false.", param="stream")
    changes = {name: said[name] for name in said if name in inspection.changed}
    changes |= _without_aliases(said, policy.aliases)
    changes |= caps.imposed(
        endpoint.dialect, said, policy.max_tokens, policy.features.has_server_tools, ids
    )
    sent = body.rewritten(reader, changes) if changes else raw
    models = tuple(dict.fromkeys([*(model for _, model in asked), *inspection.named]))
    all_ids = tuple(dict.fromkeys(policy.aliases.get(model, model) for model in models))
    ask = None
    if policy.counts_money:
        asking = {**said, **changes}
        ask = bounds.ask_of(inspection.seen, endpoint.dialect, asking, len(sent), all_ids)
    return Call(
        endpoint=endpoint,
        path=endpoint.path,
        body=sent,
        query=query,
        models=models,
        ids=all_ids,
        is_streaming=stream is True,
        ask=ask,
        headers=open_betas(headers, policy.features),
    )


def _models(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each model the call may be answered by, with the field that names it."""
    asked: list[tuple[str, str]] = []
    if "model" in said:
        asked.append(("model", _named(said["model"], "model")))
    if "models" in said:
        fallbacks = said["models"]
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


def _without_aliases(said: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """The fields that name an alias, with the ids it stands for."""
    changes: dict[str, Any] = {}
    if said.get("model") in aliases:
        changes["model"] = aliases[said["model"]]
    fallbacks = said.get("models", [])
    if any(model in aliases for model in fallbacks):
        changes["models"] = [aliases.get(model, model) for model in fallbacks]
    return changes
