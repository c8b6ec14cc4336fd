"""Messages and input items: their words are free, what else stands in them is not. Pure.

Tools are also found in messages (``tool_addition``) and Responses input (``additional_tools``,
``tool_search_output``). Items of a Responses input must each be there itself: an id alone, or with
a type, stands for one that the account stores, which another caller may have left there; upstreams
look it up. Shapes: the SDKs of OpenAI and OpenRouter, state November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from keyproxy.dialects import names
from keyproxy.errors import Refusal
from keyproxy.features import LONGEST_TYPE
from keyproxy.policy import spelling
from keyproxy.policy.caps import REASONING, SETTING_EFFORTS, SETTING_LENGTHS
from keyproxy.policy.check import SEALED_TYPES, TEXT_TYPES, Check, items
from keyproxy.policy.rules import LIFETIMES, STORED, lifetime, stored_file
from keyproxy.policy.spelling import not_allowed, plain, shortened, show
from keyproxy.policy.tools import tools
from keyproxy.strict_json.body import whole_number

# Names in a conversation that mean more than words, by what is looked at.
_SUSPECTS: Mapping[str, str] = {  # no proxy: each name is looked up in it
    **dict.fromkeys(LIFETIMES, "lifetime"),
    **dict.fromkeys(STORED, "file"),
    "tools": "tools",
    "tool": "tool",
    "definition": "definition",
    "audio": "audio",
    "type": "type",
    **dict.fromkeys(names("encrypted_content signature thought_signature"), "sealed"),
    **dict.fromkeys(SETTING_EFFORTS, "cap"),
    **dict.fromkeys(SETTING_LENGTHS, "cap"),
    **dict.fromkeys(REASONING, "reasoning"),
}
# Where these are texts, there is nothing to see.
_WORDS = names("role content text name id arguments tool_call_id call_id")
# Of these what stands within is walked; the others are looked at whole.
_WALKED = (None, "type", "lifetime", "cap", "audio", "reasoning", "sealed")
# Calls that the model made, and where their arguments stand: any JSON.
_CALLS: Mapping[Any, str] = MappingProxyType(
    {
        "tool_use": "input",
        "server_tool_use": "input",
        "mcp_tool_use": "input",
        "tool_search_call": "arguments",
    }
)
_ARGUMENTS = frozenset(_CALLS.values())
# What a message says of a tool that it does not define itself; a definition within is found.
_ABOUT_TOOLS = ("tool_reference", "tool_definition")


def _table(**kinds: str) -> Mapping[str, tuple[tuple[str, ...], ...]]:
    return MappingProxyType(
        {
            kind: tuple(tuple(one.split("|")) for one in fields.split())
            for kind, fields in kinds.items()
        }
    )


WHOLE = _table(
    message="role content",
    agent_message="author content",
    reasoning="encrypted_content|summary|content",
    compaction="encrypted_content",
    context_compaction="encrypted_content",
    compaction_trigger="",
    configuration_update="reasoning|text",
    additional_tools="tools",
    function_call="call_id name arguments",
    function_call_output="call_id output",
    custom_tool_call="call_id name input",
    custom_tool_call_output="call_id output",
    tool_search_call="arguments",
    tool_search_output="tools",
    web_search_call="action",
    file_search_call="queries",
    image_generation_call="result",
    code_interpreter_call="code|outputs",
    computer_call="call_id action|actions",
    computer_call_output="call_id output",
    local_shell_call="call_id action",
    local_shell_call_output="output",
    shell_call="call_id action",
    shell_call_output="call_id output",
    apply_patch_call="call_id operation",
    apply_patch_call_output="call_id status",
    mcp_list_tools="server_label tools",
    mcp_approval_request="server_label name arguments",
    mcp_approval_response="approval_request_id approve",
    mcp_call="server_label name arguments",
    program="call_id code",
    program_output="call_id result",
)
"""What an item with an id must hold, by its type; one of those with a ``|`` between them."""
_OF_ITS_OWN = tuple(
    names(
        "content output outputs result results encrypted_content summary arguments input action"
        " operation code command stdout stderr query queries tools datetime advice analysis"
        " outcome responses imageB64 imageUrl screenshotB64 value"
    )
)
"""What items of other types may hold, such as those of ``openrouter:…`` tools; one will do."""
_KIND = re.compile(r"[a-z][a-z0-9_:.-]*")  # no other spelling of a known type
_MAY_BE_EMPTY = ("arguments", "input", "output")  # of a tool that takes or says nothing


def conversation(check: Check, param: str, value: Any) -> None:
    """Messages or items: their words are free; tools, stored files and lifetimes in them not."""
    if isinstance(value, str):
        return
    if check.dialect.may_name_items:
        _check_whole(check, param, value)
    waiting: list[Any] = [value]
    while waiting:
        node = waiting.pop()
        if type(node) is list:
            waiting += [item for item in node if type(item) is dict or type(item) is list]
        elif type(node) is dict:
            for name, inner in node.items():
                kind = type(inner)
                if kind is str and name in _WORDS:
                    continue
                suspect = _SUSPECTS.get(name)
                if suspect is None and not (name.isascii() and name.islower()):
                    suspect = _SUSPECTS.get(plain(name))
                if suspect is None:
                    pass
                elif suspect == "type":
                    if kind is not str or inner not in TEXT_TYPES:
                        check.seen.part(inner, node, name)
                    elif inner in SEALED_TYPES:
                        check.seen.is_sealed = True
                elif suspect == "sealed":
                    if kind is str and inner:
                        check.seen.is_sealed = True
                elif suspect == "cap":
                    _cap(check, param, node, name)
                elif suspect == "reasoning":
                    _cap_reasoning(check, f"{param}.{name}", inner)
                else:
                    _look(check, param, name, inner, suspect)
                if (
                    (kind is dict or kind is list)
                    and (suspect in _WALKED or (suspect == "tool" and _is_open(check, inner)))
                    and not (name in _ARGUMENTS and _holds_arguments(node, name))
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


def _check_whole(check: Check, param: str, value: Any) -> None:
    """Raises ``field_not_allowed`` for an item that only refers to a stored one."""
    for index, item in enumerate(items(param, value)):
        here = f"{param}[{index}]"
        if not isinstance(item, dict):
            raise not_allowed(here, f"is {show(item)}", "an object, or one text as the whole")
        spelling.check(here, item)
        for name in item:  # "id\0" may be an id to some reader
            if len(name) > LONGEST_TYPE or not (name.isascii() and name.isidentifier()):
                raise not_allowed(here, f"holds the name {shortened(name, 40)}", "plain names")
        kind = item.get("type")
        if kind is None:
            if None in (item.get("role"), item.get("content")):
                raise not_allowed(here, "has no type, or role and content", "the item itself")
            kind = "message"
        if not isinstance(kind, str):
            raise not_allowed(here, f"is of type {show(kind)}", "the item itself")
        if kind == "item_reference" or not _is_whole(item, kind):
            raise _stored(here, kind)
        if kind == "reasoning" and item.get("id") and not item.get("encrypted_content"):
            check.seen.names_reasoning = True


def _stored(param: str, kind: str) -> Refusal:
    """The refusal of an item that an SDK left in the provider's account, with the way out."""
    if kind == "reasoning":
        return not_allowed(
            param,
            "is reasoning without its content",
            'the item with it, which store: false and include: ["reasoning.encrypted_content"]'
            " bring, or none",
        )
    return not_allowed(
        param,
        "only refers to an item that the provider would have stored",
        "the item itself, as SDKs send it with store: false (AI SDK: providerOptions.openai.store)",
    )


def _is_whole(item: Mapping[str, Any], kind: str) -> bool:
    needed = WHOLE.get(kind)
    if needed is None:
        is_plain = len(kind) <= LONGEST_TYPE and _KIND.fullmatch(kind) is not None
        return is_plain and any(_says_something(item.get(name)) for name in _OF_ITS_OWN)
    if item.get("id") is None:
        return True
    return bool(needed) and all(any(_holds(item, name) for name in one) for one in needed)


def _holds(item: Mapping[str, Any], name: str) -> bool:
    value = item.get(name)
    if name == "approve":
        return isinstance(value, bool)
    return _says_something(value) or (name in _MAY_BE_EMPTY and value == "")


def _says_something(value: Any) -> bool:
    if isinstance(value, (list, dict)):
        return any(map(_says_something, value if isinstance(value, list) else value.values()))
    return isinstance(value, str) and value != ""
