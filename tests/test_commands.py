"""The command line: what it asks for, what it prints, its exit codes; the key is in none of it."""

from __future__ import annotations

import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from keyproxy import __main__, __version__
from keyproxy.commands import COMMANDS
from keyproxy.demo.models import MODELS
from keyproxy.settings import ROWS
from keyproxy.settings.sources import Sources
from tests.program import environment

KEY = "sk-or-v1-bench-0123456789abcdef"
ROOT = Path(__file__).resolve().parents[1]
WIRE = {"label": "sk-or-v1-ben...def", "limit": 100, "limit_remaining": 74.5, "expires_at": None}


def run(*arguments: str) -> int:
    """The exit code of ``keyproxy <arguments>``, in this process."""
    try:
        return __main__.main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


@dataclass
class FakeServer:
    """Answers every GET alike and notes what it was asked."""

    port: int = 0
    status: int = 200
    body: bytes = b""
    asked: list[str] = field(default_factory=list)
    credentials: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v1"


@contextmanager
def serving(address: str = "127.0.0.1") -> Iterator[FakeServer]:
    fake = FakeServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            fake.asked.append(self.path)
            fake.credentials.append(self.headers["Authorization"])
            self.send_response(fake.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(fake.body)))
            self.end_headers()
            self.wfile.write(fake.body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer((address, 0), Handler) as server:
        fake.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield fake
        server.shutdown()
        thread.join()


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with serving() as server:
        yield server


# --- keyproxy itself -----------------------------------------------------------------------


def test_bare_keyproxy_says_in_five_lines_which_command_one_wants(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [text.split()[1] for text in lines] == ["demo", "init", "dev", "serve", "check"]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"keyproxy {__version__}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="its pipes break otherwise")
@pytest.mark.parametrize("words", ["--help", "token"])
def test_who_reads_no_further_gets_no_traceback(words: str, here: Path) -> None:
    """``keyproxy calls | head``"""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "keyproxy", *words.split()],
        cwd=here,
        stdout=write,
        stderr=subprocess.PIPE,
        env=environment(),
        check=False,
    )
    os.close(write)
    assert done.stderr == b""


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_every_command(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(option) == 0
    text = capsys.readouterr().out
    assert all(f"keyproxy {name} " in text for name in COMMANDS)


def test_help_of_the_demo_names_models_that_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demo", "--help") == 0
    named = set(re.findall(r"demo/[\w-]+", capsys.readouterr().out))
    assert named
    assert named <= MODELS.keys()


@pytest.mark.parametrize("word", ["start", KEY, f"--key={KEY}"])
def test_unknown_command_exits_2_in_one_line_and_is_not_repeated(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(word) == 2
    written = capsys.readouterr()
    assert (written.out, written.err.count("\n")) == ("", 1)
    assert word not in written.err


@pytest.mark.parametrize("command", ["dev", "serve", "check"])
def test_help_has_an_option_for_every_setting_but_secrets(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith(f"usage: keyproxy {command} [OPTIONS] ")
    secrets = [row for row in ROWS.values() if row.is_secret and row.file]
    assert "OPENROUTER_API_KEY" in [row.variable for row in secrets]
    for row in ROWS.values():
        is_option = row not in secrets
        assert (f"{row.option} " in text) == is_option
        assert (f"[{row.variable};" in text) == is_option


def test_help_shows_the_defaults_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for command in ("dev", "serve"):
        run(command, "--help")
        texts.append(" ".join(capsys.readouterr().out.split()))
    assert "[KEYPROXY_RATE_LIMIT; default: 60/minute]" in texts[0]
    assert "[KEYPROXY_RATE_LIMIT; default: 20/minute;300/day]" in texts[1]
    assert "[KEYPROXY_ALLOWED_MODELS; default: it must be said]" in texts[1]


def test_help_breaks_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("dev", "serve"):
        assert run(command, "--help") == 0
        lines = capsys.readouterr().out.splitlines()
        assert [text for text in lines if text.endswith("-") and not text.endswith(" -")] == []


def test_demo_has_no_options_of_the_true_upstream(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demo", "--help") == 0
    text = capsys.readouterr().out
    assert "--listen" in text
    assert "--upstream" not in text


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "arguments",
    [
        ("--max-bdy", "20MiB"),
        (f"--openrouter-api-key={KEY}",),
        ("--openrouter-api-key", KEY),
        (f"--{KEY}",),
        (KEY,),
        ("--listen",),
        ("--liste", "localhost:1"),
        ("-k", KEY),
    ],
)
def test_misunderstood_option_exits_2_in_one_line_without_values(
    here: Path, command: str, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, *arguments) == 2
    written = capsys.readouterr()
    assert (written.out, written.err.count("\n")) == ("", 1)
    assert KEY not in written.err
    assert "20MiB" not in written.err


def test_flag_with_a_value_does_not_repeat_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("dev", "--or-demo=hunter2") == 2
    assert "hunter2" not in capsys.readouterr().err


def test_unknown_option_is_answered_with_the_nearest(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("serve", "--allowed-model", "x")
    assert "--allowed-models perhaps?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["serve", "--help"], ["check", "--help"], ["ping"]]
)
def test_quick_commands_do_not_load_the_server(here: Path, arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from keyproxy.__main__ import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        "print([name for name in ('aiohttp', 'limits', 'asyncio') if name in sys.modules])\n"
    )
    environ = {
        "KEYPROXY_LISTEN": "127.0.0.1:1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environ
    )
    assert done.stdout.splitlines()[-1] == "[]"


# --- dev, serve ----------------------------------------------------------------------------


def test_serve_prints_every_fault_with_the_line_to_paste(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("serve", "--log-level", "loud") == 2
    written = capsys.readouterr()
    head, blank, *rest = written.err.splitlines()
    assert (written.out, blank) == ("", "")
    assert head == "keyproxy serve: 6 settings are missing or wrong"
    assert "    KEYPROXY_ALLOWED_HOSTS=api.example.com" in rest
    assert any(
        text.startswith("KEYPROXY_LOG_LEVEL is 'loud' (on the command line)") for text in rest
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no terminals of this kind")
def test_faults_are_broken_between_words_in_a_terminal_and_lines_to_paste_are_not(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pty  # not on Windows

    monkeypatch.setenv("COLUMNS", "50")
    ours, theirs = pty.openpty()
    written = b""
    with os.fdopen(theirs, "w") as stream, os.fdopen(ours, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stderr", stream)
        assert run("serve", "--rate-limit", "off") == 2
        while b"anthropic/*" not in written:  # the last line's end; it comes in pieces
            written += screen.read(10_000)
    lines = written.decode().splitlines()
    assert "    KEYPROXY_ALLOWED_MODELS=openai/gpt-4o-mini,anthropic/*" in lines
    assert all(len(text) <= 50 for text in lines if not text.startswith("    "))
    assert "`any-ip` is any IP literal" in " ".join(lines)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
@pytest.mark.skipif(sys.platform == "win32", reason="needs sh")
def test_lines_that_bare_serve_prints_answer_all_its_questions(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("serve") == 2
    lines = [text.strip() for text in capsys.readouterr().err.splitlines() if text[:4] == "    "]
    assert "KEYPROXY_CLIENT_AUTH=session" in lines
    assert "KEYPROXY_SESSION_SECRET=$(openssl rand -hex 32)" in lines
    assert "KEYPROXY_TOTAL_BUDGET=5/day" in lines
    pasted = "\n".join(["set -a", *lines, f"OPENROUTER_API_KEY={KEY}", "env -0"])
    done = subprocess.run(["sh", "-c", pasted], capture_output=True, text=True, check=True)
    said = dict(text.split("=", 1) for text in done.stdout.split("\0") if "=" in text)
    read = Sources("serve", {}, said, here).read()
    assert (read.client_auth, len(read.session_secrets or ())) == ("session", 1)


def test_lines_for_the_client_auth_leave_out_what_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KEYPROXY_TOTAL_BUDGET", "1/day")
    (here / ".env").write_text("KEYPROXY_SESSION_SECRET_FILE=secret\n")
    (here / "secret").write_text("0123456789abcdef" * 4)
    assert run("serve") == 2
    text = capsys.readouterr().err
    assert "KEYPROXY_CLIENT_AUTH=session" in text
    assert "KEYPROXY_SESSION_SECRET=" not in text
    assert "KEYPROXY_TOTAL_BUDGET=" not in text


def test_faults_do_not_repeat_the_key(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / ".env").write_text(f"OPENROUTER_API_KEY='Bearer {KEY}'\nVITE_KEY={KEY}\n")
    assert run("dev") == 2
    written = capsys.readouterr()
    assert "VITE_KEY" in written.err
    assert KEY not in written.out + written.err


def test_or_demo_with_a_key_reports_its_faults(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "short")
    assert run("dev", "--or-demo") == 2
    assert "keyproxy dev: one setting is missing or wrong" in capsys.readouterr().err


def test_or_demo_without_a_key_is_the_demo(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("dev", "--or-demo", "--listen", "nonsense:x") == 2
    assert capsys.readouterr().err.startswith("keyproxy demo: one setting")


# --- check ---------------------------------------------------------------------------------


def check(fake: FakeServer, monkeypatch: pytest.MonkeyPatch, **more: str) -> int:
    said = {"OPENROUTER_API_KEY": KEY, "KEYPROXY_UPSTREAM": fake.url} | more
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    return run("check")


def report(**fields: object) -> bytes:

    return json.dumps({"data": WIRE | fields}).encode()


def test_check_prints_label_limit_and_expiry_of_a_good_key(
    here: Path,
    fake: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake.body = report(expires_at="2027-01-01T00:00:00Z")
    assert check(fake, monkeypatch) == 0
    text = capsys.readouterr().out
    for expected in ("sk-or-v1-ben...def", "100 USD, left: 74.5", "2027-01-01", "works"):
        assert expected in text
    assert KEY not in text
    assert (fake.asked, fake.credentials) == (["/api/v1/key"], [f"Bearer {KEY}"])


def test_check_shows_every_name_whole_and_within_its_columns(
    here: Path,
    fake: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake.body = report()
    issuer = f"https://{'a' * 60}.example/{'b' * 60}"
    auth = {"CLIENT_AUTH": "jwt", "JWT_ISSUER": issuer, "JWT_JWKS_URL": f"{issuer}/keys"}
    said = {f"KEYPROXY_{name}": text for name, text in (auth | {"JWT_AUDIENCE": "x"}).items()}
    assert check(fake, monkeypatch, **said) == 0
    lines = capsys.readouterr().out.splitlines()
    assert issuer in "".join("".join(lines).split())
    assert all(len(line) <= 100 for line in lines)


def test_check_warns_of_a_key_without_limit(
    here: Path,
    fake: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake.body = report(limit=None, limit_remaining=None)
    assert check(fake, monkeypatch) == 0
    assert "warning: this key has no credit limit" in capsys.readouterr().out


@pytest.mark.parametrize("amount", ["1e999999999999", "-1E-999999999", "9" * 20_000])
def test_check_writes_out_no_endless_amount(
    here: Path,
    fake: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    amount: str,
) -> None:
    fake.body = report(limit=amount, limit_remaining=amount)
    assert check(fake, monkeypatch) == 0
    assert len(capsys.readouterr().out) < 2_000


@pytest.mark.parametrize(
    ("status", "fields", "words"),
    [
        (200, {"is_management_key": True}, "management key"),
        (200, {"is_provisioning_key": True}, "management key"),
        (200, {"limit_remaining": 0}, "used up"),
        (200, {"label": None, "limit": None}, "says nothing of a key"),
        (401, {}, "does not know this key"),
        (402, {}, "no credit"),
        (403, {}, "refuses"),
        (404, {}, "KEYPROXY_UPSTREAM"),
        (429, {}, "too often"),
        (302, {}, "status 302"),
        (500, {}, "status 500"),
    ],
)
def test_check_explains_trouble_with_the_key(
    here: Path,
    fake: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    fields: Mapping[str, object],
    words: str,
) -> None:
    fake.status, fake.body = status, report(**fields)
    assert check(fake, monkeypatch) == 1
    text = capsys.readouterr().out
    assert words in text
    assert KEY not in text


def test_check_does_not_print_a_key_that_the_upstream_repeats(
    here: Path,
    fake: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake.body = report(label=f"label {KEY}", expires_at=KEY[4:24])
    assert check(fake, monkeypatch) == 0
    text = capsys.readouterr().out
    assert KEY not in text
    assert KEY[4:24] not in text


def test_check_asks_about_every_key(
    here: Path,
    fake: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake.body = report()
    other = KEY.replace("bench", "other")
    assert check(fake, monkeypatch, OPENROUTER_API_KEY=f"{KEY},{other}") == 0
    assert fake.credentials == [f"Bearer {KEY}", f"Bearer {other}"]


def test_check_says_that_the_upstream_cannot_be_reached(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving() as gone:
        pass
    assert check(gone, monkeypatch) == 1
    assert "cannot be reached" in capsys.readouterr().out


def test_check_reports_faults_before_it_asks(
    here: Path,
    fake: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check(fake, monkeypatch, KEYPROXY_MAX_BODY="huge") == 2
    assert "KEYPROXY_MAX_BODY is 'huge'" in capsys.readouterr().err
    assert fake.asked == []


def test_check_serve_asks_for_what_serve_needs(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    assert run("check", "--serve") == 2
    assert "KEYPROXY_ALLOWED_MODELS is not set" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize(("ignored", "is_warned"), [("", True), (".env*\n", False)])
def test_check_warns_of_an_env_file_that_git_does_not_ignore(
    here: Path,
    fake: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ignored: str,
    is_warned: bool,
) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    (here / ".gitignore").write_text(ignored)
    (here / ".env").write_text("KEYPROXY_TITLE=x\n")
    fake.body = report()
    assert check(fake, monkeypatch) == 0
    assert (".env is not ignored by git" in capsys.readouterr().out) is is_warned


def test_check_says_nothing_of_git_outside_a_work_tree(
    here: Path,
    fake: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / ".env").write_text("KEYPROXY_TITLE=x\n")
    fake.body = report()
    assert check(fake, monkeypatch) == 0
    assert "git" not in capsys.readouterr().out


def test_the_word_that_was_meant_is_the_one_to_paste(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("serve", "--client-auth", "sesion") == 2
    assert "one of none, token, jwt, session\n    --client-auth session\n" in (
        capsys.readouterr().err
    )
    assert run("serve", "--client-auth", "basic") == 2
    assert "one of none, token, jwt, session\n    --client-auth session\n" in (
        capsys.readouterr().err
    )


# --- ping ----------------------------------------------------------------------------------


def test_ping_asks_for_health(
    here: Path, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("ping", "--listen", f"127.0.0.1:{fake.port}") == 0
    assert fake.asked == ["/healthz"]
    assert capsys.readouterr().out.count("\n") == 1


def test_ping_asks_for_readiness(
    here: Path, fake: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.status = 503
    assert run("ping", "--ready", "--listen", f"127.0.0.1:{fake.port}") == 1
    assert fake.asked == ["/readyz"]
    assert "status 503" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["", "localhost", "0.0.0.0", "[::]"])
def test_ping_finds_a_server_that_listens_everywhere(
    here: Path, fake: FakeServer, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("KEYPROXY_LISTEN", f"{host}:{fake.port}")
    assert run("ping") == 0


@pytest.mark.parametrize("place", [".env.local", ".env", "keyproxy.toml", "--env-file", "--config"])
def test_ping_reads_the_address_where_its_neighbours_do(
    here: Path, fake: FakeServer, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "other" if place.startswith("--") else place
    is_toml = "toml" in place or place == "--config"
    address = f"127.0.0.1:{fake.port}"
    (here / name).write_text(f"listen = '{address}'" if is_toml else f"KEYPROXY_LISTEN={address}")
    assert run("ping", *([place, name] if name == "other" else [])) == 0
    assert fake.asked == ["/healthz"]


def test_ping_takes_the_higher_layer_and_lives_with_a_faulty_one(
    here: Path, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong with the files is no reason to call a running process ill."""
    (here / ".env").write_bytes("KEYPROXY_LISTEN=127.0.0.1:1".encode("utf-16"))
    (here / "keyproxy.toml").write_text("listen = '127.0.0.1:1'")
    monkeypatch.setenv("KEYPROXY_LISTEN", f"127.0.0.1:{fake.port}")
    assert run("ping") == 0


def test_ping_guesses_no_address_where_a_file_cannot_be_read(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / ".env").write_bytes("KEYPROXY_LISTEN=127.0.0.1:1".encode("utf-16"))
    assert run("ping") == 2
    assert "keyproxy ping: .env is no UTF-8 text" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["dev", "serve", "demo", "check", "explain", "usage", "calls", "ping"]
)
@pytest.mark.parametrize("option", ["--env-file", "--config"])
def test_every_command_that_reads_settings_takes_the_same_files(
    command: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, "--help") == 0
    assert f"{option} FILE" in capsys.readouterr().out


def test_ping_says_that_nobody_answers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving() as gone:
        pass
    assert run("ping", "--listen", f"127.0.0.1:{gone.port}") == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err == f"/healthz on port {gone.port}: nothing listens there\n"


def test_ping_with_a_malformed_address_exits_2_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("ping", "--listen", "nowhere") == 2
    assert capsys.readouterr().err.count("\n") == 1
