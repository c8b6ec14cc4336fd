"""``keyproxy calls``: single calls of the ledger, found and shown."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest

from keyproxy.call import Usage
from keyproxy.ledger.ledger import Ledger, opened
from tests.conftest import BODY, Run, Start
from tests.fake_upstream import WIRE_HEADERS
from tests.fakes import server as fakes
from tests.records import entry, over
from tests.routed import HI, MODEL, failing, proxy_before

AT = datetime.now(UTC).replace(minute=31, second=7, microsecond=512_000) - timedelta(days=2)
NASTY = "x\x1b[31m=1"
# (id, client, minutes after AT, status, ended, cost, seconds, generation id)
CALLS = (
    ("req_" + "a" * 24, "ann", 0, 200, "complete", "0.000088", 1.25, "gen-1"),
    ("req_" + "b" * 24, "203.0.113.7", 1, 429, "complete", "0", 0.5, "gen-2"),
    ("req_" + "c" * 24, "2001:db8:1:2::/64", 2, 200, "client_left", None, 75.0, None),
    ("req_" + "d" * 24, NASTY, 3, 503, "complete", "0.5", 3.0, "gen-4"),
)
A, B, C, D = (id for id, *_ in CALLS)


@pytest.fixture
def path(here: Path) -> Path:
    """A ledger of four calls, and one that is under way."""

    async def fill(path: Path) -> None:
        async with opened(path) as ledger:
            for id, client, minutes, status, ended, cost, seconds, generation_id in CALLS:
                at = (AT + timedelta(minutes=minutes)).timestamp()
                models = ("openai/gpt-4o-mini",) if id != B else ("anthropic/opus", "openai/gpt-4o")
                app = "shop" if id == D else "default"
                call = entry(id, at, app=app, client=client, models=models, reserved=Decimal(2))
                ledger.begin(call)
                ledger.note(id, generation_id, "k…y")
                given = None if cost is None else Decimal(cost)
                usage = Usage(1200, 34, 1000) if id == A else None
                ledger.complete(id, over(status, ended, given, "exact", usage), seconds)
            at = (AT + timedelta(minutes=9)).timestamp()
            ledger.begin(entry("req_open", at, client="bob", models=("m",), reserved=None))

    asyncio.run(fill(here / "ledger.sqlite3"))
    return here / "ledger.sqlite3"


@pytest.fixture
def run(command: Run) -> Run:
    return partial(command, "calls")


def found(run: Run, path: Path, *arguments: str) -> list[str]:
    """The request ids that are found, in their order."""
    code, out, err = run("--ledger", str(path), "--json", *arguments)
    assert (code, err) == (0, "")
    return [call["request_id"] for call in json.loads(out)["calls"]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["req_open", D, C, B, A]),
        ([A], [A]),
        (["gen-2"], [B]),
        (["nothing"], []),
        (["--client", "ann"], [A]),
        (["--client", "203.0.113.7"], [B]),
        (["--client", "203.0.113.0/24"], [B]),  # as the log shows it
        (["--client", "2001:db8:1::/48"], [C]),
        (["--client", "2001:db8:1:2::/64"], [C]),
        (["--client", "no/network"], []),
        (["--app", "shop"], [D]),
        (["--status", "429"], [B]),
        (["--status", "4xx"], [B]),
        (["--status", "5xx"], [D]),
        (["--status", "client_left"], [C]),
        (["--model", "anthropic/*"], [B]),
        (["--model", "*gpt-4o*", "--status", "200"], [C, A]),
        (["--min-cost", "0.5"], [D, C]),  # what was set aside stands for one that nobody knows
        (["--min-seconds", "3"], [D, C]),
        (["--by", "seconds", "--top", "2"], [C, D]),
        (["--by", "cost", "--top", "2"], [C, D]),
        (["--since", f"{AT + timedelta(seconds=30):%Y-%m-%dT%H:%M:%S}", "--status", "4xx"], [B]),
        (["--until", f"{AT + timedelta(seconds=30):%Y-%m-%dT%H:%M:%S}"], [A]),
        (["--since", "today"], []),
        ([A, "--client", "bob"], []),
    ],
    ids=str,
)
def test_calls_are_found(path: Path, run: Run, arguments: list[str], expected: list[str]) -> None:
    assert found(run, path, *arguments) == expected


def test_a_call_of_long_ago_is_found_by_its_id_alone(path: Path, run: Run) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE calls SET begun_at = 1 WHERE id = ?", (A,))
    assert A not in found(run, path)
    assert found(run, path, A) == [A]
    assert found(run, path, "--since", "all", "--status", "200") == [C, A]


def test_json_has_all_that_is_known_and_money_exact(path: Path, run: Run) -> None:
    _, out, _ = run("--ledger", str(path), "--json", A)
    document = json.loads(out)
    assert (document["ledger"], document["calls_left_out"]) == (str(path), 0)
    [call] = document["calls"]
    [attempt] = call.pop("attempts")
    assert (attempt["n"], attempt["answer_id"], attempt["cost_usd"]) == (1, "gen-1", "0.000088")
    assert call["begun_at"] == AT.isoformat().replace("+00:00", "Z")
    assert call["models"] == ["openai/gpt-4o-mini"]
    assert (call["cost_usd"], call["counted_usd"], call["reserved_usd"]) == (
        "0.000088",
        "0.000088",
        "2",
    )
    assert (call["http_status"], call["ended"], call["is_settled"]) == (200, "complete", True)
    assert (call["input_tokens"], call["cached_tokens"], call["provider"]) == (
        1200,
        1000,
        "openrouter",
    )
    assert not {"booked_by", "tries", "next_try_at", "id"} & call.keys()


def test_a_table_has_a_line_a_call_for_programs_that_read_lines(path: Path, run: Run) -> None:
    code, out, err = run("--ledger", str(path), "--top", "4")
    assert (code, err) == (0, "")
    header, *lines, _, more = out.splitlines()
    assert header.split() == [
        *("time", "(UTC)", "status", "model", "tokens", "seconds", "USD", "client"),
        *("request", "id"),
    ]
    assert [line.split()[-1] for line in lines] == ["req_open", D, C, B]
    assert "under way" in lines[0]
    assert "shop/x?[31m=1" in lines[1]
    assert "200 client_left" in lines[2]
    assert "~2.00" in lines[2]
    assert more == "1 more call: --top, or a narrower question"
    assert "\x1b" not in out


def test_one_call_is_shown_in_full(path: Path, run: Run) -> None:
    code, out, _ = run("--ledger", str(path), "gen-1")
    assert code == 0
    facts = dict(line.split("  ", 1) for line in out.splitlines())
    shown = {name: text.strip() for name, text in facts.items()}
    assert shown["request id"] == A
    assert shown["provider's id"] == "gen-1"
    assert shown["time"] == f"{AT:%Y-%m-%d %H:%M:%S}.512 UTC"
    assert shown["tokens"] == "1,200 in, 1,000 cached, 34 out"
    assert shown["cost"] == "0.000088 USD, exact"
    assert shown["from out to end"] == "1.250 s"


def test_what_is_not_there_is_said(path: Path, run: Run) -> None:
    assert run("--ledger", str(path), "req_none") == (0, f"No such call in {path}\n", "")
    assert run("--ledger", str(path), "--app", "x") == (0, f"No such calls in {path}\n", "")
    code, out, err = run("--ledger", str(path) + ".none")
    assert (code, out) == (1, "")
    assert err.startswith("keyproxy calls: there is no ledger at ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--status", "teapot"],
        ["--status", "6xx"],
        ["--min-cost", "much"],
        ["--min-cost", "-1"],
        ["--min-cost", "NaN"],
        ["--min-seconds", "long"],
        ["--since", "whenever"],
        ["--top", "0"],
        ["--by", "name"],
        ["one", "two"],
        ["--nonsense"],
    ],
    ids=str,
)
def test_a_bad_option_exits_2_in_one_line(path: Path, run: Run, arguments: list[str]) -> None:
    code, out, err = run("--ledger", str(path), *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1


def test_on_a_narrow_terminal_a_call_has_two_lines(path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("no such terminals")
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "keyproxy", "calls", "--ledger", str(path), "--status", "200"],
        stdout=theirs,
        env=os.environ | {"COLUMNS": "80", "TERM": "xterm"},
        check=True,
    )
    assert done.returncode == 0
    os.close(theirs)
    out = b""
    while True:
        try:
            read = os.read(ours, 65_536)
        except OSError:
            break
        out += read
        if not read:
            break
    lines = out.decode().splitlines()
    assert lines[1].strip() == f"{C}  2001:db8:1:2::/64"
    assert "1,234 tok  1.2 s  0.000088 USD" in lines[2] or "1.3 s" in lines[2]


def test_a_ledger_of_before_is_read_as_it_is(tmp_path: Path, here: Path, run: Run) -> None:
    path = tmp_path / "old.sqlite3"
    path.write_bytes(gzip.decompress((Path(__file__).parent / "ledger-2.sqlite3.gz").read_bytes()))
    ids = found(run, path, "--since", "all")
    assert ids
    code, out, _ = run("--ledger", str(path), ids[0])
    assert code == 0
    assert ids[0] in out


async def test_a_running_keyproxy_is_read_while_it_writes(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    proxy = await start(LEDGER=str(path), RATE_LIMIT="off")
    ids: list[str] = []

    async def go_on_calling() -> None:
        while True:
            async with proxy.post(BODY) as answer:
                await answer.read()
                ids.append(answer.headers["X-Request-Id"])

    calling = asyncio.create_task(go_on_calling())
    try:
        async with asyncio.timeout(10):
            while not ids:
                await asyncio.sleep(0.01)
        await proxy.service.accounting.book.flush()  # type: ignore[union-attr]
        for asked in ("--top=1", WIRE_HEADERS["X-Generation-Id"]):
            done = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-m",
                    "keyproxy",
                    "calls",
                    asked,
                    "--json",
                    "--ledger",
                    str(path),
                ),
                stdout=asyncio.subprocess.PIPE,
            )
            out, _ = await done.communicate()
            assert done.returncode == 0
            seen = [call["request_id"] for call in json.loads(out)["calls"]]
            async with asyncio.timeout(10):
                while not set(seen) <= set(ids):  # one of them may be under way
                    await asyncio.sleep(0.01)
            assert seen
    finally:
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)


async def shown(path: Path, *arguments: str) -> str:
    """What a process of its own writes about a ledger."""
    done = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "keyproxy", "calls", *arguments, "--ledger", str(path)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await done.communicate()
    assert done.returncode == 0
    return out.decode()


async def test_the_attempts_of_a_call_and_whose_waits_it_had_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    more = failing(groq="rate", cerebras="whole")
    async with (
        fakes.serving("groq", "cerebras", "openrouter") as some,
        proxy_before(some, more=more, LEDGER=str(path)) as proxy,
    ):
        async with proxy.post({"model": MODEL, **HI}) as answer:
            assert answer.headers["X-Keyproxy-Attempts"] == "groq=429, cerebras=200"
            id = answer.headers["X-Request-Id"]
            await answer.read()
        ledger = proxy.service.accounting.book
        assert isinstance(ledger, Ledger)
        await ledger.flush()
        [call] = json.loads(await shown(path, id, "--json"))["calls"]
        text = await shown(path, id)
    assert (call["provider"], call["http_status"]) == ("cerebras", 200)
    for wait in ("queue_seconds", "first_byte_seconds", "longest_gap_seconds"):
        assert call[wait] >= 0
    first, second = call["attempts"]
    assert (first["provider"], first["class"], first["http_status"]) == ("groq", "load", 429)
    assert (second["provider"], second["class"], second["ended"]) == ("cerebras", None, "complete")
    facts, _, attempts = text.partition("\nattempts\n")
    for wait in ("before it went out", "connecting", "to the first byte", "longest gap"):
        assert re.search(rf"^{wait} +\d+\.\d{{3}} s$", facts, re.M)
    assert [line.split()[:2] for line in attempts.splitlines()] == [
        ["1", "groq"],
        ["2", "cerebras"],
    ]
