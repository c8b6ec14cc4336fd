"""What is shipped: the wheel, the locks, the image; and nothing of the machine it was made on."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import keyproxy
from keyproxy.settings import ROWS, Settings
from tests.conftest import KEY

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = sorted((ROOT / "examples").glob("compose*.yaml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        yield archive


def test_wheel_carries_the_page_and_the_types(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    page = [path for path in (ROOT / "examples" / "web").rglob("*") if path.is_file()]
    assert page
    for path in page:
        assert (
            f"keyproxy/demo/web/{path.relative_to(ROOT / 'examples' / 'web').as_posix()}" in names
        )
    assert "keyproxy/py.typed" in names


def test_wheel_carries_every_module_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    code = [path for kind in ("py", "lua") for path in (ROOT / "keyproxy").rglob(f"*.{kind}")]
    names = set(wheel.namelist())
    assert {path.relative_to(ROOT).as_posix() for path in code} <= names
    assert {name.split("/")[0] for name in names} == {
        "keyproxy",
        f"keyproxy-{keyproxy.__version__}.dist-info",
    }
    assert not [name for name in names if name.endswith(".pyc") or "/.env" in name]


def test_wheel_installs_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    about = f"keyproxy-{keyproxy.__version__}.dist-info"
    assert "keyproxy = keyproxy.__main__:main" in wheel.read(f"{about}/entry_points.txt").decode()
    assert f"{about}/licenses/LICENSE" in wheel.namelist()


def test_wheel_carries_the_licences_of_what_it_is_made_of(wheel: zipfile.ZipFile) -> None:
    licences = f"keyproxy-{keyproxy.__version__}.dist-info/licenses"
    vendor = sorted((ROOT / "examples" / "web" / "vendor").glob("*.LICENSE"))
    named = ["NOTICE", *(path.relative_to(ROOT).as_posix() for path in vendor)]
    assert len(named) == 3
    assert {f"{licences}/{name}" for name in named} <= set(wheel.namelist())


# 3.11.4 and later know the filter.
_CAREFULLY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def test_sdist_builds_the_same_wheel_and_can_be_tested(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    def build(kind: str, folder: Path) -> Path:
        command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(tmp_path)]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        [made] = tmp_path.glob("*.whl" if kind == "wheel" else "*.tar.gz")
        return made

    with tarfile.open(build("sdist", ROOT)) as archive:
        archive.extractall(tmp_path, **_CAREFULLY)  # noqa: S202 - our own
    [folder] = (path for path in tmp_path.iterdir() if path.is_dir())
    tree = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    listed = tracked()
    assert tree - {"PKG-INFO"} == listed
    with zipfile.ZipFile(build("wheel", folder)) as again:
        assert again.namelist() == wheel.namelist()


def tracked() -> set[str]:
    """The files that git has, or would take: what a sdist is to hold."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git work tree")
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_workflows_run_what_everybody_runs(name: str) -> None:
    path = ROOT / ".github" / "workflows" / name
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    [job] = yaml.safe_load(path.read_text())["jobs"].values()
    lines = [step["run"] for step in job["steps"] if "run" in step]
    assert lines
    for line in lines:
        command = line.split(" make ") if " make " in line else line.split()
        assert command[-1] == ".ci/run" or command[-1] in targets
    assert path.read_text().startswith("# Not run yet")


def locked(name: str) -> dict[str, list[str]]:
    """Requirement lines of a lock with their hashes."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "requirements" / name).read_text().splitlines():
        if match := re.match(r"([a-z0-9.-]+==[^ ]+)", line):
            current = found[match[1]] = []
        elif match := re.match(r" +--hash=sha256:([0-9a-f]{64})\b", line):
            current.append(match[1])
        else:
            assert re.match(r" *#", line), f"{name} holds more than versions and hashes: {line}"
    return found


@pytest.mark.parametrize("name", ["run.txt", "build.txt", "dev.txt", "node.txt"])
def test_lock_pins_by_hash_and_names_no_index(name: str) -> None:
    requirements = locked(name)
    assert requirements
    for requirement, hashes in requirements.items():
        assert hashes, f"{requirement} has no hash"
    assert not re.search(
        r"(https?|file):|--(extra-)?index|--find-links", (ROOT / "requirements" / name).read_text()
    )


def test_lock_of_the_image_holds_every_dependency_at_an_allowed_version() -> None:
    versions = dict(requirement.split("==") for requirement in locked("run.txt"))
    for dependency in PROJECT["dependencies"]:
        name, _, lowest = dependency.split(",")[0].partition(">=")
        assert number(versions[name]) >= number(lowest), dependency


def test_lock_of_the_image_holds_the_extras() -> None:
    extras = [name for extra in PROJECT["optional-dependencies"].values() for name in extra]
    names = {re.split(r"[\[><=]", extra)[0] for extra in extras}
    assert names == {"redis", "pyjwt"}
    assert names | {"cryptography"} <= {name.split("==")[0] for name in locked("run.txt")}


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def test_compiled_packages_are_locked_for_every_platform() -> None:
    """One wheel is one hash: amd64, arm64 and macOS for three Pythons are at least nine."""
    hashes = {name.split("==")[0]: digests for name, digests in locked("run.txt").items()}
    for name in ("aiohttp", "frozenlist", "multidict", "propcache", "yarl"):
        assert len(hashes[name]) >= 9


def test_tests_run_with_what_the_image_runs_with() -> None:
    assert locked("run.txt").items() <= locked("dev.txt").items()
    assert locked("build.txt").items() <= locked("dev.txt").items()


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """(INSTRUCTION, rest) in order, continuation lines joined, comments dropped."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\s*\n", " ", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines) if rest]


def test_image_starts_keyproxy_without_a_shell(dockerfile: list[tuple[str, str]]) -> None:
    said = dict(dockerfile)
    assert json.loads(said["ENTRYPOINT"]) == ["keyproxy"]
    assert json.loads(said["CMD"]) == ["serve"]
    assert json.loads(said["HEALTHCHECK"].split(" CMD ")[1]) == ["keyproxy", "ping"]
    assert said["STOPSIGNAL"] == "SIGTERM"


def test_image_runs_as_a_number_that_is_not_root(dockerfile: list[tuple[str, str]]) -> None:
    assert re.fullmatch(
        r"[1-9]\d*:[1-9]\d*", [rest for name, rest in dockerfile if name == "USER"][-1]
    )


def test_image_keeps_the_ledger_in_a_volume_of_its_user(dockerfile: list[tuple[str, str]]) -> None:
    """A volume takes owner and mode from the folder, if that was made before."""
    said = dict(dockerfile)
    made = [name == "RUN" and said["VOLUME"] in rest for name, rest in dockerfile].index(True)
    user, _, group = said["USER"].partition(":")
    assert dockerfile[made][1].split() == [
        *("install", "-d", f"--owner={user}", f"--group={group}", "--mode=0700"),
        said["VOLUME"],
    ]
    assert [name for name, _ in dockerfile].index("VOLUME") > made
    env = dict(pair.split("=", 1) for pair in said["ENV"].split())
    assert Path(env["KEYPROXY_LEDGER"]).parent == Path(said["VOLUME"])
    assert env["SQLITE_TMPDIR"] == said["VOLUME"]


def test_image_presets_what_the_settings_page_says(dockerfile: list[tuple[str, str]]) -> None:
    env = dict(pair.split("=", 1) for pair in dict(dockerfile)["ENV"].split())
    presets = {f"{name}={value}" for name, value in env.items() if name.startswith("KEYPROXY_")}
    [sentence] = re.findall(
        r"The image presets(.*?)\.\n\n", (ROOT / "docs" / "settings.md").read_text(), re.DOTALL
    )
    assert presets == set(re.findall(r"`(KEYPROXY_\S+)`", sentence))


def test_image_installs_by_hash_only(dockerfile: list[tuple[str, str]]) -> None:
    commands = [each for name, rest in dockerfile if name == "RUN" for each in rest.split("&&")]
    installs = [command for command in commands if re.search(r"/pip\b.* install ", command)]
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes" in install or "--no-index" in install
        assert "--no-deps" in install


def test_all_stages_share_a_base_named_by_version(dockerfile: list[tuple[str, str]]) -> None:
    bases = {rest.split()[0] for name, rest in dockerfile if name == "FROM"}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+-slim(@sha256:[0-9a-f]{64})?", bases.pop())


def test_image_copies_what_exists(dockerfile: list[tuple[str, str]]) -> None:
    """`make image-check` sees that .dockerignore lets it through, and no secret."""
    copied = [
        rest.split()[:-1] for name, rest in dockerfile if name == "COPY" and "--from" not in rest
    ]
    for source in (source for sources in copied for source in sources):
        assert (ROOT / source).exists()


def test_examples_and_image_use_settings_that_exist(dockerfile: list[tuple[str, str]]) -> None:
    known = {row.variable for row in ROWS.values()}
    texts = [rest for name, rest in dockerfile if name == "ENV"]
    texts += [path.read_text() for path in (*COMPOSE, ROOT / ".env.example", ROOT / "README.md")]
    used = set(re.findall(r"\b(KEYPROXY_[A-Z_]+|OPENROUTER_[A-Z_]+)[=:]", " ".join(texts)))
    assert used
    assert {name.removesuffix("_FILE") for name in used} <= known


@pytest.mark.parametrize("example", COMPOSE, ids=lambda path: path.name)
def test_compose_examples_say_all_that_serve_asks_for(example: Path) -> None:
    line = r"^ +((?:KEYPROXY|OPENROUTER)_[A-Z_]+): +\"?([^\"\n#]*?)\"?(?: +#.*)?$"
    said = dict(re.findall(line, example.read_text(), re.MULTILINE))
    settings = Settings.from_environ("serve", said, read_file=lambda _: KEY.encode())
    assert settings.total_budget
    assert 'volumes: ["ledger:/data"]' in example.read_text()


def test_readme_runs_the_image_with_all_that_serve_asks_for() -> None:
    [command] = re.findall(
        r"^docker run -d .*?^  keyproxy serve$", (ROOT / "README.md").read_text(), re.DOTALL | re.M
    )
    words = shlex.split(command)
    said = dict(words[n + 1].split("=", 1) for n, word in enumerate(words) if word == "-e")
    assert Settings.from_environ("serve", said, read_file=lambda _: KEY.encode()).total_budget
    assert [word for word in words if word.endswith(":/data")]


@pytest.mark.parametrize("auth", ["none", "token", "session", "jwt"])
def test_every_line_of_the_env_example_is_a_setting_that_fits(auth: str) -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    said = dict(re.findall(r"^#?((?:KEYPROXY|[A-Z]+_API)_[A-Z_]+)=(.*)$", "\n".join(lines), re.M))
    del said["OPENROUTER_API_KEY"]
    contents = {
        "openrouter_api_key": KEY,
        "groq_api_key": "gsk_" + "a1" * 26,
        "keyproxy_client_tokens": f"phone:{'0' * 64}",
    }

    def read_file(path: Path) -> bytes:
        return contents.get(path.name, "invented-" + "x" * 32).encode()

    said["KEYPROXY_CLIENT_AUTH"] = auth
    assert Settings.from_environ("serve", said, read_file=read_file).client_auth == auth


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_no_file_names_a_place_of_the_machine_it_was_made_on() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git work tree")
    places = re.compile(rb"(?<![\w.~-])/(?:root|work|Users|home/\w+)/|file:///\w")
    faults = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if (
            path.is_file()
            and path != Path(__file__)
            and (found := places.search(path.read_bytes()))
        ):
            faults.append(f"{name}: {found[0].decode()}")
    assert not faults
