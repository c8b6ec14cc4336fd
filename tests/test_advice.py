"""What looks like a mistake and is none for certain: said once it listens, and by ``check``."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyproxy.advice import odd
from tests.conftest import KEY, settings
from tests.program import started


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
