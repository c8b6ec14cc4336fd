"""A flood of equal refusals leaves a few lines and a count, and no refusal is lost."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from keyproxy import logs
from keyproxy.floods import LINES, MOST_KINDS, Floods, Refused
from tests.conftest import BODY, Proxy, Start
from tests.fake_upstream import FakeUpstream

NOT_ALLOWED = BODY | {"model": "x/y"}


@pytest.fixture
def lines() -> Iterator[Any]:
    """Reads the lines about refusals so far."""
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    yield lambda: [
        line for text in stream.getvalue().splitlines() if "code" in (line := json.loads(text))
    ]
    structlog.reset_defaults()


def counted(lines: Any) -> Counter[str]:
    """Refusals by code, however they were written."""
    counts: Counter[str] = Counter()
    for line in lines():
        counts[line["code"]] += line.get("count", 1)
    return counts


async def refuse(proxy: Proxy, times: int, body: Any = NOT_ALLOWED) -> None:
    for _ in range(times):
        async with proxy.post(body) as answer:
            assert answer.status >= 400


async def test_a_flood_is_a_few_lines_and_a_count_at_the_stop(
    lines: Any, start: Start, upstream: FakeUpstream
) -> None:
    proxy = await start("serve", RATE_LIMIT="off", ADDRESS_RATE_LIMIT="off")
    await refuse(proxy, LINES + 30)
    assert len(lines()) == LINES
    await proxy.service.close()
    *written, last = lines()
    assert len(written) == LINES
    assert last.pop("timestamp")
    assert last.pop("seconds") >= 0
    assert last == {
        "level": "info",
        "message": "refused again",
        "code": "model_not_allowed",
        "http_status": 403,
        "app": "default",
        "client": "127.0.0.0/24",
        "count": 30,
    }
    assert not upstream.calls


async def test_other_codes_and_calls_that_pass_keep_their_lines(lines: Any, start: Start) -> None:
    proxy = await start("serve", RATE_LIMIT="off", ADDRESS_RATE_LIMIT="off")
    await refuse(proxy, LINES + 5)
    await refuse(proxy, 1, BODY | {"unheard_of": 1})
    await proxy.service.close()
    assert counted(lines) == {"model_not_allowed": LINES + 5, "field_not_allowed": 1}
    assert "param" in next(line for line in lines() if line["code"] == "field_not_allowed")


async def test_broken_heads_and_failures_of_the_upstream_are_counted_too(
    lines: Any, start: Start
) -> None:
    proxy = await start(
        "serve",
        UPSTREAM="http://127.0.0.1:9/api/v1",
        RATE_LIMIT="off",
        ADDRESS_RATE_LIMIT="off",
    )
    for _ in range(LINES + 4):
        assert b"400 Bad Request" in await proxy.raw(b"NO\x00HTTP\r\n\r\n")
    await refuse(proxy, LINES + 2, BODY)
    await proxy.service.close()
    assert counted(lines) == {"bad_request": LINES + 4, "upstream_unreachable": LINES + 2}
    again = [line for line in lines() if "count" in line]
    assert {line["code"]: line["level"] for line in again} == {
        "bad_request": "info",
        "upstream_unreachable": "error",
    }


async def test_windows_end_by_themselves_and_a_flood_that_goes_on_is_one_line_each(
    lines: Any,
) -> None:
    kind, small = Refused("rate_limited", 429, "info", "default", "a"), Refused("x", 400)
    flood = Floods(window_seconds=0.05)
    try:
        assert [flood.absorbs(kind) for _ in range(3 * LINES)] == [False] * LINES + [True] * (
            2 * LINES
        )
        assert not flood.absorbs(small)
        async with asyncio.timeout(5):
            while not lines():  # the window has no event that others may wait for
                await asyncio.sleep(0.01)
        assert [line["count"] for line in lines()] == [2 * LINES]
        assert flood.absorbs(kind)  # it goes on
        assert not flood.absorbs(small)
    finally:
        flood.close()
    assert [line["count"] for line in lines()] == [2 * LINES, 1]


async def test_who_stops_flooding_is_written_again(lines: Any) -> None:
    kind = Refused("rate_limited", 429)
    flood = Floods(window_seconds=0.02)
    for _ in range(LINES + 1):
        flood.absorbs(kind)
    async with asyncio.timeout(5):
        while not lines():
            await asyncio.sleep(0.01)
    assert not flood.absorbs(kind)
    flood.close()


async def test_a_flood_from_everywhere_is_counted_by_its_code(lines: Any) -> None:
    flood = Floods()
    written = 0
    for number in range(10_000):
        written += not flood.absorbs(Refused("rate_limited", 429, "info", "default", f"c{number}"))
    assert written == MOST_KINDS + LINES
    flood.close()
    [line] = lines()
    assert (line["count"], "client" in line, "app" in line) == (10_000 - written, False, False)


async def test_on_the_console_a_count_is_read_at_a_glance(upstream: FakeUpstream) -> None:
    stream = io.StringIO()
    logs.configure("console", "info", stream)
    flood = Floods()
    for _ in range(LINES + 7):
        flood.absorbs(Refused("rate_limited", 429))
    flood.close()
    structlog.reset_defaults()
    assert stream.getvalue().split(maxsplit=1)[1] == "429  rate_limited 7 more\n"
