"""How much memory this process may take, as cgroups say, what request bodies get of it, and how
what is left is given back: large blocks at once, other things by collections that are kept rare.

Sources: cgroups(7), file-hierarchy(7), Linux' admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import structlog

from keyproxy.settings.summary import size

ITSELF_BYTES = 96 << 20
"""What the process takes besides bodies: itself, connections, streams."""
MOST_BYTES = 256 << 20
HEAP_PAUSE_SECONDS = 60.0
"""Between two times that all objects are looked at because of reloads; each takes some 50 ms."""
_YOUNG_OBJECTS = 5_000
"""Objects more than before, until the young ones are looked at; a hundred times that for a full
collection. Python's 700 brought one each half minute under load, for nothing: what calls leave is
let go by counting references. At worst half a million objects wait for one, some 50 MB."""
_LARGE_BYTES = 1 << 20  # a body, or a text in one; what is read off a socket is far below
_M_MMAP_THRESHOLD = -3  # mallopt(3)
_UNLIMITED = 1 << 60  # v1 writes the largest multiple of a page where there is no limit
_log = structlog.get_logger("keyproxy")


def limit(root: Path = Path("/")) -> int | None:
    """The lowest memory limit of this process' cgroup and those above it, in bytes.

    None where there is none, or no cgroups. ``root`` is where ``/proc`` and ``/sys`` are found.
    """
    limits = (_number(file) for file in _files(root))
    return min((number for number in limits if number is not None), default=None)


def for_bodies(limit_bytes: int | None) -> int:
    """How many bytes all bodies may have that are held at the same time.

    Half of what is left: one body at a time is read, and takes several times its size meanwhile.
    """
    if limit_bytes is None:
        return MOST_BYTES
    return max(0, min((limit_bytes - ITSELF_BYTES) // 2, MOST_BYTES))


def narrow(room_bytes: int, largest_bytes: int) -> str | None:
    """What to say where the largest body that is allowed never fits into the room for bodies."""
    if room_bytes >= largest_bytes:
        return None
    return (
        f"the memory limit leaves {size(room_bytes)} for request bodies, less than"
        f" KEYPROXY_MAX_BODY ({size(largest_bytes)}): larger ones get 503 until the limit is"
        f" {size(ITSELF_BYTES + 2 * largest_bytes)}"
    )


def give_back_large_blocks() -> None:
    """Have what a large block took go back to the system with it, where the system can (glibc).

    Left alone, glibc soon keeps blocks of up to 32 MiB among the small ones, with holes between.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


class Heap:
    """Garbage collections, kept short and rare: what lives as long as the process is not looked at.

    Hundreds of thousands of objects (modules, settings, rules) would be walked each half minute
    under load, with everything standing still, to collect nothing. For the process only: whoever
    runs the service within another program keeps that program's ways. Made once the process
    listens; what there is by then is set apart, a little garbage with it: to look for that takes a
    tenth of the start, and it goes with the first reload.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
        self._set_apart()
        gc.enable()

    def reloaded(self) -> None:
        """There are new settings; the old ones, set apart before, are to be let go."""
        self._is_due = True
        self.look()

    def look(self) -> None:
        """Let go what reloads have left behind, when the last time was long enough ago."""
        if self._is_due and self._clock() - self._done_at >= HEAP_PAUSE_SECONDS:
            gc.unfreeze()
            gc.collect()
            self._set_apart()

    def _set_apart(self) -> None:
        gc.freeze()
        self._is_due, self._done_at = False, self._clock()
        _log.debug("what lives long is set apart")


def _files(root: Path) -> Iterator[Path]:
    """Where limits may stand, from the highest cgroup that can be seen, which in a container may be
    its own, down to that of the process. They are mounted where systemd and containers do it."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            folder, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        yield folder / name
        for part in PurePosixPath(group).parts[1:]:
            folder /= part
            yield folder / name


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    if not (text.isascii() and text.isdigit()):  # "max", or nothing
        return None
    number = int(text)
    return number if number < _UNLIMITED else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
