"""``keyproxy explain`` where there are several providers: the table of homes, and what would go."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from keyproxy.commands import explained
from keyproxy.dry_run import Asked
from keyproxy.settings.sources import Sources
from tests.conftest import Proxy
from tests.fakes import server
from tests.fakes.configured import environment, toml
from tests.fakes.server import Fakes
from tests.routed import HI, proxy_before

OSS = "openai/gpt-oss-120b"


@pytest.fixture
async def before() -> AsyncIterator[tuple[Fakes, Proxy]]:
    async with (
        server.serving("groq", "cerebras", "anthropic", "openrouter") as fakes,
        proxy_before(fakes, CHOOSE="cheapest") as proxy,
    ):
        yield fakes, proxy


def asked(path: str = "chat/completions", **said: Any) -> Asked:
    body = json.dumps({"model": OSS, **HI, **said}).encode()
    return Asked(target=f"/api/v1/{path}", body=body, fields={"Host": "localhost"})


async def test_the_table_says_who_can_take_it_and_why_the_others_cannot(
    before: tuple[Fakes, Proxy], capsys: pytest.CaptureFixture[str]
) -> None:
    fakes, proxy = before
    assert await explained.print_steps(proxy.service.assembly.kit, asked(logprobs=True)) == 0
    told = capsys.readouterr().out
    assert "routing     ok       2 of 4 homes can take it" in told
    assert f"groq        {OSS}: no, Groq does not take logprobs" in told
    assert "anthropic   -: no, `at` does not name it" in told
    assert f"POST {fakes['openrouter'].base}/chat/completions" in told
    assert all(fake.key not in told for fake in fakes.values())
    assert fakes.calls == []


async def test_what_would_go_to_the_first_home_is_as_it_would_go(
    before: tuple[Fakes, Proxy], capsys: pytest.CaptureFixture[str]
) -> None:
    fakes, proxy = before
    capsys.readouterr()
    assert await explained.print_json(proxy.service.assembly.kit, asked(user="ann")) == 0
    shown = json.loads(capsys.readouterr().out)
    fit = [home for home in shown["homes"] if home["why_not"] is None]
    assert [home["provider"] for home in fit] == ["openrouter", "groq", "cerebras"]
    costs = [home["cost"] for home in fit]
    assert costs == sorted(costs)
    assert all(home["first_output_seconds"] > 0 for home in fit)
    assert json.loads(shown["sent"]["body"])["model"] == OSS
    async with proxy.post(asked(user="ann").body) as answer:
        assert answer.headers["X-Keyproxy-Provider"] == "openrouter"
    [seen] = fakes.calls
    assert seen.body.decode() == shown["sent"]["body"]


async def test_nobody_can_take_it(capsys: pytest.CaptureFixture[str]) -> None:
    call = asked("messages", model="z-ai/glm-4.7", max_tokens=9)
    async with server.serving("cerebras") as alone, proxy_before(alone) as own:
        capsys.readouterr()
        assert await explained.print_json(own.service.assembly.kit, call) == 1
        shown = json.loads(capsys.readouterr().out)
        assert alone.calls == []
    assert (shown["refused"]["step"], shown["refused"]["code"]) == (
        "routing",
        "no_provider_qualifies",
    )
    assert [home["why_not"]["why"] for home in shown["homes"]] == ["dialect"]


async def test_what_depends_on_lists_is_said_to_be_unknown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Nobody is asked: not even for a list. ``at`` and the shipped table need none."""
    async with server.serving("groq", "cerebras") as fakes:
        (tmp_path / "keyproxy.toml").write_text(toml(fakes, at=False))
        settings = Sources("dev", {}, environment(fakes), tmp_path).read()
        work = partial(explained.print_steps, asked=asked(model="openai/gpt-9"))
        assert await explained.with_kit(settings, work) == 1
        told = capsys.readouterr().out
        assert "routing     refused  0 of 2 homes can take it\n" in told
        assert "groq        -: no, Groq may have it: its list of models is not there" in told
        assert "routing     refused  503 overloaded" in told
        assert '`at` in [models."openai/gpt-9"] says who has it' in told
        work = partial(explained.print_table, fields={"Host": "localhost"}, app=None)
        assert await explained.with_kit(settings, work) == 0
        table = capsys.readouterr().out
        assert re.search(r"an allowed model +sent", table)
        assert re.search(r"another model +not known here", table)
        assert fakes.seen == []
