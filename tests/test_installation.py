"""The line that adds an extra is one for the way this keyproxy was installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from keyproxy import installation
from keyproxy.installation import Installation

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path("/src/key proxy").as_uri()
FOLDER = {"url": SOURCE, "dir_info": {}}
WHEEL = {"url": SOURCE + ".whl", "archive_info": {}}
GIT = {
    "url": "https://git.example/keyproxy",
    "vcs_info": {"vcs": "git", "requested_revision": "v0.1.0", "commit_id": "abc"},
}
COMMIT = {**GIT, "vcs_info": {"vcs": "git", "commit_id": "abc"}, "subdirectory": "py"}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="quotes of another shell")


@pytest.mark.parametrize(
    ("prefix", "mark", "origin", "installer", "expected"),
    [
        ("pipx/venvs/keyproxy", "pipx_metadata.json", FOLDER, "pip",
         "pipx install --force 'keyproxy[jwt] @ {source}'"),
        ("pipx/venvs/keyproxy", "pipx_metadata.json", {}, "pip",
         "pipx install --force 'keyproxy[jwt]'"),
        ("cache/pipx/0123456789", "pipx_metadata.json", FOLDER, "pip",
         "pipx run --spec 'keyproxy[jwt] @ {source}' keyproxy serve"),
        ("uv/tools/keyproxy", "uv-receipt.toml", GIT, "uv",
         "uv tool install --force 'keyproxy[jwt] @ git+https://git.example/keyproxy@v0.1.0'"),
        ("uv/archive-v0/AbC", "pyvenv.cfg", FOLDER, "uv",
         "uvx --from 'keyproxy[jwt] @ {source}' keyproxy serve"),
        ("venv", "pyvenv.cfg", FOLDER, "pip",
         "{python} -m pip install 'keyproxy[jwt] @ {source}'"),
        ("venv", "pyvenv.cfg", WHEEL, "pip",
         "{python} -m pip install 'keyproxy[jwt] @ {source}.whl'"),
        ("venv", "pyvenv.cfg", COMMIT, "pip",
         "{python} -m pip install"
         " 'keyproxy[jwt] @ git+https://git.example/keyproxy@abc#subdirectory=py'"),
        ("venv", "pyvenv.cfg", {}, "pip", "{python} -m pip install 'keyproxy[jwt]'"),
        ("venv", "pyvenv.cfg", FOLDER, "uv",
         "uv pip install --python {python} 'keyproxy[jwt] @ {source}'"),
        ("opt/keyproxy", "pyvenv.cfg", {"url": Path("/dist/keyproxy.whl").as_uri()}, "pip",
         "docker build --no-cache -t keyproxy ."),
    ],
)  # fmt: skip
def test_each_way_of_installing_has_its_own_line(
    tmp_path: Path, prefix: str, mark: str, origin: dict[str, Any], installer: str, expected: str
) -> None:
    folder = tmp_path / prefix
    folder.mkdir(parents=True)
    (folder / mark).touch()
    python = str(folder / "bin" / "python")
    line = Installation(folder, python, origin, installer, "serve").line("jwt")
    assert line == expected.format(python=python, source=SOURCE)
    if origin:
        assert "keyproxy[jwt]'" not in (line or ""), "the name in an index may be a stranger's"


def test_checkout_that_make_has_set_up_is_set_up_anew(tmp_path: Path) -> None:
    (tmp_path / "Makefile").touch()
    origin = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}
    made = Installation(tmp_path / ".venv", "/x/python", origin)
    assert made.line("redis") == f"make -C {tmp_path} clean run"
    by_hand = Installation(tmp_path / "env", "/x/python", origin)
    assert by_hand.line("redis") == f"/x/python -m pip install -e '{tmp_path}[redis]'"


def test_code_that_is_not_installed_has_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_NAME", "no-such-distribution")
    assert installation.line_for("jwt") is None


def test_strangers_package_of_our_name_has_no_line(tmp_path: Path) -> None:
    """Our code is run as it lies there, beside what an index has under our name."""
    about = tmp_path / "keyproxy-9.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: keyproxy\nVersion: 9.0\n")
    code = (
        "import sys; from keyproxy.installation import line_for;"
        f" sys.path.insert(0, {str(tmp_path)!r}); print(line_for('redis'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "None\n"


def test_line_of_a_plain_venv_is_that_of_the_folder_it_came_from(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    paths = [path for path in sys.path if path.endswith("site-packages")]
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps",
         "--no-index", "--no-build-isolation", "--disable-pip-version-check", str(ROOT)],
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    code = "from keyproxy.installation import line_for; print(line_for('redis'))"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == f"{python} -m pip install 'keyproxy[redis] @ {ROOT.as_uri()}'\n"
    [metadata] = (tmp_path / "venv").glob("lib/*/site-packages/keyproxy-*/direct_url.json")
    assert json.loads(metadata.read_text())["url"] == ROOT.as_uri()
