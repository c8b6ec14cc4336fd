"""What the ledger's file does not hold yet, kept where the end of the process cannot take it.

A small file beside the ledger: what is written there outlives this process at once, and a loss of
power once the system has put it on the disk, as with a commit of SQLite's in WAL mode. It costs a
call two short writes, which the system takes into memory; the loop waits for them only where the
disk stands still, such as a frozen file system. The ledger's thread writes into the ledger what has
gathered, some moments later.
"""

#   A half of the file:   generation | length, CRC, value | length, CRC, value | ...
#
#   FILLING --- the ledger has all of both -------------------> this one is filled anew, under the
#    |  |                                                       next generation
#    |  +------ full, and the ledger has all of the other -----> that one is
#    +--------- full, and the ledger is behind ---> nothing is taken until it has caught up

from __future__ import annotations

import contextlib
import errno
import marshal
import math
import os
import stat
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import IO, Any

from keyproxy.ledger import schema

HALF_BYTES = 256 * 1024
"""Some 300 calls, begun and ended."""
_UNORDERED = math.inf
_MARK = f"-spool-{schema.VERSION}-2-"
"""In the file's name: rows of other tables, or written in another way, are of no use."""
_GENERATION = struct.Struct("<I")
_RECORD = struct.Struct("<II")
_MARSHAL_VERSION = 2  # every Python reads it; JSON takes seven times as long, a tenth of a call


class Spool:
    """The file of one process. ``add`` belongs to the loop; it is made by the thread. ``half``: the
    one that is being filled, 0 or 1."""

    def __init__(self, ledger: Path) -> None:
        """Raises OSError."""
        self._file, self._path = _made(_real(ledger))
        self.half, self._at, self._generation = 0, 0, 0
        self._last = [0.0, 0.0]  # order of each half, by which the ledger has all that is there
        try:
            self._begin(0)
        except OSError:  # such as a full disk
            self.close()
            raise

    def add(self, value: Any, written: int) -> bool:
        """Have ``value`` for whoever opens the ledger next, until the ledger has it by an order of
        which ``ordered`` tells; it has those up to ``written``. False where that cannot be.

        Raises ValueError for what is not made of tuples, lists, texts and numbers.
        """
        data = marshal.dumps(value, _MARSHAL_VERSION)
        size = _RECORD.size + len(data)
        if size > HALF_BYTES - _GENERATION.size:
            return False
        try:
            if max(self._last) <= written:
                if all(self._last):
                    self._file.truncate(0)
                self._last = [0.0, 0.0]
                self._begin(self.half)
            elif self._at + size > (self.half + 1) * HALF_BYTES:
                if self._last[1 - self.half] > written:
                    return False
                self._begin(1 - self.half)
            record = _RECORD.pack(len(data), zlib.crc32(data, self._generation)) + data
            self._write(record, self._at)
        except OSError:  # such as a full disk
            return False
        self._at, self._last[self.half] = self._at + size, _UNORDERED
        return True

    def ordered(self, count: int) -> None:
        """So many orders have all that was added so far."""
        self._last = [count if last == _UNORDERED else last for last in self._last]

    def _begin(self, half: int) -> None:
        """What is left there of earlier generations fails its check from now on. Raises OSError,
        and is to be done again then."""
        generation, start = self._generation + 1, half * HALF_BYTES
        self._write(_GENERATION.pack(generation), start)
        self._generation, self.half, self._at = generation, half, start + _GENERATION.size

    def _write(self, data: bytes, at: int) -> None:
        """What only a part of is written fails its check. Raises OSError."""
        if _write(self._file, data, at) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def is_there(self) -> bool:
        """Whether whoever opens the ledger next would find it."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except OSError:
            return False

    def close(self, *, is_empty: bool = True) -> None:
        """Let the file go; for good where the ledger has all that was added."""
        self._file.close()
        if is_empty:
            self._path.unlink(missing_ok=True)


def orphans(ledger: Path) -> Iterator[list[Any]]:
    """What each process that is gone has added, in its order; with the next step it is forgotten.

    Files that cannot be read are passed over, and those of others: ``marshal`` must not be given
    what somebody else may have written.
    """
    real = _real(ledger)
    for path in real.parent.glob(f"{escape(real.name)}{_MARK}*"):
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(path.lstat().st_mode):
                continue
            with path.open("r+b") as file:
                if not _is_own(file) or not _lock(file):
                    continue  # another user's, or its process lives
                yield list(_values(file.read(2 * HALF_BYTES)))
                if os.name == "posix":  # before another process takes it, too
                    path.unlink()
            path.unlink(missing_ok=True)


def _values(data: bytes) -> Iterator[Any]:
    for each in _intact(data):
        with contextlib.suppress(ValueError, EOFError, TypeError):
            yield marshal.loads(each)  # noqa: S302  # our own user's, as its .pyc are


def _intact(data: bytes) -> Iterator[bytes]:
    halves = (data[start : start + HALF_BYTES] for start in range(0, len(data), HALF_BYTES))
    begun = (half for half in halves if len(half) >= _GENERATION.size)
    for generation, half in sorted((*_GENERATION.unpack_from(half), half) for half in begun):
        start = _GENERATION.size
        while (at := start + _RECORD.size) <= len(half):
            size, checked = _RECORD.unpack_from(half, start)
            start, value = at + size, half[at : at + size]
            if not size or len(value) < size or zlib.crc32(value, generation) != checked:
                break
            yield value


def _real(ledger: Path) -> Path:
    """SQLite's own files lie there, too."""
    return Path(os.path.realpath(ledger))


def _made(ledger: Path) -> tuple[IO[bytes], Path]:
    """A new file, readable by its owner only and held by us. Raises OSError."""
    while True:
        handle, name = tempfile.mkstemp(dir=ledger.parent, prefix=f"{ledger.name}{_MARK}")
        file = os.fdopen(handle, "r+b", buffering=0)
        try:
            if not _is_own(file):  # as on mounts that give all files one owner
                raise OSError(errno.ENOTSUP, "files that we make there belong to another user")
            if _lock(file):
                return file, Path(name)
        except OSError:  # also where there are no locks
            file.close()
            Path(name).unlink()
            raise
        file.close()  # another process took it for one that was left


if sys.platform == "win32":
    import msvcrt

    def _is_own(file: IO[bytes]) -> bool:
        return True  # Windows tells no user's number

    def _write(file: IO[bytes], data: bytes, at: int) -> int:
        file.seek(at)
        return file.write(data)

    def _lock(file: IO[bytes]) -> bool:
        """Whether it is ours, until it is closed, however the process ends. Raises OSError."""
        try:
            file.seek(0x7FFF_FFFF)  # far behind what is read: others cannot read what is locked
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
        except PermissionError:
            return False
        return True
else:
    import fcntl

    def _is_own(file: IO[bytes]) -> bool:
        """Whether no other user can have written it."""
        return os.fstat(file.fileno()).st_uid == os.geteuid()

    def _write(file: IO[bytes], data: bytes, at: int) -> int:
        return os.pwrite(file.fileno(), data, at)

    def _lock(file: IO[bytes]) -> bool:
        """Whether it is ours, until it is closed, however the process ends. Raises OSError."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
