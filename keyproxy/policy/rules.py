"""What the value of a checked field may be. Pure.

Every place of OpenRouter's requests that selects a model, a server-side tool or a dearer price
within a field. Shapes: OpenRouter's OpenAPI document and SDKs, state November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from keyproxy.call import DEARER_TIERS, MAX_RESULTS
from keyproxy.dialects import Dialect
from keyproxy.errors import Refusal
from keyproxy.policy import caps, spelling
from keyproxy.policy.bounds import Seen
from keyproxy.policy.features import NONE, Features
from keyproxy.policy.models import Models
from keyproxy.policy.spelling import not_allowed, shortened, show
from keyproxy.settings.grammar.features import WORDS, names
from keyproxy.strict_json.body import whole_number

MAX_ANSWERS = 10
MAX_FALLBACKS = 3  # OpenRouter takes no more
ANY_MODEL = Models(["*"])


@dataclass(slots=True)
class Check:
    """One call under inspection, and what it allows.

    ``asked``: the models that may answer. ``named`` gathers those that its fields name, as the
    caller wrote them. ``changed`` gathers the top-level fields that hold something else now than
    what was asked. ``seen``: what else decides the price.
    """

    dialect: Dialect
    features: Features = NONE
    models: Models = ANY_MODEL
    aliases: Mapping[str, str] = field(default_factory=dict)
    max_tokens: int | None = None
    asked: tuple[str, ...] = ()
    place: str = ""
    named: list[str] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    seen: Seen = field(default_factory=Seen)

    def require(
        self, word: str, param: str, found: str, instead: str | None = None, *, what: str = ""
    ) -> None:
        """As ``Features.require``, and the call's bounds know of what is open so.

        ``what``: how it is called in words, if not by its field.
        """
        self.features.require(word, param, found, instead)
        self.seen.opened(word, what or f"its {param}")

    def model(self, param: str, holder: Any, key: Any) -> None:
        """The model at ``holder[key]`` is allowed; an alias there gives way to its model.

        Raises ``model_not_allowed``.
        """
        value = holder[key]
        if not isinstance(value, str):
            raise not_allowed(param, f"is {show(value)}", "the id of a model")
        model = self.aliases.get(value, value)
        self.models.check(model, param)
        self.named.append(value)
        self.put(holder, key, model)

    def cap(self, param: str, holder: Any, key: Any, meant: str) -> None:
        """The number or word at ``holder[key]``, a setting called ``meant``, is within the caps."""
        if meant == "max_results" and holder[key] is not None:
            self.seen.results = MAX_RESULTS
        self.put(holder, key, caps.bounded(param, meant, holder[key], self.max_tokens))

    def cap_reasoning(self, param: str, holder: dict[str, Any], key: str) -> None:
        """The tokens to reason with, at ``holder[key]``, are fewer than an answer may have.

        Raises ``field_not_allowed`` where too few are left.
        """
        if self.max_tokens is not None:
            models = [self.aliases.get(name, name) for name in (*self.asked, *self.named)]
            least = caps.least_reasoning(spelling.plain(key), models)
            budget = caps.budgeted(param, holder, key, self.max_tokens, least)
            # 0 may be read as no bound at all.
            self.put(holder, key, self.max_tokens - 1 if budget == 0 else budget)

    def many(self, param: str, count: int | None, found: str, one: str) -> None:
        """As many answers as ``count`` are open. Raises ``field_not_allowed``."""
        can_open = count is not None and 0 < count <= MAX_ANSWERS
        if not can_open:
            some = f"1 to {MAX_ANSWERS}" if "many" in self.features.words else one
            raise not_allowed(param, found, some)
        self.require("many", param, found, one)

    def put(self, holder: Any, key: Any, value: Any) -> None:
        """``holder[key]`` is ``value``, and goes up so."""
        if holder.get(key) != value if isinstance(holder, dict) else holder[key] != value:
            holder[key] = value
            self.changed.add(self.place)


Inspect = Callable[[Check, str, Any], None]


@dataclass(frozen=True, slots=True)
class Rule:
    """``name`` is what docs/features.md calls it."""

    name: str
    inspect: Inspect


def items(param: str, value: Any) -> list[Any]:
    """The elements of a list; null is an empty one. Raises ``invalid_json``."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Refusal("invalid_json", f"The field {param} must be a list.", param=param)
    return value


def _anything(check: Check, param: str, value: Any) -> None:
    pass


FREE = Rule("free", _anything)
"""Any value: it neither selects a model nor adds a cost of its own."""


def _text(check: Check, param: str, value: Any) -> None:
    """No list of parts, which would need the walk through a conversation."""
    if not isinstance(value, str):
        raise not_allowed(param, f"is {show(value)}", "a text")


def _prompts(check: Check, param: str, value: Any) -> None:
    """A text, or one text in a list, or its tokens: each text of a list is answered."""
    if not isinstance(value, list) or all(whole_number(token) is not None for token in value):
        return
    if len(value) > 1:
        check.many(param, len(value), f"holds {len(value)} prompts", "one text")


def _prediction(check: Check, param: str, value: Any) -> None:
    """Any value; what does not come true is paid for."""
    check.seen.predicts = True


def _off(check: Check, param: str, value: Any) -> None:
    """Only the value that asks for nothing, which SDKs fill in unasked."""
    if value is not None and value is not False:
        raise not_allowed(param, f"is {show(value)}", "false")


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


def _tier(check: Check, param: str, value: Any) -> None:
    """Only tiers at the usual price or below; dearer ones also select another model."""
    # OpenRouter's own SDK fills in `auto` with every call to /responses.
    if value in (None, "auto", "default", "standard_only", "standard", "flex"):
        return
    if not isinstance(value, str):
        raise not_allowed(param, f"is {show(value)}", "auto")
    check.require("priority", param, f"is {show(value)}", "auto")


LIFETIMES = names("cache_control caching prompt_cache_breakpoint")
"""Names of settings that hold a lifetime, wherever they stand."""


def lifetime(check: Check, param: str, value: Any) -> None:
    """Prompt caching as it is without a lifetime: longer ones make the written tokens dearer."""
    ttl = value
    if isinstance(value, dict):
        spelling.check(param, value)
        ttl, param = value.get("ttl"), f"{param}.ttl"
    if ttl in (None, "5m", "30m"):  # Anthropic's default, OpenAI's
        return
    if not isinstance(ttl, str):
        raise not_allowed(param, f"is {show(ttl)}", "5m, or none")
    check.require("cache-1h", param, f"is {show(ttl)}", "5m, or none")


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
    if not isinstance(value, dict):
        raise not_allowed(param, f"is {show(value)}", "an object")
    for name in value:
        if name not in _SUB_FIELDS:
            allowed = ", ".join(sorted(_SUB_FIELDS))
            raise not_allowed(param, f"holds {shortened(name, 40)}", allowed)
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
    if mark and variety not in _VARIETIES:
        check.features.require(
            "priority", param, f"holds {show(slug)}, one tier or place of a provider", provider
        )
    if slug.lower().rpartition("/")[2] in DEARER_TIERS:  # a place's price is in the list
        check.seen.unbound("a dearer tier of its provider")


def needs(word: str, inspect: Inspect = _anything) -> Rule:
    """A field that is closed unless ``word`` is on, and then checked."""
    what = _MORE_THAN_TEXT if word in _MODALITIES.values() else ""

    def gated(check: Check, param: str, value: Any) -> None:
        check.require(word, param, "can cost extra", what=what)
        inspect(check, param, value)

    return Rule(f"`{word}`", gated)


def _stop_conditions(check: Check, param: str, value: Any) -> None:
    """About tools that run on a server, where any are open. It overrides ``max_tool_calls``, so
    it says a number of steps, whatever else it says: the first condition that is met ends them."""
    if not check.features.has_server_tools:
        if value == []:
            return
        raise not_allowed(param, "is about server tools", hint=check.features.line("web"))
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


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **{word.replace("-", "_"): needs(word) for word in WORDS},
        "fallbacks": needs("fallbacks", _fallbacks),
        "free": FREE,
        "lifetime": Rule("lifetime", lifetime),
        "modalities": Rule("modalities", _modalities),
        "model": Rule("model", _anything),  # read by `calls`, before any field
        "off": Rule("off", _off),
        "one": Rule("one", _one),
        "prediction": Rule("free", _prediction),
        "prompts": Rule("one text", _prompts),
        "provider": needs("provider", _provider),
        "stop_conditions": Rule("with tools", _stop_conditions),
        "stream": Rule("true or false", _anything),  # read by `calls`, too
        "text": Rule("text", _text),
        "tier": Rule("tier", _tier),
    }
)
"""By the word that stands beside a field in a dialect."""
