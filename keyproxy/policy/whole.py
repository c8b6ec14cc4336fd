"""Items of a Responses input: each is there itself. Pure.

An id alone, or with a type, stands for an item that the account stores, which another caller may
have left there; upstreams look it up. Shapes: the SDKs of OpenAI and OpenRouter, state November
2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from keyproxy.errors import Refusal
from keyproxy.policy import spelling
from keyproxy.policy.features import not_allowed
from keyproxy.policy.models import shortened, show
from keyproxy.policy.rules import items
from keyproxy.settings.grammar.features import LONGEST_TYPE, names


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


def check(param: str, value: Any) -> None:
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
