"""KEYPROXY_LOOP: the same on either loop; what is not installed is a fault."""

from __future__ import annotations

import asyncio
import importlib.util
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from keyproxy.errors import SettingsFaults
from keyproxy.ledger.ledger import opened
from tests import records
from tests.conftest import BODY, CHAT, SERVE, settings
from tests.fake_upstream import FakeUpstream
from tests.program import started

LOOPS = ["asyncio", *(["uvloop"] if sys.platform != "win32" else [])]


@pytest.mark.parametrize("loop", LOOPS)
async def test_it_serves_reloads_and_stops_on_either_loop(
    loop: str, tmp_path: Path, upstream: FakeUpstream
) -> None:
    said = {"UPSTREAM": upstream.base_url, **SERVE, "LOOP": loop}
    variables = {f"KEYPROXY_{name}": value for name, value in said.items()}
    async with started("serve", tmp_path, **variables) as program, aiohttp.ClientSession() as page:
        async with page.post(program.url + CHAT, json=BODY) as answer:
            assert answer.status == 200
            assert await answer.json()
        program.signal(signal.SIGHUP)
        await program.said("settings reloaded")
        program.signal(signal.SIGTERM)
        await program.said("stopped")
        assert await program.ended() == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_who_asks_the_ledger_waits_for_no_timer_on_either_loop(loop: str, tmp_path: Path) -> None:
    async def is_told() -> bool:
        async with opened(tmp_path / "ledger.sqlite3", patience_seconds=10.0) as ledger:
            ledger._writer.moment_seconds = 3600.0
            ledger.begin(records.entry())
            return await ledger.flush()

    factory = None if loop == "asyncio" else importlib.import_module(loop).new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(is_told())


def test_a_loop_that_is_not_installed_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    find: Any = importlib.util.find_spec
    monkeypatch.setattr(
        "keyproxy.settings.grammar.plain.find_spec",
        lambda name: None if name == "uvloop" else find(name),
    )
    with pytest.raises(SettingsFaults, match="uvloop, which is not installed"):
        settings("dev", LOOP="uvloop")
    assert settings("dev", LOOP="asyncio").loop == settings("dev").loop == "asyncio"
