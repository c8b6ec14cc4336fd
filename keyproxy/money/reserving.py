"""How much is set aside for a call: what is known of its price, what is said where that is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from keyproxy.call import Ask
from keyproxy.errors import Refusal
from keyproxy.money.budget import LEAST_NANO, Advice
from keyproxy.money.pricebook import PriceBook
from keyproxy.price import Price, fitting_max_tokens, nano

Prices = Mapping[str, Price | None]
"""By the model that may answer; None of one: nobody tells."""

PRICES_PATIENCE_SECONDS = 5.0
PROVIDERS_PATIENCE_SECONDS = 2.0


async def known_prices(
    prices: PriceBook | None, models: Sequence[str], *, is_counted: bool, must_know: bool
) -> Prices:
    """The prices of ``models``. ``is_counted``: there is a budget.

    Raises ``overloaded`` where prices are not known yet, or what a model's providers take,
    and must be: one may take more than the list says."""
    if prices is None:
        return dict.fromkeys(models)
    if (known := prices.at_hand(models)) is not None:
        return known
    if is_counted:
        if not prices.listed.priced:
            await prices.loaded(
                PRICES_PATIENCE_SECONDS if must_know else PROVIDERS_PATIENCE_SECONDS
            )
        is_known = await prices.learn(models, PROVIDERS_PATIENCE_SECONDS)
        if must_know and not prices.listed.priced:
            raise Refusal(
                "overloaded",
                "The prices of models are not known here yet, so that no budget could be kept;"
                " try again soon.",
                retry_after_seconds=prices.asks_in_seconds,
                hint="no list of models could be fetched; to let calls through"
                " until a budget is spent: KEYPROXY_UNPRICED=allow",
            )
        if must_know and not is_known:
            raise Refusal(
                "overloaded",
                "What the providers of this model take is not known here yet, so that no"
                " budget could be kept; try again in a second.",
                retry_after_seconds=1.0,
                hint="GET /models/{author}/{slug}/endpoints was not answered in time; to take"
                " the price of the list of models: KEYPROXY_UNPRICED=allow",
            )
    return {model: prices.price_of(model) for model in models}


def to_reserve(worst: Decimal | None, prices: Prices, ask: Ask | None, *, must_know: bool) -> int:
    """What to set aside in nano-dollars for a call that may cost ``worst`` USD.

    Raises ``call_too_costly`` where the worst is not known and must be.
    """
    if worst is not None:
        return nano(worst)
    if not must_know:
        return LEAST_NANO
    unpriced = next((model for model, price in prices.items() if price is None), None)
    what, instead = f"The price of {unpriced}", ""
    if unpriced is None:
        part = "" if ask is None else ask.part
        what = f"What {part or 'this call'} can cost at most"
        instead = " Send its text instead." if part == "the file" else ""
    raise Refusal(
        "call_too_costly",
        f"{what} is not known here, so that no budget could be kept.{instead}",
        param=None if unpriced is None else "model",
        hint="KEYPROXY_UNPRICED=allow",
    )


def fit(prices: Prices, ask: Ask | None, usd: Decimal) -> Advice | None:
    """How many tokens of an answer ``usd`` pays for, with whichever of the models answers."""
    known = [price for price in prices.values() if price is not None]
    if ask is None or not known:
        return None
    each = [fitting_max_tokens(price, ask, usd) for price in known]
    tokens = min(filter(None, each), default=None)
    if tokens is None or None in each:
        return None
    fields = ask.length_fields
    reasoning = " and less reasoning" if ask.reasoning_tokens >= tokens else ""
    return fields[0], f"ask for {' and '.join(fields)} ≤ {tokens}{reasoning}"
