"""The folders of ours in the user's home, and what a project's own things are called there.

Places: XDG Base Directory Specification 0.8; Apple's and Microsoft's folders for what a program
keeps on one machine, which are one for settings and state.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

_LONGEST_NAME = 40
_XDG = {"state": ("XDG_STATE_HOME", ".local/state"), "config": ("XDG_CONFIG_HOME", ".config")}


def user_folder(
    kind: Literal["state", "config"],
    environ: Mapping[str, str] = os.environ,
    platform: str = sys.platform,
) -> Path | None:
    """The folder of ours in the user's folder of a kind; None for a user without a home."""
    if platform == "win32" and (local := environ.get("LOCALAPPDATA", "")):
        return Path(local) / "keyproxy"
    variable, usual = _XDG[kind]
    given = environ.get(variable, "")
    if platform not in ("win32", "darwin") and Path(given).is_absolute():
        return Path(given) / "keyproxy"
    try:
        home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    except RuntimeError:
        return None
    if platform == "darwin":
        return home / "Library" / "Application Support" / "keyproxy"
    if platform == "win32":
        return home / "AppData" / "Local" / "keyproxy"
    return home / usual / "keyproxy"


def project_name(directory: Path) -> str:
    """What a project in ``directory`` is called among others: its name and 8 digits of its path."""
    real = directory.resolve()
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", real.name)[:_LONGEST_NAME] or "root"
    return f"{name}-{hashlib.sha256(os.fsencode(real)).hexdigest()[:8]}"
