"""What one model costs, as a value; what a call can cost at most by it, and what it did cost. Pure.

Money is USD as Decimal, reckoned in whole grains of 1e-40 USD, so exactly, and then rounded up to a
nano-dollar. Kinds of prices: OpenRouter's OpenAPI document, August 2026. Of a cost, ``exact`` is
the upstream's own figure, ``computed`` its tokens by the catalogue or 0 by its word on errors,
``estimated`` what was set aside. Who is not billed: openrouter.ai/docs, "Errors", "Zero completion
insurance".
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import ROUND_CEILING, Context, Decimal
from functools import cached_property
from math import ceil, floor
from typing import Literal

from keyproxy.call import ANYTHING, Ask, Cost, Usage
from keyproxy.dataclass import dataclass, fields, replace

ZERO = Decimal(0)
MAX_COST = Decimal(1_000_000)
"""USD for one call: what is said to have cost more is not believed."""
EXPONENTS = range(-40, 10)
"""Of what is believed: a float in its shortest form may have 17 digits below 1e-20."""
IMAGE_TOKENS = 16_384
"""The most that a documented model makes of one image (Qwen-VL); others stay below 5,000."""

_GRAIN_PLACES = -EXPONENTS.start
_GRAINS_A_NANO = 10 ** (_GRAIN_PLACES - 9)
_RESULT_GRAINS = 4 * 10 ** (_GRAIN_PLACES - 3)
"""One result of a web search by another engine than the model's own (OpenRouter, "Web search")."""
_scaled = Context(prec=120, rounding=ROUND_CEILING).scaleb  # by a power of ten, exactly
_GIVEN_UP = frozenset({502, 504, 520, 524})
"""What an edge says when the server behind it, which had the call, broke off or took too long."""


PriceSource = Literal["operator", "provider", "openrouter", "shipped"]
"""Who says what a model costs at a provider: the operator, the provider itself, its row in
OpenRouter's list of the model's hosts, the table that is shipped."""


@dataclass(frozen=True)
class Rates:
    """USD per token; ``request``, ``image`` and ``web_search`` per piece.

    0 in any but ``prompt`` and ``completion`` says that the kind has no price of its own: such
    tokens cost what the others do. What follows from them alone is reckoned once: they live as
    long as a list of prices, and each call asks.
    """

    prompt: Decimal = ZERO
    completion: Decimal = ZERO
    request: Decimal = ZERO
    image: Decimal = ZERO
    image_token: Decimal = ZERO
    image_output: Decimal = ZERO
    audio: Decimal = ZERO
    audio_output: Decimal = ZERO
    input_audio_cache: Decimal = ZERO
    web_search: Decimal = ZERO
    internal_reasoning: Decimal = ZERO
    input_cache_read: Decimal = ZERO
    input_cache_write: Decimal = ZERO
    input_cache_write_1h: Decimal = ZERO

    def dearer(self, other: Rates) -> Rates:
        """Each price the higher of the two."""
        return Rates(*(max(getattr(self, name), getattr(other, name)) for name in KINDS))

    def tariff(self, ask: Ask) -> Tariff:
        """What such a call pays for one of each."""
        kind = ask.images > 0, ask.has_media, ask.has_long_cache
        if kind not in self._tariffs:
            self._tariffs[kind] = self._tariff(*kind)
        return self._tariffs[kind]

    @cached_property
    def _tariffs(self) -> dict[tuple[bool, bool, bool], Tariff]:
        return {}

    def _tariff(self, has_images: bool, has_media: bool, has_long_cache: bool) -> Tariff:
        new = self.prompt
        if has_images or has_media:
            new = max(new, self.image_token)
        if has_media:
            new = max(new, self.audio)
        read = self.input_cache_read or new
        if has_media:
            read = max(read, self.input_audio_cache or self.audio)
        write = self.input_cache_write or new
        if has_long_cache:
            write = max(write, self.input_cache_write_1h)
        said, thought = self.output, self.internal_reasoning or self.output
        usd = (new, read, write, max(new, read, write), said, thought, max(said, thought))
        return Tariff(*map(_grains, (*usd, self.request, self.image, self.web_search)))

    @cached_property
    def output(self) -> Decimal:
        """Of whatever kind a token of the answer is: usage does not tell them apart."""
        return max(self.completion, self.image_output, self.audio_output)

    @cached_property
    def text(self) -> str:
        """As the ledger keeps them: a JSON object, USD for one of each that has a price."""
        usd = {name: getattr(self, name) for name in KINDS}
        return json.dumps({name: f"{each:f}" for name, each in usd.items() if each})


@dataclass(slots=True)
class Tariff:
    """Grains for one token that goes up ``new``, is read from a cache, is written to one; for one
    of the answer that is ``said`` or a ``thought``; ``input`` and ``output`` are the dearest of
    these. The rest is per piece."""

    new: int
    read: int
    write: int
    input: int
    said: int
    thought: int
    output: int
    request: int
    image: int
    web_search: int


_NOTHING = Rates()
KINDS = tuple(kind.name for kind in fields(Rates))


@dataclass(frozen=True, slots=True)
class Override:
    """Other prices for a prompt of more tokens than ``above``; ``is_at_times``: only at hours or
    days of its own, or of one provider among several."""

    above: int
    is_at_times: bool
    rates: tuple[tuple[str, Decimal], ...]

    def on(self, rates: Rates, *, is_most: bool) -> Rates:
        """With it; ``is_most``, or at times, whichever is higher, price by price."""
        usd = dict(self.rates)
        if is_most or self.is_at_times:
            usd = {name: max(getattr(rates, name), each) for name, each in self.rates}
        return replace(rates, **usd)


@dataclass(frozen=True)
class Price:
    """What one model costs, and the lengths that bound a call. None: not known."""

    rates: Rates
    overrides: tuple[Override, ...] = ()
    context_length: int | None = None
    max_completion_tokens: int | None = None
    image_tokens: int = IMAGE_TOKENS
    reads_files: bool = False

    @cached_property
    def is_free(self) -> bool:
        """Whether nothing of it has a price."""
        return self.rates == _NOTHING and not self.overrides

    def at(self, prompt_tokens: int, *, is_most: bool = False) -> Rates:
        """The prices of a prompt of this very length, the dearest where the hour decides; or the
        dearest of any that is no longer."""
        if not self.overrides:
            return self.rates
        case = is_most, *[prompt_tokens > each.above for each in self.overrides]
        if case not in self._cases:
            rates = self.rates
            for override in self.overrides:
                if prompt_tokens > override.above:
                    rates = override.on(rates, is_most=is_most)
            self._cases[case] = rates
        return self._cases[case]

    @cached_property
    def _cases(self) -> dict[tuple[bool, ...], Rates]:
        return {}

    def dearer(self, other: Price) -> Price:
        """A price that is at no point below either, for this very model."""
        both = self.overrides + other.overrides
        return replace(
            self,
            rates=self.rates.dearer(other.rates),
            overrides=tuple(dict.fromkeys(replace(each, is_at_times=True) for each in both)),
            context_length=_longer(self.context_length, other.context_length),
            max_completion_tokens=_longer(self.max_completion_tokens, other.max_completion_tokens),
            image_tokens=max(self.image_tokens, other.image_tokens),
        )


def worst_case(price: Price, ask: Ask) -> Decimal | None:
    """The most that ``ask`` can cost, in USD; None where nothing bounds it."""
    if (bound := _bound(price, ask)) is None:
        return None
    fixed, per_token, cap = bound
    return _usd(fixed + per_token * cap)


def dearest(prices: Iterable[Price | None], ask: Ask) -> Decimal | None:
    """The worst case of a call that any of several models may answer; only one is paid."""
    most: Decimal | None = None
    for price in prices:
        if price is None or (cost := worst_case(price, ask)) is None:
            return None
        most = cost if most is None else max(most, cost)
    return most


def fitting_max_tokens(price: Price, ask: Ask, budget_left: Decimal) -> int | None:
    """The highest output cap with which ``ask`` fits into ``budget_left``; None if none does."""
    bound = _bound(price, ask)
    if bound is None or not ask.answers:
        return None
    fixed, per_token, cap = bound
    left = floor(_scaled(budget_left, 9)) * _GRAINS_A_NANO - fixed
    if left < per_token:
        return None
    return min(cap, left // per_token) if per_token else cap


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
    each = price.at(inputs, is_most=(ask.rounds, ask.contexts) != (1, 1)).tariff(ask)
    grains = each.new * max(0, inputs - reads - writes) + each.read * reads + each.write * writes
    # Some providers do not count thoughts among the tokens of the answer.
    said = outputs - thoughts if thoughts <= outputs else outputs
    grains += each.said * said + each.thought * thoughts
    grains += each.request * ask.requests + each.image * ask.images
    searches = max(0, usage.web_searches or 0)
    grains += (each.web_search or _RESULT_GRAINS * ask.results) * searches
    return _usd(grains)


def nano(amount: Decimal) -> int:
    """Nano-dollars, rounded up: what budgets count in."""
    return ceil(_scaled(amount, 9))


def told_cost(usage: Usage) -> Cost | None:
    """What the upstream itself says of the cost."""
    if usage.cost is None:
        return None
    counted = usage.cost
    if usage.is_byok and usage.upstream_cost is not None:
        counted += usage.upstream_cost
    return Cost(usage.cost, counted, "exact")


def cost_of_error(status: int, ask: Ask | None, *, is_own: bool) -> Cost | None:
    """What a call cost whose answer has an error's status; None where that may be something.

    An error comes before any token of an answer, and such a call is not billed; searches, files
    and tools that run upstream may be. ``is_own``: the upstream itself wrote the error.
    """
    if not is_own and status in _GIVEN_UP:
        return None
    if ask is not None and (ask.rounds > 1 or ask.has_files or ask.is_unbounded):
        return None
    return Cost(ZERO, ZERO, "computed")


def cost_of_answer(
    usage: Usage | None, is_whole: bool, price: Price | None, ask: Ask | None
) -> Cost | None:
    """What an answer cost; None where only asking the upstream can tell.

    ``is_whole``: it came to its end, said so, and told of no error. Of another the usage may be
    that of a moment, after which the upstream went on.
    """
    if usage is None or not is_whole:
        return None
    cost = told_cost(usage)
    lacks_bill = usage.is_byok and usage.upstream_cost is None
    if cost is not None and not lacks_bill:
        return cost
    usd = None if price is None else computed(price, usage, ask)
    if usd is None:
        return None
    return Cost(usd, usd, "computed") if cost is None else replace(cost, counted=cost.usd + usd)


def _longer(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def _grains(usd: Decimal) -> int:
    """The same in grains, rounded up."""
    return ceil(_scaled(usd, _GRAIN_PLACES))


def _usd(grains: int) -> Decimal:
    """Rounded up to a nano-dollar."""
    return _scaled(-(-grains // _GRAINS_A_NANO), -9)


def _bound(price: Price, ask: Ask) -> tuple[int, int, int] | None:
    """What the call costs at most without its capped output, what each token of that cap adds,
    both in grains, and the cap; None where nothing bounds it."""
    cap = _most_output(price, ask)
    if cap is None or ask.is_unbounded or (ask.has_files and not price.reads_files):
        return None
    if price.is_free and not ask.searches:
        return 0, 0, cap
    tokens = _most_input(price, ask)
    if tokens is None:
        return None
    each = price.at(tokens, is_most=True).tariff(ask)
    per_token = each.output * ask.answers * ask.rounds
    fixed = each.input * tokens + per_token * ask.predicted_tokens
    fixed += (each.request * ask.requests + each.image * ask.images) * ask.rounds
    if ask.searches:
        fixed += (each.web_search + _RESULT_GRAINS * ask.results) * ask.searches
    return fixed, per_token, cap


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
