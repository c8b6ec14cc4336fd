"""``keyproxy check`` asks each provider about its own keys, and nobody about another's."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyproxy.settings import summary
from keyproxy.settings.sources import Sources
from tests.fakes.configured import environment, toml
from tests.fakes.server import Fakes, serving
from tests.program import environment as clean


@pytest.fixture
async def fakes() -> AsyncIterator[Fakes]:
    async with serving() as running:
        yield running


WAYS = """
[routes.fast]
choose = "fastest"
models = ["openai/gpt-oss-20b", "google/gemini-3.5-flash"]
fallback = "model"
max_price = { input = 0.5, output = 1.0 }
[models."openai/gpt-oss-20b"]
choose = "cheapest"
at = ["groq", "deepinfra:openai/gpt-oss-20b"]
[models."openai/gpt-oss-20b".price.groq]
input = 0.15
output = 0.60
"""


def test_how_homes_are_chosen_is_told(fakes: Fakes, tmp_path: Path) -> None:
    (tmp_path / "keyproxy.toml").write_text(toml(fakes, at=False) + WAYS)
    environ = environment(fakes) | {"KEYPROXY_FALLBACK": "none"}
    told = summary.of_app(Sources("dev", {}, environ, tmp_path).read())["homes"]
    assert told == (
        "as listed, nobody else where one fails; openai/gpt-oss-20b: the cheapest of groq,"
        " deepinfra:openai/gpt-oss-20b, prices of groq; fast: the fastest of openai/gpt-oss-20b,"
        " google/gemini-3.5-flash, then the next one or the next model, input 0.5 USD at most,"
        " output 1.0 USD at most"
    )


async def checked(fakes: Fakes, directory: Path, **variables: str) -> tuple[int | None, str]:
    """The exit code and what is printed."""
    (directory / "keyproxy.toml").write_text(toml(fakes))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keyproxy", "check"),
        cwd=directory,
        env=clean(**(environment(fakes) | variables)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_each_key_is_asked_about_at_its_own_provider(fakes: Fakes, tmp_path: Path) -> None:
    code, said = await checked(fakes, tmp_path)
    assert fakes.strays() == []
    assert code == 0, said
    for name, fake in fakes.items():
        asked = [seen for seen in fake.seen if seen.keys == [fake.key]]
        assert {seen.method for seen in asked} == {"GET"}, name
        assert fake.key not in said
    for name in ("Groq key gsk_", "xAI key xai-"):
        [at] = [n for n, line in enumerate(said.splitlines()) if line.startswith(name)]
        assert said.splitlines()[at + 1] == "  works"
    assert said.count("unknown: DeepInfra shows to anybody") == 1  # DeepInfra's


async def test_a_key_that_one_of_them_does_not_know_is_told_with_where_to_get_one(
    fakes: Fakes, tmp_path: Path
) -> None:
    unknown = "gsk_" + "Unknown00000" * 4
    code, said = await checked(fakes, tmp_path, GROQ_API_KEY=unknown)
    assert code == 1
    assert "https://console.groq.com/keys" in said
    assert said.count("error: ") == 1
    assert fakes["groq"].seen[-1].keys == [unknown]
    assert [seen for seen in fakes.seen if unknown in seen.keys and seen.vendor != "groq"] == []
