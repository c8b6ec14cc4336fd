"""keyproxy before several of the fake providers, with settings that name them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from keyproxy.settings.sources import Sources
from tests.conftest import Proxy, served
from tests.fake_upstream import FakeUpstream
from tests.fakes.books import FAILS
from tests.fakes.configured import environment, toml
from tests.fakes.server import Fakes

HI = {"messages": [{"role": "user", "content": "Grüße"}]}
MODEL = "a/b"


@asynccontextmanager
async def proxy_before(
    fakes: Fakes, *, more: str = "", of_each: str = "", **variables: str
) -> AsyncIterator[Proxy]:
    """A running keyproxy that uses ``fakes`` in their order, each with its own key. ``more`` of its
    TOML file, ``of_each`` of each provider's table; names without ``KEYPROXY_``."""
    said = toml(fakes).replace("\nbase = ", f"\n{of_each}\nbase = ") + more
    environ = environment(fakes) | {
        "KEYPROXY_LISTEN": "127.0.0.1:0",
        "KEYPROXY_LEDGER": "off",
        "KEYPROXY_TOTAL_BUDGET": "off",
        **{f"KEYPROXY_{name}": value for name, value in variables.items()},
    }
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "keyproxy.toml").write_text(said)
        settings = Sources("dev", {}, environ, Path(directory)).read()
        async with served(settings, FakeUpstream()) as proxy:
            yield proxy


def failing(**ends: str) -> str:
    """The homes of ``MODEL``: these providers in order, each of which ends a call as told."""
    at = [f"{name}:{FAILS}{end}" for name, end in ends.items()]
    return f'[models."{MODEL}"]\nat = {json.dumps(at)}\n'


def asked(fakes: Fakes, calls: Mapping[str, int] | None = None) -> list[str]:
    """Who was called, in order."""
    return [seen.vendor for seen in fakes.calls]
