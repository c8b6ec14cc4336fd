"""How much memory bodies may take, read off made-up cgroups; and that this is what they take."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from keyproxy.errors import Refusal
from keyproxy.policy import calls
from keyproxy.policy.endpoints import Endpoints
from keyproxy.server import memory
from keyproxy.server.assembly import policy_of
from keyproxy.settings import DEFAULT_ENDPOINTS
from keyproxy.strict_json import body
from keyproxy.strict_json.pieces import PIECE
from keyproxy.transport import intake, messages
from keyproxy.transport.intake import Hold, Room
from tests import conftest, fake_upstream, program
from tests.conftest import BODY, CHAT, Proxy, Start, refused
from tests.fake_upstream import FakeUpstream
from tests.raw import refused_raw, request

MIB = 1 << 20
CPU = "1:cpu,cpuacct:/x\n"


def machine(root: Path, groups: str, limits: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in limits.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "limits", "found"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "524288000\n"}, 524288000),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "7000000\n"}, 7000000),
        ("0::/a/b\n", {"a/b/memory.max": "9000000\n", "a/memory.max": "7000000\n"}, 7000000),
        ("0::/a/b\n", {"a/b/memory.max": "7000000\n", "a/memory.max": "9000000\n"}, 7000000),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "max\n"}, None),
        ("0::/a/b\n", {"other/memory.max": "7000000\n"}, None),
        ("0::/\n", {"memory.max": "7000000\n"}, 7000000),  # a container's own view
        ("0::/../other\n", {"memory.max": "7000000\n"}, 7000000),
        ("0::/a\n", {"a/memory.max": "much\n", "memory.max": "7000000"}, 7000000),
        # Its own part alone is mounted in a container, whose process knows the whole path.
        ("0::/docker/1/init\n", {"memory.max": "7000000\n"}, 7000000),
        (
            f"4:memory:/kubepods/pod\n{CPU}0::/\n",
            {
                "memory/kubepods/pod/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/kubepods/memory.limit_in_bytes": "7000000\n",
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            7000000,
        ),
        (
            f"4:cpuset,memory:/a\n{CPU}0::/a\n",  # both at once
            {"memory/a/memory.limit_in_bytes": "7000000", "unified/a/cgroup.procs": "1\n"},
            7000000,
        ),
        (CPU, {}, None),
        ("", {}, None),
        ("nonsense\n::\n", {}, None),
    ],
)
def test_the_lowest_limit_up_the_path_counts(
    tmp_path: Path, groups: str, limits: dict[str, str], found: int | None
) -> None:
    files = {f"sys/fs/cgroup/{name}": text for name, text in limits.items()}
    assert memory.limit(machine(tmp_path, groups, files)) == found


def test_without_cgroups_there_is_no_limit(tmp_path: Path) -> None:
    assert memory.limit(tmp_path) is None


@pytest.mark.parametrize(
    ("limit_mib", "room_mib"),
    [(None, 256), (4096, 256), (608, 256), (512, 208), (256, 80), (128, 16), (96, 0), (64, 0)],
)
def test_bodies_get_half_of_what_is_left(limit_mib: int | None, room_mib: int) -> None:
    limit = None if limit_mib is None else limit_mib * MIB
    assert memory.for_bodies(limit) == room_mib * MIB


def test_reading_takes_from_the_room_what_exceeds_its_half() -> None:
    room = Room(100)
    with Hold(room) as hold:
        hold.add(40)
        with room.reading(100):
            assert room._free == 60
        with room.reading(160):
            assert room._free == 0
        with pytest.raises(Refusal, match="overloaded"), room.reading(161):
            pass
        assert room._free == 60


def text(size: int) -> bytes:
    return json.dumps(BODY | {"user": "a" * size}).encode()


def wide(size: int) -> bytes:
    return json.dumps(BODY | {"user": "a" * size + "🙂"}, ensure_ascii=False).encode()


def escaped(size: int) -> bytes:
    return json.dumps(BODY | {"user": "a" * size + "🙂"}).encode()


def elements(size: int) -> bytes:
    return json.dumps(
        BODY | {"metadata": {f"{number:06}": 1 for number in range(size // 11)}}
    ).encode()


@pytest.mark.parametrize("shape", [text, wide, escaped, elements])
def test_reading_takes_no_more_memory_than_was_set_aside(shape: Callable[[int], bytes]) -> None:
    policy = policy_of(conftest.settings(MAX_TOKENS="100"))
    endpoint, _, query = Endpoints(DEFAULT_ENDPOINTS).find("POST", CHAT)
    raw = shape(2_000_000)
    tracemalloc.start()
    try:
        call = calls.read(endpoint, raw, policy, (), query)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert call.body != raw
    assert most <= body.reading_bytes(raw)


@pytest.mark.parametrize("shift", range(-3, 2))
def test_one_escape_is_weighed_wherever_it_stands(shift: int) -> None:
    """It may quadruple what the whole text takes."""
    text = b"x" * (2 * PIECE)
    begins, plain = b'{"user":"\\u65e5' + text + b'"}', b'{"user":"xxxxxx' + text + b'"}'
    at = PIECE + shift
    raw = plain[:at] + b"\\u65e5" + plain[at + 6 :]
    assert body.reading_bytes(raw) == body.reading_bytes(begins) > body.reading_bytes(plain)


async def test_memory_that_is_not_to_be_had_is_an_overload(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a 500: nothing is wrong here but the size of the machine."""
    room = proxy.service.kit.life.room

    def none_left(count: int, held: int) -> None:
        raise MemoryError

    monkeypatch.setattr(room, "take", none_left)
    async with proxy.post() as answer:
        await refused(answer, 503, "overloaded")
        assert answer.headers["Retry-After"] == "1"
    assert proxy.upstream.calls == []


@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_memory_that_a_body_lacks_as_it_comes_is_an_overload(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    class Full(bytearray):
        def __iadd__(self, more: object) -> Full:
            raise MemoryError

    monkeypatch.setattr(messages, "bytearray", Full, raising=False)
    async with proxy.post(BODY | {"user": "x" * size}) as answer:
        await refused(answer, 503, "overloaded")
        assert answer.headers["Retry-After"] == "1"
    assert proxy.upstream.calls == []
    assert room_is_whole(proxy)


async def test_memory_that_a_head_lacks_is_an_overload(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*head: object, is_small: bool) -> Any:
        raise MemoryError

    monkeypatch.setattr(intake, "headers_of", none_left)
    await refused_raw(proxy, request(), 503, "overloaded")


async def test_memory_that_a_thread_lacks_is_an_overload(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(raw: bytes) -> Any:
        raise MemoryError

    monkeypatch.setattr(body, "read", none_left)
    async with proxy.post(BODY | {"user": "x" * 1_000_000}) as answer:
        await refused(answer, 503, "overloaded")
    assert proxy.upstream.calls == []
    assert room_is_whole(proxy)


def room_is_whole(proxy: Proxy) -> bool:
    room = proxy.service.kit.life.room
    return room._free == room.max_bytes


async def test_a_room_for_less_than_one_body_is_told(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "limit", lambda: 128 * MIB)
    proxy = await start()
    assert proxy.service.kit.life.room.max_bytes == 16 * MIB
    warning = narrow(proxy)
    assert warning is not None
    assert "16 MiB for request bodies" in warning
    assert warning.endswith("until the limit is 136 MiB")
    assert narrow(await start(MAX_BODY="16MiB")) is None


def narrow(proxy: Proxy) -> str | None:
    service = proxy.service
    return memory.narrow(service.kit.life.room.max_bytes, service.settings.max_body_bytes)


async def test_a_body_that_cannot_be_read_in_what_is_left_is_refused(
    proxy: Proxy, upstream: FakeUpstream
) -> None:
    room = proxy.service.kit.life.room
    room.max_bytes = room._free = 4 * MIB
    async with proxy.post(io.BytesIO(text(MIB // 2))) as answer:
        assert answer.status == 200
    async with proxy.post(io.BytesIO(wide(MIB))) as answer:
        await refused(answer, 503, "overloaded")
    assert len(upstream.calls) == 1
    assert room_is_whole(proxy)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of this kind are Linux'")
async def test_bodies_beyond_the_memory_get_503_and_never_500(tmp_path: Path) -> None:
    """Twenty of 18 MB under 700 MB, of which a slow upstream lets none go."""
    import resource

    large = json.dumps(BODY | {"user": "x" * 18_000_000}).encode()
    statuses: list[int] = []

    async def slow(request: web.Request) -> web.StreamResponse:
        async with asyncio.timeout(20):
            while len(statuses) < 2:
                await asyncio.sleep(0.01)
        return fake_upstream.completion()

    variables = {"KEYPROXY_MAX_IN_FLIGHT": "50", "KEYPROXY_RATE_LIMIT": "off"}
    async with (
        fake_upstream.serving(fake_upstream.FakeUpstream()) as upstream,
        program.started(
            "dev", tmp_path, KEYPROXY_UPSTREAM=upstream.base_url, **variables
        ) as running,
        aiohttp.ClientSession() as session,
    ):
        upstream.answer = slow
        resource.prlimit(running.process.pid, resource.RLIMIT_AS, (700_000_000, 700_000_000))

        async def call() -> None:
            head = {"Content-Type": "application/json"}
            async with session.post(
                running.url + CHAT, data=io.BytesIO(large), headers=head
            ) as answer:
                statuses.append(answer.status)

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(call())
    assert set(statuses) == {200, 503}
    assert "internal_error" not in running.text
    assert (await running.said("listening"))["room_for_bodies"].endswith(" MiB")
