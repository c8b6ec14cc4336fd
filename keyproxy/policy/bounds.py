"""What a call asks for, as far as it decides the price: sizes and counts, upper bounds. Pure.

A token is at least one byte of the body: byte-level BPE and byte fallback never make more
tokens than there are bytes, and JSON never spells a text in fewer. Images are counted, not
measured. What is not known here is taken for the dearest that it could be. Shapes: OpenRouter's
OpenAPI document and SDKs, state November 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from keyproxy.call import Ask
from keyproxy.policy.check import Check, Seen
from keyproxy.strict_json.body import whole_number

TEMPLATE_TOKENS = 1024
"""What templates put around a conversation: tool preambles of Anthropic and Grok's hidden prompt
stay below 700 tokens."""
INPUT_TOKENS = 16
"""The same, for each text to embed or rank."""
MOST = 10**9
"""Tokens of an answer: more is as good as no bound, and too much to reckon with."""
MAX_ROUNDS = 30  # of tools that run upstream, in one call: OpenRouter's default and maximum


def ask_of(check: Check, body: Mapping[str, Any], raw_bytes: int) -> Ask:
    """What ``body``, as it goes up and ``raw_bytes`` long, asks for; never raises.

    ``check``: of the walk through it.
    """
    dialect, seen = check.dialect, check.seen
    if not dialect.priced_by:
        return Ask(raw_bytes, is_unbounded=True, part="a call of this endpoint")
    if dialect.priced_by == "pairs":
        return _pairs(seen, body, raw_bytes)
    contexts = _count(body.get(dialect.texts)) if dialect.texts else 1
    times = 2 if seen.compacts else 1  # read for a summary, written as output; then for the answer
    writes = dialect.priced_by == "answer"
    around = TEMPLATE_TOKENS if writes else INPUT_TOKENS * contexts
    text_tokens = max(0, raw_bytes - seen.image_bytes) + around
    tool_calls = 0
    if seen.runs_tools or seen.searches:
        tool_calls = min(_positive(body.get(dialect.tool_calls)) or MAX_ROUNDS, MAX_ROUNDS)
    lengths: dict[str, int | None] = {}
    for name in dialect.lengths:
        if name in body and body[name] is not None:
            lengths[name] = _positive(body[name])
    thinking = 0  # tokens, if a number of them is asked for
    for outer, inner in dialect.budgets:
        if outer in body and type(body[outer]) is dict:
            thinking += _positive(body[outer].get(inner)) or 0
    cap = _output_cap(lengths.values(), thinking) if lengths else None
    answers = times * seen.answers * contexts if writes else 0
    ask = Ask(times * text_tokens, cap, answers, times * contexts, 1 + tool_calls)
    ask.length_fields, ask.reasoning_tokens = tuple(lengths) or dialect.lengths[:1], thinking
    if seen.is_something:
        ask.images = times * seen.images
        # A prediction that does not come true is billed as output, beyond the cap.
        ask.predicted_tokens = text_tokens if seen.predicts else 0
        ask.searches, ask.results = tool_calls if seen.searches else 0, seen.results
        ask.has_media, ask.has_files = seen.has_media, seen.has_files
        ask.has_long_cache = seen.has_long_cache
        ask.is_unbounded, ask.part = seen.is_unbounded, seen.what
    return ask


def _pairs(seen: Seen, body: Mapping[str, Any], raw_bytes: int) -> Ask:
    """Token by token the query is read once for each document; by the search, a hundred pieces
    of 500 tokens are one (Cohere)."""
    listed, query = body.get("documents"), body.get("query")
    documents = _count(listed)
    query_bytes = 4 * len(query) if isinstance(query, str) else raw_bytes
    texts = [query, *listed] if isinstance(listed, list) else [None]
    is_text = all(isinstance(text, str) for text in texts)
    return Ask(
        text_tokens=raw_bytes + (query_bytes + INPUT_TOKENS) * documents,
        answers=0,
        contexts=documents,
        requests=1 + documents // 100 + raw_bytes // 50_000,
        is_unbounded=seen.is_unbounded or not is_text,
        part=seen.what if is_text else "a document that is no text",
    )


def _output_cap(lengths: Iterable[int | None], thinking: int) -> int | None:
    """Tokens of one answer, thinking included; None where the call sets no bound."""
    cap = 0
    for length in lengths:
        if length is None:
            return None  # 0 may be read as no cap at all, and -1 is none
        cap = length if length > cap else cap
    return cap + thinking if thinking >= cap else cap


def _count(value: Any) -> int:
    """How many texts ``value`` is; a list of numbers is one, as tokens."""
    if not isinstance(value, list) or not value or whole_number(value[0]) is not None:
        return 1
    return len(value)


def _positive(value: Any) -> int | None:
    number = whole_number(value)
    if number is None or number <= 0:
        return None
    return number if number < MOST else MOST
