"""Fields that are open in one shape only, which holds no model, tool or price. Pure.

Shapes: the SDKs of OpenAI, Anthropic and OpenRouter, state November 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from keyproxy.policy.rules import Check, Rule, lifetime, needs
from keyproxy.policy.spelling import not_allowed, plain, shortened, show
from keyproxy.settings.grammar.features import names


def only(param: str, value: Any, known: frozenset[str], *, scalars: bool = True) -> None:
    """``value`` is an object with none but ``known`` names, and nothing within them."""
    if not isinstance(value, dict):
        raise not_allowed(param, f"is {show(value)}", "an object")
    for name, inner in value.items():
        if name not in known:
            raise not_allowed(param, f"holds {shortened(name, 40)}", ", ".join(sorted(known)))
        if scalars and isinstance(inner, (dict, list)):
            raise not_allowed(f"{param}.{name}", f"is {show(inner)}", "a word, text or number")


def _entries(param: str, value: Any) -> Iterable[tuple[str, Any]]:
    """Each entry of a list, with its place."""
    if not isinstance(value, list):
        raise not_allowed(param, f"is {show(value)}", "a list")
    return ((f"{param}[{index}]", entry) for index, entry in enumerate(value))


def _of_type(param: str, value: Mapping[str, Any], kind: str) -> None:
    if "type" not in value:
        raise not_allowed(param, "has no type", kind)
    if value["type"] != kind:
        raise not_allowed(f"{param}.type", f"is {show(value['type'])}", kind)


def _transforms(check: Check, param: str, value: Any) -> None:
    if value != ["middle-out"]:
        raise not_allowed(param, f"is {show(value)}", '["middle-out"], or an empty list')


def _texts(check: Check, param: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise not_allowed(param, f"is {show(value)}", "an object of texts")
    for name, inner in value.items():
        if not isinstance(inner, str):
            raise not_allowed(f"{param}.{shortened(name, 40)}", f"is {show(inner)}", "a text")


def _flag(check: Check, param: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise not_allowed(param, f"is {show(value)}", "true or false")


def _image(check: Check, param: str, value: Any) -> None:
    only(param, value, names("context_compression"))


def _summary(check: Check, param: str, value: Any) -> None:
    only(param, value, names("type instructions"))
    _of_type(param, value, "summarize")
    check.seen.compacts = True


def _compaction(check: Check, param: str, value: Any) -> None:
    for place, entry in _entries(param, value):
        only(place, entry, names("type compact_threshold"))
        _of_type(place, entry, "compaction")
        check.seen.compacts = True


def _functions(check: Check, param: str, value: Any) -> None:
    for place, function in _entries(param, value):
        only(place, function, names("name description parameters strict"), scalars=False)


def _function_call(check: Check, param: str, value: Any) -> None:
    if value not in ("none", "auto"):
        only(param, value, names("name"))


def _retention(check: Check, param: str, value: Any) -> None:
    if value not in ("in_memory", "in-memory", "5m", "30m"):
        if not isinstance(value, str):
            raise not_allowed(param, f"is {show(value)}", "in_memory")
        check.require("cache-1h", param, f"is {show(value)}", "in_memory")


def _cache_options(check: Check, param: str, value: Any) -> None:
    lifetime(check, param, value)
    for name, inner in value.items() if isinstance(value, dict) else ():
        if plain(name) == "comparison_response_id" and inner is not None:
            raise not_allowed(f"{param}.{shortened(name, 40)}", "refers to a stored answer")


def _region(check: Check, param: str, value: Any) -> None:
    # Another place is dearer; "global" would undo what the account chose for its privacy.
    if not isinstance(value, str) or value.lower() == "global":
        raise not_allowed(param, f"is {show(value)}", "one region")


def _speed(check: Check, param: str, value: Any) -> None:
    if value != "standard":
        check.require("priority", param, "can cost extra", "standard")


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "cache_options": Rule("lifetime", _cache_options),
        "compaction": Rule("shape", _compaction),
        "flag": Rule("true or false", _flag),
        "function_call": Rule("shape", _function_call),
        "functions": Rule("shape", _functions),
        "image": Rule("shape", _image),
        "region": needs("priority", _region),
        "retention": Rule("lifetime", _retention),
        "speed": Rule("`priority`", _speed),
        "summary": Rule("shape", _summary),
        "texts": Rule("shape", _texts),
        "transforms": Rule("shape", _transforms),
    }
)
