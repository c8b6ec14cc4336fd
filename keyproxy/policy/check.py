"""One call under inspection: what it may do, and what the walk through its body comes by. Pure.

What decides the price is noted on the way in a ``Seen``, upper bounds all; nothing looks a second
time. What is not known here is taken for the dearest that it could be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keyproxy.call import MAX_RESULTS
from keyproxy.dataclass import dataclass, field
from keyproxy.dialects import Dialect, names
from keyproxy.errors import Refusal
from keyproxy.policy import caps
from keyproxy.policy.models import Models
from keyproxy.policy.opened import NONE, Features
from keyproxy.policy.spelling import not_allowed, plain, show
from keyproxy.strict_json.body import whole_number

MAX_ANSWERS = 10

TEXT_TYPES = names(
    "text input_text output_text refusal summary_text reasoning_text reasoning reasoning.text"
    " reasoning.summary reasoning.encrypted thinking redacted_thinking tool_use tool_result"
    " function function_call function_call_output custom custom_tool_call custom_tool_call_output"
    " message content base64 url ephemeral url_citation char_location"
)
"""Types within a conversation whose tokens are bytes of the body."""
_SOUNDS = ("audio", "video")
SEALED_TYPES = names("redacted_thinking reasoning.encrypted")
"""Types of reasoning that only its issuer can read."""
_WITH_TOOLS = frozenset({"additional_tools", "tool_addition"})
_IMAGES = frozenset({"image_url", "input_image", "image", "computer_screenshot"})
_FILES = frozenset({"file", "input_file", "document"})
_SMALL_TOOLS = frozenset(
    {"openrouter:datetime", "openrouter:tool_search", "openrouter:experimental__search_models"}
)
_COUNTED = frozenset({"fallbacks", "many", "provider", "workspace-files"})
"""Words that open what the models, the answers, the price list or the parts tell of."""


@dataclass(init=False)
class Seen:
    """What the walk through one body has come by; most come by nothing, so that making one is
    free: what is not noted stands in the class."""

    images: int = 0
    image_bytes: int = 0
    answers: int = 1
    results: int = 5
    runs_tools: bool = False
    searches: bool = False
    predicts: bool = False
    compacts: bool = False
    has_media: bool = False
    has_files: bool = False
    has_long_cache: bool = False
    is_unbounded: bool = False
    is_sealed: bool = False
    names_reasoning: bool = False
    inputs: frozenset[str] = frozenset()
    server_tools: frozenset[str] = frozenset()
    what: str = ""
    _sources: set[int] | None = None  # of images, which are measured

    @property
    def is_something(self) -> bool:
        """Whether anything is noted."""
        return bool(vars(self))

    def unbound(self, what: str) -> None:
        """No price bounds ``what``, a part as it is called in words; the first is told."""
        if not self.is_unbounded:
            self.is_unbounded, self.what = True, what

    def opened(self, word: str, what: str) -> None:
        """``what`` stands in the body, and is there because the feature ``word`` is on."""
        if word == "web":
            self.searches = True  # each is paid for, and read as input in the round that follows
        elif word == "cache-1h":
            self.has_long_cache = True
        elif word not in _COUNTED:
            self.unbound(what)

    def tool(self, kind: str, word: str) -> None:
        """A tool of this type, which ``word`` opens, runs upstream."""
        self.runs_tools = True
        self.server_tools |= {kind}
        if kind not in _SMALL_TOOLS:
            self.opened(word, f"the tool {kind}")  # a word opens plain names only

    def part(self, kind: Any, node: Mapping[str, Any], name: str = "type") -> None:
        """``node`` of a conversation is of a type that is none of ``TEXT_TYPES``; ``name``: how
        the field is spelled that says so."""
        if self._sources and id(node) in self._sources:
            return
        if type(kind) is str and kind in _IMAGES and name == "type":
            self.images += 1
            self.inputs |= {"image"}
            self.image_bytes += _spelled(node)
            self._sources = self._sources or set()
            self._sources.add(id(node.get("source")))
        elif type(kind) is not str:
            self.media("")
        elif kind not in _WITH_TOOLS:
            self.media(kind)

    def media(self, kind: str) -> None:
        """There is a part of this type, whose tokens are more than its bytes."""
        self.has_media = True
        self.has_files |= kind in _FILES
        plain = "file" if kind in _FILES else next(filter(kind.__contains__, _SOUNDS), kind)
        self.inputs |= {plain}
        if kind in _FILES or not self.what:
            words = {"audio": "the audio", "video": "the video"} | dict.fromkeys(_FILES, "the file")
            known = (words[word] for word in words if word in kind)
            self.what = next(known, "a part that is neither text nor image")


def _spelled(part: Mapping[str, Any]) -> int:
    """How many bytes of the body are the image itself."""
    source = part.get("source")
    if isinstance(source, dict) and str(source.get("media_type")).startswith("image/"):
        data = source.get("data")
        return len(data) if isinstance(data, str) else 0
    url = part.get("image_url")
    if isinstance(url, dict):
        url = url.get("url")
    return len(url) if isinstance(url, str) and url.startswith("data:image/") else 0


@dataclass(frozen=True, slots=True)
class Policy:
    """What one configuration allows. ``aliases``: a name of the operator's own -> a model id.

    ``counts_money``: calls say what they ask for, as far as it decides the price. ``is_routed``:
    they keep what they say, too, for providers that want it in other words; there, names may also
    be ``routes``, the operator's for several models, and a vendor's own ids, of which ``canonical``
    tells OpenRouter's, None where nobody has it.
    """

    models: Models
    aliases: Mapping[str, str] = field(default_factory=dict)
    max_tokens: int | None = None
    features: Features = NONE
    counts_money: bool = False
    is_routed: bool = False
    routes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    canonical: Callable[[str], str | None] = lambda name: None


@dataclass(slots=True)
class Check:
    """One call under inspection by a policy.

    ``named`` gathers the models that may answer or work for it, as the caller wrote them, and
    ``ids`` what they stand for, each once; ``route`` is the one that stands for several.
    ``place`` is the top-level field that is looked at; ``changed`` gathers those that hold
    something else now than what was asked. ``seen``: what else decides the price.
    """

    dialect: Dialect
    policy: Policy
    route: str | None = None
    place: str = ""
    named: dict[str, None] = field(default_factory=dict)
    ids: dict[str, None] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    seen: Seen = field(default_factory=Seen)

    def meant(self, name: str) -> tuple[str, ...]:
        """The ids that a name stands for: several where it is a route of the operator's, of which
        those that are not allowed are skipped."""
        if name == self.route:
            return tuple(id for id in self.policy.routes[name] if self.policy.models.allows(id))
        id = self.policy.aliases.get(name, name)
        return (id if "/" in id else self.policy.canonical(id) or id,)

    def require(
        self, word: str, param: str, found: str, instead: str | None = None, *, what: str = ""
    ) -> None:
        """The feature ``word`` is on, and the call's bounds know of what is open so.

        ``found`` continues "The field … "; ``instead`` is what may be sent. ``what``: how it is
        called in words, if not by its field. Raises ``field_not_allowed``.
        """
        if word not in self.policy.features.words:
            raise not_allowed(param, found, instead, hint=self.policy.features.line(word))
        self.seen.opened(word, what or f"its {param}")

    def model(self, param: str, holder: Any, key: Any) -> None:
        """The model at ``holder[key]`` is allowed; an alias there gives way to its model.

        Raises ``model_not_allowed``.
        """
        value = holder[key]
        if type(value) is not str:
            raise not_allowed(param, f"is {show(value)}", "the id of a model")
        if value in self.policy.routes and param == "model":
            self.route = value
        ids = self.meant(value)
        model = (ids or self.policy.routes[value])[0]
        self.policy.models.check(model, param)
        self.named[value] = None
        for id in ids:
            self.ids[id] = None
        if ":" in model and ":online" in model.lower():
            self.seen.searches = True
        if model != value:
            self.put(holder, key, model)

    def cap(self, param: str, holder: Any, key: Any, meant: str) -> None:
        """The number or word at ``holder[key]``, a setting called ``meant``, is within the caps."""
        if meant == "max_results" and holder[key] is not None:
            self.seen.results = MAX_RESULTS
        self.put(holder, key, caps.bounded(param, meant, holder[key], self.policy.max_tokens))

    def cap_reasoning(
        self,
        param: str,
        holder: dict[str, Any],
        key: str,
        length: int | None = None,
        *,
        is_cut: bool = True,
    ) -> None:
        """The tokens to reason with, at ``holder[key]``, are fewer than an answer may have.

        ``length``: the answer's, if it is known; ``is_cut``: the cap may have made it so. Raises
        ``invalid_json`` for what is no number, ``field_not_allowed`` where the cap leaves too few.
        """
        if self.policy.max_tokens is None:
            return
        asked, most = caps.count(param, holder[key]), self.policy.max_tokens
        least = caps.least_reasoning(plain(key), self.ids)
        is_off = holder.get("enabled") is False or holder.get("type") == "disabled"
        is_short = most <= least and not is_off and holder.get("effort") != "none"
        if not asked or (0 < asked < most and not (is_cut and is_short)):
            if asked == 0 and length is None:  # it may be read as no bound at all
                self.put(holder, key, most - 1)
            return
        if is_short:
            raise caps.too_short(param, holder[key], most, least)
        # A call that gave its answer too few is no better, and no worse, than before.
        self.put(holder, key, (length if length is not None and length > least else most) - 1)

    def impose(self, body: dict[str, Any]) -> None:
        """The caps hold at the top of ``body``, and are filled in where nothing is said.

        Comes before any other field: what is lowered agrees with the models that may answer, and
        ``named`` holds no others yet. Raises ``invalid_json``, ``field_not_allowed``.
        """
        if self.policy.max_tokens is not None:
            self._impose_lengths(body, self.policy.max_tokens)
        if (name := self.dialect.tool_calls) and self.policy.features.has_server_tools:
            self.place = name
            if body.get(name) is None:
                self.put(body, name, caps.MAX_TOOL_CALLS)
            self.cap(name, body, name, name)

    def _impose_lengths(self, body: dict[str, Any], max_tokens: int) -> None:
        names = self.dialect.lengths
        if names and caps.PLACES[self.dialect].isdisjoint(body):  # as in most calls
            self.place = names[0]
            self.put(body, names[0], max_tokens)
            return
        said = [name for name in names if body.get(name) is not None]
        for name in said:
            self.place = name
            self.cap(name, body, name, name)
        if names and not said:
            self.place = names[0]
            self.put(body, names[0], max_tokens)
        for outer, name in self.dialect.budgets:
            self.place, holder = outer, body.get(outer)
            if isinstance(holder, dict) and holder.get(name) is not None:
                lengths = [whole_number(body[each]) for each in said or names[:1]]
                self.cap_reasoning(
                    f"{outer}.{name}",
                    holder,
                    name,
                    min(length for length in lengths if length is not None),
                    is_cut=not self.changed.isdisjoint(names),
                )
        for outer, *inner in self.dialect.efforts:
            self.place, holder = outer, body.get(outer) if inner else body
            name = inner[0] if inner else outer
            if isinstance(holder, dict) and name in holder:
                self.cap(name, holder, name, name)

    def many(self, param: str, count: int | None, found: str, one: str) -> None:
        """As many answers as ``count`` are open. Raises ``field_not_allowed``."""
        can_open = count is not None and 0 < count <= MAX_ANSWERS
        if not can_open:
            some = f"1 to {MAX_ANSWERS}" if "many" in self.policy.features.words else one
            raise not_allowed(param, found, some)
        self.require("many", param, found, one)

    def put(self, holder: Any, key: Any, value: Any) -> None:
        """``holder[key]`` is ``value``, and goes up so."""
        if (type(holder) is dict and key not in holder) or holder[key] != value:
            holder[key] = value
            self.changed.add(self.place)


Rule = Callable[[Check, str, Any], None]
"""Raises unless a field, by its name, may have a value."""


def items(param: str, value: Any) -> list[Any]:
    """The elements of a list; null is an empty one. Raises ``invalid_json``."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Refusal("invalid_json", f"The field {param} must be a list.", param=param)
    return value
