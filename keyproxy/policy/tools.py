"""Tools and plugins: what runs on a server, and what its settings may say. Pure.

A tool of an unknown type is one that runs on a server, at a price, perhaps with a model of its
own. Shapes: OpenRouter's SDKs, state November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from keyproxy.dialects import names
from keyproxy.features import LONGEST_TYPE, WORDS, is_closed_tool, is_search_of_caller
from keyproxy.policy import caps, spelling
from keyproxy.policy.caps import BOUNDED, MAX_TOOL_CALLS, REASONING, SETTING_LENGTHS
from keyproxy.policy.check import Check, Rule, items
from keyproxy.policy.opened import word_for_tool
from keyproxy.policy.rules import LIFETIMES, STORED, lifetime, needs, only, stored_file
from keyproxy.policy.spelling import not_allowed, plain, shortened, show

_SEARCH = names("type execution description parameters")

PLUGINS: Mapping[str, str] = MappingProxyType(
    {
        "response-healing": "",
        "context-compression": "",
        "web": "web",
        "web-fetch": "web",
        "file-parser": "pdf",
        "auto-router": "routers",
        "auto-beta-router": "routers",
        "jev-router": "routers",
        "switchyard-router": "routers",
        "pareto-router": "routers",
        "fusion": "routers",
    }
)
"""Plugins by the word that opens them; "" costs nothing."""

_CAN_BE_OFF = frozenset({"web", "file-parser", "auto-router", "pareto-router", "fusion"})
_CHOICES = frozenset({"auto", "none", "required", "any"})
_CHOICE_TYPES = _CHOICES | {"tool", "function", "custom", "allowed_tools"}
# Without these the prompt, or a dear default, chooses the models.
_MUST_SAY: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "advisor": ("model",),
        "image_generation": ("model",),
        "fusion": ("model", "analysis_models", "tools"),
    }
)
_WRITING = frozenset({"advisor", "subagent", "fusion"})  # answers of their own, within a length
_MAX_PANEL = 8  # models that all work on one call; OpenRouter takes no more


def tools(check: Check, param: str, value: Any) -> None:
    """Tools of the caller's own pass; those that the upstream defines need a word."""
    own = check.dialect.own_tools
    for tool in items(param, value):
        if not isinstance(tool, dict):
            raise not_allowed(param, f"holds {show(tool)}", "objects")
        kind = tool.get("type")
        if kind is None:
            kind = ""
        if not isinstance(kind, str):
            raise not_allowed(param, f"holds a tool of type {show(kind)}", own[0])
        spelling.check(param, tool)
        if "cache_control" in tool:
            lifetime(check, f"{param}.cache_control", tool["cache_control"])
        if check.dialect.may_search_tools and is_search_of_caller(tool):
            only(f"{param}[{kind}]", tool, _SEARCH, holds_scalars=False)
        elif kind not in own:
            _server_tool(check, param, tool, kind)
        elif "tools" in tool:
            tools(check, f"{param}.tools", tool["tools"])


def _server_tool(check: Check, param: str, tool: dict[str, Any], kind: str) -> None:
    _open(check, param, kind)
    family = kind.removeprefix("openrouter:")
    has_version = family.startswith("advisor_")
    has_parameters = not has_version and kind not in check.dialect.flat_tools
    place: Any = tool.get("parameters") if has_parameters else tool
    _check_says(param, "advisor" if has_version else family, kind, place)
    here = f"{param}[{shortened(kind, 40)}]"
    asked_length = tool.get("max_tokens")
    nested(check, here, tool)
    wanted: dict[str, int] = {}
    if check.policy.max_tokens is not None and (has_version or family in _WRITING):
        # Without it the provider's longest would do.
        wanted["max_tokens" if has_version else "max_completion_tokens"] = check.policy.max_tokens
    if family == "subagent" and isinstance(place, dict) and place.get("tools"):
        wanted["max_tool_calls"] = MAX_TOOL_CALLS
    if wanted and place is None:
        place = tool["parameters"] = {}
    if wanted and not isinstance(place, dict):
        raise not_allowed(f"{here}.parameters", f"is {show(place)}", "an object")
    for name, most in wanted.items():
        if place.get(name) is None:
            check.put(place, name, most)
    length: Any = tool.get("max_tokens")
    if has_version and length != asked_length and length < caps.MIN_REASONING:
        raise caps.too_short(f"{here}.max_tokens", asked_length, length, caps.MIN_REASONING)


def _check_says(param: str, family: str, kind: str, settings: Any) -> None:
    """``settings``, of a tool or plugin, say what the upstream would else choose itself."""
    for name in _MUST_SAY.get(family, ()):
        said = settings.get(name) if isinstance(settings, dict) else None
        if not said and said != []:
            found = f"holds {shortened(kind, 40)} without {name}"
            raise not_allowed(param, found, f"one with {name}")
        if said == [] and name != "tools":
            raise not_allowed(f"{param}.{name}", "is empty", "ids of models")


def _open(check: Check, param: str, kind: str) -> None:
    is_long = len(kind) > LONGEST_TYPE
    if not is_long and check.policy.features.opens_tool(kind):
        check.seen.tool(kind, word_for_tool(kind))
        return
    has_word = kind and not is_long and not is_closed_tool(kind)
    line = check.policy.features.line(word_for_tool(kind)) if has_word else None
    found = f"holds a tool of type {shortened(kind, 40)}" if kind else "holds a tool without a type"
    if kind.startswith("openrouter:") or word_for_tool(kind) in WORDS:
        found += " that runs on a server"  # of others, the caller runs some
    raise not_allowed(param, found, check.dialect.own_tools[0], hint=line)


def nested(check: Check, param: str, value: Any) -> None:
    """Whatever names models within the settings of a tool or plugin names allowed ones."""
    waiting = [(param, value)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, list):
            waiting += [(path, item) for item in node]
        for name, inner in node.items() if isinstance(node, dict) else ():
            meant = plain(name)
            here = f"{path}.{shortened(name, 40)}"
            if meant == "tools":
                tools(check, here, inner)
            elif meant in ("tool", "definition") and isinstance(inner, dict):
                tools(check, here, [inner])
            elif meant in ("preset", "prompt", "plugins", "server_url", "callback_url"):
                raise not_allowed(here, "is set", "nothing")
            elif meant in STORED:
                stored_file(check, here, inner)
            elif meant in LIFETIMES:
                lifetime(check, here, inner)
            elif "model" in meant and meant != "excluded_models":
                _models(check, here, node, name)
            elif meant in BOUNDED and not isinstance(inner, (dict, list)):
                if meant in SETTING_LENGTHS and plain(path.rpartition(".")[2]) in REASONING:
                    check.cap_reasoning(here, node, name)
                else:
                    check.cap(here, node, name, meant)
            else:
                waiting.append((here, inner))


def _models(check: Check, param: str, node: dict[str, Any], name: str) -> None:
    value = node[name]
    if value is False:
        return
    holder: Any = value if isinstance(value, list) else node
    keys: Sequence[Any] = range(len(value)) if isinstance(value, list) else [name]
    if len(keys) > _MAX_PANEL and plain(name) != "allowed_models":  # which only narrows a choice
        raise not_allowed(param, f"holds {len(value)} models", f"{_MAX_PANEL} at most")
    for key in keys:
        model = holder[key]
        # A router's choice may be narrowed to what the operator wrote.
        if not (isinstance(model, str) and "*" in model and check.policy.models.has_pattern(model)):
            check.model(param, holder, key)


def _choice(check: Check, param: str, value: Any) -> None:
    if value is None or (isinstance(value, str) and value in _CHOICES):
        return
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        raise not_allowed(param, f"is {show(value)}", "auto, none, required or one of your tools")
    spelling.check(param, value)
    if kind not in _CHOICE_TYPES:
        _open(check, param, kind)
    inner = value.get("allowed_tools")
    holders = (value, inner) if isinstance(inner, dict) else (value,)
    for tool in (tool for each in holders for tool in items(f"{param}.tools", each.get("tools"))):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str):
            raise not_allowed(f"{param}.tools", f"holds {show(tool)}", "tools with a type")
        if kind not in check.dialect.own_tools:
            _open(check, f"{param}.tools", kind)


def _plugins(check: Check, param: str, value: Any) -> None:
    if not isinstance(value, list):
        raise not_allowed(param, f"is {show(value)}", "a list")
    words = check.policy.features.words
    for plugin in value:
        name = plugin.get("id") if isinstance(plugin, dict) else None
        word = PLUGINS.get(name) if isinstance(name, str) else None
        if word is None:
            open_ones = [name for name, word in PLUGINS.items() if not word or word in words]
            raise not_allowed(param, f"holds {show(name or plugin)}", ", ".join(open_ones))
        spelling.check(param, plugin)
        if word and not (name in _CAN_BE_OFF and plugin.get("enabled") is False):
            check.require(word, param, f"holds the plugin {name}", what=f"the plugin {name}")
            _check_says(param, str(name), str(name), plugin)
        nested(check, f"{param}[{name}]", plugin)


_EDITS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "clear_tool_uses_20250919": names(
            "type clear_at_least clear_tool_inputs exclude_tools keep trigger"
        ),
        "clear_thinking_20251015": names("type keep"),
        "compact_20260112": names("type instructions pause_after_compaction trigger"),
    }
)
"""Ways to shorten a long conversation upstream, with the names that each may hold."""


def _edits(check: Check, param: str, value: Any) -> None:
    only(param, value, names("edits"), holds_scalars=False)
    edits = items(f"{param}.edits", value.get("edits"))
    if len(edits) > len(_EDITS):
        raise not_allowed(f"{param}.edits", f"holds {len(edits)} edits", f"{len(_EDITS)} at most")
    for edit in edits:
        kind = edit.get("type") if isinstance(edit, dict) else None
        known = _EDITS.get(kind) if isinstance(kind, str) else None
        if known is None:
            raise not_allowed(f"{param}.edits", f"holds {show(kind or edit)}", ", ".join(_EDITS))
        only(f"{param}.edits[{kind}]", edit, known, holds_scalars=False)
        check.seen.compacts |= str(kind).startswith("compact")
        nested(check, f"{param}.edits", edit)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "choice": _choice,
        "edits": _edits,
        "images": needs("images", nested),
        "plugins": _plugins,
        "tools": tools,
        "web": needs("web", nested),
    }
)
