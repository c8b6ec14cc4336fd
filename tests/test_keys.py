"""Which key goes up, what the upstream's word about it changes, and that nobody else sees it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import logging
import random
import sqlite3
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web
from structlog.testing import capture_logs

from keyproxy import logs
from keyproxy.ledger.ledger import Ledger
from keyproxy.settings import Secret
from keyproxy.upstream.headers import KeySearch
from keyproxy.upstream.keyring import UNAFFORDABLE_SECONDS, KeyStates
from tests.conftest import BODY, CHAT, KEY, Proxy, Start, inspected, refused, settings
from tests.fake_upstream import FakeUpstream, completion, raw, read_request, streaming

FIRST = "sk-or-v1-first-" + "0123456789abcdef" * 4
SECOND = "sk-or-v1-second-" + "fedcba9876543210" * 4
BOTH = f"{FIRST},{SECOND}"


def by_key(**statuses: int) -> Any:
    """An upstream that answers each key (``first``, ``second``) with its status."""

    async def answer(request: web.Request) -> web.StreamResponse:
        name = "first" if FIRST in request.headers["Authorization"] else "second"
        status = statuses[name]
        if status == 200:
            return completion()
        error = {"error": {"code": status, "message": f"{name}: afford 27342"}, "user_id": "user_1"}
        return web.json_response(error, status=status)

    return answer


def used(upstream: FakeUpstream) -> list[str]:
    """The keys of the calls that came up, in order."""
    names = {FIRST: "first", SECOND: "second"}
    return [names[seen.headers["Authorization"].removeprefix("Bearer ")] for seen in upstream.calls]


async def status_of(proxy: Proxy) -> int:
    async with proxy.post() as answer:
        await answer.read()
        return int(answer.status)


def about_keys(**statuses: int) -> Any:
    """An upstream that says so of each key when it is asked about it."""

    async def answer(request: web.Request) -> web.StreamResponse:
        name = "first" if FIRST in request.headers["Authorization"] else "second"
        return web.json_response({"data": {"label": "x"}}, status=statuses[name])

    return answer


async def test_a_rejected_key_is_set_aside(start: Start, upstream: FakeUpstream) -> None:
    proxy = await start(OPENROUTER_API_KEY=BOTH)
    await inspected(proxy)
    upstream.answer = by_key(first=401, second=200)
    upstream.key_answer = about_keys(first=401, second=200)
    assert await status_of(proxy) == 200
    await inspected(proxy)
    assert [await status_of(proxy) for _ in range(2)] == [200, 200]
    assert used(upstream) == ["first", "second", "second", "second"]


async def test_with_every_key_rejected_the_upstream_is_not_asked_again(
    start: Start, upstream: FakeUpstream
) -> None:
    """Some SDKs repeat a 5xx for an hour."""
    proxy = await start("serve", OPENROUTER_API_KEY=BOTH)
    await inspected(proxy)
    upstream.answer = by_key(first=401, second=401)
    upstream.key_status = 401
    for _ in range(3):
        async with proxy.post() as refusal:
            assert refusal.headers["x-should-retry"] == "false"
            error = await refused(refusal, 502, "upstream_key_rejected")
            assert "afford" not in error["message"]
    assert used(upstream) == ["first", "second"]


async def test_a_changed_key_is_tried_again(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = by_key(first=401, second=200)
    upstream.key_answer = about_keys(first=401, second=200)
    proxy = await start(OPENROUTER_API_KEY=FIRST)
    assert await status_of(proxy) == 502
    proxy.service.apply(settings(OPENROUTER_API_KEY=SECOND, UPSTREAM=upstream.base_url))
    assert await status_of(proxy) == 200


async def test_a_reload_with_the_same_key_does_not_forget_its_rejection(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.key_status = 401
    proxy = await start(OPENROUTER_API_KEY=FIRST)
    await inspected(proxy)
    proxy.service.apply(settings(OPENROUTER_API_KEY=FIRST, UPSTREAM=upstream.base_url))
    assert await status_of(proxy) == 502
    assert used(upstream) == []


async def test_a_402_tries_the_next_key_and_puts_this_one_last(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.answer = by_key(first=402, second=200)
    proxy = await start(OPENROUTER_API_KEY=BOTH)
    assert [await status_of(proxy) for _ in range(2)] == [200, 200]
    assert used(upstream) == ["first", "second", "second"]


async def test_the_last_402_passes_without_the_balance(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.answer = by_key(first=402, second=402)
    proxy = await start(OPENROUTER_API_KEY=BOTH)
    for _ in range(2):
        async with proxy.post() as answer:
            assert answer.status == 402
            text = await answer.text()
        assert "27342" not in text
        assert "user_1" not in text
    assert used(upstream) == ["first", "second", "first", "second"]


async def test_a_402_beside_a_rejected_key_passes(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = by_key(first=402, second=401)
    upstream.key_answer = about_keys(first=200, second=401)
    proxy = await start(OPENROUTER_API_KEY=BOTH)
    await inspected(proxy)
    assert [await status_of(proxy) for _ in range(2)] == [402, 402]
    assert used(upstream) == ["first", "first"]


async def test_a_403_is_about_the_call_and_passes(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = by_key(first=403, second=200)
    proxy = await start(OPENROUTER_API_KEY=BOTH)
    assert [await status_of(proxy) for _ in range(2)] == [403, 403]
    assert used(upstream) == ["first", "first"]


@pytest.mark.parametrize("status", [400, 404, 408, 429, 500, 503])
async def test_other_errors_try_no_second_key(
    start: Start, upstream: FakeUpstream, status: int
) -> None:
    upstream.answer = by_key(first=status, second=200)
    proxy = await start(OPENROUTER_API_KEY=BOTH)
    assert await status_of(proxy) == status
    assert used(upstream) == ["first"]


def test_a_key_that_could_not_pay_goes_last_for_a_minute() -> None:
    now = 0.0
    first, second = Secret(FIRST), Secret(SECOND)
    states = KeyStates(clock=lambda: now)
    states.of(first)
    states.demote(first)
    assert states.usable([first, second]) == [second, first]
    now += UNAFFORDABLE_SECONDS
    assert states.usable([first, second]) == [first, second]


async def test_a_stream_ends_with_the_key_it_began_with(
    start: Start, upstream: FakeUpstream
) -> None:
    go_on = asyncio.Event()
    upstream.answer = streaming(go_on, b"data: 2\n\n")
    proxy = await start(OPENROUTER_API_KEY=FIRST)
    async with proxy.post() as answer_down:
        assert await answer_down.content.readany() == b"data: 1\n\n"
        proxy.service.apply(settings(OPENROUTER_API_KEY=SECOND, UPSTREAM=upstream.base_url))
        go_on.set()
        assert await answer_down.content.read() == b"data: 2\n\n"


async def test_a_management_key_is_refused_loudly(start: Start, upstream: FakeUpstream) -> None:
    upstream.key_report = {"label": "x", "is_management_key": True}
    with capture_logs() as lines:
        proxy = await start()
        await inspected(proxy)
    async with proxy.post() as refusal:
        await refused(refusal, 502, "upstream_key_rejected")
    assert upstream.calls == []
    [line] = [line for line in lines if line["log_level"] == "error"]
    assert "management key" in line["event"]


async def test_a_management_key_is_found_in_a_report_that_comes_in_pieces(start: Start) -> None:
    report = json.dumps({"data": {"note": "x" * 1000, "is_provisioning_key": True}}).encode()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        assert b"accept-encoding: identity" in request.lower()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(report))
        for byte in report:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)

    async with raw(script) as base:
        proxy = await start(UPSTREAM=base)
        await inspected(proxy)
        async with proxy.post() as refusal:
            await refused(refusal, 502, "upstream_key_rejected")


async def test_listening_does_not_wait_for_the_upstreams_word(start: Start) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw(silent) as base:
        proxy = await start(UPSTREAM=base)
        async with proxy.get("/readyz") as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    "report", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"junk\r\n\r\n"]
)
async def test_a_broken_report_is_a_warning(start: Start, report: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(report)

    with capture_logs() as lines:
        async with raw(script) as base:
            await inspected(await start(UPSTREAM=base))
    assert [line["log_level"] for line in lines if "asked about a key" in line["event"]] == [
        "warning"
    ]


async def test_the_clients_credentials_never_go_up(proxy: Proxy, upstream: FakeUpstream) -> None:
    theirs = {"X-Provider-API-Keys": "x", "Cookie": "a=b", "Proxy-Authorization": "Basic x"}
    async with proxy.post(headers={"Authorization": "Bearer none"} | theirs) as answer:
        assert answer.status == 200
    head = upstream.calls[0].headers
    assert head.getall("Authorization") == [f"Bearer {KEY}"]
    assert head.keys().isdisjoint(theirs)


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Everything that is logged, at debug level and unmasked, by anybody."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()],
        logger_factory=structlog.PrintLoggerFactory(stream),
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
    )
    yield stream
    structlog.reset_defaults()
    root.removeHandler(handler)
    root.setLevel(level)


async def echo(request: web.Request) -> web.StreamResponse:
    """The key in every place of an answer."""
    bearer = request.headers["Authorization"]
    kind = "text/event-stream" if b"true" in await request.read() else "application/json"
    return web.Response(
        status=200 if b"true" in await request.read() else 400,
        reason=bearer,
        headers={"cf-ray": bearer, "request-id": bearer, "Content-Type": f"{kind}; x={KEY}"},
        body=json.dumps({"error": {"message": bearer}}),
    )


async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        request = await read_request(reader)
        writer.write(b"HTTP/1.1 200 " + request[:400].replace(b"\r\n", b" ") + b"\r\n: x\r\n\r\n")
        await writer.drain()


async def test_the_key_is_nowhere(
    start: Start, upstream: FakeUpstream, written: io.StringIO
) -> None:
    """A whole scenario, its logs before masking, every answer, every repr and traceback."""
    upstream.answer = echo
    upstream.key_report = {"label": KEY, "is_management_key": False}
    upstream_url = upstream.base_url
    async with raw(broken) as broken_url:
        shown = ""
        for url in (upstream_url, broken_url, "http://127.0.0.1:9/api/v1", "https://127.0.0.1:9"):
            proxy = await start(UPSTREAM=url, FIRST_BYTE_TIMEOUT="1s")
            await inspected(proxy)
            for body in ({}, {"stream": True}, {"model": "x/" + KEY[:20]}, {"nonsense": 1}):
                shown += await transcript(proxy, {**BODY, **body})
            shown += await transcript(proxy, {}, path="/api/v1/keys")
            service = proxy.service
            shown += f"{service.kit!r} {service.settings!r} {vars(service)!r} {proxy.service!r}"
            shown += (
                f"{service.kit.default.upstream.states!r} {vars(service.kit.default.upstream)!r}"
            )
            shown += f"{vars(service.kit.default.upstream.states)!r} {service.assembly.session!r}"
            shown += f"{vars(service.assembly)!r}"
            shown += await failure_of(service, upstream_url)
    await asyncio.sleep(0)
    shown += written.getvalue()
    assert "upstream_unreachable" in shown
    assert "held a key" in written.getvalue()
    assert KEY[20:] not in shown
    assert KEY[:30] not in shown


SHORT = "sk-or-v1-" + "0123456789abcdef" * 3
HIDDEN = SHORT.replace("-", "\\u002d")


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
@pytest.mark.parametrize(
    "told",
    [
        f'{{"id":"c","model":"{SHORT}"}}',
        f'{{"id":"gen-{HIDDEN}","error":{{"message":"no"}}}}',
        f'{{"id":"c","error":{{"code":"{HIDDEN}"}}}}',
    ],
    ids=["model", "id", "code"],
)
async def test_a_key_that_an_answer_tells_is_in_no_book(
    start: Start, upstream: FakeUpstream, tmp_path: Path, told: str, kind: str
) -> None:
    """Ledger and dashboard are read by more people than may know the key."""

    async def answer(request: web.Request) -> web.StreamResponse:
        form = "data: {}\n\n" if kind == "text/event-stream" else "{}"
        return web.Response(text=form.format(told), content_type=kind)

    upstream.answer = answer
    path = tmp_path / "ledger.sqlite3"
    proxy = await start(OPENROUTER_API_KEY=SHORT, LEDGER=str(path), ADMIN="127.0.0.1:0")
    with contextlib.suppress(aiohttp.ClientError):
        async with proxy.post() as got:
            await got.read()
    assert proxy.service.admin is not None
    url = f"http://{proxy.service.admin.addresses[0]}/state.json"
    async with proxy.session.get(url) as figures:
        state = await figures.json()
    assert len(state["errors"]) == 1
    book = proxy.service.accounting.book
    assert isinstance(book, Ledger)
    assert await book.flush()
    with contextlib.closing(sqlite3.connect(path)) as ledger:
        [call] = ledger.execute("SELECT * FROM calls").fetchall()
        [attempt] = ledger.execute("SELECT * FROM attempts").fetchall()
    assert SHORT not in f"{json.dumps(state)} {call} {attempt}"


async def transcript(proxy: Proxy, body: dict[str, Any], path: str = CHAT) -> str:
    raw_body = json.dumps(body)
    return (
        await proxy.raw(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(raw_body)}\r\n\r\n"
            f"{raw_body}".encode()
        )
    ).decode()


async def failure_of(service: Any, base_url: str) -> str:
    """The traceback of a session error, with its causes."""
    try:
        await service.kit.default.upstream.fetch("/models\x00")
    except Exception as error:
        return "".join(traceback.format_exception(error)) + repr(error)
    return ""


def test_masking_takes_out_what_should_not_have_got_there() -> None:
    masking = logs.Masking()
    masking.hide([KEY])
    line = masking(None, "info", {"a": KEY, "b": [f"x{KEY}y"], "c": {"d": RuntimeError(KEY)}})
    assert KEY not in str(line)


NEEDLES = [b"sk-or-v1-" + b"ab" * 20, b"sk-or-v1-" + b"ab" * 15 + b"cdefgh", b"gsk_" + b"aa" * 10]
SEARCHED = [Secret(needle.decode()) for needle in NEEDLES]


WORDS = [*NEEDLES, *(needle[:-1] for needle in NEEDLES), NEEDLES[0][:33], b"sk-or-v1-", b"ab", b"x"]


def streams() -> Iterator[list[bytes]]:
    """Text full of keys and of what looks like one, cut anywhere."""
    made_up = random.Random(1)
    for _ in range(5_000):
        text = b"".join(made_up.choices(WORDS, k=made_up.randrange(8)))
        cuts = sorted(made_up.choices(range(len(text) + 1), k=made_up.randrange(12)))
        yield [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]


def beginning(needle: bytes) -> int:
    """So many of a key's first characters pass; with that many it waits."""
    return min(32, (len(needle) + 1) // 2)


def test_a_key_never_passes_and_everything_else_does() -> None:
    for chunks in streams():
        search, out = KeySearch(SEARCHED), b""
        passed: bytes | None = b""
        for chunk in chunks:
            passed = search.feed(chunk)
            if passed is None:
                break
            out += passed
        text = b"".join(chunks)
        assert (passed is None) == any(needle in text for needle in NEEDLES)
        if passed is None:
            assert text.startswith(out)
            places = [text.find(needle) + beginning(needle) for needle in NEEDLES if needle in text]
            assert all(len(out) < place for place in places)
        else:
            assert out + search.rest() == text


def test_no_more_waits_than_the_beginning_of_a_key() -> None:
    for chunks in streams():
        search, sent, got = KeySearch(SEARCHED), b"", b""
        for chunk in chunks:
            got += chunk
            passed = search.feed(chunk)
            if passed is None:
                break
            sent += passed
            tails = [
                length
                for needle in NEEDLES
                for length in range(beginning(needle), len(needle))
                if got.endswith(needle[:length])
            ]
            assert got.startswith(sent)
            assert len(got) - len(sent) <= max(tails, default=0)


def test_byte_by_byte_no_more_than_the_shortest_tail_gets_out() -> None:
    key = KEY.encode()
    search, out = KeySearch([Secret(KEY)]), b""
    for byte in key:
        passed = search.feed(bytes([byte]))
        if passed is None:
            break
        out += passed
    else:
        pytest.fail("the key was not found")
    assert out == key[:31]


def test_an_answer_that_ends_with_half_a_key_is_whole() -> None:
    search = KeySearch([Secret(KEY)])
    assert search.feed(b"data: " + KEY[:40].encode()) == b"data: "
    assert search.rest() == KEY[:40].encode()
    assert search.rest() == b""


def test_without_keys_nothing_is_held() -> None:
    search = KeySearch([])
    assert search.feed(b"abc") == b"abc"
    assert search.rest() == b""
