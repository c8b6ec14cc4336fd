"""What a process that holds a secret turns off, and how many connections it can hold."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_PR_SET_DUMPABLE = 4  # prctl(2)
_SPARE_FILES = 128
MAX_CONNECTIONS = 20_000
_WITHOUT_LIMITS = 1_000  # Windows: no such call


def forbid_core_dumps() -> None:
    """No core file, and on Linux no ptrace by other processes of the same user."""
    try:
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        pass
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def connection_limit() -> int:
    """How many client connections fit, each with one to the upstream; raises the soft limit."""
    try:
        import resource  # not on Windows
    except ImportError:
        return _WITHOUT_LIMITS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS + _SPARE_FILES
    highest = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft != resource.RLIM_INFINITY and soft < highest:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
            soft = highest
        except (OSError, ValueError):
            pass
    files = wanted if soft == resource.RLIM_INFINITY else soft
    return max(16, min(MAX_CONNECTIONS, (files - _SPARE_FILES) // 2))
