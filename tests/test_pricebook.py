"""The price book: fetched, kept on disk, distrustful, and found under every name."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from keyproxy.demo import upstream as demo
from keyproxy.errors import Refusal
from keyproxy.money import pricelist
from keyproxy.money.pricebook import (
    COLD_RETRY_SECONDS,
    OLD_PROVIDERS_SECONDS,
    OLD_SECONDS,
    PROVIDERS_RETRY_SECONDS,
    PROVIDERS_SECONDS,
    REFRESH_SECONDS,
    RETRY_SECONDS,
    RETRY_WITHOUT_SECONDS,
    PriceBook,
)
from keyproxy.money.pricelist import PriceList
from keyproxy.transport.client import Pools
from keyproxy.upstream import answers
from keyproxy.upstream.headers import KeySearch
from keyproxy.upstream.keyring import KeyStates
from keyproxy.upstream.openrouter import OPENROUTER
from keyproxy.upstream.provider import Fetched as Reply
from keyproxy.upstream.send import Upstream
from tests.conftest import settings as settings_of

LIST_PATH = OPENROUTER.listing.path
START = 1_790_000_000.0
SOL = "openai/gpt-6.1-sol"
FREE = "google/gemma:free"


def row(model: str, prompt: str = "0.000002", **more: Any) -> dict[str, Any]:
    pricing = {"prompt": prompt, "completion": prompt}
    return {"id": model, "canonical_slug": model, "context_length": 1000, "pricing": pricing} | more


ROWS = [
    row(SOL, canonical_slug=f"{SOL}-20260929"),
    row(FREE, "0", canonical_slug="google/gemma-20260402"),
    row("openrouter/auto", "-1"),
    row("~openai/sol-latest", "0.000001", alias_target={"name": "Sol", "slug": SOL}),
]


def listed(*rows: dict[str, Any]) -> bytes:
    return json.dumps({"data": rows, "total_count": len(rows), "links": {"next": None}}).encode()


def providers(*prompts: str, tag: str = "azure") -> bytes:
    endpoints = [
        {"tag": tag, "context_length": 1000, "pricing": {"prompt": prompt, "completion": prompt}}
        for prompt in prompts
    ]
    return json.dumps({"data": {"id": SOL, "endpoints": endpoints}}).encode()


def read(reply: Reply, path: str = LIST_PATH) -> Reply:
    """As it comes to the book. Raises Refusal."""
    return answers.read(OPENROUTER, path, reply, KeySearch([]))


def prices(*rows: dict[str, Any], now: float = START) -> PriceList:
    return pricelist.read(read(Reply(200, listed(*rows))), now)


class Source:
    """What the upstream would say, and what it was asked."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.replies: dict[str, Reply] = {LIST_PATH: Reply(200, listed(*(rows or ROWS)))}
        self.asked: list[str] = []
        self.now = START

    async def fetch(self, path: str) -> Reply:
        self.asked.append(path)
        if path not in self.replies:
            raise Refusal("upstream_unreachable", "gone")
        return read(self.replies[path], path)

    def lists(self, *rows: dict[str, Any]) -> None:
        self.replies[LIST_PATH] = Reply(200, listed(*rows))

    def endpoints(self, raw: bytes, model: str = SOL) -> None:
        self.replies[f"/models/{model}/endpoints"] = Reply(200, raw)

    def book(self, path: Path | None = None, **options: Any) -> PriceBook:
        return PriceBook(self.fetch, path, clock=lambda: self.now, **options)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def book(source: Source) -> PriceBook:
    book = source.book()
    assert await book.refresh()
    return book


def prompt_price(book: PriceBook, model: str) -> str | None:
    price = book.price_of(model)
    return None if price is None else format(price.rates.prompt, "f")


async def learnt(book: PriceBook, model: str = SOL) -> bool:
    """Whether the upstream told of the model's providers."""
    told = await book.refresh_providers(model)
    return told is not None and bool(told.endpoints)


async def test_an_unread_book_has_no_prices(source: Source) -> None:
    book = source.book()
    await book.open()
    assert book.price_of(SOL) is None
    assert (book.listed.priced, book.age_seconds, dict(book.listed.names)) == (0, None, {})


async def test_the_whole_list_is_asked_for_with_all_kinds_of_output(
    source: Source, book: PriceBook
) -> None:
    assert source.asked == ["/models?output_modalities=all"]
    assert (book.listed.priced, book.age_seconds) == (3, 0.0)


@pytest.mark.parametrize(
    ("model", "price"),
    [
        (SOL, "0.000002"),
        (FREE, "0"),
        ("openrouter/auto", None),
        ("example/unknown", None),
        ("", None),
        (":", None),
        (f"{SOL}-20260929", "0.000002"),
        ("google/gemma-20260402:free", "0"),
        ("google/gemma-20260402", None),  # the model that is not free has no row
        ("~openai/sol-latest", "0.000002"),  # the dearer of its own row and the target's
        (f"{SOL}:floor", "0.000002"),
        (f"{SOL}:online", "0.000002"),
        (f"{SOL}-20260929:online:floor", "0.000002"),
        (f"{FREE}:online", "0"),
        (f"{SOL}:free", None),
        (f"{SOL}:thinking", None),
        (f"{SOL}:extended", None),
        (f"{SOL}:nitro", None),
        (f"{SOL}:exacto", None),
        (f"{SOL}:floor:nitro", None),
        ("openrouter/auto:floor", None),
    ],
)
async def test_a_model_has_one_price_under_each_of_its_names(
    book: PriceBook, model: str, price: str | None
) -> None:
    assert prompt_price(book, model) == price


async def test_other_names_lead_to_the_id(book: PriceBook) -> None:
    assert dict(book.listed.names) == {
        f"{SOL}-20260929": SOL,
        "google/gemma-20260402:free": FREE,
        "~openai/sol-latest": SOL,
    }


async def test_an_alias_of_a_dated_name_leads_to_the_id_too() -> None:
    alias = row("~a/latest", alias_target={"slug": f"{SOL}-20260929"})
    book = Source(ROWS[0], alias).book()
    await book.refresh()
    assert book.listed.names["~a/latest"] == SOL


async def test_a_variant_with_a_row_of_its_own_has_its_own_price() -> None:
    book = Source(row("a/b"), row("a/b:thinking", "0.5")).book()
    await book.refresh()
    assert prompt_price(book, "a/b:thinking") == "0.5"


async def test_a_model_listed_with_two_prices_has_none() -> None:
    book = Source(row("a/b"), row("a/c"), row("a/c", "0.1"), row("a/b")).book()
    await book.refresh()
    assert prompt_price(book, "a/b") == "0.000002"
    assert book.price_of("a/c") is None


async def test_a_dearer_provider_raises_the_price_once_it_is_known(
    source: Source, book: PriceBook
) -> None:
    source.endpoints(providers("0.000001", "0.000009"))
    assert prompt_price(book, SOL) == "0.000002"
    assert await learnt(book)
    assert prompt_price(book, SOL) == "0.000009"
    assert prompt_price(book, f"{SOL}-20260929") == "0.000009"
    assert prompt_price(book, f"{SOL}:exacto") == "0.000009"


async def test_only_nitro_may_get_a_dearer_tier(source: Source, book: PriceBook) -> None:
    both = json.loads(providers("0.000002"))
    both["data"]["endpoints"] += json.loads(providers("0.9", tag="openai/priority"))["data"][
        "endpoints"
    ]
    source.endpoints(json.dumps(both).encode())
    await book.refresh_providers(SOL)
    assert prompt_price(book, SOL) == "0.000002"
    assert prompt_price(book, f"{SOL}:nitro") == "0.9"


async def test_a_provider_that_is_not_understood_leaves_the_model_without_a_price(
    source: Source, book: PriceBook
) -> None:
    source.endpoints(providers("0.000001", "-1"))
    await book.refresh_providers(SOL)
    assert book.price_of(SOL) is None


@pytest.mark.parametrize(
    "reply",
    [
        Reply(404, providers("0.9")),
        Reply(200, b"{}"),
        Reply(200, b'{"data":{"endpoints":[]}}'),
        Reply(200, b'{"data":{"endpoints":[1]}}'),
        Reply(200, b"\xff"),
        None,
    ],
)
async def test_providers_that_cannot_be_had_change_nothing(
    source: Source, book: PriceBook, reply: Reply | None
) -> None:
    if reply is not None:
        source.replies[f"/models/{SOL}/endpoints"] = reply
    assert not await learnt(book)
    assert prompt_price(book, SOL) == "0.000002"


async def until(condition: Callable[[], bool]) -> None:
    """Let the book's tasks go on until something is true."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


class Pauses:
    """Stands for ``asyncio.sleep``: notes each pause, and lets the first few end at once."""

    def __init__(self, source: Source, count: int) -> None:
        self.source, self.count, self.lengths = source, count, list[float]()

    async def __call__(self, seconds: float) -> None:
        self.lengths.append(seconds)
        if len(self.lengths) > self.count:
            await asyncio.Event().wait()
        await asyncio.sleep(0)


async def test_the_list_is_asked_for_hourly_and_sooner_after_a_failure(source: Source) -> None:
    good = source.replies.pop(LIST_PATH)
    pauses = Pauses(source, 3)
    task = asyncio.create_task(source.book(sleep=pauses).run())
    await until(lambda: len(pauses.lengths) == 2)
    source.replies[LIST_PATH] = good
    await until(lambda: len(pauses.lengths) == 4)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    expected = [RETRY_SECONDS, RETRY_SECONDS * 2, REFRESH_SECONDS, REFRESH_SECONDS]
    for pause, about in zip(pauses.lengths, expected, strict=True):
        assert about * 0.9 <= pause <= about * 1.1


async def test_without_any_prices_the_list_is_asked_for_each_minute(source: Source) -> None:
    """Calls may be refused for as long."""
    del source.replies[LIST_PATH]
    pauses = Pauses(source, 4)
    book = source.book(sleep=pauses)
    assert book.asks_in_seconds == 0
    task = asyncio.create_task(book.run())
    await until(lambda: len(pauses.lengths) == 5)
    assert max(pauses.lengths) <= RETRY_WITHOUT_SECONDS * 1.1
    assert book.asks_in_seconds == pytest.approx(pauses.lengths[-1])
    source.now += 100
    assert book.asks_in_seconds == 0
    task.cancel()
    await asyncio.wait([task])


async def test_the_providers_of_a_called_model_are_asked_about_in_the_background(
    source: Source,
) -> None:
    source.endpoints(providers("0.000009"))
    book = source.book(sleep=Pauses(source, 0))
    await book.refresh()
    for model in (SOL, f"{SOL}:floor", f"{SOL}-20260929", "~openai/sol-latest", "openrouter/auto"):
        book.price_of(model)
    task = asyncio.create_task(book.run())
    await until(lambda: prompt_price(book, SOL) == "0.000009")
    task.cancel()
    await asyncio.wait([task])
    assert [path for path in source.asked if "endpoints" in path] == [f"/models/{SOL}/endpoints"]


async def test_prices_are_kept_fresh_also_after_a_lack_of_memory(source: Source) -> None:
    source.endpoints(providers("0.000009"))
    lacking = [LIST_PATH, f"/models/{SOL}/endpoints"]

    async def fetch(path: str) -> Reply:
        if path in lacking:
            lacking.remove(path)
            raise MemoryError
        return await source.fetch(path)

    book = PriceBook(fetch, clock=lambda: source.now, sleep=Pauses(source, 9))
    task = asyncio.create_task(book.run())
    await until(lambda: book.listed.priced > 0)
    assert not await book.learn([SOL], 5)
    source.now += COLD_RETRY_SECONDS
    assert await book.learn([SOL], 5)
    task.cancel()
    await asyncio.wait([task])


async def test_providers_that_could_not_be_had_are_asked_about_again_after_a_while(
    source: Source, book: PriceBook
) -> None:
    assert not await learnt(book)
    book.want(SOL)
    assert not book.wanted
    source.now += PROVIDERS_RETRY_SECONDS
    book.want(SOL)
    assert book.wanted == (SOL,)


async def test_known_providers_are_asked_about_again_only_when_they_are_old(
    source: Source, book: PriceBook
) -> None:
    source.endpoints(providers("0.1"))
    await book.refresh_providers(SOL)
    source.now += PROVIDERS_SECONDS - 1
    book.want(SOL)
    assert not book.wanted
    source.now += 1
    book.want(SOL)
    assert book.wanted == (SOL,)


async def test_what_is_old_counts_where_nothing_newer_is_to_be_had(
    source: Source, book: PriceBook
) -> None:
    """And is asked about once, not by each call."""
    source.endpoints(providers("0.000009"))
    await book.refresh_providers(SOL)
    del source.replies[f"/models/{SOL}/endpoints"]
    source.now += OLD_PROVIDERS_SECONDS
    task = asyncio.create_task(book.run())
    for _ in range(3):
        assert await book.learn([SOL], 5)
        assert prompt_price(book, SOL) == "0.000009"
    source.endpoints(providers("0.00001"))
    source.now += PROVIDERS_RETRY_SECONDS
    assert await book.learn([f"{SOL}:floor", FREE], 5) is False
    assert prompt_price(book, SOL) == "0.00001"
    task.cancel()
    await asyncio.wait([task])
    assert source.asked.count(f"/models/{SOL}/endpoints") == 3


async def test_models_that_are_named_are_asked_about_with_each_list(source: Source) -> None:
    for model in (SOL, FREE):
        source.endpoints(providers("0.1"), model)
    book = source.book()
    book.ask_ahead([SOL, FREE, "example/unknown"])
    assert not book.wanted
    await book.refresh()
    assert book.wanted == (SOL, FREE)
    book.want(f"{FREE}:floor")
    assert book.wanted == (FREE, SOL)
    for model in (SOL, FREE):
        await book.refresh_providers(model)
    source.now += REFRESH_SECONDS * 0.9
    await book.refresh()
    assert set(book.wanted) == {FREE, SOL}


async def test_models_that_are_gone_from_the_list_are_forgotten(
    source: Source, book: PriceBook
) -> None:
    source.endpoints(providers("0.1"))
    await book.refresh_providers(SOL)
    source.lists(*ROWS[1:], row("a/b"), row("a/c"))
    await book.refresh()
    source.lists(*ROWS)
    await book.refresh()
    assert prompt_price(book, SOL) == "0.000002"


@pytest.mark.parametrize("model", ["a/b/../../key", "a/b?x=1", "a/b#x", "a//b", "../x", "a/%2e"])
async def test_no_id_of_the_list_becomes_another_path(model: str) -> None:
    book = Source(row(model)).book()
    await book.refresh()
    assert book.price_of(model) is not None
    assert not book.wanted


@pytest.mark.parametrize(
    "reply",
    [
        Reply(500, listed(*ROWS)),
        Reply(304, b""),
        Reply(200, b""),
        Reply(200, b"<html>"),
        Reply(200, b"[]"),
        Reply(200, b'{"data":{}}'),
        Reply(200, listed()),
        Reply(200, listed(row("a/b", "-1"))),
        Reply(200, b"[" * 100_000),
        Reply(200, listed(ROWS[0], row("a/b", "-1"))),
    ],
)
async def test_a_list_that_is_none_or_has_lost_most_prices_is_refused_loudly(
    source: Source, book: PriceBook, reply: Reply
) -> None:
    source.replies[LIST_PATH] = reply
    with capture_logs() as logs:
        assert not await book.refresh()
    assert [entry["log_level"] for entry in logs if entry["log_level"] != "debug"] == ["warning"]
    assert (book.listed.priced, prompt_price(book, SOL)) == (3, "0.000002")


async def test_one_row_of_nonsense_spoils_no_other(source: Source) -> None:
    raw = listed(*ROWS).replace(
        b'"data": [', b'"data": [{"id": ' + b"9" * 6000 + b"}, 7, null, {},"
    )
    source.replies[LIST_PATH] = Reply(200, raw)
    book = source.book()
    assert await book.refresh()
    assert book.listed.priced == 3


async def test_a_new_list_changes_prices_at_once(source: Source, book: PriceBook) -> None:
    assert prompt_price(book, SOL) == "0.000002"
    source.lists(row(SOL, "0.5"), *ROWS[1:])
    await book.refresh()
    assert prompt_price(book, SOL) == "0.5"


async def test_the_same_list_again_is_only_newer(source: Source, book: PriceBook) -> None:
    before = book.price_of(SOL)
    source.now += 500
    assert book.age_seconds == 500
    await book.refresh()
    assert book.age_seconds == 0
    assert book.price_of(SOL) == before


async def test_a_restart_without_network_still_has_prices(source: Source, tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    source.endpoints(providers("0.000009"))
    before = source.book(path)
    await before.refresh_providers(SOL)
    await before.refresh()
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["prices.json"]
    source.replies.clear()
    source.now += 60
    after = source.book(path)
    await after.open()
    assert not await after.refresh()
    assert (after.listed.priced, after.age_seconds) == (3, 60)
    assert prompt_price(after, SOL) == "0.000009"
    assert after.listed.names == before.listed.names


async def test_models_that_are_named_are_asked_about_by_what_was_kept(
    source: Source, tmp_path: Path
) -> None:
    await source.book(tmp_path / "prices.json").refresh()
    book = source.book(tmp_path / "prices.json")
    book.ask_ahead([SOL])
    await book.open()
    assert book.wanted == (SOL,)


async def test_old_kept_prices_are_used_with_a_warning(source: Source, tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    await source.book(path).refresh()
    source.now += OLD_SECONDS + 86_400
    book = source.book(path)
    with capture_logs() as logs:
        await book.open()
    [entry] = logs
    assert (entry["log_level"], entry["age_days"]) == ("warning", 8.0)
    assert prompt_price(book, SOL) == "0.000002"


async def test_only_what_is_shown_without_a_key_is_kept(source: Source, tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    book, public = source.book(path), source.replies[LIST_PATH]
    source.replies[LIST_PATH] = public._replace(is_public=False)
    assert await book.refresh()
    assert not path.exists()
    source.replies[f"/models/{SOL}/endpoints"] = Reply(200, providers("0.9"), is_public=False)
    assert await learnt(book)
    source.replies[LIST_PATH] = public
    assert await book.refresh()
    kept = pricelist.load(path)
    assert kept is not None
    assert (kept[0].priced, kept[1]) == (3, {})


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b'{"version":2}', b'{"version":3,"models":[]}', b"\xff\xfe",
        b"[" * 99_999,
        b'{"version":3,"models":[],"fetched_at":NaN}',
        b'{"version":3,"models":{},"fetched_at":1}',
        b" " * (11 << 20),
    ],
)  # fmt: skip
async def test_a_kept_file_that_is_not_whole_is_none(
    source: Source, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "prices.json"
    path.write_bytes(content)
    book = source.book(path)
    await book.open()
    assert book.listed.priced == 0
    assert await book.refresh()
    assert pricelist.load(path) is not None


async def test_a_disk_that_takes_nothing_costs_a_warning_only(
    source: Source, tmp_path: Path
) -> None:
    book = source.book(tmp_path / "missing" / "prices.json")
    with capture_logs() as logs:
        assert await book.refresh()
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert prompt_price(book, SOL) == "0.000002"


async def test_a_failed_write_leaves_the_old_file_and_no_other(
    source: Source, tmp_path: Path
) -> None:
    path = tmp_path / "prices.json"
    path.mkdir()  # nothing can take its place
    (path / "x").touch()
    with capture_logs() as logs:
        assert await source.book(path).refresh()
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert [file.name for file in tmp_path.iterdir()] == ["prices.json"]


async def test_prices_are_kept_by_upstream(source: Source, tmp_path: Path) -> None:
    here, there = (
        tmp_path / pricelist.file_name(upstream)
        for upstream in ("https://openrouter.ai/api/v1", "http://127.0.0.1:9/api/v1")
    )
    await source.book(here).refresh()
    other = source.book(there)
    await other.open()
    assert other.listed.priced == 0
    source.lists(row(SOL, "0.000005"))
    await other.refresh()
    for path, price in ((here, "0.000002"), (there, "0.000005")):
        book = source.book(path)
        await book.open()
        assert prompt_price(book, SOL) == price


def test_prices_survive_the_file_to_the_digit(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    known = prices(row("a/b", "0.00000017999999999999997"))
    pricelist.save(path, known, {})
    kept = pricelist.load(path)
    assert kept is not None
    price = kept[0].prices["a/b"]
    assert price is not None
    assert price.rates.prompt == Decimal("0.00000017999999999999997")
    assert kept[0].fetched_at == START


def fetch_by(known: Any, pools: Pools) -> Any:
    pool, keys = pools.of(known.upstream), known.keys
    return Upstream(known, pool, KeyStates(), provider=OPENROUTER, keys=keys).fetch


async def test_prices_come_over_a_socket_as_they_do_from_memory() -> None:
    async with demo.running(pace=0) as base:
        known = settings_of(UPSTREAM=base)
        async with Pools(known) as pools:
            book = PriceBook(
                fetch_by(known, pools),
            )
            assert await book.refresh()
            assert await learnt(book, "demo/chat")
    assert prompt_price(book, "demo/chat:exacto") == "0.000002"


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["data", "id", "canonical_slug", "alias_target", "slug", "pricing", "endpoints"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(json_values, st.lists(json_values, max_size=4))
def test_no_json_breaks_the_reading_of_lists(whole: Any, rows: list[Any]) -> None:
    for value in (whole, {"data": rows}, {"data": {"endpoints": rows}}):
        raw = json.dumps(value).encode()
        with suppress(Refusal):
            pricelist.read(read(Reply(200, raw)), START)
        pricelist.read_providers(Reply(200, raw), START)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=50))
def test_no_bytes_break_the_reading_of_lists(raw: bytes) -> None:
    with pytest.raises(Refusal):
        read(Reply(200, raw))
    assert pricelist.read_providers(Reply(200, raw), START) is None
