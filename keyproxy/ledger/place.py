"""Where the ledger lies when nobody says so. Creates nothing.

Sources: XDG Base Directory Specification 0.8 (``XDG_STATE_HOME``); Apple's and Microsoft's
folders for what a program keeps on one machine; systemd.exec(5), ``STATE_DIRECTORY``.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

FILE_NAME = "ledger.sqlite3"
_LONGEST_NAME = 40


def default_path(
    environ: Mapping[str, str] = os.environ, platform: str = sys.platform
) -> Path | None:
    """The file of ``serve``, whatever folder it runs in: a new release must not begin a budget
    anew. None for a user without a home, as in many containers."""
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    folder = Path(given) if Path(given).is_absolute() else state_folder(environ, platform)
    return None if folder is None else folder / FILE_NAME


def dev_path(
    directory: Path, environ: Mapping[str, str] = os.environ, platform: str = sys.platform
) -> Path | None:
    """The file of ``dev`` in ``directory``: projects have keys and budgets of their own."""
    folder, real = state_folder(environ, platform), directory.resolve()
    if folder is None:
        return None
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", real.name)[:_LONGEST_NAME] or "root"
    digest = hashlib.sha256(os.fsencode(real)).hexdigest()[:8]
    return folder / f"{name}-{digest}.sqlite3"


def state_folder(
    environ: Mapping[str, str] = os.environ, platform: str = sys.platform
) -> Path | None:
    """The folder of ours in the user's state folder; None for a user without a home."""
    if platform == "win32" and (local := environ.get("LOCALAPPDATA", "")):
        return Path(local) / "keyproxy"
    state = environ.get("XDG_STATE_HOME", "")
    if platform not in ("win32", "darwin") and Path(state).is_absolute():
        return Path(state) / "keyproxy"
    try:
        home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    except RuntimeError:
        return None
    if platform == "darwin":
        return home / "Library" / "Application Support" / "keyproxy"
    if platform == "win32":
        return home / "AppData" / "Local" / "keyproxy"
    return home / ".local" / "state" / "keyproxy"
