"""What a provider takes of calls in a dialect, as data; and names of fields that many share."""

from __future__ import annotations

from collections.abc import Mapping, Set
from types import MappingProxyType
from typing import Literal, Self

from keyproxy.dataclass import dataclass, replace
from keyproxy.dialects import names

CHAT = names(
    "model messages stream temperature top_p stop max_tokens max_completion_tokens tools"
    " tool_choice parallel_tool_calls response_format"
)
"""Fields of chat that everybody takes who speaks it at all."""
RESPONSES = names(
    "model input instructions stream temperature top_p max_output_tokens tools tool_choice"
    " parallel_tool_calls reasoning text"
)
"""The same of ``/responses``."""
MESSAGES = names(
    "model messages system stream max_tokens stop_sequences temperature top_p top_k tools"
    " tool_choice thinking metadata"
)
"""The same of Anthropic's messages."""
EMBEDDINGS = names("model input encoding_format")
NOTES = names("user metadata client_metadata usage prompt_cache_key safety_identifier store")
"""Fields that ask nothing of the answer: who asks, what to keep, what to tell of it. A call with
``store`` that is not false is refused by the policy."""
ECHOES = names("reasoning reasoning_content reasoning_details annotations refusal audio name")
"""Keys of answers that strict providers refuse when a client sends its conversation back."""
TURN = names("role content tool_calls tool_call_id")
"""Keys of a message that every provider takes."""
_SAMPLING = names("temperature top_p top_k logprobs top_logprobs")
LACKS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "sampling": _SAMPLING,
        "sampling while thinking": _SAMPLING,
        "penalties": names("frequency_penalty presence_penalty logit_bias"),
        "stop": names("stop"),
        "tools": names("tools tool_choice parallel_tool_calls functions function_call"),
        "effort": names("reasoning_effort"),
        "schemas": frozenset(),
    }
)
"""What some models of a provider lack, as the shipped table says, and the fields that they refuse:
OpenAI's and xAI's that think are not told how to sample, others not how hard to think."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Takes:
    """What a provider takes of calls in one dialect, at that dialect's path behind its base.

    - ``fields``: the top-level fields that it takes, all others are refused there; None: it takes
      any. ``drops``: those without a meaning there, which a call is sent without unless they are
      taken. A field in neither is one with a meaning, and the call must go elsewhere.
    - ``length``: the one spelling of the output's length that it takes, where there are several.
    - ``bounds_length``: an answer that is asked for at more than the model writes is refused.
    - ``asks_usage``: a stream tells its usage only if asked to by ``stream_options``.
    - ``stores``: it keeps what it answered unless the call says ``store: false``.
    - ``strict_turns``: keys of answers that it refuses when they come back in an assistant's
      message; ``refusal`` and ``audio`` only while they are null. ``turn``: all keys that it takes
      in a message, where it refuses any other, and any in parts and calls of tools; None: any.
    - ``inputs``: kinds of input beside text. ``betas``: names in ``anthropic-beta`` that it
      knows; None: it is for it to judge.
    - ``is_bearer``: its key enters as ``Authorization: Bearer`` here, whatever its own form.
    - ``has_effort``, ``has_schemas``: it can be told how hard to think, and by which JSON schema to
      answer. ``schema_words``: keywords of schemas that it refuses, in tools, too.
    - ``opened``: those of ``fields`` that the operator says all its models take.
    - ``is_named_only``: too unlike the dialect to be taken unless the operator names it.
    """

    fields: frozenset[str] | None
    drops: frozenset[str] = NOTES
    length: Literal["max_tokens", "max_completion_tokens"] | None = None
    bounds_length: bool = False
    asks_usage: bool = False
    stores: bool = False
    strict_turns: frozenset[str] = frozenset()
    turn: frozenset[str] | None = None
    inputs: frozenset[str] = frozenset()
    betas: frozenset[str] | None = frozenset()
    is_bearer: bool = False
    is_named_only: bool = False
    has_effort: bool = True
    has_schemas: bool = True
    schema_words: frozenset[str] = frozenset()
    opened: frozenset[str] = frozenset()

    def opening(self, names: frozenset[str]) -> Self:
        """What it takes where the operator knows that it takes fields of these ``names``, too."""
        if self.fields is None:
            return self
        words = frozenset() if "response_format" in names else self.schema_words
        return replace(self, fields=self.fields | names, opened=names, schema_words=words)

    def lacking(self, words: Set[str]) -> Self:
        """What it takes for a model that lacks so much; ``words`` are those of ``LACKS``."""
        if not words or self.fields is None:
            return self
        refused = frozenset().union(*(LACKS.get(word, ()) for word in words)) - self.opened
        return replace(
            self,
            fields=self.fields - refused,
            has_effort="effort" not in words or "reasoning_effort" in self.opened,
            has_schemas="schemas" not in words or "response_format" in self.opened,
        )
