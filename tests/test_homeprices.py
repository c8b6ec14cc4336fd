"""Whose word counts on what a model costs at a provider."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from keyproxy.money.homeprices import HomePrices, Priced, rates_of
from keyproxy.money.pricebook import PriceBook
from keyproxy.price import Price, Rates
from keyproxy.upstream.groq import GROQ
from keyproxy.upstream.openrouter import OPENROUTER
from keyproxy.upstream.provider import Model
from tests.test_pricebook import Source, row

MODEL, NATIVE = "meta-llama/llama-3.3-70b-instruct", "llama-3.3-70b-versatile"
SAID = {(MODEL, "groq"): Rates(Decimal("0.0004"), Decimal("0.0008"))}
LISTED = {NATIVE: Model(NATIVE, 1000, Price(Rates(Decimal("0.0003"), Decimal("0.0003")), (), 1000))}


def hosts(*tagged: tuple[str, str]) -> bytes:
    rows = [
        {"tag": tag, "context_length": 500, "pricing": {"prompt": usd, "completion": usd}}
        for tag, usd in tagged
    ]
    return json.dumps({"data": {"id": MODEL, "endpoints": rows}}).encode()


@pytest.fixture
async def source() -> Source:
    source = Source(row(MODEL, "0.0001"))
    source.endpoints(hosts(("groq", "0.0002"), ("deepinfra/fp8", "0.00005")), MODEL)
    return source


async def read(source: Source) -> PriceBook:
    book = source.book()
    assert await book.refresh()
    await book.refresh_providers(MODEL)
    return book


def told(
    book: PriceBook | None,
    said: Mapping[tuple[str, str], Rates] = {},
    listed: Mapping[str, Model] = {},
    native: str = NATIVE,
) -> Priced | None:
    prices = HomePrices(said, lambda provider: listed if provider == "groq" else {}, book)
    return prices.of(GROQ, native, MODEL)


def prompt_and_source(priced: Priced | None) -> tuple[str, str] | None:
    return None if priced is None else (format(priced[0].rates.prompt, "f"), priced[1])


async def test_the_nearest_to_the_bill_counts(source: Source) -> None:
    book = await read(source)
    assert prompt_and_source(told(book, SAID, LISTED)) == ("0.0004", "operator")
    assert prompt_and_source(told(book, {}, LISTED)) == ("0.0003", "provider")
    assert prompt_and_source(told(book)) == ("0.0002", "openrouter")
    assert prompt_and_source(told(None)) == ("0.00000059", "shipped")
    assert told(None, native="nobody-knows") is None


async def test_a_listed_model_without_a_price_is_looked_up_further_down(source: Source) -> None:
    book = await read(source)
    without = {NATIVE: Model(NATIVE, 1000)}
    assert prompt_and_source(told(book, {}, without)) == ("0.0002", "openrouter")


async def test_the_operators_price_keeps_the_lengths_that_others_tell(source: Source) -> None:
    book = await read(source)
    priced = told(book, SAID)
    assert priced is not None
    assert priced[0].context_length == 500
    assert priced[0].overrides == ()
    alone = told(None, SAID, native="nobody-knows")
    assert alone is not None
    assert alone[0] == Price(SAID[MODEL, "groq"])


async def test_of_several_rows_of_a_host_the_dearest_counts(source: Source) -> None:
    rows = ("groq", "0.0002"), ("groq/fp8", "0.0005"), ("groqish", "0.9"), ("groq/priority", "0.7")
    source.endpoints(hosts(*rows), MODEL)
    assert prompt_and_source(told(await read(source))) == ("0.0005", "openrouter")


async def test_a_host_whose_row_is_no_price_is_looked_up_further_down(source: Source) -> None:
    source.endpoints(hosts(("groq", "-1")), MODEL)
    assert prompt_and_source(told(await read(source))) == ("0.00000059", "shipped")


async def test_hosts_are_asked_about_once_somebody_wants_their_price(source: Source) -> None:
    book = source.book()
    assert await book.refresh()
    prices = HomePrices({}, lambda provider: {}, book)
    assert prompt_and_source(prices.of(GROQ, NATIVE, MODEL)) == ("0.00000059", "shipped")
    assert MODEL in book.wanted
    await book.refresh_providers(MODEL)
    assert prompt_and_source(prices.of(GROQ, NATIVE, MODEL)) == ("0.0002", "openrouter")


async def test_openrouters_own_price_is_that_of_its_list(source: Source) -> None:
    prices = HomePrices({}, lambda provider: {}, await read(source))
    assert prompt_and_source(prices.of(OPENROUTER, MODEL, MODEL)) == ("0.0002", "provider")
    assert prompt_and_source(prices.of(OPENROUTER, MODEL, "a/cheap")) == ("0.0002", "provider")
    assert prices.of(OPENROUTER, "a/dear", MODEL) is None
    assert HomePrices({}, lambda provider: {}, None).of(OPENROUTER, MODEL, MODEL) is None


def test_an_operator_says_dollars_for_a_million_tokens() -> None:
    usd: dict[str, Any] = {"input": Decimal("0.15"), "cached": Decimal("0.075")}
    rates = rates_of({**usd, "output": Decimal("0.6")})
    assert rates == Rates(Decimal("1.5e-7"), Decimal("6e-7"), input_cache_read=Decimal("7.5e-8"))
