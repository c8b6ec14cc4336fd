"""What a call asks for, as far as it decides the price: sizes and counts, upper bounds. Pure.

A token is at least one byte of the body: byte-level BPE and byte fallback never make more tokens
than there are bytes, and JSON never spells a text in fewer. Images are counted, not measured.
What is not known here is taken for the dearest that it could be. Shapes: OpenRouter's OpenAPI
document and SDKs, state November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyproxy.call import Ask
from keyproxy.dialects import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MESSAGES,
    RERANK,
    RESPONSES,
    Dialect,
)
from keyproxy.money.parts import (
    MAX_RESULTS,
    MAX_TOOL_CALLS,
    Seen,
    extras,
    has_only,
    walk,
)
from keyproxy.values import whole_number

TEMPLATE_TOKENS = 1024
"""What templates put around a conversation: tool preambles of Anthropic and Grok's hidden prompt
stay below 700 tokens."""
INPUT_TOKENS = 16
"""The same, for each text to embed or rank."""
MOST = 10**9
"""Tokens of an answer: more is as good as no bound, and too much to reckon with."""
ANYTHING = Ask(0, results=MAX_RESULTS, has_media=True, has_long_cache=True)
"""Stands for a call of which only the usage is left."""


def ask_of(dialect: Dialect, body: Mapping[str, Any], raw_bytes: int) -> Ask:
    """What the parsed ``body``, as it goes up and ``raw_bytes`` long, asks for; never raises."""
    if dialect in (CHAT, MESSAGES, RESPONSES):
        return _talk(dialect, body, raw_bytes)
    if dialect is COMPLETIONS:
        return _completions(body, raw_bytes)
    if dialect is EMBEDDINGS:
        return _embeddings(body, raw_bytes)
    if dialect is RERANK:
        return _rerank(body, raw_bytes)
    return Ask(raw_bytes, is_unbounded=True, part="a call of this endpoint")


def _talk(dialect: Dialect, body: Mapping[str, Any], raw_bytes: int) -> Ask:
    seen = Seen()
    asked = _positive(body.get("max_tool_calls")) if dialect is RESPONSES else None
    if asked is not None:
        seen.max_tool_calls = min(asked, MAX_TOOL_CALLS)
    walk(seen, body.get("input" if dialect is RESPONSES else "messages"))
    if dialect is MESSAGES:
        walk(seen, body.get("system"))
    extras(seen, dialect, body)
    text_tokens = max(0, raw_bytes - seen.image_bytes) + TEMPLATE_TOKENS
    times = 2 if seen.compacts else 1  # read for a summary, written as output; then for the answer
    return Ask(
        text_tokens=times * text_tokens,
        max_output_tokens=_output_cap(dialect, body),
        length_fields=_length_fields(dialect, body),
        reasoning_tokens=_reasoning(body),
        answers=times * _answers(body),
        contexts=times,
        rounds=seen.rounds,
        images=times * seen.images,
        # A prediction that does not come true is billed as output, beyond the cap.
        predicted_tokens=text_tokens if body.get("prediction") is not None else 0,
        searches=seen.searches,
        results=seen.results,
        has_media=seen.has_media,
        has_files=seen.has_files,
        has_long_cache=seen.has_long_cache,
        is_unbounded=seen.is_unbounded,
        part=seen.part,
    )


def _completions(body: Mapping[str, Any], raw_bytes: int) -> Ask:
    seen = Seen()
    extras(seen, COMPLETIONS, body)
    contexts = _inputs(body.get("prompt"))
    return Ask(
        text_tokens=raw_bytes + TEMPLATE_TOKENS,
        max_output_tokens=_output_cap(COMPLETIONS, body),
        answers=_answers(body) * contexts,
        contexts=contexts,
        rounds=seen.rounds,
        searches=seen.searches,
        results=seen.results,
        is_unbounded=seen.is_unbounded,
        part=seen.part,
    )


def _embeddings(body: Mapping[str, Any], raw_bytes: int) -> Ask:
    seen = Seen()
    walk(seen, body.get("input"))
    extras(seen, EMBEDDINGS, body)
    contexts = _inputs(body.get("input"))
    return Ask(
        text_tokens=max(0, raw_bytes - seen.image_bytes) + INPUT_TOKENS * contexts,
        answers=0,
        contexts=contexts,
        images=seen.images,
        has_media=seen.has_media,
        has_files=seen.has_files,
        is_unbounded=seen.is_unbounded,
        part=seen.part,
    )


def _rerank(body: Mapping[str, Any], raw_bytes: int) -> Ask:
    """Token by token the query is read once for each document; by the search, a hundred pieces
    of 500 tokens are one (Cohere)."""
    seen = Seen()
    extras(seen, RERANK, body)
    documents, query = _inputs(body.get("documents")), body.get("query")
    query_bytes = 4 * len(query) if isinstance(query, str) else raw_bytes
    is_text = isinstance(query, str) and has_only(body.get("documents"), str)
    return Ask(
        text_tokens=raw_bytes + (query_bytes + INPUT_TOKENS) * documents,
        answers=0,
        contexts=documents,
        requests=1 + documents // 100 + raw_bytes // 50_000,
        is_unbounded=seen.is_unbounded or not is_text,
        part=seen.part if is_text else "a document that is no text",
    )


def _output_cap(dialect: Dialect, body: Mapping[str, Any]) -> int | None:
    """Tokens of one answer, thinking included; None where the call sets no bound."""
    cap = 0
    for name in dialect.lengths:
        said = body.get(name)
        if said is not None:
            length = _positive(said)
            if length is None:
                return None  # 0 may be read as no cap at all, and -1 is none
            cap = max(cap, length)
    thinking = _reasoning(body)
    if cap and thinking >= cap:
        cap += thinking
    return cap or None


def _length_fields(dialect: Dialect, body: Mapping[str, Any]) -> tuple[str, ...]:
    names = dialect.lengths
    return tuple(name for name in names if body.get(name) is not None) or names[:1]


def _reasoning(body: Mapping[str, Any]) -> int:
    """Tokens to think with, if a number of them is asked for."""
    asked = 0
    for outer, inner in (("reasoning", "max_tokens"), ("thinking", "budget_tokens")):
        place = body.get(outer)
        if isinstance(place, dict):
            asked += _positive(place.get(inner)) or 0
    return asked


def _answers(body: Mapping[str, Any]) -> int:
    return max(_positive(body.get("n")) or 1, _positive(body.get("best_of")) or 1)


def _inputs(value: Any) -> int:
    """How many texts ``value`` is; a list of numbers is one, as tokens."""
    if not isinstance(value, list) or not value or whole_number(value[0]) is not None:
        return 1
    return len(value)


def _positive(value: Any) -> int | None:
    number = whole_number(value)
    return min(number, MOST) if number is not None and number > 0 else None
