"""Messages and input items: their words are free, what else stands in them is not. Pure.

Tools are also found in messages (``tool_addition``) and Responses input (``additional_tools``,
``tool_search_output``). Shapes: OpenRouter's SDKs, state November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from keyproxy.policy import whole
from keyproxy.policy.bounds import TEXT_TYPES
from keyproxy.policy.caps import REASONING, SETTING_EFFORTS, SETTING_LENGTHS
from keyproxy.policy.features import not_allowed
from keyproxy.policy.models import shortened
from keyproxy.policy.rules import LIFETIMES, STORED, Check, Rule, lifetime, stored_file
from keyproxy.policy.spelling import plain
from keyproxy.policy.tools import tools
from keyproxy.strict_json.body import whole_number

# Names in a conversation that mean more than words, by what is looked at.
_SUSPECTS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(LIFETIMES, "lifetime"),
        **dict.fromkeys(STORED, "file"),
        "tools": "tools",
        "tool": "tool",
        "definition": "definition",
        "audio": "audio",
        "type": "type",
        **dict.fromkeys(SETTING_EFFORTS, "cap"),
        **dict.fromkeys(SETTING_LENGTHS, "cap"),
        **dict.fromkeys(REASONING, "reasoning"),
    }
)
_WALKED = (None, "type", "lifetime", "cap", "audio", "reasoning")  # the others are looked at whole
# Calls that the model made, and where their arguments stand: any JSON.
_CALLS: Mapping[Any, str] = MappingProxyType(
    {
        "tool_use": "input",
        "server_tool_use": "input",
        "mcp_tool_use": "input",
        "tool_search_call": "arguments",
    }
)
# What a message says of a tool that it does not define itself; a definition within is found.
_ABOUT_TOOLS = ("tool_reference", "tool_definition")


def _conversation(check: Check, param: str, value: Any) -> None:
    """Messages or items: their words are free; tools, stored files and lifetimes in them not."""
    if isinstance(value, str):
        return
    if check.dialect.may_name_items:
        whole.check(param, value)
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
                    suspect = _SUSPECTS.get(plain(name))
                if suspect == "type":
                    if kind is not str or inner not in TEXT_TYPES:
                        check.seen.part(inner, node, name)
                elif suspect == "cap":
                    _cap(check, param, node, name)
                elif suspect == "reasoning":
                    _cap_reasoning(check, f"{param}.{name}", inner)
                elif suspect is not None:
                    _look(check, param, name, inner, suspect)
                if (
                    (kind is dict or kind is list)
                    and (suspect in _WALKED or (suspect == "tool" and _is_open(check, inner)))
                    and not (name in _CALLS.values() and _holds_arguments(node, name))
                ):
                    waiting.append(inner)


def _holds_arguments(node: dict[str, Any], name: str) -> bool:
    kind = node.get("type")
    return isinstance(kind, str) and _CALLS.get(kind) == name


def _is_open(check: Check, tool: Any) -> bool:
    """Whether more may stand in it than in a tool that runs on a server, which is seen whole."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    return kind is None or kind in _ABOUT_TOOLS or kind in check.dialect.own_tools


def _look(check: Check, param: str, name: str, value: Any, suspect: str) -> None:
    if suspect == "lifetime":
        lifetime(check, f"{param}.{name}", value)
    elif suspect == "file":
        stored_file(check, f"{param}.{name}", value)
    elif suspect == "audio":
        if isinstance(value, (list, dict)):  # an earlier answer
            check.seen.media("audio")
        if check.dialect.may_name_sound:
            for audio in value if isinstance(value, list) else [value]:
                if isinstance(audio, dict):
                    _audio_is_whole(f"{param}.{name}", audio)
    elif not check.dialect.own_tools:
        raise not_allowed(param, f"holds {shortened(name, 40)}", "content")
    elif suspect == "tools":
        tools(check, f"{param}.{name}", value)
    elif isinstance(value, list):
        raise not_allowed(f"{param}.{name}", "is a list", "one tool")
    elif isinstance(value, dict) and not (suspect == "tool" and value.get("type") in _ABOUT_TOOLS):
        tools(check, f"{param}.{name}", [value])


def _audio_is_whole(param: str, value: dict[str, Any]) -> None:
    """An id alone stands for an answer that the account stores, maybe another caller's."""
    said = {
        plain(name) for name, inner in value.items() if isinstance(inner, str) and inner.strip()
    }
    if "id" in map(plain, value) and not said & {"data", "transcript"}:
        raise not_allowed(param, "only refers to a stored answer", "its transcript, or no audio")


def _cap(check: Check, param: str, node: dict[str, Any], name: str) -> None:
    """A setting that holds from here on, such as ``configuration_update``.

    Other JSON may have such a name too, so what is no word or number of that kind passes.
    """
    value, meant = node[name], plain(name)
    is_meant = type(value) is str if meant in SETTING_EFFORTS else whole_number(value) is not None
    if is_meant:
        check.cap(f"{param}.{name}", node, name, meant)


def _cap_reasoning(check: Check, param: str, value: Any) -> None:
    """What is left then is within the caps for ``_cap``, too."""
    for name, inner in value.items() if type(value) is dict else ():
        if plain(name) in SETTING_LENGTHS and whole_number(inner) is not None:
            check.cap_reasoning(f"{param}.{name}", value, name)


CONVERSATION = Rule("conversation", _conversation)
