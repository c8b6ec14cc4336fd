"""A value from elsewhere: one load for all who wait, and the last good one until the next."""

from __future__ import annotations

import asyncio

import pytest

from keyproxy.transport.fetch import Refreshed


class Rig:
    """A load under control, and a clock."""

    def __init__(self) -> None:
        self.now, self.loads = 100.0, 0
        self.next: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.refreshed = Refreshed(
            self.load, 60, keeps=lambda loaded, _: loaded > 0, clock=lambda: self.now
        )

    async def load(self) -> int:
        self.loads += 1
        return await asyncio.shield(self.next)

    def ends(self, outcome: int | Exception) -> None:
        self.next = asyncio.get_running_loop().create_future()
        if isinstance(outcome, int):
            self.next.set_result(outcome)
        else:
            self.next.set_exception(outcome)


async def test_all_who_wait_share_one_load_and_one_who_leaves_ends_it_for_nobody() -> None:
    rig = Rig()
    waiting = [asyncio.create_task(rig.refreshed.renewed()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting.pop(0).cancel()
    rig.next.set_result(7)
    assert await asyncio.gather(*waiting) == [7, 7]
    assert (rig.loads, rig.refreshed.value, rig.refreshed.age_seconds) == (1, 7, 0)


async def test_a_failure_is_told_to_who_waits_and_the_last_value_stays() -> None:
    rig = Rig()
    rig.ends(7)
    await rig.refreshed.renewed()
    rig.now += 10
    rig.ends(OSError("away"))
    with pytest.raises(OSError, match="away"):
        await rig.refreshed.renewed()
    assert (rig.refreshed.value, rig.refreshed.age_seconds) == (7, 10)
    rig.now += 50
    assert rig.refreshed.value is None


async def test_what_is_not_kept_is_handed_on_and_takes_no_place() -> None:
    rig = Rig()
    for outcome in (-1, 7, -2):
        rig.ends(outcome)
        assert await rig.refreshed.renewed() == outcome
    assert rig.refreshed.value == 7


async def test_a_load_is_begun_again_after_a_pause_only() -> None:
    rig = Rig()
    rig.ends(7)
    for _ in range(10):
        rig.refreshed.begin(5)
        await rig.refreshed.wait(1)
        rig.now += 1
    assert rig.loads == 2


async def test_nobody_waits_longer_than_they_say_for_a_load_that_hangs() -> None:
    rig = Rig()
    rig.refreshed.begin()
    await rig.refreshed.wait(0)
    assert rig.refreshed.is_loading
    await rig.refreshed.close()
    assert not rig.refreshed.is_loading
