"""What a body holds beside words, found in one walk: images, media, tools, plugins, tiers. Pure.

Everything of an unknown type counts as the dearest that it could be. Nothing is copied. Shapes:
OpenRouter's OpenAPI document and SDKs, state November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyproxy.dialects import MESSAGES, Dialect
from keyproxy.settings.grammar.features import is_search_of_caller, names

MAX_TOOL_CALLS = 30  # of tools that run upstream, in one call: OpenRouter's default and maximum
MAX_RESULTS = 25  # of one web search; 5 unless the call says otherwise
USUAL_RESULTS = 5

_WORDS = names(
    "text input_text output_text refusal summary_text reasoning_text reasoning reasoning.text"
    " reasoning.summary reasoning.encrypted thinking redacted_thinking tool_use tool_result"
    " function function_call function_call_output custom custom_tool_call custom_tool_call_output"
    " message content base64 url ephemeral url_citation char_location"
)
"""Types within a conversation whose tokens are bytes of the body."""
_IMAGES = frozenset({"image_url", "input_image", "image", "computer_screenshot"})
_FILES = frozenset({"file", "input_file", "document"})
_CACHING = frozenset({"cache_control", "prompt_cache_breakpoint", "caching"})
_OWN_TOOLS = frozenset({"function", "custom", "namespace", ""})
_WEB_TOOL = re.compile(r"(?:openrouter:)?web_(?:search|fetch)(?:_preview)?(?:_\d[\d_]*)?", re.ASCII)
_SMALL_TOOLS = frozenset(
    {"openrouter:datetime", "openrouter:tool_search", "openrouter:experimental__search_models"}
)
_FREE_PLUGINS = frozenset({"response-healing", "context-compression"})
_CAN_BE_OFF = frozenset({"web", "file-parser", "auto-router", "pareto-router", "fusion"})
_USUAL_TIERS = frozenset({"auto", "default", "standard_only", "standard", "flex"})
DEARER_TIERS = frozenset({"priority", "fast", "ultrafast", "scale"})
"""Tiers of a provider that only a call which names them gets."""


@dataclass(slots=True)
class Seen:
    """What is found in one body."""

    images: int = 0
    image_bytes: int = 0
    searches: int = 0
    results: int = USUAL_RESULTS
    rounds: int = 1
    max_tool_calls: int = MAX_TOOL_CALLS
    has_media: bool = False
    has_files: bool = False
    has_long_cache: bool = False
    compacts: bool = False
    is_unbounded: bool = False
    part: str = ""

    def unbound(self, part: str) -> None:
        """No price bounds ``part``, as it is called in words; the first is told."""
        if not self.is_unbounded:
            self.is_unbounded, self.part = True, part

    def holds(self, kind: str) -> None:
        """There is a part of this type, whose tokens are more than its bytes."""
        self.has_media = True
        self.has_files |= kind in _FILES
        if kind in _FILES or not self.part:
            words = {"audio": "the audio", "video": "the video"} | dict.fromkeys(_FILES, "the file")
            known = (words[word] for word in words if word in kind)
            self.part = next(known, "a part that is neither text nor image")

    def runs_tools(self) -> None:
        self.rounds = 1 + self.max_tool_calls

    def searches_web(self, settings: Any) -> None:
        """Each search or page is paid for, and read as input in the round that follows."""
        self.runs_tools()
        self.searches = self.max_tool_calls
        if isinstance(settings, dict):
            for place in (settings, settings.get("parameters")):
                asked = place.get("max_results") if isinstance(place, dict) else None
                if asked is not None:
                    self.results = MAX_RESULTS


def walk(seen: Seen, value: Any) -> None:
    """Look through a conversation, whose words need no look."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if type(node) is list:
            waiting += [item for item in node if type(item) is dict or type(item) is list]
        elif type(node) is dict:
            kind = node.get("type", "text")
            if type(kind) is not str:
                seen.holds("")
            elif kind not in _WORDS and _part(seen, kind, node):
                continue
            for name, inner in node.items():
                if name in _CACHING:
                    _lifetime(seen, inner)
                elif type(inner) is list or type(inner) is dict:
                    if name == "tools":
                        _tools(seen, inner)
                    elif name != "input" or kind not in ("tool_use", "server_tool_use"):
                        if name == "audio":  # an earlier answer, by its id
                            seen.holds("audio")
                        waiting.append(inner)


def _part(seen: Seen, kind: str, part: dict[str, Any]) -> bool:
    """Notes a part that is more than words; whether it has been read whole."""
    if kind in _IMAGES:
        seen.images += 1
        seen.image_bytes += _spelled(part)
        if "cache_control" in part:
            _lifetime(seen, part["cache_control"])
        return True
    if kind not in ("additional_tools", "tool_addition"):
        seen.holds(kind)
    definition = part.get("definition")
    if definition is not None:
        _tools(seen, [definition])
    return False


def _spelled(part: dict[str, Any]) -> int:
    """How many bytes of the body are the image itself."""
    source = part.get("source")
    if isinstance(source, dict) and str(source.get("media_type")).startswith("image/"):
        data = source.get("data")
        return len(data) if isinstance(data, str) else 0
    url = part.get("image_url")
    if isinstance(url, dict):
        url = url.get("url")
    return len(url) if isinstance(url, str) and url.startswith("data:image/") else 0


def _lifetime(seen: Seen, mark: Any) -> None:
    ttl = mark.get("ttl") if isinstance(mark, dict) else mark
    if ttl is not None and ttl not in ("5m", "30m"):
        seen.has_long_cache = True


def _tools(seen: Seen, tools: Any) -> None:
    for tool in tools if isinstance(tools, list) else [tools]:
        kind = tool.get("type", "") if isinstance(tool, dict) else None
        if not isinstance(kind, str):
            seen.unbound("a tool")
        elif kind in _OWN_TOOLS or is_search_of_caller(tool):
            if "cache_control" in tool:
                _lifetime(seen, tool["cache_control"])
            if tool.get("tools") is not None:
                _tools(seen, tool["tools"])
        elif _WEB_TOOL.fullmatch(kind):
            seen.searches_web(tool)
        elif kind in _SMALL_TOOLS:
            seen.runs_tools()
        else:
            seen.unbound(f"the tool {_shown(kind)}")


def extras(seen: Seen, dialect: Dialect, body: Mapping[str, Any]) -> None:
    """Top-level fields that add a price of their own."""
    model = body.get("model")
    if (type(model) is str and ":" in model) or "models" in body or "fallbacks" in body:
        _variants(seen, body)
    if body.get("tools"):
        _tools(seen, body["tools"])
    if body.get("plugins"):
        _plugins(seen, body["plugins"])
    if body.get("web_search_options") is not None:
        seen.searches_web(None)
    if "cache_control" in body:
        _lifetime(seen, body["cache_control"])
    if "prompt_cache_options" in body:
        _lifetime(seen, body["prompt_cache_options"])
    if body.get("prompt_cache_retention") not in (None, "in_memory", "in-memory"):
        seen.has_long_cache = True
    tier = body.get("service_tier")
    if tier is not None and not (isinstance(tier, str) and tier in _USUAL_TIERS):
        seen.unbound("its service_tier")
    if dialect is MESSAGES and body.get("speed") not in (None, "standard"):
        seen.unbound("its speed")
    if body.get("modalities") and not has_only(body["modalities"], "text"):
        seen.unbound("an answer that is more than text")
    if body.get("image_config") is not None or body.get("audio") is not None:
        seen.unbound("an answer that is more than text")
    if body.get("inference_geo") is not None:
        seen.unbound("its inference_geo")
    provider = body.get("provider")
    if isinstance(provider, dict):
        _provider(seen, provider)
    seen.compacts = _compacts(body.get("context_management"))


def _compacts(management: Any) -> bool:
    """Whether a conversation that grows too long is summarized before it is answered."""
    edits = management.get("edits") if isinstance(management, dict) else management
    kinds = [edit.get("type") for edit in edits or () if isinstance(edit, dict)]
    return any(isinstance(kind, str) and kind.startswith("compact") for kind in kinds)


def _variants(seen: Seen, body: Mapping[str, Any]) -> None:
    asked = [body.get("model")]
    for listed in (body.get("models"), body.get("fallbacks")):
        for entry in listed if isinstance(listed, list) else ():
            asked.append(entry.get("model") if isinstance(entry, dict) else entry)
    if any(isinstance(name, str) and ":online" in name.lower() for name in asked):
        seen.searches_web(None)


def _plugins(seen: Seen, plugins: Any) -> None:
    for plugin in plugins if isinstance(plugins, list) else [plugins]:
        name = plugin.get("id") if isinstance(plugin, dict) else None
        if not isinstance(name, str):
            seen.unbound("a plugin")
        elif name in _FREE_PLUGINS or (name in _CAN_BE_OFF and plugin.get("enabled") is False):
            continue
        elif name in ("web", "web-fetch"):
            seen.searches_web(plugin)
        else:
            seen.unbound(f"the plugin {_shown(name)}")


def _provider(seen: Seen, provider: dict[str, Any]) -> None:
    for name in ("only", "order"):
        slugs = provider.get(name)
        for slug in slugs if isinstance(slugs, list) else ():
            if isinstance(slug, str) and slug.lower().rpartition("/")[2] in DEARER_TIERS:
                seen.unbound("a dearer tier of its provider")


def _shown(name: str) -> str:
    return name if len(name) <= 64 and name.isascii() and name.isprintable() else "that it names"


def has_only(value: Any, wanted: Any) -> bool:
    """Whether ``value`` lists nothing but ``wanted``, a value or a type."""
    if not isinstance(value, list):
        return False
    if isinstance(wanted, type):
        return all(isinstance(item, wanted) for item in value)
    return all(item == wanted for item in value)
