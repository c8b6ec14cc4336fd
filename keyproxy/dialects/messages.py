"""Anthropic's Messages, as its SDKs write them and OpenRouter extends them, November 2026."""

from __future__ import annotations

from types import MappingProxyType

from keyproxy.dialects.dialect import Dialect, table

MESSAGES = Dialect(
    name="messages",
    path="/messages",
    is_usual=True,
    query="beta=true",  # its SDKs send it with every beta call
    fields=table(
        free="max_tokens stop_sequences temperature thinking top_k top_p output_config",
        conversation="messages system",
        tools="tools",
        choice="tool_choice",
        plugins="plugins",
        stop_conditions="stop_server_tools_when",
        edits="context_management",
        summary="compaction",
        region="inference_geo",
        fallbacks="fallbacks",
        speed="speed",
        tier="service_tier",
        lifetime="cache_control",
    ),
    priced_by="answer",
    lengths=("max_tokens",),
    budgets=(("thinking", "budget_tokens"),),
    efforts=(("output_config", "effort"),),
    own_tools=("custom", "", "function"),
    usage_in_events=(("message", "usage"), ("usage",)),
    needles=(b'"error"', b"message_stop", b"[DONE]"),
    counts_cache_apart=True,
    errors="anthropic",
    # With this its SDKs go on without a thread (their `lib/threads`, state November 2026).
    details=MappingProxyType(
        {"thread": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}}
    ),
    forwarded=("anthropic-version", "anthropic-beta"),
)
