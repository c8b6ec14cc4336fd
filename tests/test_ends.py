"""How a call ends has one word: the log and the ledger say the same."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from keyproxy.call import End
from tests.conftest import BODY, KEY, Proxy, served, settings
from tests.fake_upstream import FakeUpstream, begun, completion, event_stream, silent

DEADLINE_SECONDS = 5.0
ERROR = b'data: {"error":{"code":"server_error"},"choices":[]}\n\n'
Act = Callable[[Proxy], Awaitable[None]]


async def ended(upstream: FakeUpstream, directory: Path, act: Act, **said: str) -> tuple[str, str]:
    """How the one call that ``act`` makes ended, by the log and by the ledger."""
    ledger = directory / "ledger.sqlite3"
    given = settings(UPSTREAM=upstream.base_url, LEDGER=str(ledger), **said)
    with capture_logs() as lines:
        async with served(given, upstream) as proxy:
            await act(proxy)
            async with asyncio.timeout(DEADLINE_SECONDS):
                while not any("ended" in line for line in lines):
                    await asyncio.sleep(0.01)
    [logged] = [line["ended"] for line in lines if "ended" in line]
    with closing(sqlite3.connect(ledger)) as connection:
        [(booked,)] = connection.execute("SELECT ended FROM calls").fetchall()
    return logged, booked


async def has_come(upstream: FakeUpstream) -> None:
    """The call is there; before it came a question about prices."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not upstream.calls:
            await asyncio.sleep(0.01)


async def read(proxy: Proxy) -> None:
    """Call, and take what comes until it ends."""
    with contextlib.suppress(aiohttp.ClientError):
        async with proxy.post(BODY | {"stream": True}) as answer:
            await answer.read()
    await proxy.session.close()


async def leave(proxy: Proxy) -> None:
    """Call, and leave once the upstream has the call."""
    call = asyncio.create_task(read(proxy))
    await has_come(proxy.upstream)
    call.cancel()
    await proxy.session.close()


async def leave_midway(proxy: Proxy) -> None:
    async with proxy.post(BODY | {"stream": True}) as answer:
        assert await answer.content.readany() == b"data: 1\n\n"
    await proxy.session.close()


async def leave_after_an_error(proxy: Proxy) -> None:
    async with proxy.post(BODY | {"stream": True}) as answer:
        assert await answer.content.readany() == ERROR
    await proxy.session.close()


async def stop_after_an_error(proxy: Proxy) -> None:
    async with proxy.post(BODY | {"stream": True}) as answer:
        assert await answer.content.readany() == ERROR
        await proxy.service.drain()


async def stop(proxy: Proxy) -> None:
    """Call, and stop the server under it."""
    call = asyncio.create_task(read(proxy))
    await has_come(proxy.upstream)
    await proxy.service.drain()
    await call


async def whole(request: web.Request) -> web.StreamResponse:
    return completion()


async def failed(request: web.Request) -> web.StreamResponse:
    response = await event_stream(request)
    await response.write(ERROR)
    return response


async def failed_and_silent(request: web.Request) -> web.StreamResponse:
    await failed(request)
    return await silent(request)


async def cut(request: web.Request) -> web.StreamResponse:
    response = await event_stream(request)
    await response.write(b"data: 1\n\n")
    assert request.transport is not None
    request.transport.abort()
    return response


async def telling(request: web.Request) -> web.StreamResponse:
    response = await event_stream(request)
    await response.write(f"data: {KEY}\n\n".encode())
    return response


CASES: list[tuple[End, Any, Act, dict[str, str]]] = [
    (End.COMPLETE, whole, read, {}),
    (End.REFUSED, silent, read, {"FIRST_BYTE_TIMEOUT": "100ms"}),
    (End.CLIENT_LEFT, silent, leave, {}),
    (End.CLIENT_LEFT, begun, leave_midway, {}),
    (End.STOPPED, silent, stop, {"SHUTDOWN_GRACE": "0.05"}),
    (End.STOPPED, begun, stop, {"SHUTDOWN_GRACE": "0.05"}),
    (End.STALLED, begun, read, {"IDLE_TIMEOUT": "100ms"}),
    (End.UPSTREAM_CUT, cut, read, {}),
    (End.KEY_IN_ANSWER, telling, read, {}),
    (End.UPSTREAM_ERROR, failed, read, {}),
    (End.CLIENT_LEFT, failed_and_silent, leave_after_an_error, {}),
    (End.STOPPED, failed_and_silent, stop_after_an_error, {"SHUTDOWN_GRACE": "0.05"}),
]


@pytest.mark.parametrize(
    ("word", "answer", "act", "said"),
    CASES,
    ids=[f"{word}, {answer.__name__}" for word, answer, *_ in CASES],
)
async def test_log_and_ledger_have_one_word_for_how_a_call_ended(
    upstream: FakeUpstream,
    tmp_path: Path,
    word: End,
    answer: Any,
    act: Act,
    said: dict[str, str],
) -> None:
    upstream.answer = answer
    assert await ended(upstream, tmp_path, act, **said) == (word, word)


async def test_a_client_that_leaves_while_the_server_lets_calls_end_was_not_stopped(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    async def leave_while_it_drains(proxy: Proxy) -> None:
        call = asyncio.create_task(read(proxy))
        await has_come(upstream)
        draining = asyncio.create_task(proxy.service.drain())
        while not proxy.service.kit.life.is_stopping:
            await asyncio.sleep(0)
        call.cancel()
        await draining

    upstream.answer = begun
    left = await ended(upstream, tmp_path, leave_while_it_drains, SHUTDOWN_GRACE="5")
    assert left == (End.CLIENT_LEFT, End.CLIENT_LEFT)
