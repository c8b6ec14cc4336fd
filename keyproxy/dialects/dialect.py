"""What a dialect is: all that differs between the shapes in which calls are written and answered.

Plain values that import nothing of ours, so that settings, policy, money and upstream all read
the same ones. Which rule a field follows is a word here; ``policy.fields`` says what it means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

_EVERYWHERE = {
    **dict.fromkeys(("user", "metadata", "session_id"), "free"),
    **dict.fromkeys(("model", "models"), "model"),
    "stream": "stream",
    "provider": "provider",
}


def table(**names: str) -> Mapping[str, str]:
    """A dialect's fields from the names that follow each rule, and those of every dialect."""
    told = {name: rule for rule, listed in names.items() for name in listed.split()}
    return MappingProxyType(_EVERYWHERE | told)


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Dialect:
    """The request and answer shapes of one kind of call. Each is itself and equals no other.

    - ``path``: what is called, behind the base address; ``is_usual``: unless settings say
      otherwise, too. ``query``: the one query that it takes.
    - ``fields``: every top-level field that may be said, with the word of its rule.
    - ``lengths``: those that bound the answer, the first of which is filled in; ``budgets`` and
      ``efforts``: where it is said how long and how hard to think; ``tool_calls``: how often
      tools may run upstream.
    - ``priced_by``: the tokens of its input and its answer, of the input alone, those of a query
      and each document, or nothing that a price list tells; ``texts``: the field of those that
      are read apart.
    - ``own_tools``: types of tools that the caller runs itself; "" is a tool without a type, or
      null. ``flat_tools``: those of the upstream whose settings stand beside their type;
      ``may_search_tools``: the caller may be the one that searches for tools.
    - ``may_name_items``, ``may_name_sound``: its conversation may refer to items, to answers in
      sound, that the upstream stores.
    - ``usage_in_events``: where usage stands in a stream; ``needles``: what is in an event that
      is an error or an end.
    - ``counts_cache_apart``: cached tokens are none of the input's, and each event only adds to
      what was said before.
    - ``errors``: whose error shape; ``details``: what a refusal of a field says beside its
      message. ``forwarded``: what passes from a client's head. ``answers_with_media``: its
      answers may be sound or images.
    """

    name: str
    path: str
    fields: Mapping[str, str]
    is_usual: bool = False
    query: str = ""
    lengths: tuple[str, ...] = ()
    budgets: tuple[tuple[str, str], ...] = ()
    efforts: tuple[tuple[str, ...], ...] = ()
    tool_calls: str = ""
    priced_by: Literal["answer", "input", "pairs", ""] = ""
    texts: str = ""
    own_tools: tuple[str, ...] = ()
    flat_tools: tuple[str, ...] = ()
    may_search_tools: bool = False
    may_name_items: bool = False
    may_name_sound: bool = False
    usage_in_events: tuple[tuple[str, ...], ...] = (("usage",), ("x_groq", "usage"))
    needles: tuple[bytes, ...] = (b'"error"', b"[DONE]")
    counts_cache_apart: bool = False
    errors: Literal["openai", "anthropic"] = "openai"
    details: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    forwarded: tuple[str, ...] = ()
    answers_with_media: bool = False

    def __repr__(self) -> str:
        return f"<dialect {self.name}>"
