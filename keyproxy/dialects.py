"""How calls are written: one value for each kind of call, and no code that acts on them.

Plain values that import nothing of ours, so that settings, policy, money and upstream all read
the same ones. Which rule a field follows is a word here; ``policy.fields`` says what it means.

Chat completions and those of one text are as OpenAI's SDKs write them and OpenRouter extends them,
as are OpenAI's Responses; Messages as Anthropic's SDKs write them. November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from keyproxy.dataclass import dataclass, field

_EVERYWHERE = {
    **dict.fromkeys(("user", "metadata", "session_id"), "free"),
    **dict.fromkeys(("model", "models"), "model"),
    "stream": "stream",
    "provider": "provider",
}


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def table(**by_rule: str) -> Mapping[str, str]:
    """A dialect's fields from the names that follow each rule, and those of every dialect."""
    told = {name: rule for rule, listed in by_rule.items() for name in listed.split()}
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


_SAMPLING = (
    "temperature top_p top_k top_a min_p frequency_penalty presence_penalty repetition_penalty"
    " logit_bias logprobs top_logprobs seed stop stream_options max_tokens "
)
CHAT = Dialect(
    name="chat",
    path="/chat/completions",
    is_usual=True,
    fields=table(
        free=_SAMPLING
        + "max_completion_tokens response_format parallel_tool_calls reasoning reasoning_effort"
        " verbosity prompt_cache_key safety_identifier structured_outputs usage include_reasoning",
        conversation="messages",
        prediction="prediction",
        tools="tools",
        choice="tool_choice",
        plugins="plugins",
        stop_conditions="stop_server_tools_when",
        web="web_search_options",
        modalities="modalities",
        images="image_config",
        audio="audio",
        one="n",
        off="store",
        tier="service_tier",
        lifetime="cache_control",
        cache_options="prompt_cache_options",
        retention="prompt_cache_retention",
        transforms="transforms",  # the older name of the plugin context-compression
        flag="require_parameters",  # Home Assistant puts it here, not in `provider`
        functions="functions",  # and these of tools and tool_choice
        function_call="function_call",
    ),
    priced_by="answer",
    lengths=("max_tokens", "max_completion_tokens"),
    budgets=(("reasoning", "max_tokens"),),
    efforts=(("reasoning_effort",), ("reasoning", "effort"), ("verbosity",)),
    own_tools=("function", "custom"),
    may_name_sound=True,
)
COMPLETIONS = Dialect(
    name="completions",
    path="/completions",
    fields=table(free=_SAMPLING + "suffix echo", prompts="prompt", one="n best_of"),
    priced_by="answer",
    texts="prompt",
    lengths=("max_tokens",),
)


RESPONSES = Dialect(
    name="responses",
    path="/responses",
    is_usual=True,
    fields=table(
        free=(
            "temperature top_p top_k frequency_penalty presence_penalty top_logprobs stop"
            " stream_options include max_output_tokens parallel_tool_calls reasoning"
            " safety_identifier prompt_cache_key text truncation"
            " max_tool_calls"  # an upper bound, never more than without it
        ),
        conversation="input",
        text="instructions",
        tools="tools",
        choice="tool_choice",
        plugins="plugins",
        stop_conditions="stop_server_tools_when",
        modalities="modalities",
        images="image_config",
        off="background store",
        tier="service_tier",
        lifetime="cache_control",
        cache_options="prompt_cache_options",
        retention="prompt_cache_retention",
        compaction="context_management",
        image="image",
        texts="client_metadata",  # of Codex, in each call
    ),
    priced_by="answer",
    lengths=("max_output_tokens",),
    budgets=(("reasoning", "max_tokens"),),
    efforts=(("reasoning", "effort"), ("text", "verbosity")),
    tool_calls="max_tool_calls",
    own_tools=("function", "custom", "namespace"),
    flat_tools=("image_generation",),
    may_search_tools=True,
    may_name_items=True,
    usage_in_events=(("response", "usage"),),
    needles=(b'"error"', b'"response"', b"[DONE]"),
)


MESSAGES = Dialect(
    name="messages",
    path="/messages",
    is_usual=True,
    query="beta=true",  # its SDKs send it with every beta call
    fields=table(
        free="max_tokens stop_sequences temperature thinking top_k top_p output_config",
        conversation="messages system",
        tools="tools",
        choice="tool_choice",
        plugins="plugins",
        stop_conditions="stop_server_tools_when",
        edits="context_management",
        summary="compaction",
        region="inference_geo",
        fallbacks="fallbacks",
        speed="speed",
        tier="service_tier",
        lifetime="cache_control",
    ),
    priced_by="answer",
    lengths=("max_tokens",),
    budgets=(("thinking", "budget_tokens"),),
    efforts=(("output_config", "effort"),),
    own_tools=("custom", "", "function"),
    usage_in_events=(("message", "usage"), ("usage",)),
    needles=(b'"error"', b"message_stop", b"[DONE]"),
    counts_cache_apart=True,
    errors="anthropic",
    # With this its SDKs go on without a thread (their `lib/threads`, state November 2026).
    details=MappingProxyType(
        {"thread": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}}
    ),
    forwarded=("anthropic-version", "anthropic-beta"),
)


EMBEDDINGS = Dialect(
    name="embeddings",
    path="/embeddings",
    fields=table(free="encoding_format dimensions input_type", conversation="input"),
    priced_by="input",
    texts="input",
)
RERANK = Dialect(
    name="rerank",
    path="/rerank",
    fields=table(free="query documents top_n return_documents"),
    priced_by="pairs",
)
IMAGES = Dialect(
    name="images",
    path="/images",
    fields=table(
        free="prompt size quality background output_format response_format aspect_ratio"
        " resolution seed output_compression safety_identifier style",
        conversation="input_images input_references",
        one="n",
    ),
    answers_with_media=True,
)
SPEECH = Dialect(
    name="speech",
    path="/audio/speech",
    fields=table(
        free="voice instructions response_format speed stream_format",
        conversation="input input_references",
    ),
    answers_with_media=True,
)
TRANSCRIPTIONS = Dialect(
    name="transcriptions",
    path="/audio/transcriptions",
    fields=table(
        free="language prompt response_format temperature timestamp_granularities",
        conversation="input_audio",
    ),
)

_OF_TEXT = (CHAT, RESPONSES, MESSAGES, COMPLETIONS, EMBEDDINGS, RERANK)
DIALECTS = (*_OF_TEXT, IMAGES, SPEECH, TRANSCRIPTIONS)
"""Each in which a model can be called."""

CATALOGUE = Dialect(name="catalogue", path="", fields={})
"""Lists of models: asked for without a body."""
