"""What the ledger's file does not hold yet, kept where the end of the process cannot take it.

It costs a call no system call: a file beside the ledger is mapped into memory. As with a commit
of SQLite's in WAL mode, what is put there outlives this process at once, and a loss of power once
the system has written it. The thread writes it into the ledger within a moment; what it could not,
whoever has the ledger open next.
"""

#   A half of the file:   generation | length, CRC, JSON | length, CRC, JSON | ...
#
#   FILLING --- full, and the ledger has all of the other half ---> the other one is filled anew,
#      |                                                            under the next generation
#      +--- full, and the ledger is behind ---> nothing is kept until it has caught up

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import IO, Any

HALF_BYTES = 256 * 1024
"""Some 300 calls, begun and ended: at a thousand a second what comes in six moments."""
_GENERATION = struct.Struct("<I")
_RECORD = struct.Struct("<II")
_as_json = json.JSONEncoder(separators=(",", ":")).encode


class Spool:
    """The file of one process. ``keep`` belongs to the loop, all else to the thread."""

    def __init__(self, ledger: Path) -> None:
        """Raises OSError."""
        self._file, self._path = _made(_real(ledger))
        self._memory = mmap.mmap(self._file.fileno(), 2 * HALF_BYTES)
        self._half, self._at, self._generation = 0, 0, 0
        self._last = [0, 0]  # order of each half
        self._begin(0)

    def keep(self, value: object, order: int, written: int) -> bool:
        """Have ``value``, as JSON, for whoever opens the ledger next, unless the ledger has the
        ``order``-th order by then; it has them up to ``written``. False where there is no room."""
        text = _as_json(value).encode()
        size = _RECORD.size + len(text)
        if self._at + size > (self._half + 1) * HALF_BYTES:
            other = 1 - self._half
            if self._last[other] > written or size > HALF_BYTES - _GENERATION.size:
                return False
            self._begin(other)
        start, end = self._at + _RECORD.size, self._at + size
        self._memory[start:end] = text
        # Last: it makes a record of it.
        checked = zlib.crc32(text, self._generation)
        self._memory[self._at : start] = _RECORD.pack(len(text), checked)
        self._at, self._last[self._half] = end, order
        return True

    def _begin(self, half: int) -> None:
        """What is left there of earlier generations fails their check from now on."""
        self._generation += 1
        self._half, start = half, half * HALF_BYTES
        self._at = start + _GENERATION.size
        self._memory[start : self._at] = _GENERATION.pack(self._generation)

    def is_there(self) -> bool:
        """Whether whoever opens the ledger next would find it."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except OSError:
            return False

    def close(self, *, is_empty: bool = True) -> None:
        """Let the file go; for good where the ledger has all that was kept."""
        self._memory.close()
        self._file.close()
        if is_empty:
            self._path.unlink(missing_ok=True)


def left(ledger: Path) -> Iterator[list[Any]]:
    """What each process that is gone has kept, in its order; with the next step it is forgotten.

    Files that cannot be read are passed over.
    """
    real = _real(ledger)
    for path in real.parent.glob(f"{escape(real.name)}-spool-*"):
        with contextlib.suppress(OSError):
            with path.open("r+b") as file:
                if not _lock(file):
                    continue  # its process lives
                yield [json.loads(text) for text in _texts(file.read())]
            path.unlink(missing_ok=True)


def _texts(data: bytes) -> Iterator[bytes]:
    halves = (data[start : start + HALF_BYTES] for start in range(0, len(data), HALF_BYTES))
    found = [(*_GENERATION.unpack_from(half), half) for half in halves if len(half) == HALF_BYTES]
    for generation, half in sorted(found):
        start = _GENERATION.size
        while (at := start + _RECORD.size) <= HALF_BYTES:
            size, checked = _RECORD.unpack_from(half, start)
            start, text = at + size, half[at : at + size]
            if not size or zlib.crc32(text, generation) != checked:
                break
            yield text


def _real(ledger: Path) -> Path:
    """SQLite's own files lie there, too."""
    return Path(os.path.realpath(ledger))


def _made(ledger: Path) -> tuple[IO[bytes], Path]:
    """A new file, readable by its owner only and held by us, of its full size on the disk: mapped
    memory without a disk behind it would end the process."""
    while True:
        handle, name = tempfile.mkstemp(dir=ledger.parent, prefix=f"{ledger.name}-spool-")
        file = os.fdopen(handle, "r+b")
        if _lock(file):
            break
        file.close()  # another process took it for one that was left
    try:
        file.write(bytes(2 * HALF_BYTES))
        file.flush()
    except OSError:
        file.close()
        Path(name).unlink(missing_ok=True)
        raise
    return file, Path(name)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> bool:
        """Whether it is ours, until it is closed, however the process ends."""
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _lock(file: IO[bytes]) -> bool:
        """Whether it is ours, until it is closed, however the process ends."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
