"""Which top-level body fields each call style takes: one table, closed.

A field that is not named here is refused, because upstreams add fields without notice and
several select another model or add cost. Pure; the field names are those of the providers'
published schemas: every one in the SDKs of OpenAI, Anthropic and OpenRouter of 29 November 2026
stands here or in ``grammar.features``, which tests/schemas.json shows and scripts/schema-fields
finds out again. The table for people is docs/features.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from keyproxy.call import Style
from keyproxy.errors import Refusal
from keyproxy.policy import rules, shapes, spelling, tools
from keyproxy.policy.conversation import CONVERSATION
from keyproxy.policy.features import Features
from keyproxy.policy.models import shortened
from keyproxy.policy.rules import Check, Rule
from keyproxy.settings.grammar.features import CLOSED_FIELDS, NAMED_FIELDS, names

_EVERYWHERE = "user metadata session_id "
_EVERYWHERE_CHECKED = {
    "model": rules.MODEL,
    "models": rules.MODEL,
    "stream": rules.STREAM,
    "provider": rules.PROVIDER,
}
_SAMPLING = (
    "temperature top_p top_k top_a min_p frequency_penalty presence_penalty repetition_penalty"
    " logit_bias logprobs top_logprobs seed stop stream_options "
)


def _table(free_names: str, **checked: Rule) -> Mapping[str, Rule]:
    free = dict.fromkeys(free_names.split(), rules.FREE)
    return MappingProxyType(_EVERYWHERE_CHECKED | free | checked)


FIELDS: Mapping[Style, Mapping[str, Rule]] = MappingProxyType(
    {
        Style.CHAT: _table(
            _EVERYWHERE + _SAMPLING + "max_tokens max_completion_tokens response_format"
            " parallel_tool_calls prediction reasoning reasoning_effort verbosity"
            " prompt_cache_key safety_identifier structured_outputs usage include_reasoning",
            messages=CONVERSATION,
            tools=tools.TOOLS,
            tool_choice=tools.CHOICE,
            plugins=tools.PLUGIN_LIST,
            stop_server_tools_when=rules.WITH_TOOLS,
            web_search_options=tools.WEB_SEARCH,
            modalities=rules.MODALITIES,
            image_config=tools.IMAGE_CONFIG,
            audio=rules.AUDIO,
            n=rules.ONE,
            store=rules.OFF,
            service_tier=rules.TIER,
            cache_control=rules.LIFETIME,
            prompt_cache_options=shapes.CACHE_OPTIONS,
            prompt_cache_retention=shapes.RETENTION,
            transforms=shapes.TRANSFORMS,  # the older name of the plugin context-compression
            require_parameters=shapes.FLAG,  # Home Assistant puts it here, not in `provider`
            functions=shapes.FUNCTIONS,  # and these of tools and tool_choice
            function_call=shapes.FUNCTION_CALL,
        ),
        Style.RESPONSES: _table(
            _EVERYWHERE
            + "temperature top_p top_k frequency_penalty presence_penalty top_logprobs stop"
            " stream_options include max_output_tokens parallel_tool_calls"
            " reasoning safety_identifier prompt_cache_key text truncation"
            " max_tool_calls",  # an upper bound, never more than without it
            input=CONVERSATION,
            instructions=rules.TEXT,
            tools=tools.TOOLS,
            tool_choice=tools.CHOICE,
            plugins=tools.PLUGIN_LIST,
            stop_server_tools_when=rules.WITH_TOOLS,
            modalities=rules.MODALITIES,
            image_config=tools.IMAGE_CONFIG,
            background=rules.OFF,
            store=rules.OFF,
            service_tier=rules.TIER,
            cache_control=rules.LIFETIME,
            prompt_cache_options=shapes.CACHE_OPTIONS,
            prompt_cache_retention=shapes.RETENTION,
            context_management=shapes.COMPACTION,
            image=shapes.IMAGE,
            client_metadata=shapes.TEXTS,  # of Codex, in each call
        ),
        Style.MESSAGES: _table(
            _EVERYWHERE
            + "max_tokens stop_sequences temperature thinking top_k top_p output_config",
            messages=CONVERSATION,
            system=CONVERSATION,
            tools=tools.TOOLS,
            tool_choice=tools.CHOICE,
            plugins=tools.PLUGIN_LIST,
            stop_server_tools_when=rules.WITH_TOOLS,
            context_management=tools.EDITS,
            compaction=shapes.SUMMARY,
            inference_geo=shapes.PLACE,
            fallbacks=rules.FALLBACKS,
            speed=shapes.SPEED,
            service_tier=rules.TIER,
            cache_control=rules.LIFETIME,
        ),
        Style.COMPLETIONS: _table(
            _EVERYWHERE + _SAMPLING + "max_tokens suffix echo",
            prompt=rules.PROMPTS,
            n=rules.ONE,
            best_of=rules.ONE,
        ),
        Style.EMBEDDINGS: _table(
            _EVERYWHERE + "encoding_format dimensions input_type", input=CONVERSATION
        ),
        Style.RERANK: _table(_EVERYWHERE + "query documents top_n return_documents"),
        Style.IMAGES: _table(
            _EVERYWHERE + "prompt size quality background output_format response_format"
            " aspect_ratio resolution seed output_compression safety_identifier style",
            input_images=CONVERSATION,
            input_references=CONVERSATION,
            n=rules.ONE,
        ),
        Style.SPEECH: _table(
            _EVERYWHERE + "voice instructions response_format speed stream_format",
            input=CONVERSATION,
            input_references=CONVERSATION,
        ),
        Style.TRANSCRIPTIONS: _table(
            _EVERYWHERE + "language prompt response_format temperature timestamp_granularities",
            input_audio=CONVERSATION,
        ),
    }
)


_PLAIN = re.compile(r"[a-z][a-z0-9_]{0,63}")
# Objects that are as good as absent while they are empty; `web_search_options: {}` starts a search.
_MAY_BE_EMPTY = names("extra_body extra_headers metadata provider")


def said(body: Mapping[str, Any]) -> dict[str, Any]:
    """``body`` without the fields that ask for nothing: null, an empty list, an empty text.

    SDKs write what was not asked for in these forms. A name that only some readers take for
    another one is kept, whatever it holds, and so is ``model``, which no call goes without.
    """
    return {
        name: value
        for name, value in body.items()
        if not (_asks_for_nothing(name, value) and _PLAIN.fullmatch(name)) or name == "model"
    }


def _asks_for_nothing(name: str, value: Any) -> bool:
    if value is None:
        return True
    if name == "thread" or (name == "stop_server_tools_when" and value == []):
        return False  # any thread is one; no stop conditions may stand for "never stop"
    return value == "" or value == [] or (value == {} and name in _MAY_BE_EMPTY)


def check(inspection: Check, body: Mapping[str, Any]) -> None:
    """Every field of ``body`` is open, and within the caps; those that are not are set so.

    Models that fields beside ``model`` and ``models`` name are allowed and gathered. Raises
    ``field_not_allowed``, ``model_not_allowed`` or ``invalid_json`` for the first field that is
    not open in this style, or not with this value.
    """
    table = FIELDS[inspection.style]
    features = inspection.features
    for name, value in said(body).items():
        rule = table.get(name)
        if rule is None:
            if name in CLOSED_FIELDS or name not in features.extra_fields:
                raise _unknown(inspection.style, name, features)
        elif rule is not rules.FREE:
            inspection.place = name
            rule.inspect(inspection, name, value)


# With this Anthropic's SDKs go on without a thread (their `lib/threads`, state November 2026).
_NO_THREADS: Mapping[str, object] = MappingProxyType(
    {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
)


def _unknown(style: Style, name: str, features: Features) -> Refusal:
    shown = shortened(name, 40)
    reason = CLOSED_FIELDS.get(name)
    is_unknown = not reason and not any(name in table for table in FIELDS.values())
    can_be_slip = is_unknown and name not in NAMED_FIELDS
    meant = spelling.near(name, FIELDS[style]) if can_be_slip else None
    if meant is not None:
        message = f"The field {shown} is not allowed here: did you mean {meant}?"
    else:
        why = f": {reason}" if reason else ""
        message = f"The field {shown} is not allowed here{why}. Leave it out of the call."
    is_plain = bool(_PLAIN.fullmatch(name)) and not ("model" in name or "preset" in name)
    return Refusal(
        "field_not_allowed",
        message,
        param=shown,
        hint=features.extra_line(name) if is_unknown and is_plain and not meant else None,
        details=_NO_THREADS if name == "thread" and style is Style.MESSAGES else None,
    )
