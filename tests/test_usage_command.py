"""``keyproxy usage``: figures as they are booked, for people, programs and spreadsheets."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from keyproxy.call import Usage
from keyproxy.commands import reading
from keyproxy.commands.usage_text import bar, cell, exact, usd
from keyproxy.ledger.file import ask
from keyproxy.ledger.ledger import Ledger, opened
from keyproxy.ledger.queries import summary
from tests.conftest import Run
from tests.records import entry, over

ROOT = Path(__file__).resolve().parents[1]
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
FORMULA = '=HYPERLINK("https://evil.example")\x1b[31m'


async def book(ledger: Ledger, id: str, at: datetime, cost: str | None, client: str) -> None:
    ledger.begin(entry(id, at.timestamp(), client=client, reserved=Decimal("0.0123")))
    given = None if cost is None else Decimal(cost)
    source: Any = "estimated" if cost is None else "exact"
    ledger.complete(id, over(200, "complete", given, source, Usage(1200, 34)), 1)


@pytest.fixture
def path(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of four calls, named by nobody."""
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "state"))

    async def fill(path: Path) -> None:
        async with opened(path) as ledger:
            await book(ledger, "1", TODAY, "0.000088", "ann")
            await book(ledger, "2", TODAY, None, "bob")
            await book(ledger, "3", TODAY - DAY, "1.5", FORMULA)
            await book(ledger, "4", TODAY - 100 * DAY, "20", "ann")

    asyncio.run(fill(here / "ledger.sqlite3"))
    return here / "ledger.sqlite3"


@pytest.fixture
def run(command: Run) -> Run:
    return partial(command, "usage")


def test_plain_text_has_aligned_columns_and_no_colours(path: Path, run: Run) -> None:
    code, out, err = run("--ledger", str(path))
    assert (code, err) == (0, "")
    lines = out[out.index("day (UTC)") :].splitlines()
    yesterday, today = f"{TODAY - DAY:%Y-%m-%d}", f"{TODAY:%Y-%m-%d}"
    assert lines[:5] == [
        "day (UTC)     USD  estimated  calls  tokens in  tokens out",
        f"{yesterday}  1.500                 1      1,200          34",
        f"{today}  0.012      0.012      2      2,400          68",
        "----------  -----  ---------  -----  ---------  ----------",
        "total       1.512      0.012      3      3,600         102",
    ]
    assert "1.500 USD are known, 0.012 USD are estimated" in " ".join(out.split())
    assert "\x1b" not in out
    assert "Budgets count" not in out
    assert "unknown" not in out


def test_json_has_exact_figures_as_texts(path: Path, run: Run) -> None:
    code, out, _ = run("--ledger", str(path), "--by", "client", "--since", "all", "--json")
    found = json.loads(out)
    assert code == 0
    assert [row["client"] for row in found["rows"]] == ["ann", FORMULA, "bob"]
    assert found["rows"][0]["spend_usd"] == "20.000088"
    assert (found["rows"][2]["spend_usd"], found["rows"][2]["exact_usd"]) == ("0.0123", "0")
    assert found["total"] == {
        "spend_usd": "21.512388",
        "exact_usd": "21.500088",
        "computed_usd": "0",
        "estimated_usd": "0.0123",
        "counted_usd": "21.512388",
        "calls": 4,
        "unknown_calls": 0,
        "input_tokens": 4800,
        "output_tokens": 136,
    }
    assert "\x1b" not in out


def test_csv_holds_no_formula_and_nothing_a_terminal_obeys(path: Path, run: Run) -> None:
    _, out, _ = run("--ledger", str(path), "--by", "client", "--csv")
    header, *rows = csv.reader(io.StringIO(out))
    assert header[:5] == ["client", "spend_usd", "exact_usd", "computed_usd", "estimated_usd"]
    assert rows[0][:2] == ['\'=HYPERLINK("https://evil.example")?[31m', "1.5"]
    assert rows[2][:2] == ["ann", "0.000088"]
    assert "\x1b" not in out


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\t=1", "\r=1"])
def test_cell_that_begins_like_a_formula_is_text(text: str) -> None:
    assert cell(text).startswith("'")


def test_top_keeps_what_cost_most_and_totals_count_all(path: Path, run: Run) -> None:
    _, out, _ = run("--ledger", str(path), "--top", "1", "--since", "all", "--json")
    found = json.loads(out)
    assert [row["spend_usd"] for row in found["rows"]] == ["20"]
    assert (found["rows_left_out"], found["total"]["calls"]) == (2, 4)


@pytest.mark.parametrize(
    ("since", "until", "calls"),
    [
        ("today", None, 2),
        ("yesterday", None, 3),
        ("yesterday", "yesterday", 1),
        ("1d", None, 2),
        ("2d", None, 3),
        ("1w", None, 3),
        ("101d", None, 4),
        ("all", "yesterday", 2),
        (f"{TODAY - DAY:%Y-%m-%d}", f"{TODAY - DAY:%Y-%m-%d}", 1),
        (f"{TODAY - DAY:%Y-%m-%d}T00:00:01Z", None, 2),
        (f"{TODAY:%Y-%m-%d}T01:00:00+01:00", None, 2),
    ],
)
def test_span(path: Path, run: Run, since: str, until: str | None, calls: int) -> None:
    more = [] if until is None else ["--until", until]
    _, out, _ = run("--ledger", str(path), "--since", since, *more, "--json")
    assert json.loads(out)["total"]["calls"] == calls


@pytest.mark.parametrize(
    ("since", "until", "calls"),
    [
        ("all", "9999-12-31", 4),
        ("0001-01-01", "9999-12-31T23:59:59-14:00", 4),
        ("99999w", f"{TODAY - DAY:%Y%m%d}", 2),
        ("9999-12-31", "0001-01-01", 0),
    ],
)
def test_the_ends_of_the_calendar_are_no_trouble(
    path: Path, run: Run, since: str, until: str, calls: int
) -> None:
    for style in ("--json", "--csv"):
        code, out, err = run("--ledger", str(path), "--since", since, "--until", until, style)
        assert (code, err) == (0, "")
        if style == "--json":
            assert json.loads(out)["total"]["calls"] == calls


def test_hours_are_counted_from_now() -> None:
    now = datetime(2026, 10, 2, 13, 10, tzinfo=UTC)
    assert reading._moment("12h", now) == datetime(2026, 10, 2, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--since", "soon"),
        ("--since", "2026-02-30"),
        ("--since", "0001-01-01T00:00+14:00"),
        ("--since", "9999-12-31T23:59:59-14:00"),
        ("--since", ""),
        ("--since", "0d"),
        ("--until", "later"),
        ("--until", "all"),
        ("--by", "hour"),
        ("--top", "0"),
        ("--top", "-1"),
        ("--top", "9" * 5000),
        ("--top", "many"),
        ("--json", "--csv"),
    ],
)
def test_bad_option_exits_2_in_one_line(path: Path, run: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = run("--ledger", str(path), *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_span_without_calls_is_no_fault(path: Path, run: Run) -> None:
    code, out, _ = run("--ledger", str(path), "--since", "2020-01-01", "--until", "2020-01-31")
    assert code == 0
    assert out == f"No calls from 2020-01-01 to 2020-02-01, UTC, in\n{path}\n"


def test_missing_ledger_says_in_one_line_where_it_looked_and_what_to_do(
    path: Path, run: Run
) -> None:
    code, out, err = run()
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert str(path.parent / "state" / "keyproxy" / "ledger.sqlite3") in err
    assert "KEYPROXY_LEDGER" in err
    assert not (path.parent / "state").exists()


@pytest.mark.parametrize("place", ["environment", ".env", "keyproxy.toml"])
def test_place_of_the_ledger_is_read_where_other_settings_are(
    path: Path, run: Run, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "environment":
        monkeypatch.setenv("KEYPROXY_LEDGER", str(path))
    elif place == ".env":
        Path(".env").write_text(f"KEYPROXY_LEDGER={path}\n")
    else:
        Path("keyproxy.toml").write_text(f'ledger = "{path}"\n')
    assert run("--json")[0] == 0


def test_place_of_the_ledger_is_not_guessed_where_a_file_cannot_be_read(
    path: Path, run: Run
) -> None:
    Path(".env").write_bytes(f"KEYPROXY_LEDGER={path}\n".encode("utf-16"))
    code, out, err = run()
    assert (code, out) == (1, "")
    assert err.startswith("keyproxy usage: .env is no UTF-8 text: it is UTF-16")


def test_ledger_that_is_off_is_said(path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("KEYPROXY_LEDGER=off\n")
    code, out, err = run()
    assert (code, out) == (1, "")
    assert err == (
        "keyproxy usage: the ledger is off (KEYPROXY_LEDGER=off in .env); unset it to have calls"
        " booked\n"
    )


@pytest.mark.parametrize("content", [b"", b"rubbish" * 1000])
def test_file_that_is_no_ledger_is_said_and_left_alone(
    path: Path, run: Run, content: bytes
) -> None:
    path.write_bytes(content)
    code, out, err = run("--ledger", str(path))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "damaged or no ledger" in err
    assert path.read_bytes() == content


def test_ledger_that_is_being_written_is_read(path: Path, run: Run) -> None:
    async def while_it_runs() -> str:
        async with opened(path) as ledger:
            await book(ledger, "5", datetime.now(UTC), "0.5", "carl")
            await ledger.flush()
            return (await asyncio.to_thread(run, "--ledger", str(path), "--json"))[1]

    found = json.loads(asyncio.run(while_it_runs()))
    assert found["total"]["calls"] == 4


def usage_of_its_own(
    path: Path, *arguments: str, to: Path | None = None, **more: str
) -> tuple[int, str | None, str]:
    """Exit code, stdout and stderr of ``keyproxy usage`` in a process of its own."""
    environ = os.environ | {"PYTHONPATH": str(ROOT)} | more
    command = [sys.executable, "-m", "keyproxy", "usage", "--ledger", str(path), *arguments]
    with contextlib.nullcontext(subprocess.PIPE) if to is None else to.open("wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, env=environ)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("style", [(), ("--csv",)])
def test_names_in_other_letters_than_the_output_has_are_shown(
    path: Path, style: tuple[str, ...]
) -> None:
    async def add() -> None:
        async with opened(path) as ledger:
            await book(ledger, "5", TODAY, "0.5", "Zoë 你好")

    asyncio.run(add())
    code, out, err = usage_of_its_own(path, "--by", "client", *style, PYTHONIOENCODING="ascii")
    assert (code, err) == (0, "")
    assert out is not None
    assert "Zo? ??" in out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
@pytest.mark.parametrize("style", [(), ("--csv",), ("--json",)])
def test_output_that_cannot_be_written_is_said_in_one_line(
    path: Path, style: tuple[str, ...]
) -> None:
    said = usage_of_its_own(path, *style, to=Path("/dev/full"))
    assert said == (
        1,
        None,
        "keyproxy usage: the output cannot be written: No space left on device\n",
    )


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_large_ledger_needs_no_temporary_files(path: Path, run: Run) -> None:
    import resource

    columns = "id, begun_at, client, booked_by, app, endpoint, models, key, cost_source"
    rest = "'w', 'default', 'POST /x', 'a/b', 'k', 'exact', 1, 1, 1"
    rows = ((f"more {n}", TODAY.timestamp(), f"{n:01000}") for n in range(6_000))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executemany(
            f"INSERT INTO calls ({columns}, is_settled, cost, counted) VALUES (?, ?, ?, {rest})",  # noqa: S608  # our own words
            rows,
        )
        connection.commit()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    try:
        code, out, err = run("--ledger", str(path), "--by", "client", "--top", "1", "--json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, err) == (0, "")
    assert json.loads(out)["total"]["calls"] == 6_003


def test_reading_changes_nothing(path: Path, run: Run) -> None:
    before = path.read_bytes()
    run("--ledger", str(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("amounts", "shown"),
    [
        (["0.000088"], ["0.000088"]),
        (["0.0000000375", "12.5"], ["0.000000038", "12.500000000"]),
        (["0", "3"], ["0.00", "3.00"]),
        (["1234.5678"], ["1,234.57"]),
        (["0.000000000001"], ["0.000000000001"]),
    ],
)
def test_small_money_is_not_shown_as_nothing(amounts: list[str], shown: list[str]) -> None:
    assert usd([Decimal(amount) for amount in amounts]) == shown


@pytest.mark.parametrize(
    ("amount", "text"), [("0E-12", "0"), ("8.8E-5", "0.000088"), ("1E+1", "10"), ("2.50", "2.5")]
)
def test_exact_money_has_all_digits_and_no_exponent(amount: str, text: str) -> None:
    assert exact(Decimal(amount)) == text


def test_bar_is_in_proportion_and_never_hides_a_cost() -> None:
    assert bar(Decimal(1), 8, "utf-8") == "█" * 8
    assert bar(Decimal("0.0001"), 8, "utf-8") == "▏"
    assert bar(Decimal(0), 8, "utf-8") == ""
    assert bar(Decimal("0.5"), 8, "ascii") == "####"


def test_help_loads_nothing_heavy(path: Path) -> None:
    code = (
        "import sys\n"
        "from keyproxy.__main__ import main\n"
        "try:\n"
        "    main(['usage', '--help'])\n"
        "except SystemExit:\n"
        "    pass\n"
        "heavy = ('aiohttp', 'asyncio', 'limits', 'rich', 'structlog')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ)
    assert done.stdout.splitlines()[-1] == "[]"


def on_terminal(path: Path, columns: int, *arguments: str) -> str:
    """What ``keyproxy usage`` writes to a terminal of so many columns."""
    import fcntl
    import pty
    import struct
    import termios

    pid, fd = pty.fork()
    if pid == 0:
        # A whole environment: readline leaves a COLUMNS behind that os.environ does not know.
        environ = {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        command = [sys.executable, "-m", "keyproxy", "usage", "--ledger", str(path), *arguments]
        os.execve(sys.executable, command, environ)  # noqa: S606
    written = b""
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline and (more := os.read(fd, 65_536)):
            written += more
    except OSError:
        pass  # how Linux says that the other side has ended
    finally:
        os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return written.decode()


LONG = "client-" + "0123456789abcdef" * 6


@pytest.mark.parametrize("by", ["day", "client", "model", "provider", "status"])
def test_no_line_is_longer_than_80_columns_where_there_is_no_terminal(
    path: Path, run: Run, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYPROXY_LEDGER", path.name)

    async def add() -> None:
        async with opened(path) as ledger:
            await book(ledger, "5", TODAY, "0.000000012345", LONG)

    asyncio.run(add())
    _, out, _ = run("--by", by, "--since", "all")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    if by == "client":
        assert LONG in "".join(line.split("  ")[0] for line in lines)
        assert re.search(r"ann +20.000088000 +2 +2,400 +68\n", out)
        assert "0.012 USD are estimated" in " ".join(out.split())


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals")
@pytest.mark.parametrize("columns", [120, 66, 40])
def test_a_name_on_a_terminal_is_whole(path: Path, columns: int) -> None:
    async def add() -> None:
        async with opened(path) as ledger:
            await book(ledger, "5", TODAY, "0.5", LONG)

    asyncio.run(add())
    out = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal(path, columns, "--by", "client"))
    lines = [line for line in out.splitlines() if line != str(path)]
    assert max(map(len, lines)) <= columns
    assert LONG in "".join(line.strip().split("  ")[0] for line in lines)
    assert re.search(r"1,200( tokens in, *| +)34", " ".join(out.split()))


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals")
@pytest.mark.parametrize("columns", [120, 80, 66])
def test_terminal_shows_a_table_that_fits_with_whole_numbers(path: Path, columns: int) -> None:
    out = on_terminal(path, columns, "--by", "client")
    text = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert "\x1b[31m" not in text
    assert "\x1b" not in text
    lines = [line for line in text.splitlines() if line != str(path)]
    assert max(map(len, lines)) <= columns
    assert re.search(r"ann +0.000088 +1 +1,200 +34", text)
    assert re.search(r"total +1.512388 +0.012300 +3 +3,600 +102", text)
    assert ("█" in text) == (columns == 120)


async def test_money_is_summed_at_the_provider_that_took_it(tmp_path: Path) -> None:
    made = entry(at=1000.0, reserved=Decimal("0.5"))
    first = entry(at=1000.0, reserved=Decimal("0.25")).attempts[0]
    first.provider, first.ended = "groq", "upstream_cut"
    made.attempts.insert(0, first)
    async with opened(tmp_path / "ledger.sqlite3") as ledger:
        ledger.begin(made)
        usage = Usage(3, 4)
        ledger.complete(made.id, over(200, "complete", Decimal("0.125"), "exact", usage), 1)
        await ledger.flush()
        found = ask(ledger.path, lambda connection: summary(connection, "provider"))
        whole = ask(ledger.path, lambda connection: summary(connection, "app"))
    figures = [(row.name, row.calls, row.spend, row.output_tokens) for row in found.rows]
    assert figures == [("groq", 1, Decimal("0.25"), 0), ("openrouter", 1, Decimal("0.125"), 4)]
    assert (whole.total.calls, whole.total.spend) == (1, found.total.spend)
