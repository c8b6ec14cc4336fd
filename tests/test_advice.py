"""What looks like a mistake and is none for certain: said once it listens, and by ``check``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from aiohttp import web

from keyproxy.settings import Settings
from keyproxy.settings.advice import odd, unlisted
from tests.conftest import KEY, settings
from tests.fake_upstream import FakeUpstream
from tests.program import environment, started


@pytest.mark.parametrize(
    ("said", "write"),
    [
        ("https://openrouter.ai", "https://openrouter.ai/api/v1"),
        ("https://openrouter.ai/", "https://openrouter.ai/api/v1"),
        ("https://openrouter.ai/v1", "https://openrouter.ai/api/v1"),
        ("https://openrouter.ai/api", "https://openrouter.ai/api/v1"),
        ("https://eu.openrouter.ai", "https://eu.openrouter.ai/api/v1"),
        ("https://openrouter.ai/api/v1/chat/completions", "https://openrouter.ai/api/v1"),
        ("https://llm.example", "https://llm.example/v1"),
        ("http://localhost:11434", "http://localhost:11434/v1"),
        ("https://llm.example/v1/chat/completions", "https://llm.example/v1"),
        ("https://llm.example/chat/completions", "https://llm.example/v1"),
        ("https://llm.example/v1/models", "https://llm.example/v1"),
    ],
)
def test_upstream_that_is_no_whole_base_address_is_told(said: str, write: str) -> None:
    [line] = odd(settings(UPSTREAM=said))
    assert line.endswith(f"; write KEYPROXY_UPSTREAM={write}")
    assert odd(settings(UPSTREAM=write)) == []


def test_key_that_may_not_be_openrouters_is_told_and_not_repeated() -> None:
    key = "opaque-0123456789abcdef"
    [line] = odd(settings(OPENROUTER_API_KEY=f"{KEY},{key}"))
    assert "sk-or-" in line
    assert "0123456789" not in line
    assert odd(settings(OPENROUTER_API_KEY=key, UPSTREAM="https://llm.example/v1")) == []


async def test_odd_settings_are_told_once_it_listens(tmp_path: Path) -> None:
    async with started("dev", tmp_path, KEYPROXY_UPSTREAM="http://127.0.0.1:9") as program:
        line = await program.said(
            "KEYPROXY_UPSTREAM=http://127.0.0.1:9 looks like no whole base address: calls go to"
            " http://127.0.0.1:9/chat/completions; write KEYPROXY_UPSTREAM=http://127.0.0.1:9/v1"
        )
        assert line["level"] == "warning"
        messages = [each["message"] for each in program.lines]
        assert messages.index("listening") < messages.index(line["message"])


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ("", ""),
        (f"OPENROUTER_KEY={KEY}", "; OPENROUTER_KEY (in .env) is not read: write OPENROUTER_API"),
        (f"OPENAI_API_KEY={KEY}", "; OPENAI_API_KEY (in .env) is not read: write OPENROUTER_API"),
    ],
)
async def test_demo_that_nobody_asked_for_says_why(tmp_path: Path, env: str, expected: str) -> None:
    (tmp_path / ".env").write_text(env)
    async with started("dev", tmp_path, "--or-demo", OPENROUTER_API_KEY="") as program:
        line = await program.said("this is the demo: OPENROUTER_API_KEY is not set…")
        assert "(environment, .env.local, .env, keyproxy.toml)" in line["message"]
        assert expected in line["message"]
        assert KEY not in program.text


async def test_demo_that_was_asked_for_says_nothing_of_keys(tmp_path: Path) -> None:
    async with started("demo", tmp_path, OPENROUTER_API_KEY="", KEYPROXY_TRUSTED_HOPS="1",
                       KEYPROXY_TRUSTED_PROXIES="loopback") as program:  # fmt: skip
        await program.said(
            "KEYPROXY_TRUSTED_HOPS counts alone; KEYPROXY_TRUSTED_PROXIES is not read"
        )
        assert "this is the demo" not in program.text


LISTED = (
    "openai/gpt-4o-mini",
    "openai/gpt-4o",
    "openai/gpt-4o-2026-01-01",
    "anthropic/claude-sonnet-4",
    "meta/llama-4:free",
    "~openai/gpt-latest",
    "openrouter/auto",
)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("gpt-4o-mini", "gpt-4o-mini matches no {}; write openai/gpt-4o-mini or */gpt-4o-mini"),
        ("*,!gpt-4o", "!gpt-4o matches no {}; write !openai/gpt-4o or !*/gpt-4o"),
        ("gpt-4o*", "gpt-4o* matches no {}; write openai/gpt-4o* or */gpt-4o*"),
        ("OpenAI/GPT-4o", "OpenAI/GPT-4o matches no {}; write openai/gpt-4o"),
        ("OpenAI/*", "OpenAI/* matches no {}; write openai/*"),
        ("openai/gpt-4o-mimi", "openai/gpt-4o-mimi matches no {}; write openai/gpt-4o-mini"),
        ("gpt-4o-mini:floor", "gpt-4o-mini:floor matches no {}; write openai/gpt-4o-mini:floor or"),
        ("nobody/*", "nobody/* matches no {}; GET /api/v1/models says which there are"),
    ],
)
def test_pattern_that_matches_no_listed_model_is_told_with_what_to_write(
    patterns: str, expected: str
) -> None:
    [line] = unlisted(settings(ALLOWED_MODELS=patterns), LISTED)
    text = expected.format("model of the upstream's list")
    assert line.startswith(f"KEYPROXY_ALLOWED_MODELS: {text}")


@pytest.mark.parametrize(
    "patterns",
    [
        "*",
        ",".join(LISTED),
        "openai/*,*/claude-*,*:free,meta/*:free",
        "openai/gpt-4o:nitro,openai/gpt-4o:online,*:nitro",
        "*,!*:online,!OpenAI/gpt-4o",
    ],
)
def test_pattern_that_matches_a_listed_model_is_not_told(patterns: str) -> None:
    assert unlisted(settings(ALLOWED_MODELS=patterns), LISTED) == []


def test_names_that_no_terminal_should_get_are_not_repeated() -> None:
    listed = ("a/gpt-4o\x1b[2J", "b/" + "gpt-4o" * 100, "c/gpt-4o")
    [line] = unlisted(settings(ALLOWED_MODELS="gpt-4o"), listed)
    assert line.endswith("; write c/gpt-4o or */gpt-4o")


@pytest.mark.parametrize(
    "odd", ["openai/gpt-4o-min,*", "*/gpt-4o-min", "o/gpt-4o-min $(id)", "o'/x"]
)
@pytest.mark.parametrize("said", ["openai/gpt-4o-mim", "gpt-4o-min", "gpt-4o-min*", "*-min,*"])
def test_what_is_to_be_written_names_one_model_whatever_the_upstream_lists(
    odd: str, said: str
) -> None:
    for mode in ("ALLOWED_MODELS", "MODEL_ALIASES"):
        text = said if mode == "ALLOWED_MODELS" else f"fast={said.strip('*,')}"
        for line in unlisted(settings(**{mode: text}), [odd]):
            assert line.endswith("; GET /api/v1/models says which there are")


def test_alias_of_no_listed_model_is_told_and_an_empty_list_tells_nothing() -> None:
    said = settings(MODEL_ALIASES="fast=gpt-4o-mini,good=openai/gpt-4o")
    [line] = unlisted(said, LISTED)
    assert line.startswith("KEYPROXY_MODEL_ALIASES: fast=gpt-4o-mini stands for no model")
    assert line.endswith("; write fast=openai/gpt-4o-mini")
    assert unlisted(said, ()) == []


def test_pattern_of_an_app_is_told_once_and_named_there() -> None:
    environ = {"OPENROUTER_API_KEY": KEY, "KEYPROXY_ALLOWED_MODELS": "openai/*"}
    apps = {"one": {"KEYPROXY_ALLOWED_MODELS": "gpt-4o"}, "two": {"KEYPROXY_TITLE": "x"}}
    [line] = unlisted(Settings.from_environ("dev", environ, apps), LISTED)
    assert line.startswith("KEYPROXY_ALLOWED_MODELS of [apps.one]: gpt-4o matches no model")


@pytest.mark.parametrize("ledger", ["off", "ledger.sqlite3"])
async def test_pattern_without_a_model_is_told_after_listening(
    upstream: FakeUpstream, tmp_path: Path, ledger: str
) -> None:
    said = {"KEYPROXY_ALLOWED_MODELS": "gpt-4o-mini", "KEYPROXY_LEDGER": ledger}
    async with started("dev", tmp_path, KEYPROXY_UPSTREAM=upstream.base_url, **said) as program:
        line = await program.said("KEYPROXY_ALLOWED_MODELS: gpt-4o-mini matches no model…")
        messages = [each["message"] for each in program.lines]
        assert messages.index("listening") < messages.index(line["message"])
        assert line["level"] == "warning"
    assert all("Authorization" not in seen.headers for seen in upstream.catalogue)
    assert upstream.calls == []


async def test_no_list_is_waited_for(upstream: FakeUpstream, tmp_path: Path) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def late(request: web.Request) -> web.Response:
        asked.set()
        await answer.wait()
        return upstream.catalogue_answer(request)

    upstream.answer = late
    said = {"KEYPROXY_ALLOWED_MODELS": "gpt-4o-mini", "KEYPROXY_UPSTREAM": upstream.base_url}
    async with started("dev", tmp_path, **said) as program:  # it listens
        await asked.wait()
        answer.set()
        await program.said("KEYPROXY_ALLOWED_MODELS: gpt-4o-mini matches no model…")


async def test_check_tells_of_a_pattern_without_a_model(
    upstream: FakeUpstream, tmp_path: Path
) -> None:
    environ = environment(
        KEYPROXY_ALLOWED_MODELS="gpt-4o-mini", KEYPROXY_UPSTREAM=upstream.base_url
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "keyproxy", "check", cwd=tmp_path, env=environ,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert b"warning: KEYPROXY_ALLOWED_MODELS: gpt-4o-mini matches no model" in out
    assert process.returncode == 0
