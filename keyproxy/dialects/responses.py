"""OpenAI's Responses, as its SDKs write them and OpenRouter extends them, November 2026."""

from __future__ import annotations

from keyproxy.dialects.dialect import Dialect, table

RESPONSES = Dialect(
    name="responses",
    path="/responses",
    is_usual=True,
    fields=table(
        free=(
            "temperature top_p top_k frequency_penalty presence_penalty top_logprobs stop"
            " stream_options include max_output_tokens parallel_tool_calls reasoning"
            " safety_identifier prompt_cache_key text truncation"
            " max_tool_calls"  # an upper bound, never more than without it
        ),
        conversation="input",
        text="instructions",
        tools="tools",
        choice="tool_choice",
        plugins="plugins",
        stop_conditions="stop_server_tools_when",
        modalities="modalities",
        images="image_config",
        off="background store",
        tier="service_tier",
        lifetime="cache_control",
        cache_options="prompt_cache_options",
        retention="prompt_cache_retention",
        compaction="context_management",
        image="image",
        texts="client_metadata",  # of Codex, in each call
    ),
    priced_by="answer",
    lengths=("max_output_tokens",),
    budgets=(("reasoning", "max_tokens"),),
    efforts=(("reasoning", "effort"), ("text", "verbosity")),
    tool_calls="max_tool_calls",
    own_tools=("function", "custom", "namespace"),
    flat_tools=("image_generation",),
    may_search_tools=True,
    may_name_items=True,
    usage_in_events=(("response", "usage"),),
    needles=(b'"error"', b'"response"', b"[DONE]"),
)
