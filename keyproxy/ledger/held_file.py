"""The ledger's file as its thread holds it: begun anew when it is no longer the one we opened.

One that was removed or replaced has another inode. One that was overwritten in place has not: in
WAL mode only a checkpoint changes the file, and what an earlier one had put there is still in it
(sqlite.org/walformat.html). So two looks at the folder are enough while nothing has changed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, NamedTuple

import structlog

from keyproxy.ledger.file import LedgerDamaged, code_of
from keyproxy.ledger.opening import open_writer

_LOOKS = 3  # at a file that another process may be writing to, by a checkpoint of some ms
_LOOK_AGAIN_SECONDS = 0.05
# The last is also said where there is no such table.
_NO_LEDGER = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR)
_BESIDE = ("-wal", "-shm")
_log = structlog.get_logger("keyproxy.ledger")


class _Marks(NamedTuple):
    """What a checkpoint has put into the file: who was seen writing, when; the newest calls."""

    seen_at: dict[str, float]
    calls: list[str]


class HeldFile:
    """Belongs to the thread."""

    def __init__(self, path: Path, busy_seconds: float) -> None:
        self._path = path
        self._log = _beside(path, "-wal")
        self._busy_seconds = busy_seconds
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None  # its inode; None until it was opened once
        self._wal: tuple[int, int] | None = None
        self._stamp: tuple[int, int] | None = None
        self._marks: _Marks | None = None

    def connection(self) -> sqlite3.Connection:
        """A connection to the file that is at the path now; another one after a change.

        What is put there while we run, and is no ledger, is moved aside. Raises ``LedgerFault``,
        ``OSError``.
        """
        if self._connection is not None:
            about = _looked(self._path)
            if about is None or not self._is_there(about):
                self.let_go()
                self._leave_no_log()
                self._tell("the ledger was removed or replaced")
            elif self._is_overwritten(about):
                _give_an_inode(self._path)
                self.let_go()
                self._tell("the ledger was overwritten")
        if self._connection is None:
            self._connection = self._opened()
            self._file = _inode(_looked(self._path))
            self._wal = self._stamp = self._marks = None
        return self._connection

    def mark(self) -> None:
        """Have something of ours in the file, by which to know it again. Once it was written to."""
        if self._marks is not None or self._connection is None:
            return
        with contextlib.suppress(sqlite3.Error, OSError):  # then at the next time
            # A read first: SQLite has no WAL to copy before it.
            ours = _marks(self._connection).seen_at.keys()
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._wal = _inode(_looked(self._log))
            self._stamp = _stamp(self._path.stat())
            found = _read(self._path, _marks)
            # Whoever reads on keeps the copy from being whole; others' marks go with them.
            self._marks = found if found and ours and ours <= found.seen_at.keys() else None

    def let_go(self) -> None:
        """Close it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _is_there(self, about: os.stat_result) -> bool:
        if self._file != _inode(about):
            return False
        return self._wal is None or self._wal == _inode(_looked(self._log))

    def _leave_no_log(self) -> None:
        """SQLite would write what is left of it into a file that was put in the ledger's place."""
        if self._wal is not None and self._wal == _inode(_looked(self._log)):
            for end in _BESIDE:
                _beside(self._path, end).unlink(missing_ok=True)

    def _is_overwritten(self, about: os.stat_result) -> bool:
        marks, stamp = self._marks, _stamp(about)
        if marks is None or stamp == self._stamp:
            return False
        for look in range(_LOOKS):
            if look:
                time.sleep(_LOOK_AGAIN_SECONDS)
            try:
                later = _read(self._path, lambda file: _later(file, marks))
            except sqlite3.Error as error:
                if code_of(error) not in _NO_LEDGER:
                    return False  # it cannot be looked at just now; at the next time
                later = None
            if later is not None:
                self._marks, self._stamp = later, stamp
                return False
        return True

    def _opened(self) -> sqlite3.Connection:
        try:
            return open_writer(self._path, self._busy_seconds)
        except LedgerDamaged as fault:
            cause = fault.__cause__
            if self._file is None or not isinstance(cause, sqlite3.DatabaseError):
                raise
        aside = self._path.with_name(f"{self._path.name}.no-ledger-{time.time_ns()}")
        self._path.rename(aside)
        for end in _BESIDE:
            with contextlib.suppress(FileNotFoundError):
                _beside(self._path, end).rename(_beside(aside, end))
        _log.error(
            "what is in the ledger's place is damaged or no ledger; it was moved aside, and the"
            " ledger is begun anew",
            path=str(self._path),
            moved_to=str(aside),
        )
        return open_writer(self._path, self._busy_seconds)

    def _tell(self, what: str) -> None:
        then = "calls are booked in the file that is there now"
        _log.warning(f"{what}; {then}", path=str(self._path))


def _read(path: Path, question: Callable[[sqlite3.Connection], _Marks | None]) -> _Marks | None:
    """The answer of the file alone, without what waits in its WAL."""
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        return question(connection)


def _marks(file: sqlite3.Connection) -> _Marks:
    seen_at = dict(file.execute("SELECT id, seen_at FROM writers"))
    newest = file.execute("SELECT id FROM calls ORDER BY rowid DESC LIMIT 3")
    return _Marks(seen_at, [id for (id,) in newest])


def _later(file: sqlite3.Connection, before: _Marks) -> _Marks | None:
    """The marks of the file, if it can have become from the one that had those of ``before``.

    Clocks are set back, and a writer that stood still for long is forgotten by others; a call
    that never went out is taken back. Hardly both.
    """
    now = _marks(file)
    both = before.seen_at.keys() & now.seen_at.keys()
    if both and all(now.seen_at[id] >= before.seen_at[id] for id in both):
        return now
    asked = "SELECT 1 FROM calls WHERE id = ?"
    found = [file.execute(asked, (id,)).fetchone() is not None for id in before.calls]
    return now if any(found) or (both and not found) else None


def _give_an_inode(path: Path) -> None:
    """Keep what somebody wrote over the ledger apart from what SQLite still holds of it.

    Closing the old file writes to its inode, and what is left of its WAL is not of this file.
    """
    with replacing(path) as copy, path.open("rb") as there:
        shutil.copyfileobj(there, copy)
    for end in _BESIDE:
        _beside(path, end).unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file, readable by its owner only, that takes the place of ``path`` once it is whole.

    Raises OSError, and leaves the old file then.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _looked(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _inode(about: os.stat_result | None) -> tuple[int, int] | None:
    return None if about is None else (about.st_dev, about.st_ino)


def _stamp(about: os.stat_result) -> tuple[int, int]:
    return about.st_mtime_ns, about.st_size
