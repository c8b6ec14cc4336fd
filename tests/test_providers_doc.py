"""docs/providers.md: what it says to write is taken, and does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import aiohttp
import pytest

from keyproxy.attempts.drains import LONGEST_SECONDS as DRAIN_SECONDS
from keyproxy.attempts.drains import MOST as DRAINS
from keyproxy.routing.breaker import LONGEST_SECONDS, REST_SECONDS
from keyproxy.settings.sources import Sources
from keyproxy.upstream.providers import PROVIDERS
from tests.conftest import KEY
from tests.fakes import server
from tests.fakes.vendors import VENDORS
from tests.routed import HI, proxy_before

PAGE = (Path(__file__).parent.parent / "docs" / "providers.md").read_text(encoding="utf-8")
TOML = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
NAMES = "groq,cerebras,deepinfra,gemini,openrouter"


@pytest.mark.parametrize("text", TOML)
def test_every_table_is_taken(text: str, tmp_path: Path) -> None:
    text = text.replace('key_file = "/run/secrets/groq"\n', "")
    (tmp_path / "keyproxy.toml").write_text(text)
    keys = {f"{name.upper()}_API_KEY": fake.key for name, fake in VENDORS.items()}
    environ = keys | {"OPENROUTER_API_KEY": KEY, "KEYPROXY_LEDGER": "off"}
    if "[providers." not in text:
        environ["KEYPROXY_PROVIDERS"] = NAMES
    settings = Sources("dev", {}, environ, tmp_path).read()
    assert settings.routes or settings.tables


def test_figures_are_those_of_the_code() -> None:
    assert f"{REST_SECONDS:.0f} s, doubling to {LONGEST_SECONDS / 60:.0f} min" in PAGE
    assert f"({DRAIN_SECONDS:.0f} s, {DRAINS} at once)" in PAGE
    for provider in PROVIDERS.values():
        assert f"| `{provider.name}` | `{provider.base}`" in PAGE


async def test_anthropics_sdk_by_its_own_names_goes_up_to_the_byte() -> None:
    raw = (
        b'{"model":"claude-sonnet-4-6","max_tokens":9, "messages":[{"role":"user","content":"x"}]}'
    )
    async with (
        server.serving("anthropic") as fakes,
        proxy_before(fakes, ALLOWED_MODELS="anthropic/*") as proxy,
        proxy.post(raw, path="/api/v1/messages") as answer,
    ):
        assert answer.status == 200
    [seen] = fakes.calls
    assert (seen.body, seen.keys) == (raw, [fakes["anthropic"].key])


async def test_a_model_on_this_computer_first_and_then_a_hosted_one() -> None:
    """A host of one's own that is not up is passed over."""
    house = """
[providers.house]
kind = "openai-compatible"
base = "http://127.0.0.1:9/v1"
key = "none"
[routes.small]
at = ["house:llama3.2", "openrouter:openai/gpt-oss-120b"]
fallback = "model"
"""
    async with server.serving("openrouter") as fakes:
        more = {"PROVIDERS": "house,openrouter"}
        async with (
            proxy_before(fakes, more=house, **more) as proxy,
            aiohttp.ClientSession() as session,
            session.post(
                f"{proxy.url}/api/v1/chat/completions", json={"model": "small", **HI}
            ) as answer,
        ):
            assert answer.status == 200
            told = answer.headers["X-Keyproxy-Attempts"]
    assert told == "house=unreachable, openrouter=200"
