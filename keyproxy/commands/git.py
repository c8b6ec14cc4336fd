"""What git says of a file; where there is no git, or no work tree, it says nothing.

A folder may have come with a configuration of its own (an archive, somebody's share), so that git
is kept from running what that names, and from fetching what is not there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

_TIMEOUT_SECONDS = 5
_RUNS_NOTHING = ("-c", "core.fsmonitor=", "-c", "log.showSignature=false")
_FETCHES_NOTHING = {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}


def is_tracked(path: Path) -> bool:
    """Whether a commit holds the file, or the next one will."""
    return _ran(path, "ls-files", "--error-unmatch", "--", path.name)[0] == 0


def is_ignored(path: Path) -> bool | None:
    """Whether no commit will take the file along; None where no commit could."""
    code, _ = _ran(path, "check-ignore", "--quiet", "--", path.name)
    return None if code not in (0, 1) else code == 0


def last_commit_with(path: Path) -> str | None:
    """The short name of the newest commit of any branch that changed the file; None without one."""
    named = ("log", "--all", "--max-count=1", "--format=%h", "--", path.name)
    return _ran(path, *named)[1].strip() or None


def _ran(path: Path, *arguments: str) -> tuple[int | None, str]:
    """git's exit code and words, asked in the folder of ``path``; None where it cannot be asked."""
    if (git := shutil.which("git")) is None:
        return None, ""
    try:
        done = subprocess.run(  # noqa: S603  # our own words and a file's name
            [git, *_RUNS_NOTHING, *arguments],
            cwd=path.parent,
            env=os.environ | _FETCHES_NOTHING,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
        )
    except (OSError, UnicodeError, subprocess.TimeoutExpired):
        return None, ""
    return done.returncode, done.stdout
