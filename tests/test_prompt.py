"""Who waits for a prompt goes on when it is told, and not a turn of the loop later."""

from __future__ import annotations

import asyncio

import pytest

from keyproxy.transport.prompt import Prompt


class Waiter:
    """A task that waits for ``prompt``; ``did`` has what happened, in order."""

    def __init__(self) -> None:
        self.prompt: Prompt[str] = Prompt()
        self.did: list[str] = []
        self.task = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        self.did.append(await self.prompt)

    def tell(self) -> None:
        self.prompt.tell("told")
        self.did.append("tell has returned")


async def test_who_waits_goes_on_before_who_tells() -> None:
    waiter = Waiter()
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(waiter.tell)
    await waiter.task
    assert waiter.did == ["told", "tell has returned"]


async def test_told_by_a_task_who_waits_goes_on_behind_it() -> None:
    waiter = Waiter()
    await asyncio.sleep(0)
    waiter.tell()
    await waiter.task
    assert waiter.did == ["tell has returned", "told"]


async def test_what_was_told_before_anybody_waits_is_there() -> None:
    waiter = Waiter()
    waiter.tell()
    await waiter.task
    assert waiter.did == ["tell has returned", "told"]


async def test_others_who_wait_are_told_as_ever() -> None:
    waiter = Waiter()
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(asyncio.wait({waiter.prompt})) for _ in range(2)]
    await asyncio.sleep(0)
    others[0].cancel()
    asyncio.get_running_loop().call_soon(waiter.tell)
    await others[1]
    assert waiter.did == ["told", "tell has returned"]


async def test_one_task_after_another_may_wait() -> None:
    first = Waiter()
    await asyncio.sleep(0)
    second = asyncio.create_task(first._wait())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(first.tell)
    await asyncio.wait({first.task, second})
    assert first.did == ["told", "tell has returned", "told"]


async def test_an_error_wakes_who_waits() -> None:
    waiter = Waiter()
    await asyncio.sleep(0)
    waiter.prompt.set_exception(OSError("lost"))
    with pytest.raises(OSError, match="lost"):
        await waiter.task
