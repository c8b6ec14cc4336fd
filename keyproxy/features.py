"""What may cost extra or reach further: the words that open it, and the tables of what none opens.

Closed, and plain values that settings and policy read alike. What of it the operator opened is in
``policy.opened``; docs/features.md says what each word can cost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from keyproxy.dialects import DIALECTS, names

WORDS = (
    *("web", "pdf", "workspace-files", "images", "audio", "provider", "priority", "cache-1h"),
    *("long-context", "many", "fallbacks", "routers"),
)
TOOL = "tools:"
"""What a word begins with that opens one type of server tool."""

LONGEST_TYPE = 64
"""Characters of a tool's type, or an item's; to look through 20 MB takes long."""
# They read or change what the account stores, run commands, or call addresses the caller names:
# under any prefix, and whatever follows, such as a date.
_CLOSED_TOOLS = re.compile(
    r"(?:^|[:.]|__)(?:files|file_search|memory|mcp|bash|shell|code_interpreter|code_execution"
    r"|browser_use|computer_use)(?![a-z])",
    re.ASCII,
)
# Anthropic's, which the caller runs; OpenRouter's of the same name run on its servers.
_RUN_BY_CALLER = re.compile(r"(?:bash|memory)_\d{8}", re.ASCII)


def _because(reason: str, fields: str) -> dict[str, str]:
    return dict.fromkeys(fields.split(), reason)


CLOSED_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "preset": "a stored preset chooses models, prompts and tools",
        "prompt": "a stored prompt is a part of the provider account",
        "route": "it is outdated, and chooses models",
        "thread": "it keeps the conversation in the provider account",
        "background_options": "it is about work that goes on after the answer, and is stored",
        "access_programs": "it uses what the provider account was permitted",
        "fallback_credit_token": "it is the credit of an earlier call, perhaps of another caller",
        "deferred_tools": "it lets the upstream add tools of its own",
        "betas": "names of betas stand in the header anthropic-beta",
        "debug": "it shows what the upstream made of the call, stored prompts included",
        "extra_body": "SDKs in Python have it as an option; its fields stand at the top of a call",
        "extra_headers": "SDKs in Python have it as an option; headers stand in no body",
    }
    | _because(
        "it continues an answer that the provider account stores; send all of it in input",
        "previous_response_id conversation",
    )
    | _because(
        "it acts for a workspace or a user of the provider account",
        "workspace_id user_profile_id billing_policy",
    )
    | _because("it names a model that is asked as well", "moderation svg")
    # Those from assistant_id and server_url on are of neighbouring APIs; a provider may know them.
    | _because(
        "it reads or changes what the provider account stores",
        "container safeguards diagnostics"
        " assistant_id cached_content container_id conversation_id file_id file_ids"
        " previous_message_id thread_id tool_resources vector_store_ids",
    )
    | _because(
        "it sends the call, or something with it, to another address or under another key",
        "mcp_servers callback_url api_key api_base base_url server_url webhook_url",
    )
)
"""Top-level fields that nothing opens, and why. ``prompt`` is plain text in other styles.

They choose unseen, or reach what is stored, another tenant, further tools or another address.
"""

# The provider account sends its traces wherever it likes; the others can make images or
# transcriptions dearer.
NAMED_FIELDS = names(
    "trace complexity frame_count frame_duration_ms partial_images diarize keyterms"
)
"""Published fields that only their name in KEYPROXY_EXTRA_FIELDS opens."""

_OPENING: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {word.replace("-", "_"): (word,) for word in WORDS}
    | {"plugins": ("web", "pdf", "routers"), "region": ("priority",), "speed": ("priority",)}
)
"""Words by the rules whose fields they open."""

OPENED_BY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        name: _OPENING[rule]
        for dialect in DIALECTS
        for name, rule in dialect.fields.items()
        if rule in _OPENING
    }
)
"""Top-level fields that a word opens. ``speed`` is a number in another style."""


def is_search_of_caller(tool: Mapping[str, Any]) -> bool:
    """Whether a tool is OpenAI's search for tools, and the caller is the one that searches."""
    return tool.get("type") == "tool_search" and tool.get("execution") == "client"


def is_closed_tool(kind: str) -> bool:
    """Whether no word opens this type of tool."""
    return bool(_CLOSED_TOOLS.search(kind)) and not _RUN_BY_CALLER.fullmatch(kind)
