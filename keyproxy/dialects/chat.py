"""Chat completions, and those of one text, as OpenAI's SDKs write them and OpenRouter extends
them, November 2026."""

from __future__ import annotations

from keyproxy.dialects.dialect import Dialect, table

_SAMPLING = (
    "temperature top_p top_k top_a min_p frequency_penalty presence_penalty repetition_penalty"
    " logit_bias logprobs top_logprobs seed stop stream_options max_tokens "
)
CHAT = Dialect(
    name="chat",
    path="/chat/completions",
    is_usual=True,
    fields=table(
        free=_SAMPLING
        + "max_completion_tokens response_format parallel_tool_calls reasoning reasoning_effort"
        " verbosity prompt_cache_key safety_identifier structured_outputs usage include_reasoning",
        conversation="messages",
        prediction="prediction",
        tools="tools",
        choice="tool_choice",
        plugins="plugins",
        stop_conditions="stop_server_tools_when",
        web="web_search_options",
        modalities="modalities",
        images="image_config",
        audio="audio",
        one="n",
        off="store",
        tier="service_tier",
        lifetime="cache_control",
        cache_options="prompt_cache_options",
        retention="prompt_cache_retention",
        transforms="transforms",  # the older name of the plugin context-compression
        flag="require_parameters",  # Home Assistant puts it here, not in `provider`
        functions="functions",  # and these of tools and tool_choice
        function_call="function_call",
    ),
    priced_by="answer",
    lengths=("max_tokens", "max_completion_tokens"),
    budgets=(("reasoning", "max_tokens"),),
    efforts=(("reasoning_effort",), ("reasoning", "effort"), ("verbosity",)),
    own_tools=("function", "custom"),
    may_name_sound=True,
)
COMPLETIONS = Dialect(
    name="completions",
    path="/completions",
    fields=table(free=_SAMPLING + "suffix echo", prompts="prompt", one="n best_of"),
    priced_by="answer",
    texts="prompt",
    lengths=("max_tokens",),
)
