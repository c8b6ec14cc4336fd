"""Which top-level body fields each call style takes: one table, closed.

A field that is not named here is refused, because upstreams add fields without notice and
several select another model or add cost. Pure; the field names are those of the providers'
published schemas (OpenRouter's OpenAPI document and SDKs, state November 2026), without the ones
that choose models, tools that run on the server, routing, presets, stored state or priority.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from keyproxy.call import Style
from keyproxy.errors import Refusal
from keyproxy.policy.models import shortened

Rule = Callable[[str, Any], None]


def free(param: str, value: Any) -> None:
    """Any value: it neither selects a model nor adds a cost of its own."""


def own_tools(*kinds: str) -> Rule:
    """Tools of these types, which the caller runs itself; every other type, unknown ones
    included, runs on a server, at a price. ``""`` stands for a tool without a type."""

    def own(param: str, value: Any) -> None:
        for tool in _items(param, value):
            kind = tool.get("type", "") if isinstance(tool, dict) else None
            if kind not in kinds:
                raise _refused(param, f"holds a tool of type {shortened(str(kind), 40)}", kinds[0])

    return own


def no_hidden_tools(param: str, value: Any) -> None:
    """Responses items may carry tools of their own (``additional_tools``)."""
    if isinstance(value, str):
        return
    for item in _items(param, value):
        if not isinstance(item, dict):
            raise Refusal("invalid_json", f"The field {param} must hold objects.", param=param)
        if "tools" in item or item.get("type") == "additional_tools":
            raise _refused(param, "holds an item with tools", "messages and function results")


def one(param: str, value: Any) -> None:
    """Several answers at once cost several times as much."""
    if value is not None and (isinstance(value, bool) or value != 1):
        raise _refused(param, f"is {shortened(repr(value), 20)}", "1")


def off(param: str, value: Any) -> None:
    """Only the value that asks for nothing, which SDKs fill in unasked."""
    if value is not None and value is not False:
        raise _refused(param, f"is {shortened(repr(value), 20)}", "false")


def text_only(param: str, value: Any) -> None:
    """Image and sound answers have prices of their own."""
    if any(item != "text" for item in _items(param, value)):
        raise _refused(param, "asks for more than text", '["text"]')


def usual_tier(param: str, value: Any) -> None:
    """Only tiers at the usual price or below; dearer ones also select another model.

    OpenRouter's own SDK fills in ``auto`` with every call to ``/responses``.
    """
    if value not in (None, "auto", "default", "standard_only", "flex"):
        raise _refused(param, f"is {shortened(repr(value), 20)}", "auto")


def usual_lifetime(param: str, value: Any) -> None:
    """Prompt caching as it is without a lifetime: longer ones make the written tokens dearer."""
    ttl = value.get("ttl") if isinstance(value, dict) else value
    if ttl not in (None, "5m", "30m"):  # Anthropic's default, OpenAI's
        raise _refused(f"{param}.ttl", f"is {shortened(repr(ttl), 20)}", "none")


def _items(param: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Refusal("invalid_json", f"The field {param} must be a list.", param=param)
    return value


def _refused(param: str, found: str, allowed: str) -> Refusal:
    return Refusal(
        "field_not_allowed",
        f"The field {param} {found}, which is not allowed here; allowed: {allowed}.",
        param=param,
    )


def _table(names: str, **checked: Rule) -> Mapping[str, Rule]:
    return MappingProxyType(dict.fromkeys(names.split(), free) | checked)


# Read by the model check (``model``, ``models``) and the relay (``stream``) themselves.
_EVERYWHERE = "model models stream user metadata session_id "
_SAMPLING = (
    "temperature top_p top_k top_a min_p frequency_penalty presence_penalty repetition_penalty"
    " logit_bias logprobs top_logprobs seed stop stream_options "
)

FIELDS: Mapping[Style, Mapping[str, Rule]] = MappingProxyType(
    {
        Style.CHAT: _table(
            _EVERYWHERE
            + _SAMPLING
            + "messages max_tokens max_completion_tokens response_format tool_choice"
            " parallel_tool_calls prediction reasoning reasoning_effort verbosity"
            " prompt_cache_key safety_identifier structured_outputs usage include_reasoning",
            tools=own_tools("function"),
            modalities=text_only,
            n=one,
            store=off,
            service_tier=usual_tier,
            cache_control=usual_lifetime,
            prompt_cache_options=usual_lifetime,
        ),
        Style.RESPONSES: _table(
            _EVERYWHERE
            + "temperature top_p top_k frequency_penalty presence_penalty top_logprobs stop"
            " stream_options include instructions max_output_tokens parallel_tool_calls"
            " reasoning safety_identifier prompt_cache_key text tool_choice truncation"
            " max_tool_calls",  # an upper bound, never more than without it
            input=no_hidden_tools,
            tools=own_tools("function", "custom"),
            modalities=text_only,
            background=off,
            store=off,
            service_tier=usual_tier,
            cache_control=usual_lifetime,
            prompt_cache_options=usual_lifetime,
        ),
        Style.MESSAGES: _table(
            _EVERYWHERE
            + "messages max_tokens stop_sequences system temperature thinking tool_choice"
            " top_k top_p output_config",
            tools=own_tools("custom", "", "function"),
            service_tier=usual_tier,
            cache_control=usual_lifetime,
        ),
        Style.COMPLETIONS: _table(
            _EVERYWHERE + _SAMPLING + "prompt max_tokens suffix echo", n=one, best_of=one
        ),
        Style.EMBEDDINGS: _table(_EVERYWHERE + "input encoding_format dimensions input_type"),
        Style.RERANK: _table(_EVERYWHERE + "query documents top_n return_documents"),
        Style.IMAGES: _table(
            _EVERYWHERE + "prompt size quality background output_format response_format"
            " aspect_ratio resolution seed input_images",
            n=one,
        ),
        Style.SPEECH: _table(_EVERYWHERE + "input voice instructions response_format speed"),
        Style.TRANSCRIPTIONS: _table(
            _EVERYWHERE + "input_audio language prompt response_format temperature"
        ),
    }
)


def check(style: Style, body: Mapping[str, Any]) -> None:
    """Raises ``field_not_allowed`` for the first field that is not open in this style."""
    table = FIELDS[style]
    for name, value in body.items():
        rule = table.get(name)
        if rule is None:
            raise Refusal(
                "field_not_allowed",
                f"The field {shortened(name, 40)} is not allowed here.",
                param=shortened(name, 40),
            )
        rule(name, value)
