"""Providers' own lists: kept, renewed, forgotten; nobody waits for one that does not come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest

from keyproxy.errors import Refusal
from keyproxy.upstream import lists
from keyproxy.upstream.lists import REFRESH_SECONDS, RETRY_SECONDS, Lists
from keyproxy.upstream.provider import Model

A, B = {"a": Model("a")}, {"b": Model("b")}


class Sleeper:
    """Sleeps until it is woken; ``pauses`` are those that were asked for."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.wake = asyncio.Semaphore(0)
        self.begun = asyncio.Semaphore(0)

    async def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.begun.release()
        await self.wake.acquire()


def giving(*answers: Mapping[str, Model] | Exception | None) -> Callable[[str], Awaitable[object]]:
    left = list(answers)

    async def fetch(provider: str) -> Mapping[str, Model] | None:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return fetch


async def test_a_list_is_renewed_hourly_and_an_old_one_outlives_a_failure() -> None:
    sleeper, failure = Sleeper(), Refusal("upstream_unreachable", "away")
    kept = Lists(giving(A, failure, None, ValueError("odd"), B), sleeper)  # type: ignore[arg-type]
    kept.keep(["groq"])
    seen = []
    for _ in range(5):
        await sleeper.begun.acquire()
        seen.append(kept.of("groq"))
        sleeper.wake.release()
    await kept.close()
    assert seen == [A, A, A, A, B]
    assert sleeper.pauses[:5] == [REFRESH_SECONDS, *[RETRY_SECONDS] * 3, REFRESH_SECONDS]


async def test_who_is_not_used_any_more_is_forgotten() -> None:
    sleeper = Sleeper()
    kept = Lists(giving(A, B), sleeper)  # type: ignore[arg-type]
    kept.keep(["groq", "xai"])
    await kept.settled(5)
    assert (kept.of("groq"), kept.of("xai")) == (A, B)
    kept.keep(["xai"])
    assert (kept.of("groq"), kept.of("xai")) == (None, B)
    await kept.close()


async def test_nobody_waits_longer_than_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "TIMEOUT_SECONDS", 0.01)
    never = asyncio.Event()

    async def hanging(provider: str) -> None:
        await never.wait()

    sleeper = Sleeper()
    kept = Lists(hanging, sleeper)
    kept.keep(["groq"])
    await kept.settled(0.001)
    assert kept.of("groq") is None
    await sleeper.begun.acquire()
    assert sleeper.pauses == [RETRY_SECONDS]
    await kept.settled(60)  # it was asked once, and that is enough
    await kept.close()
