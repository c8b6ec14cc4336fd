"""What of a request changes for a home: a closed list, and nothing else ever does. Pure.

No edit adds a model, a tool, a tier or a length. A field with a meaning is never left out: where
it is not taken, the call goes elsewhere, and the reason names it. What each provider takes:
``upstream/takes.py``; why it is so: docs/providers.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from types import MappingProxyType
from typing import Any

from keyproxy.call import Said
from keyproxy.dataclass import dataclass, field
from keyproxy.dialects import Dialect, names
from keyproxy.errors import KeyproxyError
from keyproxy.strict_json.body import whole_number
from keyproxy.upstream.takes import Takes

FOR_THE_ROUTER = names("models fallbacks provider require_parameters session_id transforms route")
"""Fields that say how a call finds its home: that is done when it has one."""
_USUAL: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "background": (False,),
        "frequency_penalty": (0,),
        "logit_bias": ({},),
        "logprobs": (False,),
        "min_p": (0,),
        "modalities": (["text"],),
        "n": (1,),
        "parallel_tool_calls": (True,),
        "presence_penalty": (0,),
        "repetition_penalty": (1,),
        "response_format": ({"type": "text"},),
        "service_tier": ("auto", "default", "standard", "standard_only"),
        "speed": ("standard",),
        "store": (False,),
        "temperature": (1,),
        "tool_choice": ("auto",),
        "top_a": (0,),
        "top_k": (0,),
        "top_logprobs": (0,),
        "top_p": (1,),
        "truncation": ("disabled",),
    }
)
"""Values that ask for what is done without the field, too."""
_OF_SERVER_TOOLS = frozenset({"max_tool_calls", "stop_server_tools_when"})
_SAID_WITH_EFFORT = MappingProxyType({"enabled": True, "exclude": False})
"""What says nothing more in ``reasoning`` beside an effort."""
_NAMED = names("properties patternProperties $defs definitions")
"""Of a JSON schema: others stand in these under names of the caller's."""
_ONLY_NULL = frozenset({"refusal", "audio"})
"""Keys of an echoed answer that mean something unless they are null."""
_PARTS = names("text image_url input_audio file")
_CALL_OF_TOOL = names("id type function")
_SEALS = names("extra_content")  # Google's, of what it thought
_MARKS = names("cache_control index")
"""What stands in parts and calls of tools, and says nothing to those who do not know it: they cache
what they have read, marked or not; the place of a call in a stream."""
_NAME = re.compile("[a-z][a-z0-9_]{0,40}")  # of a key: a stranger may have chosen another
_REMARKS = frozenset({"name"})
"""Keys that an answer repeats, but with which other turns say something."""


class Unfit(KeyproxyError):
    """A home does not take the call as it is; ``param`` is the field with the meaning."""

    def __init__(self, param: str) -> None:
        super().__init__(param)
        self.param = param


@dataclass(slots=True)
class Edits:
    """What changes of a call for one home. ``changes``: top-level fields with what they hold there;
    ``dropped``: those that were left out, which its caller is told; ``respelled``: those that
    stand under another name."""

    changes: dict[str, Any] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    respelled: list[str] = field(default_factory=list)

    def body(self, said: Said) -> bytes:
        """What goes up; the very bytes that came where nothing changes."""
        return said.write(self.changes, (*self.dropped, *self.respelled))


def edits_for(said: Said, dialect: Dialect, takes: Takes, native_id: str) -> Edits:
    """What must change of a call so that a home takes it. Raises ``Unfit``."""
    edits = Edits()
    if native_id != said.fields.get("model"):
        edits.changes["model"] = native_id
    if takes.fields is None:
        return edits
    _look_within(said, takes)
    spelled = _spell_length(edits, said, dialect, takes) | _spell_effort(edits, said, takes.fields)
    for name, value in said.fields.items():
        if name in spelled:
            continue
        if name not in said.asking:  # null or empty, which some refuse
            edits.dropped.append(name)
        elif name in takes.fields:
            continue
        elif name in takes.drops or name in FOR_THE_ROUTER or _is_usual(said, name, value):
            edits.dropped.append(name)
        else:
            raise Unfit(name)
    if takes.asks_usage and said.fields.get("stream") is True:
        options = said.fields.get("stream_options")
        options = options if isinstance(options, dict) else {}
        if options.get("include_usage") is not True:
            edits.changes["stream_options"] = options | {"include_usage": True}
    if takes.stores and said.fields.get("store") is not False:
        edits.changes["store"] = False
    if takes.strict_turns:
        _shorten_turns(edits, said, takes)
    edits.dropped = [name for name in edits.dropped if name not in edits.changes]
    return edits


def _look_within(said: Said, takes: Takes) -> None:
    """Raises ``Unfit`` for what is refused in fields that are taken."""
    reasoning, text = said.fields.get("reasoning"), said.fields.get("text")
    if not takes.has_effort and isinstance(reasoning, dict) and reasoning.get("effort"):
        raise Unfit("reasoning.effort")
    form = text.get("format") if isinstance(text, dict) else None
    places = {"response_format": said.fields.get("response_format"), "text.format": form}
    for name, value in places.items():
        is_schema = isinstance(value, dict) and value.get("type") == "json_schema"
        if is_schema and not takes.has_schemas:
            raise Unfit(name)
    if takes.schema_words:
        for name, value in (*places.items(), ("tools", said.fields.get("tools"))):
            if (word := _keyword(value, takes.schema_words)) is not None:
                raise Unfit(f"{name}: {word}")


def _keyword(value: Any, words: frozenset[str]) -> str | None:
    """One of the keywords of JSON schemas that stands in ``value``; not as what a property is
    called."""
    left = [(value, False)]
    while left:
        value, are_names = left.pop()
        if isinstance(value, dict):
            if not are_names and (found := words & value.keys()):
                return min(found)
            left += [(inner, name in _NAMED and not are_names) for name, inner in value.items()]
        elif isinstance(value, list):
            left += [(inner, False) for inner in value]
    return None


def _is_usual(said: Said, name: str, value: Any) -> bool:
    if name in _OF_SERVER_TOOLS:
        return not said.server_tools
    return value in _USUAL.get(name, ())


def _spell_length(edits: Edits, said: Said, dialect: Dialect, takes: Takes) -> set[str]:
    """The length stands under one name, the one that is taken, and is the shorter of two; which
    names are done with."""
    told = [name for name in dialect.lengths if name in said.asking]
    lengths = {name: whole_number(said.fields[name]) for name in told}
    bounds = {name: n for name, n in lengths.items() if n is not None and n >= 0}
    taken: str | None = takes.length if takes.length in dialect.lengths else None
    if taken is None and len(told) < 2:
        return set()
    if not bounds:  # -1 asks for no bound, which only routers know
        edits.dropped += told
        return set(told)
    shorter = min(bounds, key=bounds.__getitem__)
    name = taken or shorter
    edits.respelled += [each for each in told if each != name]
    if lengths.get(name) != bounds[shorter]:
        edits.changes[name] = bounds[shorter]
    return set(told)


def _spell_effort(edits: Edits, said: Said, taken: frozenset[str]) -> set[str]:
    """``reasoning`` that says how hard to think, and nothing else, may stand under the other name
    where only that is taken; which names are done with."""
    other, reasoning = "reasoning_effort", said.fields.get("reasoning")
    if "reasoning" in taken or other not in taken:
        return set()
    if "reasoning" not in said.asking or not isinstance(reasoning, dict):
        return set()
    meant = {name: value for name, value in reasoning.items() if value is not None}
    effort = meant.pop("effort", None)
    is_all = all(_SAID_WITH_EFFORT.get(name) is value for name, value in meant.items())
    if effort is None or not is_all or said.fields.get(other) not in (None, effort):
        return set()
    edits.respelled.append("reasoning")
    if said.fields.get(other) != effort:
        edits.changes[other] = effort
    return {"reasoning"}


def _shorten_turns(edits: Edits, said: Said, takes: Takes) -> None:
    """Echoed answers without what only came with them. Raises ``Unfit``."""
    turns = said.fields.get("messages")
    if not isinstance(turns, list):
        return
    gone: set[str] = set()
    shortened = [_shortened(turn, takes, gone) for turn in turns]
    if gone:
        edits.changes["messages"] = shortened
        edits.dropped += sorted(gone)


def _shortened(turn: Any, takes: Takes, gone: set[str]) -> Any:
    if not isinstance(turn, dict):
        return turn
    left_out = set(_gone(turn, takes.strict_turns))
    gone |= {f"messages.{name}" for name in left_out}
    kept = {name: value for name, value in turn.items() if name not in left_out}
    if takes.turn is None:
        return kept
    kept = _known(kept, takes.turn, "messages", gone)
    if isinstance(parts := kept.get("content"), list):
        kept["content"] = [
            _known(part, {"type", _kind(part)}, "messages.content", gone) for part in parts
        ]
    if isinstance(calls := kept.get("tool_calls"), list):
        keys = _CALL_OF_TOOL | (takes.turn & _SEALS)
        kept["tool_calls"] = [_known(call, keys, "messages.tool_calls", gone) for call in calls]
    return kept


def _kind(part: Any) -> str:
    """Of a part of a message, under which its words or its data stand. Raises ``Unfit``."""
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in _PARTS:
        raise Unfit("messages.content.type")
    return kind


def _known(value: Any, keys: Set[str], place: str, gone: set[str]) -> Any:
    """``value`` with no other keys than these: some say nothing, and are left out. Raises
    ``Unfit``."""
    if not isinstance(value, dict) or value.keys() <= keys:
        return value
    for name in value.keys() - keys:
        if value[name] is not None and name not in _MARKS:
            raise Unfit(f"{place}.{name}" if _NAME.fullmatch(name) else place)
        gone.add(f"{place}.{name}" if _NAME.fullmatch(name) else place)
    return {name: inner for name, inner in value.items() if name in keys}


def _gone(turn: Mapping[str, Any], keys: frozenset[str]) -> Iterator[str]:
    is_answer = turn.get("role") in ("assistant", "tool")
    for name in keys & turn.keys():
        means_something = name in _ONLY_NULL if is_answer else name in _REMARKS
        if turn[name] is not None and means_something:
            raise Unfit(f"messages.{name}")
        if is_answer or turn[name] is None:
            yield name
