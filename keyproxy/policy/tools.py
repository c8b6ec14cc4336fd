"""Tools, plugins and conversations: what runs on a server, wherever a call hides it. Pure.

A tool of an unknown type is one that runs on a server, at a price, perhaps with a model of its
own; tools are also found in messages (``tool_addition``) and Responses input
(``additional_tools``, ``tool_search_output``). Shapes: OpenRouter's SDKs, state November 2026.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from keyproxy.call import Style
from keyproxy.grammar.features import is_closed_tool
from keyproxy.policy.features import not_allowed, word_for_tool
from keyproxy.policy.models import shortened
from keyproxy.policy.rules import Check, Rule, items, lifetime, needs, show

OWN: Mapping[Style, tuple[str, ...]] = MappingProxyType(
    {
        Style.CHAT: ("function",),
        Style.RESPONSES: ("function", "custom", "namespace"),
        Style.MESSAGES: ("custom", "", "function"),
    }
)
"""Types of tools that the caller runs itself. ``""`` stands for a tool without a type."""

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
# Names that decide: another spelling of them beside them would be read differently elsewhere.
_DECIDING = frozenset({"type", "id", "tools", "allowed_tools", "parameters", "cache_control"})
# Names in a conversation that mean more than words, by what is looked at.
_SUSPECTS: Mapping[str, str] = MappingProxyType(
    {
        "cache_control": "lifetime",
        "caching": "lifetime",
        "prompt_cache_breakpoint": "lifetime",
        "tools": "tools",
        "definition": "definition",
        "file_id": "file",
        "file_ids": "file",
        "container_id": "file",
    }
)


_LONGEST_NAME = 32  # "prompt_cache_breakpoint" has 23 characters; none folds into fewer
_WALKED = (None, "lifetime")  # the others are looked at whole


def _plain(name: str) -> str:
    """A key as a careless reader might take it: folded, where that could make a known name.

    Character by character, and only as far as the result is ASCII: whole names made to be slow
    to normalise cost seconds.
    """
    if name.isascii():
        return name.lower()
    if len(name) > _LONGEST_NAME:
        return name
    folded = ""
    for character in name:
        part = _folded(character)
        if not part.isascii():
            return name
        folded += part
    return folded


@lru_cache(maxsize=4096)
def _folded(character: str) -> str:
    return unicodedata.normalize("NFKC", character).casefold()


def _check_spelling(param: str, value: Mapping[str, Any]) -> None:
    for name in value:
        if name not in _DECIDING and (plain := _plain(name)) in _DECIDING:
            raise not_allowed(param, f"holds the name {shortened(name, 40)}", plain)


def tools(check: Check, param: str, value: Any) -> None:
    """Tools of the caller's own pass; those that run on a server need a word."""
    own = OWN[check.style]
    for tool in items(param, value):
        if not isinstance(tool, dict):
            raise not_allowed(param, f"holds {show(tool)}", "objects")
        kind = tool.get("type", "")
        if not isinstance(kind, str):
            raise not_allowed(param, f"holds a tool of type {show(kind)}", own[0])
        _check_spelling(param, tool)
        if "cache_control" in tool:
            lifetime(check, f"{param}.cache_control", tool["cache_control"])
        if kind not in own:
            _server_tool(check, param, tool, kind)
        elif "tools" in tool:
            tools(check, f"{param}.tools", tool["tools"])


def _server_tool(check: Check, param: str, tool: dict[str, Any], kind: str) -> None:
    _open(check, param, kind)
    family = kind.removeprefix("openrouter:")
    has_version = family.startswith("advisor_")
    place: Any = tool
    if not has_version and (kind != "image_generation" or check.style is not Style.RESPONSES):
        place = tool.get("parameters")
    for name in _MUST_SAY.get("advisor" if has_version else family, ()):
        said = place.get(name) if isinstance(place, dict) else None
        if not said and said != []:
            found = f"holds {shortened(kind, 40)} without {name}"
            raise not_allowed(param, found, f"one with {name}")
        if said == [] and name != "tools":
            raise not_allowed(f"{param}.{name}", "is empty", "ids of models")
    nested(check, f"{param}[{shortened(kind, 40)}]", tool)


def _open(check: Check, param: str, kind: str) -> None:
    if check.features.opens_tool(kind):
        return
    line = None if is_closed_tool(kind) or not kind else check.features.line(word_for_tool(kind))
    raise not_allowed(
        param,
        f"holds a tool of type {shortened(kind, 40) or 'none'} that runs on a server",
        OWN[check.style][0],
        hint=line,
    )


def nested(check: Check, param: str, value: Any) -> None:
    """Whatever names models within the settings of a tool or plugin names allowed ones."""
    waiting = [(param, value)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, list):
            waiting += [(path, item) for item in node]
        for name, inner in node.items() if isinstance(node, dict) else ():
            plain = _plain(name)
            here = f"{path}.{shortened(name, 40)}"
            if plain == "tools":
                tools(check, here, inner)
            elif plain in ("preset", "prompt", "plugins", "server_url", "callback_url"):
                raise not_allowed(here, "is set", "nothing")
            elif _SUSPECTS.get(plain) == "file":
                _file(check, here, inner)
            elif _SUSPECTS.get(plain) == "lifetime":
                lifetime(check, here, inner)
            elif "model" in plain and plain != "excluded_models":
                _model_values(check, here, inner)
            else:
                waiting.append((here, inner))


def _model_values(check: Check, param: str, value: Any) -> None:
    if value is False:
        return
    for model in value if isinstance(value, list) else [value]:
        # A router's choice may be narrowed to what the operator wrote.
        if not (isinstance(model, str) and "*" in model and check.models.has_pattern(model)):
            check.model(param, model)


def _file(check: Check, param: str, value: Any) -> None:
    if value is not None:
        check.features.require(
            "workspace-files", param, "reaches a stored file", "the file itself, as data or URL"
        )


def _choice(check: Check, param: str, value: Any) -> None:
    if value is None or (isinstance(value, str) and value in _CHOICES):
        return
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        raise not_allowed(param, f"is {show(value)}", "auto, none, required or one of your tools")
    _check_spelling(param, value)
    if kind not in _CHOICE_TYPES:
        _open(check, param, kind)
    inner = value.get("allowed_tools")
    listed = items(f"{param}.tools", value.get("tools"))
    listed = listed + items(
        f"{param}.tools", inner.get("tools") if isinstance(inner, dict) else None
    )
    for tool in listed:
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str):
            raise not_allowed(f"{param}.tools", f"holds {show(tool)}", "tools with a type")
        if kind not in OWN[check.style]:
            _open(check, f"{param}.tools", kind)


def _plugins(check: Check, param: str, value: Any) -> None:
    if not isinstance(value, list):
        raise not_allowed(param, f"is {show(value)}", "a list")
    for plugin in value:
        name = plugin.get("id") if isinstance(plugin, dict) else None
        word = PLUGINS.get(name) if isinstance(name, str) else None
        if word is None:
            raise not_allowed(param, f"holds {show(name or plugin)}", ", ".join(PLUGINS))
        _check_spelling(param, plugin)
        if word and not (name in _CAN_BE_OFF and plugin.get("enabled") is False):
            check.features.require(word, param, f"holds the plugin {name}")
            for said in _MUST_SAY.get(str(name), ()):
                if not plugin.get(said) and (said != "tools" or plugin.get(said) != []):
                    raise not_allowed(param, f"holds {name} without {said}", f"one with {said}")
        nested(check, f"{param}[{name}]", plugin)


def _conversation(check: Check, param: str, value: Any) -> None:
    """Messages or items: their words are free; tools, stored files and lifetimes in them not."""
    if isinstance(value, str):
        return
    if check.style is Style.RESPONSES:
        _items_are_whole(check, param, value)
    waiting: list[Any] = [value]
    while waiting:
        node = waiting.pop()
        if type(node) is list:
            waiting += [item for item in node if type(item) is dict or type(item) is list]
        elif type(node) is dict:
            for name, inner in node.items():
                kind = type(inner)
                suspect = _SUSPECTS.get(name)
                if suspect is None and not (name.isascii() and name.islower()):
                    suspect = _SUSPECTS.get(_plain(name))
                if suspect is not None:
                    _look(check, param, name, inner, suspect)
                if (
                    (kind is dict or kind is list)
                    and suspect in _WALKED
                    and not (name == "input" and str(node.get("type")).endswith("tool_use"))
                ):  # the arguments of a call the model made: any JSON
                    waiting.append(inner)


def _look(check: Check, param: str, name: str, value: Any, suspect: str) -> None:
    if suspect == "lifetime":
        lifetime(check, f"{param}.{name}", value)
    elif suspect == "file":
        _file(check, f"{param}.{name}", value)
    elif check.style not in OWN:
        raise not_allowed(param, f"holds {shortened(name, 40)}", "content")
    elif suspect == "tools":
        tools(check, f"{param}.{name}", value)
    elif isinstance(value, dict):
        tools(check, f"{param}.{name}", [value])


def _items_are_whole(check: Check, param: str, value: Any) -> None:
    for item in items(param, value):
        if not isinstance(item, dict):
            raise not_allowed(param, f"holds {show(item)}", "a text, or a list of objects")
        if item.get("type") == "item_reference":
            raise not_allowed(param, "holds an item_reference", "the item itself")


TOOLS = Rule("tools", tools)
CHOICE = Rule("choice", _choice)
PLUGIN_LIST = Rule("plugins", _plugins)
IMAGE_CONFIG = needs("images", nested)
WEB_SEARCH = needs("web", nested)
CONVERSATION = Rule("conversation", _conversation)
