"""A short run of the answers fuzz target, the same each time, and a look at its reader."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.answers import ANSWERS, CUTS, PIECES, Outcome, examine, obvious

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.parametrize("piece", PIECES)
def test_the_client_reads_each_piece_as_the_obvious_reader_does(
    runner: asyncio.Runner, piece: bytes
) -> None:
    for data in (OK + piece + b"\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n" + piece, piece):
        for cut in (len(data), len(data) // 2, len(data) - 1):
            examine(data, [cut], runner)


@settings(
    max_examples=400,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(ANSWERS, CUTS)
def test_the_client_reads_answers_as_the_obvious_reader_does(
    runner: asyncio.Runner, data: bytes, cuts: list[int]
) -> None:
    examine(data, cuts, runner)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            OK + b"Content-Length: 2\r\n\r\nhi",
            Outcome("whole", 200, {b"content-length": [b"2"]}, b"hi", is_kept=True),
        ),
        (
            OK + b"Content-Length: 2\r\n\r\nhi!",
            Outcome("whole", 200, {b"content-length": [b"2"]}, b"hi", is_kept=False),
        ),
        (
            OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
            Outcome("broken", 200, {b"transfer-encoding": [b"chunked"]}, b"hi"),
        ),
        (OK + b"\r\nhi", Outcome("whole", 200, {}, b"hi", is_kept=False)),
        (OK + b"X : y\r\n\r\n", Outcome("refused")),
    ],
)
def test_the_obvious_reader_reads(data: bytes, expected: Outcome) -> None:
    assert obvious(data) == expected
