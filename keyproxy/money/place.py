"""Where the ledger lies when nobody says so: the user's state folder. Creates nothing.

Sources: XDG Base Directory Specification 0.8 (``XDG_STATE_HOME``); Apple's and Microsoft's
folders for what a program keeps on one machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

FILE_NAME = "ledger.sqlite3"


def default_path(
    environ: Mapping[str, str] = os.environ, platform: str = sys.platform
) -> Path | None:
    """The default file; None for a user without a home, as in many containers."""
    if platform == "win32" and (local := environ.get("LOCALAPPDATA", "")):
        return Path(local) / "keyproxy" / FILE_NAME
    state = environ.get("XDG_STATE_HOME", "")
    if platform not in ("win32", "darwin") and Path(state).is_absolute():
        return Path(state) / "keyproxy" / FILE_NAME
    try:
        home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    except RuntimeError:
        return None
    if platform == "darwin":
        return home / "Library" / "Application Support" / "keyproxy" / FILE_NAME
    if platform == "win32":
        return home / "AppData" / "Local" / "keyproxy" / FILE_NAME
    return home / ".local" / "state" / "keyproxy" / FILE_NAME
