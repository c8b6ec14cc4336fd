"""``keyproxy check`` as a doctor: each finding with its cure, and no key in any of them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from keyproxy.commands import build_scan, doctor, front_trial
from keyproxy.commands.findings import Finding
from keyproxy.demo import upstream as demo_upstream
from keyproxy.server import memory
from keyproxy.settings.sources import Sources
from tests.conftest import KEY, settings
from tests.fakes import configured
from tests.fakes import server as fakes
from tests.loopback import listening
from tests.sdk.served import Served, serving
from tests.test_commands import FakeServer, check, fake, report, run

__all__ = ["fake"]  # a fixture
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
# In the form of each provider's, and nobody's.
GOOGLE = "AIza" + "Sy0123456789abcdefghijklmnopqrstuv_"
GROQ = "gsk_" + "0123456789abcdefghijklmnopqrstuvwxyzABCDEF"


def git(*arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.example")
    subprocess.run(["git", *who, *arguments], check=True, capture_output=True)


def checked(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    """Exit code and document of ``keyproxy check --json``."""
    capsys.readouterr()
    code = run("check", "--json", *arguments)
    written = capsys.readouterr()
    assert KEY not in written.out + written.err
    document = json.loads(written.out)
    assert document["exit_code"] == code
    return code, document


def about(document: Any, name: str) -> list[Any]:
    return [each for each in document["findings"] if each["about"] == name]


# --- all of it -------------------------------------------------------------------------------


@pytest.fixture
def fine(
    here: Path,
    fake: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> FakeServer:
    """Nothing is wrong; what is checked is ``here``."""
    fake.body = report()
    monkeypatch.setenv("XDG_STATE_HOME", str(here / "state"))
    assert check(fake, monkeypatch) == 0
    return fake


def test_json_has_every_finding_with_its_grade(
    fine: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = checked(capsys=capsys)
    assert (code, document["mode"]) == (0, "dev")
    assert document["apps"]["default"]["models"] == "*"
    assert {each["grade"] for each in document["findings"]} == {"fine"}
    assert [each["text"] for each in about(document, "key sk-or-v1-ben...def")][-1] == "works"
    assert {"versions", "memory", "ledger", "storage"} <= {
        each["about"] for each in document["findings"]
    }


def test_json_has_the_faults_of_the_settings(
    fine: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KEYPROXY_CLIENT_AUTH", "sesion")
    code, document = checked(capsys=capsys)
    assert code == 2
    [fault] = document["findings"]
    assert (fault["about"], fault["grade"]) == ("KEYPROXY_CLIENT_AUTH", "error")
    assert fault["cure"] == "KEYPROXY_CLIENT_AUTH=session"


def test_trouble_with_a_key_is_an_error_with_a_cure(
    fine: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fine.status = 401
    code, document = checked(capsys=capsys)
    assert code == 1
    [error] = [each for each in document["findings"] if each["grade"] == "error"]
    assert "does not know this key" in error["text"]
    assert "make a new one" in error["cure"]


@needs_git
def test_a_secret_file_in_gits_history_is_told_with_its_commit(
    fine: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    git("init", "-q")
    Path(".env").write_text("KEYPROXY_TITLE=x\n")
    Path(".gitignore").write_text(".env\n")
    git("add", "-f", ".env")
    git("commit", "-qm", "All")
    [finding] = about(checked(capsys=capsys)[1], "git")
    assert "tracked" in finding["text"]
    git("rm", "-q", "--cached", ".env")
    git("commit", "-qm", "Less")
    code, document = checked(capsys=capsys)
    [finding] = about(document, "git")
    assert (code, finding["grade"]) == (0, "warning")
    assert ".env stands in git's history (commit " in finding["text"]
    assert "anew" in finding["cure"]


@needs_git
def test_a_secret_file_that_git_never_saw_is_not_told(
    fine: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    git("init", "-q")
    Path(".env").write_text("KEYPROXY_TITLE=x\n")
    Path(".gitignore").write_text(".env\n")
    git("add", ".gitignore")
    git("commit", "-qm", "All")
    assert about(checked(capsys=capsys)[1], "git") == []


@pytest.mark.skipif(sys.platform == "win32", reason="other rights")
@pytest.mark.parametrize("is_named", [True, False])
def test_a_ledger_that_cannot_be_written_is_told(
    fine: FakeServer,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_named: bool,
) -> None:
    if os.geteuid() == 0:
        monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    else:
        (here / "state").mkdir(mode=0o500)
    if is_named:
        monkeypatch.setenv("KEYPROXY_LEDGER", str(here / "state" / "ledger.sqlite3"))
    code, document = checked(capsys=capsys)
    [finding] = about(document, "ledger")
    assert (code, finding["grade"]) == ((1, "error") if is_named else (0, "warning"))
    assert "chown" in finding["cure"]


def test_a_ledger_that_is_none_is_told(
    fine: FakeServer,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "ledger").write_text("no database")
    monkeypatch.setenv("KEYPROXY_LEDGER", str(here / "ledger"))
    code, document = checked(capsys=capsys)
    assert (code, about(document, "ledger")[0]["grade"]) == (1, "error")
    assert (here / "ledger").read_text() == "no database"


def test_check_makes_no_ledger(
    fine: FakeServer, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not (here / "state").exists()


def test_a_storage_that_does_not_answer_is_an_error(
    fine: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KEYPROXY_STORAGE", "redis://me:hunter2hunter2@127.0.0.1:1")
    code, document = checked(capsys=capsys)
    [finding] = about(document, "storage")
    assert (code, finding["grade"]) == (1, "error")
    assert "KEYPROXY_STORAGE" in finding["cure"]
    assert "hunter2" not in json.dumps(document)


@pytest.mark.parametrize(("skew", "grade"), [(0, "fine"), (300, "error"), (-300, "error")])
async def test_a_clock_that_is_wrong_is_told(skew: float, grade: str) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(headers={"Date": formatdate(time.time() - skew, usegmt=True)})

    async with listening(answer) as port:
        said = settings("dev", UPSTREAM=f"http://127.0.0.1:{port}/api/v1", CLIENT_AUTH="session")
        [finding] = await doctor.of_clock(said)
    assert finding.grade == grade
    assert (skew <= 0) or "ahead of" in finding.text
    assert (skew >= 0) or "behind" in finding.text


async def test_nobody_is_asked_for_the_time_who_is_not_used(tmp_path: Path) -> None:
    """Nor shown a key for it: OpenRouter is not there at all."""
    async with fakes.serving("groq") as served:
        said = {"KEYPROXY_PROVIDERS": "groq", "KEYPROXY_CLIENT_AUTH": "session"}
        (tmp_path / "keyproxy.toml").write_text(configured.toml(served))
        environ = configured.environment(served) | said
        used = Sources("dev", {}, environ, tmp_path).read()
        [finding] = await doctor.of_clock(used)
    assert finding.grade == "fine"
    assert [(seen.vendor, seen.keys) for seen in served.seen] == [("groq", [])]


async def test_the_clock_is_asked_where_something_ends_by_it() -> None:
    assert await doctor.of_clock(settings("dev")) == []


def test_bodies_that_do_not_fit_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "limit", lambda: 128 << 20)
    finding = doctor.of_memory(settings("dev"))
    assert finding.grade == "warning"
    assert "KEYPROXY_MAX_BODY" in finding.text
    monkeypatch.setattr(memory, "limit", lambda: 512 << 20)
    assert doctor.of_memory(settings("dev")).grade == "fine"


# --- a build ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "owner"),
    [
        ("a/index.js", f'const key="{KEY}";', "OpenRouter"),
        ("index.js.map", f'{{"sources":["{GROQ}"]}}', "Groq"),
        ("page.html", f"\n\n<script>k='{GROQ}'</script>", "Groq"),
    ],
)
def test_a_key_in_a_build_is_found_and_not_repeated(
    here: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, owner: str
) -> None:
    path = here / "dist" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe" + text.encode())
    assert run("check", "--scan", "dist") == 1
    written = capsys.readouterr()
    line = text.count("\n") + 1
    assert f"error: '{name}', line {line}: a key of {owner}'s" in written.out
    assert GROQ not in written.out + written.err
    assert KEY not in written.out + written.err


def test_our_own_key_is_found_whatever_its_form(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
    monkeypatch.setenv("OPENROUTER_API_KEY", own)
    monkeypatch.setenv("KEYPROXY_UPSTREAM", "http://127.0.0.1:1/v1")
    (here / "index.js").write_text(f"x='{own}'")
    assert run("check", "--scan", ".") == 1
    written = capsys.readouterr().out
    assert "the key that keyproxy holds" in written
    assert own not in written


def test_a_key_that_may_be_firebases_is_a_warning(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "index.js").write_text(f"apiKey:'{GOOGLE}'")
    assert run("check", "--scan", ".") == 0
    assert "Firebase" in capsys.readouterr().out


def test_a_build_without_keys_is_fine(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "index.js").write_text("const css = 'sk-folding-cube-wide mask-1234567890abcdef';")
    assert run("check", "--scan", ".") == 0
    assert capsys.readouterr().out == "build: 1 files of '.' hold no provider's key\n"
    assert run("check", "--scan", "elsewhere") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in folders")
def test_a_pipe_in_a_build_is_not_opened(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(here / "index.js")
    assert run("check", "--scan", ".") == 0
    assert "warning: 'index.js' is a pipe or a device" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform == "win32", reason="no modes")
def test_a_folder_that_cannot_be_looked_into_is_an_error(powerless: Path) -> None:
    (powerless / "assets").mkdir(mode=0o000)
    if os.geteuid() == 0:
        os.seteuid(65534)
    lines = [str(finding) for finding in build_scan.scan(powerless, ())]
    assert f"error: '{powerless}/assets': Permission denied" in lines


def test_a_file_of_many_keys_is_told_of_in_a_few_lines(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counted anew for each key, its lines would take hours."""
    (here / "keys.txt").write_text(f"{GROQ}\n" * 200_000)
    assert run("check", "--scan", ".") == 1
    written = capsys.readouterr().out.splitlines()
    assert len(written) == 22
    assert "line 20: a key of Groq's" in written[19]
    assert "more keys behind these" in written[20]


# --- a server in front -----------------------------------------------------------------------


@pytest.fixture
async def demo() -> AsyncIterator[Served]:
    async with serving(pace=1) as served:
        yield served


async def trial(url: str) -> list[Finding]:
    return await front_trial.through(url)


@pytest.mark.parametrize("path", ["", "/", "/api/v1"])
async def test_what_hands_a_stream_on_is_told_so(demo: Served, path: str) -> None:
    found = await trial(demo.url + path)
    assert [finding.grade for finding in found] == ["fine", "fine"]
    assert "one by one" in found[0].text


async def fronted(demo: Served, request: web.BaseRequest, *, holds: bool) -> web.StreamResponse:
    """What a front server does: hand on, or hold back until the end."""
    async with aiohttp.ClientSession() as session:
        body = await request.read()
        head = {"Content-Type": "application/json"}
        async with session.request(
            request.method, demo.url + request.path, data=body or None, headers=head
        ) as answer:
            whole = await answer.read() if holds else b""
            response = web.StreamResponse(status=answer.status)
            response.content_type = answer.content_type
            await response.prepare(request)
            await response.write(whole)
            return response


async def test_a_front_that_holds_a_stream_back_is_found(demo: Served) -> None:
    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        return await fronted(demo, request, holds=True)

    async with listening(serve) as port:
        [stream, _] = await trial(f"http://127.0.0.1:{port}")
    assert stream.grade == "error"
    assert "held back" in stream.text
    assert "proxy_buffering off" in (stream.cure or "")


async def test_a_front_that_cuts_a_stream_is_found(demo: Served) -> None:
    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        return await fronted(demo, request, holds=False)

    async with listening(serve) as port:
        [stream, _] = await trial(f"http://127.0.0.1:{port}")
    assert (stream.grade, "cut before its end" in stream.text) == ("error", True)


@pytest.mark.parametrize(
    ("status", "words"), [(404, "not keyproxy that answers"), (502, "not keyproxy that answers")]
)
async def test_a_front_that_leads_elsewhere_is_found(status: int, words: str) -> None:
    async def serve(request: web.BaseRequest) -> web.Response:
        return web.Response(status=status, text="<html>")

    async with listening(serve) as port:
        found = await trial(f"http://127.0.0.1:{port}")
    assert found[0].grade == "error"
    assert words in (found[0].cure or "")


async def test_a_front_that_refuses_large_cookies_is_found(demo: Served) -> None:
    async def serve(request: web.BaseRequest) -> web.Response:
        return web.Response(status=400 if "Cookie" in request.headers else 404)

    async with listening(serve) as port:
        [_, cookies] = await trial(f"http://127.0.0.1:{port}")
    assert (cookies.grade, "cookies" in cookies.text) == ("warning", True)


async def test_a_keyproxy_that_runs_no_demo_is_told() -> None:
    async with serving(ALLOWED_MODELS="openai/*") as served:
        [stream, _] = await trial(served.url)
    assert stream.grade == "error"
    assert "keyproxy demo" in (stream.cure or "")


def test_nobody_there_is_an_error_without_the_addresss_password(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", "--through", "http://me:hunter2hunter2@127.0.0.1:1") == 1
    written = capsys.readouterr()
    assert "cannot be used" in written.out
    assert "hunter2" not in written.out + written.err
    assert run("check", "--through", "localhost") == 2


def test_through_works_as_a_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def serve_and_check() -> int:
        async with demo_upstream.running(pace=1) as base:
            url = base.removesuffix("/api/v1")
            return await asyncio.to_thread(run, "check", "--json", "--through", url)

    # The demo's upstream wants its key: what answers there is no keyproxy.
    assert asyncio.run(serve_and_check()) == 1
    document = json.loads(capsys.readouterr().out)
    assert "status 401" in document["findings"][0]["text"]
