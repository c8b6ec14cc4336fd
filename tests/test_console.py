"""The log beside a dev server: one short line a call, and below a refusal the line to paste."""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from keyproxy import logs
from keyproxy.console import MOST_COLUMNS, USUAL_COLUMNS, ShortLines, elided
from tests.conftest import BODY, Proxy, Start
from tests.fake_upstream import FakeUpstream, event_stream
from tests.program import environment

AT = datetime(2026, 12, 1, 19, 0, 12, tzinfo=UTC)
TIME = AT.astimezone().strftime("%H:%M:%S")
CALL: dict[str, Any] = {
    "timestamp": "2026-12-01T19:00:12.345678Z",
    "level": "info",
    "event": "POST /api/v1/chat/completions 200",
    "request_id": "req_0123456789abcdef01234567",
    "app": "default",
    "client": "127.0.0.1",
    "origin": "http://localhost:3000",
    "endpoint": "POST /api/v1/chat/completions",
    "model": "openai/gpt-4o-mini",
    "served": "openai/gpt-4o-mini-2024-07-18",
    "stream": True,
    "http_status": 200,
    "first_byte_ms": 71.2,
    "total_ms": 104.4,
    "bytes": 2389,
    "input_tokens": 8,
    "output_tokens": 4,
    "cost": "0.00042",
    "cost_source": "exact",
    "ended": "complete",
}
REFUSED: dict[str, Any] = {"ended": "refused", "input_tokens": None, "output_tokens": None}
REFUSED |= {"cost": None, "served": None}


def shown(changes: Mapping[str, Any], *, lines: ShortLines | None = None) -> str:
    """The lines of the call with these changes; None: it does not say."""
    event = {name: each for name, each in (CALL | {**changes}).items() if each is not None}
    return (lines or ShortLines())(None, "info", event)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "200  gpt-4o-mini  12 tok  0.1 s  $0.00042"),
        ({"cost": "0.000088"}, "200  gpt-4o-mini  12 tok  0.1 s  $0.000088"),
        ({"cost": "0.0001234567"}, "200  gpt-4o-mini  12 tok  0.1 s  $0.000123"),
        ({"cost": "0.5"}, "200  gpt-4o-mini  12 tok  0.1 s  $0.5"),
        ({"cost": "12.3"}, "200  gpt-4o-mini  12 tok  0.1 s  $12.30"),
        ({"cost": "0"}, "200  gpt-4o-mini  12 tok  0.1 s  $0"),
        ({"cost_source": "estimated"}, "200  gpt-4o-mini  12 tok  0.1 s  ~$0.00042"),
        ({"total_ms": 75_312.0}, "200  gpt-4o-mini  12 tok  75.3 s  $0.00042"),
        ({"model": "x/o3", "served": "y/r1"}, "200  o3  served=y/r1  12 tok  0.1 s  $0.00042"),
        ({"model": "fast", "served": "fast"}, "200  fast  12 tok  0.1 s  $0.00042"),
        ({"model": "a/x,b/y,c/z", "served": "b/y"}, "200  x +2  12 tok  0.1 s  $0.00042"),
        (
            {"model": "openai/gpt-oss-120b", "provider": "cerebras"}
            | {"native_model": "gpt-oss-120b", "served": "gpt-oss-120b"},
            "200  gpt-oss-120b  at cerebras  12 tok  0.1 s  $0.00042",
        ),
        (
            {"provider": "groq", "served": "other"},
            "200  gpt-4o-mini  at groq served=other  12 tok  0.1 s  $0.00042",
        ),
        (
            {"http_status": 429, "provider": "groq"},
            "429  gpt-4o-mini  from groq  12 tok  0.1 s  $0.00042",
        ),
        ({"http_status": 429}, "429  gpt-4o-mini  from the upstream  12 tok  0.1 s  $0.00042"),
        ({"ended": "client_left"}, "200  gpt-4o-mini  client_left  12 tok  0.1 s  $0.00042"),
        ({"ended": "upstream_cut"}, "200  gpt-4o-mini  upstream_cut  12 tok  0.1 s  $0.00042"),
        ({"ended": "stalled"}, "200  gpt-4o-mini  stalled  12 tok  0.1 s  $0.00042"),
        (
            {"ended": "upstream_error", "error": "server_error"},
            "200  gpt-4o-mini  upstream_error server_error  12 tok  0.1 s  $0.00042",
        ),
    ],
)
def test_a_call_is_one_short_line(changes: Mapping[str, Any], line: str) -> None:
    assert shown(changes).startswith(f"{TIME}  {line}")
    assert len(shown(changes).splitlines()) == 1
    assert len(shown(changes)) <= USUAL_COLUMNS


@pytest.mark.parametrize(
    ("hint", "first", "second"),
    [
        ("KEYPROXY_EXTRA_FIELDS=a,b", "field_not_allowed  0.1 s", "KEYPROXY_EXTRA_FIELDS=a,b"),
        (
            "add it: KEYPROXY_EXTRA_FIELDS=a",
            "field_not_allowed (add it)  0.1 s",
            "KEYPROXY_EXTRA_FIELDS=a",
        ),
        ('extra_fields = ["a"]', "field_not_allowed  0.1 s", 'extra_fields = ["a"]'),
        ("leave the field out", "field_not_allowed  0.1 s", "leave the field out"),
        ("or: --max-body 9", "field_not_allowed (or)  0.1 s", "--max-body 9"),
        (
            "or: in [apps.a-b] of the TOML file: max_tokens = 9",
            "field_not_allowed (or)  0.1 s",
            "in [apps.a-b] of the TOML file: max_tokens = 9",
        ),
        (
            "the issuer 'x: KEYPROXY_CLIENT_AUTH=none' is not ours",
            "field_not_allowed  0.1 s",
            "the issuer 'x: KEYPROXY_CLIENT_AUTH=none' is not ours",
        ),
    ],
)
def test_the_line_to_paste_stands_alone_below_a_refusal(hint: str, first: str, second: str) -> None:
    refused = {"http_status": 403, "code": "field_not_allowed", "hint": hint, "model": None}
    lines = shown(REFUSED | refused).splitlines()
    assert lines == [f"{TIME}  403  POST /api/v1/chat/completions  {first}", second]


def test_a_line_to_paste_is_never_shortened() -> None:
    hint = "KEYPROXY_ALLOWED_MODELS=" + ",".join(["openai/gpt-4o-mini"] * 30)
    assert shown(REFUSED | {"code": "model_not_allowed", "hint": hint}).endswith("\n" + hint)


def test_the_field_that_a_refusal_is_about_stands_behind_its_code() -> None:
    refused = {"http_status": 403, "code": "field_not_allowed", "param": "temprature"}
    assert shown(REFUSED | refused | {"model": None}) == (
        f"{TIME}  403  POST /api/v1/chat/…mpletions  field_not_allowed temprature  0.1 s"
    )
    long = shown(REFUSED | refused | {"model": None, "param": "x" * 80})
    assert len(long) <= MOST_COLUMNS
    assert "field_not_allowed xxxx" in long


def test_what_failed_beside_our_answer_is_named() -> None:
    failed = {"http_status": 502, "code": "upstream_unreachable", "cause": "ConnectionRefusedError"}
    line = shown(REFUSED | failed)
    assert line == f"{TIME}  502  gpt-4o-mini  upstream_unreachable (ConnectionRefusedError)  0.1 s"


def test_a_name_that_two_authors_use_is_shown_with_its_author() -> None:
    lines = ShortLines()
    asked = ["openai/gpt-oss", "azure/gpt-oss", "openai/gpt-oss", "openai/gpt-oss", "x/1"]
    found = [shown({"model": each, "served": each}, lines=lines).split("  ")[2] for each in asked]
    assert found == ["gpt-oss", "azure/gpt-oss", "gpt-oss", "gpt-oss", "x/1"]


def test_a_long_name_loses_its_middle() -> None:
    name = "vendor/an-unusually-long-name-of-a-model-with-reasoning-instruct-20261201:free"
    line = shown({"model": name, "served": name})
    assert len(line) <= USUAL_COLUMNS
    assert "  an-unusually-" in line
    assert "1201:free  12 tok" in line
    assert elided("abcdefghij", 7) == "abcd…ij"


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "model": st.text(max_size=300),
            "served": st.text(max_size=300),
            "endpoint": st.text(max_size=300),
            "code": st.text(max_size=300),
            "cause": st.text(max_size=300),
            "error": st.text(max_size=70),
            "ended": st.sampled_from(["complete", "refused", "upstream_error", "client_left"]),
            "http_status": st.integers(100, 599),
            "total_ms": st.floats(0, 1e9),
            "input_tokens": st.integers(0, 10**9),
            "cost": st.decimals(0, 10**6, places=12).map(lambda each: f"{each:f}"),
        },
    )
)
def test_no_call_takes_more_than_a_line(changes: Mapping[str, Any]) -> None:
    line = shown(changes)
    assert len(line) <= MOST_COLUMNS
    assert line.isprintable()


def test_what_is_not_known_is_not_shown() -> None:
    event = {"timestamp": CALL["timestamp"], "level": "info", "event": "prices", "age_days": None}
    assert ShortLines()(None, "info", event) == f"{TIME}  prices"


def test_an_attempt_that_failed_names_its_provider_and_why() -> None:
    failed = {
        "event": "an attempt failed",
        "provider": "groq",
        "native_model": "openai/gpt-oss-20b",
    }
    at = {"timestamp": CALL["timestamp"]}
    line = ShortLines()(None, "info", {**at, **failed, "fault": "load", "http_status": 429})
    assert line.endswith("  429  openai/gpt-oss-20b  groq failed: load")
    line = ShortLines()(None, "info", {**at, **failed, "fault": "not_sent"})
    assert line.endswith("  ---  openai/gpt-oss-20b  groq failed: not_sent")


def test_other_events_are_a_sentence_and_what_belongs_to_it() -> None:
    event = {"timestamp": CALL["timestamp"], "level": "warning", "event": "the prices are old"}
    assert ShortLines()(None, "", event | {"age_days": 3}) == (
        f"{TIME}  warning  the prices are old age_days=3"
    )
    narrow = ShortLines(columns=26)(None, "", event | {"age_days": 3})
    assert narrow.splitlines() == [
        f"{TIME}  warning  the",
        "          prices are old",
        "          age_days=3",
    ]


@pytest.fixture
def terminal() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure("console", "info", stream)
    yield stream
    structlog.reset_defaults()


async def test_calls_are_lines_of_the_console(
    start: Start, upstream: FakeUpstream, terminal: io.StringIO
) -> None:
    async def failing(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        await response.write(b'data: {"error":{"code":502,"message":"x"},"choices":[]}\n\n')
        return response

    proxy = await start(ALLOWED_MODELS="openai/gpt-4o-mini")
    async with proxy.post():
        pass
    async with proxy.post(BODY | {"model": "other/model"}) as answer:
        assert answer.status == 403
    upstream.answer = failing
    async with proxy.post(BODY | {"stream": True}) as answer:
        await answer.read()
    good, refused, paste, failed = terminal.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  200  gpt-4o-mini  20 tok  \d\.\d s  \$0\.000088", good)
    assert "  403  POST /api/v1/chat/completions  model_not_allowed" in refused
    assert paste.startswith("KEYPROXY_ALLOWED_MODELS=")
    assert "  200  gpt-4o-mini  upstream_error 502  " in failed


async def test_a_client_that_leaves_is_told_from_a_whole_answer(
    proxy: Proxy, upstream: FakeUpstream, terminal: io.StringIO
) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = await event_stream(request)
        await response.write(b": x\n\n")
        await asyncio.Event().wait()
        return response

    upstream.answer = endless
    async with proxy.post(BODY | {"stream": True}) as answer:
        await answer.content.readany()
        answer.close()
    await upstream.left.wait()
    async with asyncio.timeout(5):
        while "client_left" not in terminal.getvalue():
            await asyncio.sleep(0)


async def start_of(tmp_path: Path, *options: str, **variables: str) -> tuple[str, str]:
    """What ``keyproxy dev`` says on stdout, and on stderr up to its stop."""
    given = environment(
        KEYPROXY_LOG_FORMAT="console", KEYPROXY_UPSTREAM="http://127.0.0.1:9/api/v1"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keyproxy", "dev", *options),
        cwd=tmp_path,
        env=given | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        hello = await process.stdout.readuntil(b"Ctrl-C stops it.")
        process.terminate()
        _, log = await process.communicate()
    return hello.decode(), log.decode()


async def test_the_start_shows_the_addresses_first_and_short(tmp_path: Path) -> None:
    hello, log = await start_of(tmp_path, KEYPROXY_TOTAL_BUDGET="5/day")
    lines = hello.splitlines()
    first, second, third = (line.strip() for line in lines[1:4])
    assert re.fullmatch(r"Base URL   (http://localhost:\d+)/api/v1", first)
    assert second == first.replace("Base URL ", "Chat page").removesuffix("api/v1")
    assert third == "Open to    this computer, pages of localhost; 60/minute; $5/day"
    assert [line.strip() for line in lines[5:6]] == ['import OpenAI from "openai";']
    assert all(len(line) <= USUAL_COLUMNS for line in lines)
    assert "listening" not in log
    assert "\x1b" not in hello + log


async def test_the_start_names_the_dashboard_where_there_is_one(tmp_path: Path) -> None:
    hello, _ = await start_of(tmp_path, KEYPROXY_ADMIN="127.0.0.1:0")
    third = hello.splitlines()[3].strip()
    assert re.fullmatch(r"Dashboard  http://localhost:\d+/", third)


async def test_the_snippet_names_a_model_that_may_be_called(tmp_path: Path) -> None:
    hello, _ = await start_of(tmp_path, KEYPROXY_ALLOWED_MODELS="!openai/*,x-ai/*,x-ai/grok-4")
    assert 'model: "x-ai/grok-4"' in hello


async def test_all_else_is_said_at_the_level_debug(tmp_path: Path) -> None:
    _, log = await start_of(tmp_path, "--log-level", "debug")
    assert "max_in_flight=8" in log


@pytest.mark.skipif(sys.platform == "win32", reason="no terminals of this kind")
@pytest.mark.parametrize("asks_for_none", [False, True])
async def test_colours_are_for_terminals_that_did_not_ask_for_none(
    monkeypatch: pytest.MonkeyPatch, asks_for_none: bool
) -> None:
    import pty  # not on Windows

    monkeypatch.setenv("NO_COLOR", "1" if asks_for_none else "")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream, os.fdopen(ours, "rb", buffering=0) as screen:
        logs.configure("console", "info", stream)
        structlog.get_logger("keyproxy.call").info(**CALL)
        structlog.reset_defaults()
        text = screen.read(1000).decode()
    assert "gpt-4o-mini" in text
    assert ("\x1b[32m200\x1b[0m" in text) is not asks_for_none
    assert ("\x1b" in text) is not asks_for_none
