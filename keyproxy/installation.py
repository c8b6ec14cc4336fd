"""How this keyproxy was installed, and the line that adds an extra to it in the same way.

No line names a package of an index unless this one came from there: what has our name there may be
a stranger's. Source: packaging.python.org, "Recording the Direct URL Origin" (``direct_url.json``).
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from keyproxy.dataclass import dataclass, field

_NAME = "keyproxy"
_IN_IMAGE = Path("/dist")  # where the Dockerfile makes the wheel


@dataclass(frozen=True, slots=True)
class Installation:
    """``origin``: what ``direct_url.json`` says, empty for one that came from an index.
    ``installer``: what ``INSTALLER`` says. ``command``: what was asked of us."""

    prefix: Path
    python: str
    origin: Mapping[str, Any] = field(default_factory=dict)
    installer: str = "pip"
    command: str = "dev"

    @classmethod
    def of_process(cls) -> Self | None:
        """That of this process; None where its code was not installed."""
        # 20 ms that --help and ping need not wait for
        from importlib.metadata import PackageNotFoundError, distribution

        try:
            found = distribution(_NAME)
            origin = json.loads(found.read_text("direct_url.json") or "{}")
        except (PackageNotFoundError, ValueError):
            return None
        installer = (found.read_text("INSTALLER") or "").strip()
        command = next((word for word in sys.argv[1:2] if word.isalpha()), "dev")
        whole = cls(Path(sys.prefix), sys.executable, origin, installer, command)
        held = whole._folder if whole._is_editable else Path(str(found.locate_file("")))
        is_this = held is not None and (held / _NAME).resolve() == Path(__file__).resolve().parent
        return whole if is_this else None  # else a stranger's, beside code that just lies here

    def line(self, extra: str) -> str:
        """The line to paste into a shell."""
        folder, wanted = self._folder, self._requirement(extra)
        above = self.prefix.parent
        is_made = self.prefix.name == ".venv" and (above / "Makefile").exists()
        if is_made and self._is_editable and folder == above:
            return f"make -C {_quoted(str(above))} clean run"  # all extras are in its lock
        if folder and folder.parent == _IN_IMAGE:
            return f"docker build --no-cache -t {_NAME} ."  # has them all, too
        if (self.prefix / "uv-receipt.toml").exists():
            return f"uv tool install --force {wanted}"
        if {"archive-v0", "environments-v2"} & set(self.prefix.parts):  # of uv's cache
            return f"uvx --from {wanted} {_NAME} {self.command}"
        if (self.prefix / "pipx_metadata.json").exists():
            is_kept = self.prefix.parent.name == "venvs"
            run = f"pipx run --spec {wanted} {_NAME} {self.command}"
            return f"pipx install --force {wanted}" if is_kept else run
        python = _quoted(self.python)
        if self.installer == "uv":
            return f"uv pip install --python {python} {wanted}"
        return f"{python} -m pip install {wanted}"

    @property
    def _is_editable(self) -> bool:
        about = self.origin.get("dir_info")
        return isinstance(about, dict) and about.get("editable") is True

    @property
    def _folder(self) -> Path | None:
        """The folder or file it was installed from."""
        from urllib.request import url2pathname  # as above

        url = urlsplit(str(self.origin.get("url", "")))
        return Path(url2pathname(url.path)) if url.scheme == "file" else None

    def _requirement(self, extra: str) -> str:
        """What to install, quoted for a shell."""
        url = str(self.origin.get("url", ""))
        if not url:
            return _quoted(f"{_NAME}[{extra}]")
        if self._is_editable:
            return f"-e {_quoted(f'{self._folder}[{extra}]')}"
        vcs = self.origin.get("vcs_info")
        if isinstance(vcs, dict):
            version = vcs.get("requested_revision") or vcs.get("commit_id")
            url = f"{vcs.get('vcs')}+{url}@{version}"
        if part := self.origin.get("subdirectory"):
            url += f"#subdirectory={part}"
        return _quoted(f"{_NAME}[{extra}] @ {url}")


def line_for(extra: str) -> str | None:
    """The line that adds ``extra`` to this very installation; None where nobody can know it."""
    installed = Installation.of_process()
    return None if installed is None else installed.line(extra)


def _quoted(text: str) -> str:
    """``text`` as one word of the system's shell."""
    if os.name == "nt":
        return f'"{text}"'
    return f"'{text}'" if "[" in text and "'" not in text else shlex.quote(text)
