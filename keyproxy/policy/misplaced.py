"""What a path that is not served was meant to be, for a base URL that is not quite right. Pure.

Reads a path loosely, after it was refused; nothing here decides what is served. The slips are
those of the public trackers of SDKs and apps: a path twice, a slash too many, another base.
"""

from __future__ import annotations

import re

from keyproxy.dialects import DIALECTS
from keyproxy.settings.grammar.features import names

ACCOUNT = "Routes of the provider account are never served."
OPENAI = (
    "The base URL ends in /api/v1 and the SDK adds the rest, such as /chat/completions; no slash"
    " and no endpoint stands behind it."
)
ANTHROPIC = (
    "Anthropic's SDK wants the base URL to end in /api with nothing behind it, and adds"
    " /v1/messages itself."
)
_LONGEST = 300
_ACCOUNT = names(
    "activity analytics auth byok containers credits external-users files generation guardrails"
    " interns key keys oauth observability organization presets private-endpoints scim vault"
    " workspaces"
)
# In front of an endpoint: parts of anybody's base URL, and endpoints typed into one.
_BEFORE = names(
    "api v1 v2 v3 v1beta beta openai anthropic openrouter inference compatible-mode proxy llm"
    " chat completions responses messages models embeddings rerank images audio speech"
    " transcriptions http: https: openrouter.ai api.openai.com api.anthropic.com"
)
_BASE = names("api v1")
_RUN_TOGETHER = re.compile(r"/(api|v1)(?=(?:v1|chat|responses|messages|embeddings|models)(?:/|$))")
# OpenAI's old paths and Azure's: a name of a model or a deployment follows.
_NAMED = names("engines deployments")
_ENDPOINTS = sorted(
    [tuple(dialect.path[1:].split("/")) for dialect in DIALECTS]
    + [("chat",), ("models",), ("models", "count")],
    key=len,
    reverse=True,
)


def advice(path: str) -> tuple[str, str]:
    """A sentence for whoever asked for ``path``, and the end of the right base URL; "" is none."""
    if len(path) > _LONGEST:
        return "", ""
    text = path.lower().replace("%2f", "/").replace("%20", "")
    text = _RUN_TOGETHER.sub(r"/\1/", text)
    parts = tuple(part for part in text.split("/") if part)
    first = next((part for part in parts if part not in _BASE), None)
    if first in _ACCOUNT:
        return ACCOUNT, ""
    if parts and first is None:
        return f"{OPENAI} {ANTHROPIC}", "/api/v1"
    tail = next((tail for tail in _ENDPOINTS if parts[-len(tail) :] == tail), None)
    if tail is None or not _is_base(parts[: -len(tail)]):
        return "", ""
    if tail == ("messages",):
        return ANTHROPIC, "/api"
    if tail == ("models",):  # either SDK lists them
        return f"{OPENAI} {ANTHROPIC}", "/api/v1"
    return OPENAI, "/api/v1"


def _is_base(parts: tuple[str, ...]) -> bool:
    """Whether somebody could have taken ``parts`` for a base URL."""
    before = ""
    for part in parts:
        if part not in _BEFORE | _NAMED and before not in _NAMED:
            return False
        before = part
    return True
