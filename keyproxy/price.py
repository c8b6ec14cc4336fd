"""What one model costs, as a value: read by providers, counted with by money. Pure.

USD as Decimal. Kinds of prices: OpenRouter's OpenAPI document, August 2026.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from decimal import Decimal

from keyproxy.call import Ask

ZERO = Decimal(0)
MAX_COST = Decimal(1_000_000)
"""USD for one call: what is said to have cost more is not believed."""
RESULT_USD = Decimal("0.004")
"""One result of a web search by another engine than the model's own (OpenRouter, "Web search")."""
IMAGE_TOKENS = 16_384
"""The most that a documented model makes of one image (Qwen-VL); others stay below 5,000."""


@dataclass(frozen=True, slots=True)
class Rates:
    """USD per token; ``request``, ``image`` and ``web_search`` per piece.

    0 in any but ``prompt`` and ``completion`` says that the kind has no price of its own: such
    tokens cost what the others do.
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

    def input(self, ask: Ask) -> tuple[Decimal, Decimal, Decimal]:
        """Prices of a token that is new, read from a cache, and written to one."""
        plain = self.prompt
        if ask.images or ask.has_media:
            plain = max(plain, self.image_token)
        if ask.has_media:
            plain = max(plain, self.audio)
        read = self.input_cache_read or plain
        if ask.has_media:
            read = max(read, self.input_audio_cache or self.audio)
        write = self.input_cache_write or plain
        if ask.has_long_cache:
            write = max(write, self.input_cache_write_1h)
        return plain, read, write

    @property
    def output(self) -> Decimal:
        """Of whatever kind a token of the answer is: usage does not tell them apart."""
        return max(self.completion, self.image_output, self.audio_output)

    def search(self, results: int) -> Decimal:
        """One web search that brings so many results."""
        return self.web_search + RESULT_USD * results


_NOTHING = Rates()
KINDS = tuple(kind.name for kind in fields(Rates))


@dataclass(frozen=True, slots=True)
class Override:
    """Other prices for a prompt of more tokens than ``above``; ``is_at_times``: only at hours or
    days of its own, or of one provider among several."""

    above: int
    is_at_times: bool
    rates: tuple[tuple[str, Decimal], ...]

    def on(self, rates: Rates) -> Rates:
        return replace(rates, **dict(self.rates))

    def dearer_on(self, rates: Rates) -> Rates:
        """Whichever is higher, price by price: with this override or without it."""
        return replace(rates, **{name: max(getattr(rates, name), usd) for name, usd in self.rates})


@dataclass(frozen=True, slots=True)
class Price:
    """What one model costs, and the lengths that bound a call. None: not known."""

    rates: Rates
    overrides: tuple[Override, ...] = ()
    context_length: int | None = None
    max_completion_tokens: int | None = None
    image_tokens: int = IMAGE_TOKENS
    reads_files: bool = False

    @property
    def is_free(self) -> bool:
        """Whether nothing of it has a price."""
        return self.rates == _NOTHING and not self.overrides

    def at(self, prompt_tokens: int) -> Rates:
        """The prices of a prompt of this very length; the dearest where the hour decides."""
        rates = self.rates
        for override in self.overrides:
            if prompt_tokens > override.above:
                change = override.dearer_on if override.is_at_times else override.on
                rates = change(rates)
        return rates

    def up_to(self, prompt_tokens: int) -> Rates:
        """The dearest prices of any prompt that is not longer."""
        rates = self.rates
        for override in self.overrides:
            if prompt_tokens > override.above:
                rates = override.dearer_on(rates)
        return rates

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


def _longer(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)
