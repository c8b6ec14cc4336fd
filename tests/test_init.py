"""``keyproxy init``: what it writes is read without a fault; what was there is there after it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from keyproxy.commands.beginning import AUDIENCES
from keyproxy.commands.frameworks import FRAMEWORKS, framework_in
from keyproxy.settings import Settings
from keyproxy.settings.sources import Sources
from tests.conftest import KEY
from tests.program import environment
from tests.test_commands import run

FOR_OTHERS = {
    "page": ("--allowed-origins", "https://app.example.com"),
    "login": (
        *("--allowed-origins", "https://app.example.com"),
        *("--jwt-jwks-url", "https://auth.example.com/.well-known/jwks.json"),
        *("--jwt-issuer", "https://auth.example.com/"),
    ),
    "app": ("--allowed-hosts", "api.example.com"),
}
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


@pytest.fixture
def config(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's config folder, beside a project folder that is the working directory."""
    (here / "project").mkdir()
    monkeypatch.chdir(here / "project")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "config"))
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("LOCALAPPDATA", str(here / "config"))
    return here / "config"


def kept(config: Path, name: str) -> Path:
    """The one file of this name in the config folder."""
    [path] = config.parent.rglob(name)
    return path


def read(mode: str, name: str) -> Settings:
    """The settings of a file, as ``keyproxy check`` reads them."""
    return Sources(mode, {}, {}, Path.cwd(), Path(name)).read()  # type: ignore[arg-type]


def git(*arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b.example")
    subprocess.run(["git", *who, *arguments], check=True, capture_output=True)


def test_what_is_written_for_me_is_read_without_a_fault(config: Path) -> None:
    assert run("init", "--yes") == 0
    kept(config, "openrouter_api_key").write_text(KEY)
    settings = read("dev", ".env")
    assert [key.reveal() for key in settings.keys] == [KEY]
    assert settings.allowed_models == ("*",)
    assert KEY not in Path(".env").read_text()
    assert not Path(".env.serve").exists()


@pytest.mark.parametrize("audience", FOR_OTHERS)
def test_what_is_written_for_others_is_read_without_a_fault(config: Path, audience: str) -> None:
    assert FOR_OTHERS.keys() | {"me"} == AUDIENCES.keys()
    assert run("init", "--yes", "--for", audience, *FOR_OTHERS[audience]) == 0
    kept(config, "openrouter_api_key").write_text(KEY)
    assert read("dev", ".env").client_auth == "none"
    settings = read("serve", ".env.serve")
    assert settings.client_auth == AUDIENCES[audience].client_auth
    assert settings.allowed_models == ("openai/gpt-4o-mini",)
    assert settings.allowed_hosts == (
        "api.example.com" if audience == "app" else "app.example.com",
    )
    assert settings.total_budget


@pytest.mark.parametrize("audience", FOR_OTHERS)
def test_every_line_that_is_a_comment_can_be_uncommented(config: Path, audience: str) -> None:
    assert run("init", "--yes", "--for", audience, *FOR_OTHERS[audience]) == 0
    kept(config, "openrouter_api_key").write_text(KEY)
    path = Path(".env.serve")
    path.write_text(path.read_text().replace("\n#KEYPROXY_", "\nKEYPROXY_"))
    assert read("serve", ".env.serve").max_tokens == 4096


@posix
def test_secrets_are_their_owners_alone(config: Path) -> None:
    assert run("init", "--yes", "--for", "page", *FOR_OTHERS["page"]) == 0
    for name in ("openrouter_api_key", "session_secret"):
        path = kept(config, name)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(".env").stat().st_mode) == 0o600


def test_a_client_token_is_shown_and_only_its_hash_is_kept(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", "--yes", "--for", "app", *FOR_OTHERS["app"]) == 0
    [token] = [word for word in capsys.readouterr().out.split() if word.startswith("kpt_")]
    assert token not in kept(config, "client_tokens").read_text()
    assert run("init", "--yes", "--for", "app", *FOR_OTHERS["app"]) == 0
    assert "kpt_" not in capsys.readouterr().out, "the first one goes on to be the one that opens"


def test_the_demo_is_named_where_there_is_no_key_yet(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", "--yes") == 0
    assert "keyproxy demo" in capsys.readouterr().out
    kept(config, "openrouter_api_key").write_text(KEY)
    assert run("init", "--yes") == 0
    assert "keyproxy demo" not in capsys.readouterr().out


def test_key_in_env_names_no_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("init", "--yes", "--key-in-env") == 0
    assert "\nOPENROUTER_API_KEY=\n" in Path(".env").read_text()
    assert not config.exists()
    assert f"paste the key into {Path.cwd() / '.env'}" in capsys.readouterr().out


# --- what is there ---------------------------------------------------------------------------


def test_nothing_that_a_file_says_is_changed_and_the_difference_is_printed(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = f"MINE=1\nOPENROUTER_API_KEY={KEY}\nKEYPROXY_ALLOWED_MODELS=google/*"
    Path(".env").write_text(before)
    assert run("init", "--yes", "--allowed-models", "openai/*") == 0
    assert Path(".env").read_text() == before
    written = capsys.readouterr()
    lines = [text.strip() for text in written.out.splitlines()]
    assert "- KEYPROXY_ALLOWED_MODELS=google/*" in lines
    assert "+ KEYPROXY_ALLOWED_MODELS=openai/*" in lines
    assert "- OPENROUTER_API_KEY=***" in lines
    assert KEY not in written.out + written.err
    assert not config.exists()


def test_what_a_file_lacks_comes_behind_its_end(config: Path) -> None:
    Path(".env").write_text("VITE_COLOUR=red")
    Path(".gitignore").write_text("node_modules")
    assert run("init", "--yes") == 0
    kept(config, "openrouter_api_key").write_text(KEY)
    assert Path(".env").read_text().startswith("VITE_COLOUR=red\n\n# ")
    assert Path(".gitignore").read_text() == "node_modules\n.env\n"
    assert read("dev", ".env").keys


def test_what_others_need_is_written_beside_a_key_that_env_holds(config: Path) -> None:
    Path(".env").write_text(f"OPENROUTER_API_KEY={KEY}\n")
    assert run("init", "--yes", "--for", "page", *FOR_OTHERS["page"]) == 0
    kept(config, "openrouter_api_key").write_text(f"{KEY}-2")
    assert [key.reveal() for key in read("dev", ".env").keys] == [KEY]
    assert [key.reveal() for key in read("serve", ".env.serve").keys] == [f"{KEY}-2"]


def test_key_in_env_is_in_both_files(config: Path) -> None:
    Path(".env").write_text(f"OPENROUTER_API_KEY={KEY}\n")
    assert run("init", "--yes", "--key-in-env", "--for", "page", *FOR_OTHERS["page"]) == 0
    assert read("serve", ".env.serve").keys == read("dev", ".env").keys


def test_a_second_run_changes_nothing(config: Path) -> None:
    def everything() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in config.parent.rglob("*") if path.is_file()}

    assert run("init", "--yes", "--for", "page", *FOR_OTHERS["page"]) == 0
    kept(config, "openrouter_api_key").write_text(KEY)
    before = everything()
    assert run("init", "--yes", "--for", "page", *FOR_OTHERS["page"]) == 0
    assert everything() == before


@pytest.mark.parametrize("pattern", [".env", "/.env*", "**/.env", ".env.*\n.env"])
def test_a_pattern_that_ignores_it_is_enough(config: Path, pattern: str) -> None:
    for name in (".gitignore", ".dockerignore"):
        Path(name).write_text(pattern)
    assert run("init", "--yes") == 0
    assert Path(".gitignore").read_text() == Path(".dockerignore").read_text() == pattern


@needs_git
def test_git_ignores_what_is_written(config: Path) -> None:
    git("init", "-q")
    Path(".gitignore").write_text(".env*\n!.env\n")
    assert run("init", "--yes", "--for", "page", *FOR_OTHERS["page"]) == 0
    git("check-ignore", ".env", ".env.serve")


@needs_git
@pytest.mark.parametrize("name", [".env", ".env.serve"])
def test_a_file_that_git_tracks_stops_it(
    config: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    git("init", "-q")
    Path(name).write_text(f"OPENROUTER_API_KEY={KEY}\n")
    git("add", name)
    git("commit", "-qm", "All")
    assert run("init", "--yes") == 1
    said = capsys.readouterr()
    assert f"git rm --cached {name}" in said.err
    assert KEY not in said.out + said.err
    assert (
        sorted(path.name for path in Path().iterdir())
        == [name, ".git"][:: 1 if name < ".git" else -1]
    )
    assert not config.exists()


# --- what is asked ---------------------------------------------------------------------------


def test_all_that_only_the_operator_knows_must_be_said(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("init", "--yes", "--for", "login", "--allowed-models", "a b") == 2
    said = capsys.readouterr().err
    for name in ("allowed-origins", "allowed-models", "jwt-jwks-url", "jwt-issuer"):
        assert f"\n    --{name} " in said
    # The live page's origin tells the host, once it is said.
    assert "HOSTS" not in said
    assert run("init", "--yes", "--for", "page", "--allowed-origins", "null") == 2
    assert "\n    --allowed-hosts " in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_nothing_is_asked_where_nobody_can_answer(config: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "keyproxy", "init"],
        env=environment(HOME=str(config.parent)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "--yes" in done.stderr
    assert list(Path().iterdir()) == []


def on_terminal(config: Path, answers: Sequence[tuple[str, str]]) -> tuple[int, str]:
    """Exit code and screen of ``keyproxy init`` when each prompt gets its answer."""
    import pty  # not on Windows

    homes = {"HOME": str(config.parent), "XDG_CONFIG_HOME": str(config)}
    environ = environment(**homes, OPENROUTER_API_KEY="", KEYPROXY_LEDGER="")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "keyproxy", "init"],
        env=environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,  # getpass asks this terminal, and not ours
    )
    os.close(theirs)
    screen, seen = "", 0
    for prompt, answer in answers:
        while prompt not in screen[seen:]:
            screen += os.read(ours, 4096).decode()
        seen = len(screen)
        os.write(ours, f"{answer}\n".encode() if answer != "^D" else b"\x04")
    try:
        while piece := os.read(ours, 4096):
            screen += piece.decode()
    except OSError:  # Linux's way to say that the other side is closed
        pass
    os.close(ours)
    return process.wait(), screen


@posix
def test_answers_are_asked_for_until_they_fit_and_no_screen_shows_the_key(config: Path) -> None:
    code, screen = on_terminal(
        config,
        [
            ("[me] ", "everybody"),
            ("[me] ", "page"),
            ("> ", "https://app.example.com/"),
            ("> ", "https://app.example.com"),
            ("[openai/gpt-4o-mini] ", "openai/*"),
            ("later) ", "sk-or-v1-xxxxxxxx"),
            ("later) ", KEY),
            ("[Y/n] ", ""),
        ],
    )
    assert code == 0, screen
    assert KEY not in screen
    settings = read("serve", ".env.serve")
    assert [key.reveal() for key in settings.keys] == [KEY]
    assert settings.allowed_models == ("openai/*",)
    assert settings.allowed_origins == ("https://app.example.com",)
    assert read("dev", ".env").keys == settings.keys


@posix
@pytest.mark.parametrize(
    "answers",
    [
        [("[me] ", "^D")],
        [("[me] ", ""), ("[*] ", ""), ("later) ", KEY), ("[Y/n] ", "no")],
    ],
)
def test_who_changes_their_mind_has_written_nothing(
    config: Path, answers: Sequence[tuple[str, str]]
) -> None:
    code, screen = on_terminal(config, answers)
    assert (code, "nothing was written" in screen) == (1, True)
    assert list(Path().iterdir()) == []
    assert not config.exists()


def test_what_other_files_say_wrong_is_told(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("keyproxy.toml").write_text("rate_limit = 'many'")
    assert run("init", "--yes") == 2
    assert "KEYPROXY_RATE_LIMIT" in capsys.readouterr().err


@pytest.mark.parametrize("is_exported", [True, False])
def test_a_key_that_counts_before_the_file_is_told(
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_exported: bool,
) -> None:
    if is_exported:
        monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    else:
        Path(".env.local").write_text(f"OPENROUTER_API_KEY={KEY}\n")
    assert run("init", "--yes") == 0
    place = "of the environment" if is_exported else "in .env.local"
    said = capsys.readouterr().out
    assert f"OPENROUTER_API_KEY {place} counts before .env" in said
    assert KEY not in said


# --- folders that somebody made up ---


@needs_git
@posix
def test_nothing_that_a_folder_names_is_run(config: Path) -> None:
    """git runs what the configuration of an unpacked folder says, unless it is kept from that."""
    git("init", "-q")
    git("config", "core.fsmonitor", f"touch {config.parent}/was-run #")
    assert run("init", "--yes") == 0
    assert not (config.parent / "was-run").exists()


def test_nothing_that_a_folder_says_moves_the_cursor(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(".env").write_text('KEYPROXY_LISTEN="\x1b[2J"\nKEYPROXY_ALLOWED_MODELS="\x1b]0;a\x07"\n')
    name = r'"\u001b[2J"'
    Path("keyproxy.toml").write_text(f"[apps.{name}]\n[routes.{name}]\n{name} = 1\n")
    run("init", "--yes", "--allowed-models", "a/b")
    for command in ("check", "dev"):
        assert run(command) == 2
    said = capsys.readouterr()
    assert "KEYPROXY_ALLOWED_MODELS=?]0;a?" in said.out
    assert "apps.?[2J" in said.err
    assert "\x1b" not in said.out + said.err


@posix
@pytest.mark.parametrize("name", [".env", ".gitignore"])
@pytest.mark.parametrize("is_there", [True, False])
def test_nothing_is_written_through_a_link(
    config: Path, capsys: pytest.CaptureFixture[str], name: str, is_there: bool
) -> None:
    elsewhere = config.parent / "profile"
    if is_there:
        elsewhere.write_text("# mine\n")
    Path(name).symlink_to(elsewhere)
    assert run("init", "--yes") == 1
    assert f"{name} is a link to {elsewhere}" in capsys.readouterr().err
    assert not is_there or elsewhere.read_text() == "# mine\n"
    assert not config.exists()


@posix
def test_a_folder_that_cannot_be_made_is_told(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.symlink_to(config.parent / "gone")
    assert run("init", "--yes") == 1
    assert "cannot be written" in capsys.readouterr().err


@posix
@pytest.mark.parametrize("kind", ["pipe", "device", "large"])
def test_a_package_that_is_none_is_not_read(config: Path, kind: str) -> None:
    path = Path("package.json")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_text('{"dependencies": {"next": "1"}, "x": "%s"}' % ("y" * (1 << 20)))
    assert framework_in(Path.cwd()) is None


# --- frameworks ------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda each: each.name)
def test_a_framework_is_known_by_its_files_or_its_package(
    config: Path, framework: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert framework in FRAMEWORKS
    each = FRAMEWORKS[FRAMEWORKS.index(framework)]
    package = Path("package.json")
    # SvelteKit and Expo come with what others are known by.
    package.write_text(f'{{"devDependencies": {{"vite": "8", "{each.package}": "1"}}}}')
    assert framework_in(Path.cwd()) is each
    package.unlink()
    for pattern in each.files:
        Path(pattern.replace("*", "ts")).touch()
        assert framework_in(Path.cwd()) is each
        Path(pattern.replace("*", "ts")).unlink()
    package.write_text(f'{{"dependencies": {{"{each.package}": "1"}}}}')
    assert run("init", "--yes") == 0
    address, client = each.lines("http://localhost:8484/api/v1")
    said = capsys.readouterr().out
    assert f"{each.name}, with the SDK of `npm install openai`\n  {address}\n  {client}\n" in said
    assert "http://localhost:8484/api/v1" in address
    # Which no build reads: its page would call the SDK's vendor.
    assert (".env.production" in said) == address.startswith(".env.development")


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"dependencies": []}', "{}", '{"dependencies": null}']
)
def test_no_framework_is_guessed(config: Path, text: str) -> None:
    Path("package.json").write_text(text)
    assert framework_in(Path.cwd()) is None
