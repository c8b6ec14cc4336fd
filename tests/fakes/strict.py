"""Bodies are judged as the vendors judge them: what each takes, and what it says to the rest.

Lists: the vendors' API references; what was seen to fail: threads of proxies and clients, 2026.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.fakes.vendor import Complaint, Json, Model, Strictness

_COMMON = frozenset(
    {
        *("messages", "model", "temperature", "top_p", "stop", "stream", "tools", "tool_choice"),
        *("response_format", "max_tokens"),
    }
)
_PARTS = {
    "text": frozenset({"type", "text"}),
    "image_url": frozenset({"type", "image_url"}),
}
_CALL = frozenset({"id", "type", "function"})

OPENAI_CHAT = Strictness(
    fields=_COMMON
    | {
        *("audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs"),
        *("max_completion_tokens", "metadata", "modalities", "moderation", "n", "prediction"),
        *("parallel_tool_calls", "presence_penalty", "prompt_cache_key", "prompt_cache_retention"),
        *("reasoning_effort", "safety_identifier", "seed", "service_tier", "store", "user"),
        *("stream_options", "top_logprobs", "verbosity", "web_search_options"),
    },
    needed=frozenset({"messages"}),
)
OPENAI_RESPONSES = Strictness(
    fields=frozenset(
        {
            *("background", "conversation", "include", "input", "instructions", "metadata"),
            *("max_output_tokens", "max_tool_calls", "model", "parallel_tool_calls", "text"),
            *("previous_response_id", "prompt", "prompt_cache_key", "prompt_cache_retention"),
            *("reasoning", "safety_identifier", "service_tier", "store", "stream", "tools"),
            *("stream_options", "temperature", "tool_choice", "top_logprobs", "top_p", "user"),
            *("truncation", "context_management"),
        }
    ),
    needed=frozenset({"input"}),
)
EMBEDDINGS = Strictness(
    fields=frozenset({"input", "model", "encoding_format", "dimensions", "user"}),
    needed=frozenset({"input"}),
)
ANTHROPIC_MESSAGES = Strictness(
    fields=frozenset(
        {
            *("model", "messages", "max_tokens", "system", "metadata", "stop_sequences", "stream"),
            *("temperature", "top_k", "top_p", "tools", "tool_choice", "thinking", "cache_control"),
            *("service_tier", "container", "context_management", "mcp_servers", "inference_geo"),
            *("output_config", "speed"),
        }
    ),
    needed=frozenset({"messages", "max_tokens"}),
    of_message=frozenset({"role", "content"}),
    of_part={
        "text": frozenset({"type", "text", "cache_control", "citations"}),
        "image": frozenset({"type", "source", "cache_control"}),
        "document": frozenset({"type", "source", "cache_control", "citations", "context", "title"}),
        "thinking": frozenset({"type", "thinking", "signature"}),
        "redacted_thinking": frozenset({"type", "data"}),
        "tool_use": frozenset({"type", "id", "name", "input", "cache_control", "caller"}),
        "tool_result": frozenset({"type", "tool_use_id", "content", "is_error", "cache_control"}),
    },
    betas=frozenset({"context-1m-2025-08-07", "interleaved-thinking-2025-05-14"}),
)
ANTHROPIC_CHAT = Strictness(only={"n": (1,)}, needed=frozenset({"messages"}))
GEMINI_CHAT = Strictness(
    fields=_COMMON
    | {
        *("max_completion_tokens", "n", "presence_penalty", "reasoning_effort", "seed"),
        *("stream_options", "parallel_tool_calls", "extra_body"),
    },
    needed=frozenset({"messages"}),
    of_message=frozenset(
        {"role", "content", "name", "tool_calls", "tool_call_id", "extra_content"}
    ),
    of_part=_PARTS | {"input_audio": frozenset({"type", "input_audio"})},
    of_tool_call=_CALL | {"extra_content"},
)
GROQ_CHAT = Strictness(
    fields=_COMMON
    | {
        *("max_completion_tokens", "n", "frequency_penalty", "presence_penalty", "seed", "user"),
        *("stream_options", "parallel_tool_calls", "reasoning_effort", "reasoning_format"),
        *("include_reasoning", "service_tier", "search_settings", "documents"),
    },
    only={"n": (1,)},
    needed=frozenset({"messages"}),
    of_message=frozenset({"role", "content", "tool_calls", "tool_call_id"}),
    of_part=_PARTS,
    of_tool_call=_CALL,
)
GROQ_RESPONSES = Strictness(
    fields=frozenset(
        {
            *("input", "instructions", "max_output_tokens", "metadata", "model", "service_tier"),
            *("parallel_tool_calls", "reasoning", "stream", "temperature", "text", "tool_choice"),
            *("tools", "top_p", "user"),
        }
    ),
    needed=frozenset({"input"}),
)
CEREBRAS_CHAT = Strictness(
    fields=_COMMON
    | {
        *("max_completion_tokens", "n", "seed", "user", "stream_options", "parallel_tool_calls"),
        *("logprobs", "top_logprobs", "reasoning_effort", "reasoning_format", "service_tier"),
    },
    needed=frozenset({"messages"}),
    of_message=frozenset({"role", "content", "tool_calls", "tool_call_id", "name"}),
    of_part=_PARTS,
    of_tool_call=_CALL,
    schema_words=frozenset({"minItems", "maxItems"}),
)
MISTRAL_CHAT = Strictness(
    fields=_COMMON
    | {
        *("frequency_penalty", "presence_penalty", "random_seed", "parallel_tool_calls"),
        *("prediction", "prompt_mode", "reasoning_effort", "safe_prompt"),
    },
    never_empty=frozenset({"tools"}),
    needed=frozenset({"messages"}),
    of_message=frozenset({"role", "content", "tool_calls", "tool_call_id", "prefix"}),
    of_part=_PARTS | {"thinking": frozenset({"type", "thinking", "closed"})},
    of_tool_call=_CALL | {"index"},
)
MISTRAL_EMBEDDINGS = Strictness(
    fields=frozenset({"input", "model", "encoding_format", "output_dimension", "output_dtype"}),
    needed=frozenset({"input"}),
)
XAI_CHAT = Strictness(
    refused=frozenset({"presence_penalty", "frequency_penalty"}), needed=frozenset({"messages"})
)
TOLERANT = Strictness()

_SAMPLING = ("temperature", "top_p", "top_k")
_NO_SAMPLING_FROM = "2026-10-21"


def complaint(
    body: Json, rules: Strictness, model: Model, version: str | None = None, betas: str = ""
) -> Complaint | None:
    """The first thing in ``body`` that the vendor takes offence at."""
    return next(_complaints(body, rules, model, version, betas), None)


def _complaints(
    body: Json, rules: Strictness, model: Model, version: str | None, betas: str
) -> Iterator[Complaint]:
    for beta in filter(None, (beta.strip() for beta in betas.split(","))):
        if rules.betas is not None and beta not in rules.betas:
            yield Complaint("value", ("anthropic-beta",), beta)
    for name in sorted(rules.needed - body.keys()):
        yield Complaint("value", (name,), "Field required")
    yield from _of_fields(body, rules, model)
    if (version or "") >= _NO_SAMPLING_FROM:
        yield from (Complaint("unknown", (name,)) for name in _SAMPLING if name in body)
    messages = body.get("messages")
    if messages is not None:
        yield from _of_messages(messages, rules)
    places = [("tools", body.get("tools")), ("response_format", body.get("response_format"))]
    for name, value in places:
        yield from _schema_words(value, rules.schema_words, (name,))
    if not model.reads_images and _has_image(body):
        yield Complaint("value", ("messages",), "This model does not support image input")


def _of_fields(body: Json, rules: Strictness, model: Model) -> Iterator[Complaint]:
    reasoning = body.get("reasoning") or {}
    effort = body.get("reasoning_effort", reasoning.get("effort"))
    refused = model.refuses | (model.unless_idle if effort != "none" else frozenset())
    if "reasoning_effort" in refused and reasoning.get("effort"):
        yield Complaint("unsupported", ("reasoning", "effort"))
    form = body.get("response_format") or (body.get("text") or {}).get("format") or {}
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if model.writes is not None and (body.get(name) or 0) > model.writes:
            yield Complaint("value", (name,), f"This model writes at most {model.writes} tokens")
    if "json_schema" in refused and form.get("type") == "json_schema":
        text = "This model does not support response format `json_schema`"
        yield Complaint("value", ("response_format",), text)
    for name, value in body.items():
        if rules.fields is not None and name not in rules.fields:
            yield Complaint("unknown", (name,))
        elif name in rules.refused or name in refused:
            yield Complaint("unsupported", (name,))
        elif name in rules.only and value not in rules.only[name]:
            yield Complaint("value", (name,), f"must be one of {list(rules.only[name])}")
        elif name in rules.never_empty and not value:
            yield Complaint("value", (name,), "must not be empty")
    if model.wants == "max_completion_tokens" and body.get("max_tokens") is not None:
        yield Complaint("unsupported", ("max_tokens",), "Use 'max_completion_tokens' instead.")


def _of_messages(messages: Any, rules: Strictness) -> Iterator[Complaint]:
    if not isinstance(messages, list) or not messages:
        yield Complaint("value", ("messages",), "must be a list with something in it")
        return
    asked: set[str] = set()
    for at, message in enumerate(messages):
        where = ("messages", at)
        if rules.of_message is not None:
            for name in message.keys() - rules.of_message:
                yield Complaint("unknown", (*where, name))
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        for number, part in enumerate(parts):
            yield from _of_part(part, rules, (*where, "content", number))
        calls = message.get("tool_calls") or []
        for number, call in enumerate(calls):
            if rules.of_tool_call is not None:
                for name in call.keys() - rules.of_tool_call:
                    yield Complaint("unknown", (*where, "tool_calls", number, name))
        asked |= {call["id"] for call in calls}
        asked |= {part["id"] for part in parts if part.get("type") == "tool_use"}
        told = [part["tool_use_id"] for part in parts if part.get("type") == "tool_result"]
        if message.get("role") == "tool":
            told.append(message.get("tool_call_id"))
        for id in told:
            if id not in asked:
                yield Complaint("value", where, f"no call of a tool has the id {id!r}")


def _of_part(part: Json, rules: Strictness, where: tuple[str | int, ...]) -> Iterator[Complaint]:
    if rules.of_part is None:
        return
    names = rules.of_part.get(str(part.get("type")))
    if names is None:
        yield Complaint("value", (*where, "type"), f"{part.get('type')!r} is no type of content")
        return
    for name in part.keys() - names:
        yield Complaint("unknown", (*where, name))


def _schema_words(
    value: Any, words: frozenset[str], where: tuple[str | int, ...]
) -> Iterator[Complaint]:
    if isinstance(value, dict):
        are_names = where[-1] in ("properties", "$defs") and where[-2:-1] != ("properties",)
        for name, inner in value.items():
            if name in words and not are_names:
                yield Complaint("unsupported", (*where, name))
            yield from _schema_words(inner, words, (*where, name))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _schema_words(inner, words, (*where, at))


def _has_image(value: Any) -> bool:
    if isinstance(value, dict):
        is_one = value.get("type") in ("image", "image_url", "input_image")
        return is_one or any(map(_has_image, value.values()))
    return isinstance(value, list) and any(map(_has_image, value))


def unsealed(body: Json, issuer: str, stored: list[str]) -> Complaint | None:
    """Reasoning that another has sealed, or that nobody keeps."""
    own = f"sealed-by-{issuer}"
    for message in body.get("messages") or []:
        content = message.get("content")
        for part in content if isinstance(content, list) else []:
            if part.get("type") == "thinking" and part.get("signature") != own:
                return Complaint("value", ("messages",), "Invalid `signature` in `thinking` block")
    items = body.get("input")
    for item in items if isinstance(items, list) else []:
        if item.get("type") == "item_reference" and item.get("id") not in stored:
            return Complaint("value", ("input",), "Items are not persisted when `store` is false.")
        if item.get("type") == "reasoning" and item.get("encrypted_content") != own:
            return Complaint("value", ("input",), "The encrypted content could not be verified.")
    return None
