"""Messages and input items: their words are free, what else stands in them is not. Pure.

Tools are also found in messages (``tool_addition``) and Responses input (``additional_tools``,
``tool_search_output``). Shapes: OpenRouter's SDKs, state November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from keyproxy.call import Style
from keyproxy.policy.caps import SETTING_EFFORTS, SETTING_LENGTHS
from keyproxy.policy.features import not_allowed
from keyproxy.policy.models import shortened
from keyproxy.policy.rules import LIFETIMES, STORED, Check, Rule, items, lifetime, show, stored_file
from keyproxy.policy.spelling import plain
from keyproxy.policy.tools import OWN, tools

# Names in a conversation that mean more than words, by what is looked at.
_SUSPECTS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(LIFETIMES, "lifetime"),
        **dict.fromkeys(STORED, "file"),
        "tools": "tools",
        "definition": "definition",
        **dict.fromkeys(SETTING_EFFORTS, "cap"),
        **dict.fromkeys(SETTING_LENGTHS, "cap"),
    }
)
_WALKED = (None, "lifetime", "cap")  # the others are looked at whole


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
                    suspect = _SUSPECTS.get(plain(name))
                if suspect == "cap":
                    _cap(check, param, node, name)
                elif suspect is not None:
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
        stored_file(check, f"{param}.{name}", value)
    elif check.style not in OWN:
        raise not_allowed(param, f"holds {shortened(name, 40)}", "content")
    elif suspect == "tools":
        tools(check, f"{param}.{name}", value)
    elif isinstance(value, dict):
        tools(check, f"{param}.{name}", [value])


def _cap(check: Check, param: str, node: dict[str, Any], name: str) -> None:
    """A setting that holds from here on, such as ``configuration_update``.

    Other JSON may have such a name too, so what is no word or number of that kind passes.
    """
    value, meant = node[name], plain(name)
    if isinstance(value, str) if meant in SETTING_EFFORTS else (type(value) is int and value > 0):
        check.cap(param, node, name, meant)


def _items_are_whole(check: Check, param: str, value: Any) -> None:
    for item in items(param, value):
        if not isinstance(item, dict):
            raise not_allowed(param, f"holds {show(item)}", "a text, or a list of objects")
        if item.get("type") == "item_reference":
            raise not_allowed(param, "holds an item_reference", "the item itself")


CONVERSATION = Rule("conversation", _conversation)
