"""How much memory this process may take, as cgroups say, and what request bodies get of it.

Sources: cgroups(7), proc_pid_mountinfo(5), Linux' admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ITSELF_BYTES = 96 << 20
"""What the process takes besides bodies: itself, connections, streams."""
MOST_BYTES = 256 << 20
_LARGE_BYTES = 1 << 20  # a body, or a text in one; what is read off a socket is far below
_M_MMAP_THRESHOLD = -3  # mallopt(3)
_UNLIMITED = 1 << 60  # v1 writes the largest multiple of a page where there is no limit
_ESCAPE = re.compile(r"\\([0-7]{3})")


def limit(root: Path = Path("/")) -> int | None:
    """The lowest memory limit of this process' cgroup and those above it, in bytes.

    None where there is none, or no cgroups. ``root`` is where ``/proc`` and the mounts are found.
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


def give_back_large_blocks() -> None:
    """Have what a large block took go back to the system with it, where the system can (glibc).

    Left alone, glibc soon keeps blocks of up to 32 MiB among the small ones, with holes between.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def _files(root: Path) -> Iterator[Path]:
    """Where limits may stand, from the process' own cgroup up to the highest that can be seen."""
    groups = dict(_groups(_text(root / "proc/self/cgroup")))
    for is_v2, top, mount in _mounts(_text(root / "proc/self/mountinfo")):
        if (group := groups.get(is_v2)) is None:
            continue
        name = "memory.max" if is_v2 else "memory.limit_in_bytes"
        own = mount
        if group.is_relative_to(top) and ".." not in group.parts:
            own = mount / group.relative_to(top)
        for folder in (own, *own.parents):
            if folder.is_relative_to(mount):
                yield root / folder.relative_to("/") / name


def _groups(text: str) -> Iterator[tuple[bool, PurePosixPath]]:
    """Whether it is version 2, and the cgroup's path in its hierarchy."""
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield True, PurePosixPath(path)
        elif "memory" in controllers.split(","):
            yield False, PurePosixPath(path)


def _mounts(text: str) -> Iterator[tuple[bool, PurePosixPath, PurePosixPath]]:
    """Version, which cgroup is mounted, and where."""
    for line in text.splitlines():
        mounted, _, about = line.partition(" - ")
        fields, kind = mounted.split(" "), about.split(" ")
        if len(fields) < 6 or len(kind) < 3:
            continue
        is_v2 = kind[0] == "cgroup2"
        if is_v2 or (kind[0] == "cgroup" and "memory" in kind[2].split(",")):
            names = (_ESCAPE.sub(lambda match: chr(int(match[1], 8)), each) for each in fields[3:5])
            top, mount = map(PurePosixPath, names)
            if mount.is_absolute():
                yield is_v2, top, mount


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
