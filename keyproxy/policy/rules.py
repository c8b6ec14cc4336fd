"""What the value of a checked field may be. Pure.

Every place of OpenRouter's requests that selects a model, a server-side tool or a dearer price
within a field. Shapes: OpenRouter's OpenAPI document and SDKs, state November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from keyproxy.call import DEARER_TIERS
from keyproxy.dialects import names
from keyproxy.features import WORDS
from keyproxy.policy import caps, spelling
from keyproxy.policy.check import Check, Rule, items
from keyproxy.policy.spelling import not_allowed, plain, shortened, show
from keyproxy.strict_json.body import whole_number

MAX_FALLBACKS = 3  # OpenRouter takes no more


def anything(check: Check, param: str, value: Any) -> None:
    """No look at the value, so that nothing calls it."""


def needs(word: str, inspect: Rule = anything) -> Rule:
    """A field that is closed unless ``word`` is on, and then checked."""
    what = _MORE_THAN_TEXT if word in _MODALITIES.values() else ""

    def gated(check: Check, param: str, value: Any) -> None:
        check.require(word, param, "can cost extra", what=what)
        inspect(check, param, value)

    return gated


def _only(fits: Callable[[Any], bool], instead: str) -> Rule:
    """Values that fit; ``instead`` tells of them."""

    def inspect(check: Check, param: str, value: Any) -> None:
        if not fits(value):
            raise not_allowed(param, f"is {show(value)}", instead)

    return inspect


def _usual(values: tuple[str | None, ...], word: str, instead: str) -> Rule:
    """Words at the usual price or below; ``word`` opens any others, which are dearer."""

    def inspect(check: Check, param: str, value: Any) -> None:
        if value in values:
            return
        if not isinstance(value, str):
            raise not_allowed(param, f"is {show(value)}", instead)
        check.require(word, param, f"is {show(value)}", instead)

    return inspect


def _object(
    known: str,
    *,
    kind: str = "",
    is_in_list: bool = False,
    holds_scalars: bool = True,
    compacts: bool = False,
) -> Rule:
    """An object, or a list of such, with none but ``known`` names and, if it has one, that type.

    Fields of this kind are open in one shape only, which holds no model, tool or price.
    ``compacts``: it has the conversation read once more, for a summary.
    """

    def inspect(check: Check, param: str, value: Any) -> None:
        places = [(param, value)]
        if is_in_list:
            if not isinstance(value, list):
                raise not_allowed(param, f"is {show(value)}", "a list")
            places = [(f"{param}[{index}]", entry) for index, entry in enumerate(value)]
        for place, entry in places:
            only(place, entry, names(known), holds_scalars=holds_scalars)
            if kind and "type" not in entry:
                raise not_allowed(place, "has no type", kind)
            if kind and entry["type"] != kind:
                raise not_allowed(f"{place}.type", f"is {show(entry['type'])}", kind)
            check.seen.compacts |= compacts

    return inspect


def only(param: str, value: Any, known: frozenset[str], *, holds_scalars: bool = True) -> None:
    """``value`` is an object with none but ``known`` names and, unless it may hold more, nothing
    within them."""
    if not isinstance(value, dict):
        raise not_allowed(param, f"is {show(value)}", "an object")
    for name, inner in value.items():
        if name not in known:
            raise not_allowed(param, f"holds {shortened(name, 40)}", ", ".join(sorted(known)))
        if holds_scalars and isinstance(inner, (dict, list)):
            raise not_allowed(f"{param}.{name}", f"is {show(inner)}", "a word, text or number")


def _texts(check: Check, param: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise not_allowed(param, f"is {show(value)}", "an object of texts")
    for name, inner in value.items():
        if not isinstance(inner, str):
            raise not_allowed(f"{param}.{shortened(name, 40)}", f"is {show(inner)}", "a text")


def _function_call(check: Check, param: str, value: Any) -> None:
    if value not in ("none", "auto"):
        only(param, value, names("name"))


def _prompts(check: Check, param: str, value: Any) -> None:
    """A text, or one text in a list, or its tokens: each text of a list is answered."""
    if not isinstance(value, list) or all(whole_number(token) is not None for token in value):
        return
    if len(value) > 1:
        check.many(param, len(value), f"holds {len(value)} prompts", "one text")


def _prediction(check: Check, param: str, value: Any) -> None:
    """Any value; what does not come true is paid for."""
    check.seen.predicts = True


def _one(check: Check, param: str, value: Any) -> None:
    """Several answers at once cost several times as much."""
    count = 1 if value is None else whole_number(value)
    if count != 1:
        check.many(param, count, f"is {show(value)}", "the number 1")
        check.seen.answers = max(check.seen.answers, count or 1)


_MORE_THAN_TEXT = "an answer that is more than text"
_MODALITIES: Mapping[str, str] = MappingProxyType({"image": "images", "audio": "audio"})


def _modalities(check: Check, param: str, value: Any) -> None:
    """Image and sound answers have prices of their own."""
    for item in items(param, value):
        if item == "text":
            continue
        word = _MODALITIES.get(item) if isinstance(item, str) else None
        if word is None:
            raise not_allowed(param, f"holds {show(item)}", '["text"]')
        check.require(word, param, f"asks for {item}", '["text"]', what=_MORE_THAN_TEXT)


LIFETIMES = names("cache_control caching prompt_cache_breakpoint")
"""Names of settings that hold a lifetime, wherever they stand."""
_usual_lifetime = _usual((None, "5m", "30m"), "cache-1h", "5m, or none")  # Anthropic's, OpenAI's


def lifetime(check: Check, param: str, value: Any) -> None:
    """Prompt caching as it is without a lifetime: longer ones make the written tokens dearer."""
    if isinstance(value, dict):
        spelling.check(param, value)
        _usual_lifetime(check, f"{param}.ttl", value.get("ttl"))
    else:
        _usual_lifetime(check, param, value)


def _cache_options(check: Check, param: str, value: Any) -> None:
    lifetime(check, param, value)
    for name, inner in value.items() if isinstance(value, dict) else ():
        if plain(name) == "comparison_response_id" and inner is not None:
            raise not_allowed(f"{param}.{shortened(name, 40)}", "refers to a stored answer")


STORED = names("file_id file_ids container_id")
"""Names that hold the id of something the account stores."""


def stored_file(check: Check, param: str, value: Any) -> None:
    """A file of the account, by its id."""
    if value is not None:
        check.require(
            "workspace-files", param, "reaches a stored file", "the file itself, as data or URL"
        )


def _fallbacks(check: Check, param: str, value: Any) -> None:
    entries = items(param, value)
    if len(entries) > MAX_FALLBACKS:
        raise not_allowed(param, f"holds {len(entries)} models", f"{MAX_FALLBACKS} at most")
    for entry in entries:
        if not isinstance(entry, dict) or entry.keys() != {"model"}:
            raise not_allowed(param, f"holds {show(entry)}", 'objects {"model": "…"}')
        check.model(f"{param}.model", entry, "model")


_SUB_FIELDS = names(
    "allow_fallbacks data_collection enforce_distillable_text ignore max_price only order"
    " preferred_max_latency preferred_min_throughput quantizations require_parameters sort zdr"
)
# What may follow a provider's name without naming a dearer tier.
_VARIETIES = names("int4 int8 fp4 fp6 fp8 fp16 bf16 fp32 mxfp4 nvfp4 flex")


def _provider(check: Check, param: str, value: Any) -> None:
    if value is None:
        return
    only(param, value, _SUB_FIELDS, holds_scalars=False)
    # The account's own choice of privacy may be made stricter, not looser.
    if value.get("data_collection") not in (None, "deny"):
        raise not_allowed(f"{param}.data_collection", "is not deny", "deny")
    if value.get("zdr") not in (None, True):
        raise not_allowed(f"{param}.zdr", "is not true", "true")
    for name in ("only", "order"):
        for slug in items(f"{param}.{name}", value.get(name)):
            _slug(check, f"{param}.{name}", slug)


def _slug(check: Check, param: str, slug: Any) -> None:
    if not isinstance(slug, str):
        raise not_allowed(param, f"holds {show(slug)}", "names of providers")
    provider, mark, variety = slug.partition("/")
    if mark and variety not in _VARIETIES and "priority" not in check.policy.features.words:
        found = f"holds {show(slug)}, one tier or place of a provider"
        raise not_allowed(param, found, provider, hint=check.policy.features.line("priority"))
    if slug.lower().rpartition("/")[2] in DEARER_TIERS:  # a place's price is in the list
        check.seen.unbound("a dearer tier of its provider")


def _stop_conditions(check: Check, param: str, value: Any) -> None:
    """About tools that run on a server, where any are open. It overrides ``max_tool_calls``, so
    it says a number of steps, whatever else it says: the first condition that is met ends them."""
    if not check.policy.features.has_server_tools:
        if value == []:
            return
        raise not_allowed(param, "is about server tools", hint=check.policy.features.line("web"))
    conditions = items(param, value)
    has_steps = False
    for condition in conditions:
        if not isinstance(condition, dict):
            raise not_allowed(param, f"holds {show(condition)}", "objects")
        if condition.get("type") == "step_count_is" and condition.get("step_count") is not None:
            check.cap(f"{param}.step_count", condition, "step_count", "step_count")
            has_steps = True
    if not has_steps:
        conditions.append({"type": "step_count_is", "step_count": caps.MAX_TOOL_CALLS})
        check.changed.add(check.place)


# OpenRouter's own SDK fills in `auto` with every call to /responses; dearer tiers also select
# another model.
_TIERS = (None, "auto", "default", "standard_only", "standard", "flex")
_RETENTIONS = ("in_memory", "in-memory", "5m", "30m")

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **{word.replace("-", "_"): needs(word) for word in WORDS},
        "cache_options": _cache_options,
        "compaction": _object(
            "type compact_threshold", kind="compaction", is_in_list=True, compacts=True
        ),
        "fallbacks": needs("fallbacks", _fallbacks),
        "flag": _only(lambda value: isinstance(value, bool), "true or false"),
        # Any value: it neither selects a model nor adds a cost of its own.
        "free": anything,
        "function_call": _function_call,
        "functions": _object(
            "name description parameters strict", is_in_list=True, holds_scalars=False
        ),
        "image": _object("context_compression"),
        "lifetime": lifetime,
        "modalities": _modalities,
        "model": anything,  # read by `calls`, before any field
        # What asks for nothing, which SDKs fill in unasked.
        "off": _only(lambda value: value is None or value is False, "false"),
        "one": _one,
        "prediction": _prediction,
        "prompts": _prompts,
        "provider": needs("provider", _provider),
        # Another place is dearer; "global" would undo what the account chose for its privacy.
        "region": needs(
            "priority",
            _only(lambda value: isinstance(value, str) and value.lower() != "global", "one region"),
        ),
        "retention": _usual(_RETENTIONS, "cache-1h", "in_memory"),
        "speed": _usual(("standard",), "priority", "standard"),
        "stop_conditions": _stop_conditions,
        "stream": anything,  # read by `calls`, too
        "summary": _object("type instructions", kind="summarize", compacts=True),
        # No list of parts, which would need the walk through a conversation.
        "text": _only(lambda value: isinstance(value, str), "a text"),
        "texts": _texts,
        "tier": _usual(_TIERS, "priority", "auto"),
        "transforms": _only(
            lambda value: value == ["middle-out"], '["middle-out"], or an empty list'
        ),
    }
)
"""By the word that stands beside a field in a dialect."""
