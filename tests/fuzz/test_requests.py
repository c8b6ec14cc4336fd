"""A short run of the requests fuzz target, the same each time, and a look at its reader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from multidict import CIMultiDict

from keyproxy.transport import intake
from tests.fuzz.request_reader import Outcome, obvious
from tests.fuzz.requests import CUTS, GET, HASTE, PIECES, REQUESTS, Driven, examine

Examine = Callable[[bytes, list[int], int], None]
HEAD = GET[:-2]
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
HOST = (b"host", b"a")


@pytest.fixture(scope="module")
def examined() -> Iterator[Examine]:
    async def begun() -> Driven:
        return Driven()

    with asyncio.Runner() as runner:
        driven = runner.run(begun())
        yield lambda *given: runner.run(examine(driven, *given))


@pytest.mark.parametrize("piece", PIECES)
def test_the_server_reads_each_piece_as_the_obvious_reader_does(
    examined: Examine, piece: bytes
) -> None:
    for data in (HEAD + piece + b"\r\n", CHUNKED + piece + b"0\r\n\r\n", GET + piece):
        examined(data, [len(data) // 2], 0)


@settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(REQUESTS, CUTS, HASTE)
def test_the_server_reads_requests_as_the_obvious_reader_does(
    examined: Examine, data: bytes, cuts: list[int], turns: int
) -> None:
    examined(data, cuts, turns)


@pytest.mark.parametrize(
    ("data", "cuts"),
    [
        (GET * 40, [100]),
        (GET + HEAD + b"X: " + b"a" * 30_000 + b"\r\n\r\n", list(range(100))),
        (CHUNKED + b"0\r\n" + b"X: y\r\n" * 11_000 + b"\r\n", list(range(100, 66_000, 4_000))),
    ],
)
def test_the_server_reads_many_and_large_ones_as_the_obvious_reader_does(
    examined: Examine, data: bytes, cuts: list[int]
) -> None:
    examined(data, cuts, 2)


def _whatever(*head: Any, **more: Any) -> CIMultiDict[str]:
    return CIMultiDict((name.decode(), value.decode()) for name, value in head[3])


def test_the_judge_finds_what_an_open_check_lets_through(
    examined: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = CHUNKED.replace(b"chunked", b"gzip, chunked") + b"0\r\n\r\n"
    examined(data, [], 0)
    monkeypatch.setattr(intake, "headers_of", _whatever)
    with pytest.raises(AssertionError):
        examined(data, [], 0)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            GET + b"POST /b HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi!",
            Outcome(
                [
                    ("GET", "/", "1.1", (HOST,), b""),
                    ("POST", "/b", "1.0", ((b"content-length", b"2"),), b"hi"),
                ],
                [200, 200],
                "closed",
            ),
        ),
        (
            CHUNKED + b"2\r\nhi\r\n0\r\nX: y\r\n\r\n",
            Outcome(
                [("POST", "/", "1.1", (HOST, (b"transfer-encoding", b"chunked")), b"hi")],
                [200],
                "open",
            ),
        ),
        (CHUNKED + b"2\r\nhi\r\n", Outcome([], [], "open")),
        (CHUNKED + b"2\r\nhi!", Outcome([], [], "refused", frozenset({400}))),
        (b"GET / HTT", Outcome([], [], "open")),
        (HEAD + b"X : y\r\n\r\n", Outcome([], [], "refused", frozenset({400, 414, 431}))),
        (HEAD + HEAD[16:] + b"\r\n", Outcome([], [], "refused", frozenset({400}))),
    ],
)
def test_the_obvious_reader_reads(data: bytes, expected: Outcome) -> None:
    assert obvious(data) == expected
