"""What a model's tokens cost, what a call can cost at most, and what it did cost. Pure.

Money is USD as Decimal, computed exactly and then rounded up to a nano-dollar.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, localcontext
from typing import Protocol

from keyproxy.call import ANYTHING, Ask
from keyproxy.price import RESULT_USD, ZERO, Price

_NANO_PLACES = Decimal("1e-9")
_EXACT = Context(prec=120, rounding=ROUND_CEILING)


class Usage(Protocol):
    """What is read of an answer's usage; ``input_tokens`` includes the cached ones."""

    @property
    def input_tokens(self) -> int | None: ...
    @property
    def output_tokens(self) -> int | None: ...
    @property
    def cached_tokens(self) -> int | None: ...
    @property
    def cache_write_tokens(self) -> int | None: ...
    @property
    def reasoning_tokens(self) -> int | None: ...
    @property
    def web_searches(self) -> int | None: ...


def worst_case(price: Price, ask: Ask) -> Decimal | None:
    """The most that ``ask`` can cost, in USD; None where nothing bounds it."""
    cap = _most_output(price, ask)
    bound = None if cap is None else _bound(price, ask)
    if cap is None or bound is None:
        return None
    fixed, per_token = bound
    with localcontext(_EXACT):
        return _rounded(fixed + per_token * cap)


def dearest(prices: Iterable[Price | None], ask: Ask) -> Decimal | None:
    """The worst case of a call that any of several models may answer; only one is paid."""
    worst: Decimal | None = None
    for price in prices:
        cost = None if price is None else worst_case(price, ask)
        if cost is None:
            return None
        worst = cost if worst is None else max(worst, cost)
    return worst


def fitting_max_tokens(price: Price, ask: Ask, budget_left: Decimal) -> int | None:
    """The highest output cap with which ``ask`` fits into ``budget_left``; None if none does."""
    cap, bound = _most_output(price, ask), _bound(price, ask)
    if cap is None or bound is None or not ask.answers:
        return None
    fixed, per_token = bound
    with localcontext(_EXACT):
        left = budget_left.quantize(_NANO_PLACES, ROUND_FLOOR) - fixed
        if left < per_token:
            return None
        return min(cap, int(left // per_token)) if per_token else cap


def computed(price: Price, usage: Usage, ask: Ask | None = None) -> Decimal | None:
    """What the tokens of ``usage`` cost by the catalogue, never less; None if that is not known.

    ``ask``: the call they belong to; without it they are taken for the dearest kinds.
    """
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    ask = ask or ANYTHING
    if ask.is_unbounded or (ask.has_files and not price.reads_files):
        return None
    inputs, outputs = max(0, usage.input_tokens), max(0, usage.output_tokens)
    reads, writes = max(0, usage.cached_tokens or 0), max(0, usage.cache_write_tokens or 0)
    thoughts = max(0, usage.reasoning_tokens or 0)
    is_one_prompt = ask.rounds == 1 and ask.contexts == 1
    rates = price.at(inputs) if is_one_prompt else price.up_to(inputs)
    plain, read, write = rates.input(ask)
    with localcontext(_EXACT):
        cost = plain * max(0, inputs - reads - writes) + read * reads + write * writes
        # Some providers do not count thoughts among the tokens of the answer.
        said = outputs - thoughts if thoughts <= outputs else outputs
        cost += rates.output * said + (rates.internal_reasoning or rates.output) * thoughts
        cost += rates.request * ask.requests + rates.image * ask.images
        searches = max(0, usage.web_searches or 0)
        cost += (rates.web_search or RESULT_USD * ask.results) * searches
        return _rounded(cost)


def nano(amount: Decimal) -> int:
    """Nano-dollars, rounded up: what budgets count in."""
    with localcontext(_EXACT):
        return int(amount.scaleb(9).to_integral_value(ROUND_CEILING))


def _rounded(amount: Decimal) -> Decimal:
    return amount.quantize(_NANO_PLACES, ROUND_CEILING)


def _bound(price: Price, ask: Ask) -> tuple[Decimal, Decimal] | None:
    """What the call costs at most without its capped output, and what each token of that cap
    adds; None where nothing bounds it."""
    if ask.is_unbounded or (ask.has_files and not price.reads_files):
        return None
    if price.is_free and not ask.searches:
        return ZERO, ZERO
    tokens = _most_input(price, ask)
    if tokens is None:
        return None
    rates = price.up_to(tokens)
    with localcontext(_EXACT):
        per_token = max(rates.output, rates.internal_reasoning) * ask.answers * ask.rounds
        fixed = max(rates.input(ask)) * tokens + per_token * ask.predicted_tokens
        fixed += (rates.request * ask.requests + rates.image * ask.images) * ask.rounds
        return fixed + rates.search(ask.results) * ask.searches, per_token


def _most_input(price: Price, ask: Ask) -> int | None:
    limit = None
    if price.context_length is not None:
        limit = price.context_length * ask.contexts
    if ask.has_media or ask.rounds > 1:
        return None if limit is None else limit * ask.rounds
    tokens = ask.text_tokens + ask.images * price.image_tokens
    return tokens if limit is None else min(tokens, limit)


def _most_output(price: Price, ask: Ask) -> int | None:
    if not ask.answers or price.is_free:
        return ask.max_output_tokens or 0
    cap = ask.max_output_tokens or price.max_completion_tokens or price.context_length
    if cap is None or price.context_length is None:
        return cap
    return min(cap, price.context_length)
