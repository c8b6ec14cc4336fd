"""Two keyproxies on one storage, as a caller sees them."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from keyproxy.settings.grammar.plain import Rate
from tests.conftest import BODY, CHAT, SERVE, Proxy, Start, refused
from tests.fake_upstream import FakeUpstream, streaming
from tests.program import started
from tests.servers import Server


async def status(proxy: Proxy) -> int:
    async with proxy.post() as answer:
        await answer.read()
        return int(answer.status)


async def statuses(count: int, *proxies: Proxy) -> Counter[int]:
    """What so many parallel calls, spread over the proxies, are answered."""
    turns = (proxies[number % len(proxies)] for number in range(count))
    return Counter(await asyncio.gather(*map(status, turns)))


async def is_ready(proxy: Proxy, expected: int) -> None:
    """Waits until a load balancer is told so."""
    async with asyncio.timeout(10):
        while True:
            async with proxy.get("/readyz") as answer:
                if answer.status == expected:
                    return
            await asyncio.sleep(0.02)


async def test_two_replicas_let_one_limit_through(server: Server, start: Start) -> None:
    """Called until none passes: while a busy machine holds the storage up, calls get 503."""
    said = {"STORAGE": server.url, "RATE_LIMIT": "100/hour", "MAX_IN_FLIGHT": "1000"}
    one, other = [await start(**said, STORAGE_FAILURE="closed") for _ in range(2)]
    passed, found = 0, await statuses(300, one, other)
    while found != {429: 300}:
        passed, found = passed + found[200], await statuses(300, one, other)
    assert passed == len(one.upstream.calls) == 100
    async with other.post() as answer:
        error = await refused(answer, 429, "rate_limited")
        assert answer.headers["RateLimit"].startswith('"client-3600";r=0;t=')
        assert answer.headers["Retry-After"] in answer.headers["RateLimit"]
        assert "100 calls in 1 hour" in error["message"]


async def test_killed_under_load_two_replicas_let_at_most_two_limits_through(
    server: Server, start: Start
) -> None:
    said = {"STORAGE": server.url, "RATE_LIMIT": "40/minute", "MAX_IN_FLIGHT": "1000"}
    one, other = await start(**said), await start(**said)
    load = asyncio.create_task(statuses(60, one, other))
    await one.upstream.arrived.wait()
    server.kill()
    found = await load + await statuses(120, one, other)
    assert set(found) == {200, 429}
    assert 40 <= found[200] <= 80
    assert len(one.upstream.calls) == found[200]


async def test_a_stream_holds_its_place_at_every_replica(server: Server, start: Start) -> None:
    said = {"STORAGE": server.url, "MAX_IN_FLIGHT": "1", "RATE_LIMIT": "50/minute"}
    one, other = await start(**said), await start(**said)
    release = asyncio.Event()
    one.upstream.answer = streaming(release)
    async with one.post() as stream:
        assert stream.status == 200
        async with other.post() as answer:
            await refused(answer, 429, "too_many_in_flight")
            assert answer.headers["RateLimit"].startswith('"client-60";r=49;t=')
        assert len(one.upstream.calls) == 1
        release.set()
        await stream.read()
    async with asyncio.timeout(10):
        while await status(other) == 429:  # for as long as the release is on its way
            pass


async def test_closed_takes_the_replica_out_until_the_storage_is_back(
    server: Server, start: Start
) -> None:
    proxy = await start("serve", STORAGE=server.url, STORAGE_FAILURE="closed")
    await is_ready(proxy, 200)
    server.kill()
    await is_ready(proxy, 503)
    async with proxy.post() as answer:
        await refused(answer, 503, "overloaded")
        assert answer.headers["Retry-After"] == "1"
    async with proxy.get("/healthz") as answer:
        assert answer.status == 200
    assert proxy.upstream.calls == []
    await server.start()
    await is_ready(proxy, 200)
    assert await status(proxy) == 200


async def test_local_and_open_stay_ready_without_the_storage(server: Server, start: Start) -> None:
    server.kill()
    for failure, passed in (("local", 2), ("open", 5)):
        proxy = await start(STORAGE=server.url, STORAGE_FAILURE=failure, RATE_LIMIT="2/minute")
        await is_ready(proxy, 200)
        assert (await statuses(5, proxy))[200] == passed


async def test_a_shared_count_survives_a_reload_and_another_storage_needs_a_restart(
    server: Server, start: Start
) -> None:
    proxy = await start(STORAGE=server.url, RATE_LIMIT="1/minute")
    assert await status(proxy) == 200
    changed = proxy.service.settings.kept(storage=None, rate_limit=())
    proxy.service.apply(changed)
    assert proxy.service.settings.storage is not None
    assert await status(proxy) == 200  # without a limit, and nothing is counted anew
    proxy.service.apply(changed.kept(rate_limit=(Rate(1, 60),)))
    assert await status(proxy) == 429


async def test_the_storage_may_stand_in_a_file_and_is_told_without_its_password(
    server: Server, upstream: FakeUpstream, tmp_path: Path
) -> None:
    await server.command("ACL", "SETUSER", "kp", "on", ">made-up-password", "~keyproxy:*", "+@all")
    place = tmp_path / "storage"
    place.write_text(server.url.replace("://", "://kp:made-up-password@") + "\n")
    said = {f"KEYPROXY_{name}": value for name, value in SERVE.items()}
    said |= {"KEYPROXY_UPSTREAM": upstream.base_url, "KEYPROXY_STORAGE_FILE": str(place)}
    async with started("serve", tmp_path, **said) as program, aiohttp.ClientSession() as session:
        line = await program.said("listening")
        async with asyncio.timeout(10):
            while b"keyproxy:client:60:" not in await server.command("KEYS", "*"):
                async with session.post(program.url + CHAT, json=BODY) as answer:
                    assert answer.status == 200
        lines = str(program.lines)
    assert line["limits_counted"] == f"in 127.0.0.1:{server.port}/0 (while that is down: local)"
    assert "made-up-password" not in lines


# What budgets have counted

COST = 88_000  # nano-dollars, of each call


class Booked:
    """A keyproxy with a ledger of its own, started and stopped as often as one likes."""

    def __init__(self, server: Server, upstream: FakeUpstream, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.variables = {
            "KEYPROXY_UPSTREAM": upstream.base_url,
            "KEYPROXY_STORAGE": server.url,
            "KEYPROXY_LEDGER": str(directory / "ledger.sqlite3"),
        }

    async def calls(self, count: int, **more: str) -> list[int]:
        """What so many calls are answered by a process that then ends."""
        async with (
            started("dev", self.directory, **self.variables | more) as program,
            aiohttp.ClientSession() as session,
        ):
            found = []
            for _ in range(count):
                async with session.post(program.url + CHAT, json=BODY) as answer:
                    await answer.read()
                    found.append(answer.status)
            await program.stop()
        return found


async def counted(server: Server, whose: str = "total") -> int:
    """What the storage holds as spent this month."""
    keys = (await server.command("KEYS", f"keyproxy:{whose}-usd-month:*")).split(b"\r\n")
    [name] = [line.decode() for line in keys if line.startswith(b"keyproxy:")]
    return int((await server.command("GET", name)).split(b"\r\n")[1])


BUDGETS = {"KEYPROXY_BUDGET": "1/month", "KEYPROXY_TOTAL_BUDGET": "2/month"}


@pytest.mark.parametrize("budget", ["KEYPROXY_BUDGET", "KEYPROXY_TOTAL_BUDGET"])
async def test_a_budget_stays_spent_when_the_storage_was_emptied_while_nobody_ran(
    server: Server, upstream: FakeUpstream, tmp_path: Path, budget: str
) -> None:
    keyproxy = Booked(server, upstream, tmp_path)
    spent = {budget: "0.0001/month"}
    assert await keyproxy.calls(3, **spent) == [200, 200, 402]
    await server.command("FLUSHALL")
    assert await keyproxy.calls(2, **spent) == [402, 402]
    assert len(upstream.calls) == 2


async def test_what_the_storage_still_knows_is_counted_once(
    server: Server, upstream: FakeUpstream, tmp_path: Path
) -> None:
    one = Booked(server, upstream, tmp_path / "one")
    other = Booked(server, upstream, tmp_path / "other")
    for _ in range(2):
        assert await one.calls(2, **BUDGETS) == [200, 200]
        assert await other.calls(1, **BUDGETS) == [200]
    assert await counted(server) == await counted(server, "client") == 6 * COST


async def test_an_emptied_storage_holds_what_the_ledger_knows_that_knows_most(
    server: Server, upstream: FakeUpstream, tmp_path: Path
) -> None:
    one = Booked(server, upstream, tmp_path / "one")
    other = Booked(server, upstream, tmp_path / "other")
    assert await one.calls(3, **BUDGETS) + await other.calls(1, **BUDGETS) == [200] * 4
    await server.command("FLUSHALL")
    assert await one.calls(1, **BUDGETS) + await other.calls(1, **BUDGETS) == [200] * 2
    assert await counted(server) == 5 * COST
