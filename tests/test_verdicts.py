"""A key stays in use while it is asked about, and is set aside by the upstream's word."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from keyproxy.settings import Secret
from keyproxy.upstream import keyring
from keyproxy.upstream.keyring import (
    ASIDE_SECONDS,
    ENOUGH_REFUSALS,
    PAUSE_SECONDS,
    REPEATS_SECONDS,
    KeyStates,
)
from keyproxy.upstream.provider import KeyReport
from tests.conftest import BODY, KEY, Proxy, Start, inspected, refused, settings
from tests.fake_upstream import FakeUpstream, Handler, completion, silent

FIRST, SECOND = Secret("sk-or-v1-first-" + "a" * 40), Secret("sk-or-v1-second-" + "b" * 40)
KEYS = [FIRST, SECOND]
DEADLINE_SECONDS = 5.0


class Upstream:
    """Says what a test wants of each key, and counts; time moves when somebody sleeps.

    ``status`` None: it hangs until it is set free.
    """

    def __init__(self) -> None:
        self.now, self.asked = 1000.0, 0
        self.status: int | None = 200
        self.free = asyncio.Event()
        self.sleeps: list[float] = []
        self.awake = asyncio.Event()
        self.states = KeyStates(self.ask, clock=lambda: self.now, sleep=self.sleep)
        for key in KEYS:
            self.states.of(key)

    async def ask(self, key: Secret) -> KeyReport | None:
        self.asked += 1
        if self.status is None:
            await self.free.wait()
            return None
        return KeyReport(self.status)

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        await self.awake.wait()
        self.awake.clear()

    async def wake(self) -> None:
        """Let who sleeps go on, and do all that comes of it."""
        self.now += self.sleeps[-1]
        self.awake.set()
        await self.settled()

    async def settled(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def refuse(self, times: int = 1, key: Secret = FIRST) -> None:
        for _ in range(times):
            self.states.refused(key)
        await self.settled()


@pytest.fixture
async def upstream_of_keys() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    yield upstream
    await upstream.states.close()


@pytest.fixture
def known(upstream_of_keys: Upstream) -> Upstream:
    return upstream_of_keys


async def test_one_word_of_the_upstream_asks_and_sets_nothing_aside(known: Upstream) -> None:
    known.states.refused(FIRST)
    assert known.states.usable(KEYS) == [FIRST, SECOND]
    assert not await known.states.are_rejected([FIRST])
    assert (known.asked, known.states.usable(KEYS)) == (1, [FIRST, SECOND])


async def test_a_key_that_the_upstream_does_not_know_is_set_aside(known: Upstream) -> None:
    known.status = 401
    known.states.refused(FIRST)
    assert await known.states.are_rejected([FIRST])
    assert known.states.usable(KEYS) == [SECOND]
    assert not await known.states.are_rejected([FIRST, SECOND])


async def test_many_refusals_at_once_cause_one_question(known: Upstream) -> None:
    await known.refuse(50)
    assert (known.asked, known.states.usable(KEYS)) == (1, [FIRST, SECOND])


async def test_refusals_one_after_the_other_cause_a_question_in_five_seconds(
    known: Upstream,
) -> None:
    for _ in range(30):
        await known.refuse()
        known.now += PAUSE_SECONDS / 10
    assert (known.asked, known.states.usable(KEYS)) == (3, [FIRST, SECOND])


@pytest.mark.parametrize("status", [403, 404, 429, 500, 302])
async def test_without_a_verdict_the_question_is_repeated_in_growing_pauses(
    known: Upstream, status: int
) -> None:
    known.status = status
    await known.refuse()
    for _ in REPEATS_SECONDS:
        await known.wake()
    assert known.sleeps == list(REPEATS_SECONDS)
    assert (known.asked, known.states.usable(KEYS)) == (5, [FIRST, SECOND])
    await known.refuse()
    assert known.asked == 6


async def test_a_repeated_question_that_is_answered_is_the_last(known: Upstream) -> None:
    known.status = 500
    await known.refuse()
    known.status = 401
    await known.wake()
    assert (known.asked, known.states.usable(KEYS)) == (2, [SECOND])
    assert known.sleeps == [REPEATS_SECONDS[0]]


async def test_without_a_verdict_five_refusals_in_a_row_set_a_key_aside(known: Upstream) -> None:
    known.status = 500
    await known.refuse(ENOUGH_REFUSALS - 1)
    assert known.states.usable(KEYS) == [FIRST, SECOND]
    known.states.accepted(FIRST)
    await known.refuse(ENOUGH_REFUSALS - 1)
    assert known.states.usable(KEYS) == [FIRST, SECOND]
    await known.refuse()
    assert known.states.usable(KEYS) == [SECOND]


async def test_refusals_set_nothing_aside_before_the_question_is_answered(known: Upstream) -> None:
    known.status = None
    await known.refuse(2 * ENOUGH_REFUSALS)
    assert known.states.usable(KEYS) == [FIRST, SECOND]
    known.free.set()
    await known.settled()
    assert known.states.usable(KEYS) == [SECOND]


async def test_a_question_that_hangs_is_waited_for_so_long(
    known: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "PATIENCE_SECONDS", 0.05)
    known.status = None
    await known.refuse()
    assert not await known.states.are_rejected([FIRST])
    await known.refuse(ENOUGH_REFUSALS - 1)
    assert await known.states.are_rejected([FIRST])
    assert known.asked == 1


async def test_a_key_that_was_set_aside_is_asked_about_each_minute(known: Upstream) -> None:
    known.status = 401
    await known.refuse()
    running = asyncio.create_task(known.states.run())
    await known.settled()
    await known.wake()
    assert (known.sleeps, known.asked) == ([ASIDE_SECONDS] * 2, 2)
    known.status = 500
    await known.wake()
    assert known.states.usable(KEYS) == [SECOND]
    known.status = 200
    await known.wake()
    assert known.states.usable(KEYS) == [FIRST, SECOND]
    await known.wake()
    assert known.asked == 4
    running.cancel()


async def test_each_key_is_asked_about_hourly_and_what_is_said_is_kept(known: Upstream) -> None:
    known.states.inspect(KEYS)
    running = asyncio.create_task(known.states.run())
    await known.settled()
    assert known.asked == 2
    for _ in range(59):
        await known.wake()
    assert known.asked == 2
    await known.wake()
    assert known.asked == 4
    known.status = None  # asked again an hour later, whatever becomes of this
    for _ in range(60):
        await known.wake()
    assert known.asked == 6
    assert [state.report is not None for state in known.states.states(KEYS)] == [True, True]
    assert known.states.usable(KEYS) == [FIRST, SECOND]
    running.cancel()


async def test_a_key_of_which_nothing_is_ever_said_is_tried_once_a_minute(known: Upstream) -> None:
    """An upstream without ``/key`` would never take it back."""
    known.status = 404
    await known.refuse(ENOUGH_REFUSALS)
    assert known.states.usable(KEYS) == [SECOND]
    running = asyncio.create_task(known.states.run())
    await known.settled()
    await known.wake()
    assert known.states.usable(KEYS) == [FIRST, SECOND]
    await known.refuse()
    assert known.states.usable(KEYS) == [SECOND]
    await known.wake()
    known.states.accepted(FIRST)
    await known.refuse()
    assert known.states.usable(KEYS) == [FIRST, SECOND]
    running.cancel()


async def test_keys_that_are_gone_are_neither_asked_about_nor_remembered(known: Upstream) -> None:
    known.status = 401
    await known.refuse()
    known.states.keep([SECOND])
    assert not await known.states.are_rejected([FIRST])
    await known.refuse()
    assert known.asked == 1
    known.states.demote(FIRST)
    assert known.states.usable(KEYS) == [FIRST, SECOND]


# Calls


def of_calls(status: int) -> Handler:
    """An upstream that answers calls so, and quotes the key."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if status == 200:
            return completion()
        message = f"User not found. {request.headers['Authorization']}"
        fields = {"WWW-Authenticate": "Bearer", "request-id": "req-1", "x-should-retry": "true"}
        error = {"error": {"code": status, "message": message}, "user_id": "user_1"}
        return web.json_response(error, status=status, headers=fields)

    return answer


async def after_the_start(proxy: Proxy) -> None:
    """Waits until the start's own question about the key is answered."""
    await inspected(proxy)
    proxy.upstream.inspected.clear()


STYLES = {
    "/api/v1/chat/completions": ("upstream_error", BODY),
    "/api/v1/responses": ("upstream_error", {"model": BODY["model"], "input": "x"}),
    "/api/v1/messages": ("api_error", BODY | {"max_tokens": 9}),
}


@pytest.mark.parametrize("path", STYLES)
@pytest.mark.parametrize("key_status", [200, 500])
async def test_the_401_of_one_call_passes_in_words_that_send_nobody_to_log_in(
    start: Start, upstream: FakeUpstream, path: str, key_status: int
) -> None:
    kind, body = STYLES[path]
    proxy = await start(ALLOWED_ENDPOINTS=f"POST {path}")
    await after_the_start(proxy)
    upstream.answer, upstream.key_status = of_calls(401), key_status
    async with proxy.post(body, path=path) as answer:
        assert answer.status == 401
        assert answer.headers["x-should-retry"] == "false"
        assert answer.headers["request-id"] == "req-1"
        assert answer.headers.keys().isdisjoint({"X-Keyproxy-Code", "WWW-Authenticate"})
        text = await answer.text()
    said = json.loads(text)
    assert (said.get("type"), said["error"]["type"]) == (
        "error" if kind == "api_error" else None,
        kind,
    )
    assert KEY[:20] not in text
    assert "user_1" not in text
    words = r"log.?in|sign|session|token|user|credential|expired|authenticat"
    assert not re.search(words, said["error"]["message"], re.I)
    upstream.answer = of_calls(200)
    async with proxy.post(body, path=path) as answer:
        assert answer.status == 200
    assert len(upstream.inspected) == 1


async def test_who_provokes_401s_takes_nothing_from_others(
    start: Start, upstream: FakeUpstream
) -> None:
    async def picky(request: web.Request) -> web.StreamResponse:
        answer = of_calls(401 if b"provoke" in await request.read() else 200)
        return await answer(request)

    proxy = await start(RATE_LIMIT="off", MAX_IN_FLIGHT="100")
    await after_the_start(proxy)
    upstream.answer = picky

    async def status(text: str) -> int:
        async with proxy.post({"model": "openai/gpt-4o-mini", "messages": [], "user": text}) as got:
            return int(got.status)

    found = await asyncio.gather(*(status("provoke" if n % 2 else "") for n in range(60)))
    assert sorted(found) == [200] * 30 + [401] * 30
    assert len(upstream.inspected) == 1


async def test_a_call_with_the_key_that_turns_out_to_be_rejected_is_told_so(
    start: Start, upstream: FakeUpstream
) -> None:
    proxy = await start()
    await after_the_start(proxy)
    upstream.answer, upstream.key_status = of_calls(401), 401
    for _ in range(2):
        async with proxy.post() as answer:
            assert answer.headers["x-should-retry"] == "false"
            await refused(answer, 502, "upstream_key_rejected")
    assert len(upstream.calls) == len(upstream.inspected) == 1


async def test_a_hanging_question_holds_a_call_for_two_seconds_at_most(
    start: Start, upstream: FakeUpstream
) -> None:
    proxy = await start()
    await after_the_start(proxy)
    upstream.answer, upstream.key_answer = of_calls(401), silent
    async with asyncio.timeout(2 * DEADLINE_SECONDS), proxy.post() as answer:
        assert answer.status == 401
    upstream.answer = of_calls(200)
    async with proxy.post() as answer:
        assert answer.status == 200


async def test_a_reload_keeps_what_is_known_and_asked_of_a_key(
    start: Start, upstream: FakeUpstream
) -> None:
    release = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.json_response({"error": {"code": 401}}, status=401)

    proxy = await start()
    await after_the_start(proxy)
    upstream.answer, upstream.key_answer = of_calls(401), slow
    call = asyncio.create_task(status_of(proxy))
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not upstream.inspected:
            await asyncio.sleep(0.01)
    proxy.service.apply(settings(UPSTREAM=upstream.base_url, RATE_LIMIT="99/minute"))
    release.set()
    assert await call == 502
    assert await status_of(proxy) == 502
    assert len(upstream.calls) == len(upstream.inspected) == 1


async def status_of(proxy: Proxy) -> int:
    async with proxy.post() as answer:
        return int(answer.status)


async def test_a_stop_cuts_a_call_that_waits_for_what_is_said_of_its_key(
    start: Start, upstream: FakeUpstream
) -> None:
    proxy = await start(SHUTDOWN_GRACE="0s")
    await after_the_start(proxy)
    upstream.answer, upstream.key_answer = of_calls(401), silent
    call = asyncio.create_task(status_of(proxy))
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not upstream.inspected:
            await asyncio.sleep(0.01)
        await proxy.service.drain()
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await call
