"""The body's bytes to a Call: what is checked here is what is sent. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from keyproxy.call import Call, Endpoint, Said
from keyproxy.errors import Refusal
from keyproxy.policy import fields
from keyproxy.policy.bounds import ask_of
from keyproxy.policy.check import Check, Policy
from keyproxy.policy.opened import open_betas
from keyproxy.strict_json import body
from keyproxy.strict_json.pieces import PIECE, Reader

MAX_MODELS = 16  # a fallback list of more is a mistake or an attack; OpenRouter's docs show 3


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
        said = fields.said(parsed)
        check = Check(endpoint.dialect, policy)
        _check_models(check, said)
        check.impose(said)
        fields.check(check, said)
        stream = said.get("stream")
        if stream is not None and not isinstance(stream, bool):
            raise Refusal("invalid_json", "The field stream must be true or false.", param="stream")
        changes = {name: said[name] for name in check.changed}
        sent = body.rewritten(raw, parsed, reader, changes) if changes else raw
        return Call(
            endpoint,
            endpoint.path,
            sent,
            query,
            tuple(check.named),
            tuple(check.ids),
            stream is True,
            ask_of(check, said, len(sent)) if policy.counts_money else None,
            open_betas(headers, policy.features) if headers else (),
            _said(check, said, raw, parsed, reader) if policy.is_routed else None,
        )
    finally:
        if len(raw) > PIECE and not policy.is_routed:
            body.let_go(parsed)


def _said(
    check: Check, said: dict[str, Any], raw: bytes, parsed: dict[str, Any], reader: Reader
) -> Said:
    def write(changes: Mapping[str, Any], removed: Collection[str]) -> bytes:
        told = {name: said[name] for name in check.changed} | dict(changes)
        if told.get("model") == parsed.get("model"):  # it was asked for by its own name there
            told.pop("model", None)
        told = {name: value for name, value in told.items() if name not in removed}
        return body.rewritten(raw, parsed, reader, told, removed) if told or removed else raw

    named = [said["model"]] if "model" in said else []
    if check.route is not None:
        named = list(check.meant(check.route))
    named += said.get("models", ())
    named += (each["model"] for each in said.get("fallbacks", ()))
    seen = check.seen
    return Said(
        parsed | said,
        frozenset(said),
        tuple(dict.fromkeys(named)),
        write,
        seen.inputs,
        seen.server_tools,
        seen.is_sealed,
        seen.names_reasoning,
        check.route,
    )


def _check_models(check: Check, said: dict[str, Any]) -> None:
    """Each model that the call may be answered by is named and allowed.

    Raises ``model_missing``, ``model_not_allowed``.
    """
    places: list[tuple[str, Any, Any]] = [("model", said, "model")] if "model" in said else []
    if "models" in said:
        fallbacks = said["models"]
        if not isinstance(fallbacks, list) or not 0 < len(fallbacks) <= MAX_MODELS:
            raise Refusal(
                "model_missing",
                f"The field models must be a list of 1 to {MAX_MODELS} model ids.",
                param="models",
            )
        places += [("models", fallbacks, index) for index in range(len(fallbacks))]
    if not places:
        raise Refusal(
            "model_missing",
            "Name the model: without one the provider account's default would answer.",
            param="model",
        )
    for param, holder, key in places:
        if not isinstance(holder[key], str) or not holder[key]:
            raise Refusal("model_missing", f"The field {param} must hold model ids.", param=param)
    for param, holder, key in places:
        check.place = param
        check.model(param, holder, key)
