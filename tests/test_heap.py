"""What lives as long as the process is set apart from collections, and let go by reloads."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyproxy.server.memory import HEAP_PAUSE_SECONDS, Heap
from tests import program
from tests.conftest import Clock, Proxy


class Settings:
    """Refers to itself, as a configuration's closures do: only a collection lets it go."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def clock() -> Iterator[Clock]:
    usual = gc.get_threshold()
    yield Clock()
    gc.unfreeze()
    gc.set_threshold(*usual)


def old_settings() -> weakref.ref[Settings]:
    return weakref.ref(Settings())


def test_what_is_there_at_the_start_is_set_apart(clock: Clock) -> None:
    Heap(clock)
    assert gc.get_freeze_count() > 10_000


def test_what_calls_take_for_a_while_is_no_reason_to_look(clock: Clock) -> None:
    Heap(clock)
    before = [generation["collections"] for generation in gc.get_stats()]
    held = [[] for _ in range(4_000)]  # type: list[list[int]]
    assert [generation["collections"] for generation in gc.get_stats()] == before
    assert len(held) == 4_000


def test_a_start_waits_for_no_collection(clock: Clock) -> None:
    before = [generation["collections"] for generation in gc.get_stats()]
    Heap(clock)
    assert [generation["collections"] for generation in gc.get_stats()] == before


def test_a_reload_lets_go_of_what_was_set_apart(clock: Clock) -> None:
    settings = [Settings()]
    old = weakref.ref(settings[0])
    heap = Heap(clock)
    settings.clear()
    gc.collect()
    assert old() is not None
    clock.now += HEAP_PAUSE_SECONDS
    heap.reloaded()
    assert old() is None
    assert gc.get_freeze_count() > 10_000


def test_reloads_that_follow_each_other_are_dealt_with_once_a_minute(clock: Clock) -> None:
    settings = [Settings()]
    old = weakref.ref(settings[0])
    heap = Heap(clock)
    settings.clear()
    clock.now += HEAP_PAUSE_SECONDS - 1
    heap.reloaded()
    heap.look()
    assert old() is not None
    clock.now += 1
    heap.look()
    assert old() is None


def test_without_a_reload_nothing_is_looked_at_again(clock: Clock) -> None:
    settings = [Settings()]
    old = weakref.ref(settings[0])
    heap = Heap(clock)
    settings.clear()
    clock.now += 10 * HEAP_PAUSE_SECONDS
    heap.look()
    assert old() is not None


async def test_the_process_does_so_once_it_listens(tmp_path: Path) -> None:
    said = "what lives long is set apart"
    async with program.started("dev", tmp_path, KEYPROXY_LOG_LEVEL="debug") as running:
        await running.said(said)
        names = [line["message"] for line in running.lines]
        assert names.index("listening") < names.index(said)
        if sys.platform != "win32":
            running.signal(signal.SIGHUP)
            await running.said("settings reloaded")
        running.signal(signal.SIGTERM)
        assert await running.ended() == 0
    assert [line["message"] for line in running.lines].count(said) == 1


async def test_a_call_leaves_nothing_for_a_collection(proxy: Proxy) -> None:
    """They are rare: what a call leaves is let go by counting references."""
    async with proxy.post() as answer:
        await answer.read()
    gc.collect()
    gc.disable()
    try:
        async with proxy.post(headers={"Origin": "http://localhost:3000"}) as answer:
            assert answer.status == 200
            await answer.read()
        await asyncio.sleep(0.1)  # for what ends behind the answer
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [each for each in gc.garbage if type(each).__module__.startswith("keyproxy")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []
