"""The ledger's file: where it lies, opened for writing or for reading, or refused with what to do.

Knows no queue and no queries. WAL with ``synchronous=NORMAL`` (sqlite.org/wal.html): a commit
survives the end of the process at once, and a loss of power up to the last checkpoint.

``STATE_DIRECTORY``: systemd.exec(5).
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from keyproxy.errors import KeyproxyError
from keyproxy.folders import project_name, user_folder
from keyproxy.ledger import tables
from keyproxy.settings.grammar import shown

APPLICATION_ID = 0x6B70_7278  # "kprx": tells our files from other programs' (application_id)
_FILE_NAME = "ledger.sqlite3"
# Read in a tenth of a second; a larger file is looked at as it is used.
_CHECKED_BYTES = 64 << 20
_WAL_BYTES = 8 << 20  # what the -wal file is cut back to after a rush
_LOOK_AGAIN_SECONDS = 0.02
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_OF_FILES = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN)
_OF_RIGHTS = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
_OF_CONTENT = (0, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_LOCAL = "a file in a folder of a local disk that we may write"
_T = TypeVar("_T")


@dataclass(eq=False)
class LedgerFault(KeyproxyError):
    """Why a ledger cannot be used, in the words of a ``SettingsFault``."""

    found: str
    expected: str
    paste: str | None = None

    def __str__(self) -> str:
        return f"{self.found}; expected: {self.expected}"


class LedgerMissing(LedgerFault):
    """There is no file to read."""


class LedgerUnwritable(LedgerFault):
    """The file cannot be made or written: rights, a read-only or full disk, a missing folder.

    At a default path the ledger is off then, with a warning.
    """


class LedgerLocked(LedgerFault):
    """Another process held the file for too long."""


class LedgerOlder(LedgerFault):
    """An older keyproxy wrote the file, in other tables."""


class LedgerNewer(LedgerFault):
    """A newer keyproxy wrote the file."""


class LedgerDamaged(LedgerFault):
    """The file is no database, one that is not whole, or another program's."""


def default_path(
    environ: Mapping[str, str] = os.environ, platform: str = sys.platform
) -> Path | None:
    """The file of ``serve``, whatever folder it runs in: a new release must not begin a budget
    anew. None for a user without a home, as in many containers."""
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    folder = Path(given) if Path(given).is_absolute() else user_folder("state", environ, platform)
    return None if folder is None else folder / _FILE_NAME


def dev_path(
    directory: Path, environ: Mapping[str, str] = os.environ, platform: str = sys.platform
) -> Path | None:
    """The file of ``dev`` in ``directory``: projects have keys and budgets of their own."""
    folder = user_folder("state", environ, platform)
    return None if folder is None else folder / f"{project_name(directory)}.sqlite3"


def open_writer(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """A connection that may write; the file, mode 0600, and the default folder are made.

    Every statement waits up to ``busy_seconds`` for other processes. Raises ``LedgerFault``.
    """
    try:
        _make(path)
        connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise _unwritable(path, error) from error
    try:
        if path.stat().st_size <= _CHECKED_BYTES:
            [verdict] = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
        _use_wal(path, connection, busy_seconds)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
        _make_tables(path, connection)
        with _busy_is_no_fault():  # a read-only file is found now, by writing nothing
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        _forget_the_gone(connection)
        _use_wal(path, connection, busy_seconds)
        connection.execute(f"PRAGMA busy_timeout = {int(busy_seconds * 1000)}")
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError | sqlite3.Error):
            raise fault_of(path, error) from error
        raise
    return connection


def ask(path: Path, question: Callable[[sqlite3.Connection], _T]) -> _T:
    """What ``question`` returns about the ledger. Raises ``LedgerFault``, ``sqlite3.Error``.

    SQLite sorts much in temporary files; where it cannot write any, in memory.
    """
    try:
        with closing(open_reader(path)) as connection:
            return question(connection)
    except sqlite3.OperationalError as error:
        if code_of(error) not in _OF_FILES:
            raise
    with closing(open_reader(path, temporary="MEMORY")) as connection:
        return question(connection)


def open_reader(path: Path, *, temporary: str = "DEFAULT") -> sqlite3.Connection:
    """A connection that only reads, beside a running keyproxy or not. Raises ``LedgerFault``.

    ``temporary``: where it sorts, as ``PRAGMA temp_store`` says it.
    """
    try:
        if not path.is_file():
            raise LedgerMissing(f"{shown(str(path))}, which does not exist", "a ledger")
        try:
            return _opened(path, "mode=ro", temporary)
        except sqlite3.OperationalError as error:
            # In a folder that we may not write the files of WAL cannot be made. Without any,
            # nobody has the ledger open and nothing changes under our eyes.
            if _is_about_rights(error) and not Path(f"{path}-wal").exists():
                return _opened(path, "mode=ro&immutable=1", temporary)
            raise
    except (OSError, sqlite3.Error) as error:
        raise fault_of(path, error) from error


def _opened(path: Path, how: str, temporary: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}", uri=True, timeout=5, isolation_level=None
    )
    try:
        connection.execute(f"PRAGMA temp_store = {temporary}")
        if not _has_tables(path, connection):
            raise sqlite3.DatabaseError("file is empty")
    except BaseException:
        connection.close()
        raise
    return connection


def _has_tables(path: Path, connection: sqlite3.Connection) -> bool:
    """Whether they are there. Files with other tables, and those of other programs, are left as
    they are. Raises ``LedgerFault``."""
    name = shown(str(path))
    [version] = connection.execute("PRAGMA user_version").fetchone()
    [application] = connection.execute("PRAGMA application_id").fetchone()
    [count] = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (application or version or count):
        raise LedgerDamaged(f"{name}, a database of another program", "a file of keyproxy's own")
    if version > tables.VERSION:
        raise LedgerNewer(f"{name}, written by a newer keyproxy", "that version, or another file")
    if 0 < version < tables.VERSION:
        raise LedgerOlder(
            f"{name}, written by an older keyproxy in other tables",
            "another file; move this one away (with its -wal and -shm) to begin a new one",
        )
    return bool(version)


def _make_tables(path: Path, connection: sqlite3.Connection) -> None:
    if _has_tables(path, connection):
        return
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        if not _has_tables(path, connection):  # another process may have made them meanwhile
            tables.create(connection)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {tables.VERSION}")


def _make(path: Path) -> None:
    if path.parent == user_folder("state"):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        # Not opened when it is there: closing it would drop the locks that SQLite holds on it
        # in this process (sqlite.org/howtocorrupt.html, 2.2).
        # A link may lead to where no file is yet; SQLite would make it by the umask.
        os.close(os.open(os.path.realpath(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        if path.is_dir():
            raise


def _use_wal(path: Path, connection: sqlite3.Connection, busy_seconds: float) -> None:
    """Switch to WAL. Two processes that make one file meet here, where SQLite does not wait."""
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if code_of(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_LOOK_AGAIN_SECONDS)
        else:
            if mode != "wal":
                raise LedgerUnwritable(f"{shown(str(path))} on a disk without WAL", _LOCAL)
            return


def _forget_the_gone(connection: sqlite3.Connection) -> None:
    """Where nobody else has the file open, no writer lives: their calls can be taken over now.

    SQLite leaves WAL only for the one connection that has the file open, and tells by that.
    """
    connection.execute("PRAGMA busy_timeout = 0")
    with _busy_is_no_fault():
        [mode] = connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        if mode == "delete":
            connection.execute("DELETE FROM writers")


@contextmanager
def _busy_is_no_fault() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if code_of(error) != sqlite3.SQLITE_BUSY:
            raise


def code_of(error: BaseException) -> int:
    """SQLite's result code without its extension (sqlite.org/rescode.html); 0 without one."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def fault_of(path: Path, error: Exception) -> LedgerFault:
    """What ``error`` means for the operator, and what to do."""
    name = shown(str(path))
    if isinstance(error, LedgerFault):
        return error
    if code_of(error) in _BUSY:
        return LedgerLocked(f"{name}, locked by another process", "a file that becomes free")
    if isinstance(error, sqlite3.Error) and code_of(error) in _OF_CONTENT:
        return LedgerDamaged(
            f"{name}, damaged or no ledger ({error})",
            "a whole ledger; move the file away (with its -wal and -shm) to begin a new one, and"
            " read the old one with: sqlite3 FILE .recover",
        )
    return _unwritable(path, error)


def _unwritable(path: Path, error: Exception) -> LedgerUnwritable:
    """A fault that names our uid, the path and the cure."""
    us = getattr(os, "geteuid", lambda: "unknown")()  # no uid on Windows
    reason = getattr(error, "strerror", None) or str(error)
    name, folder = shown(str(path)), path.absolute().parent
    try:
        about = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        paste = f"mkdir -p {folder}"
        return LedgerUnwritable(f"{name}, whose folder is not there for uid {us}", _LOCAL, paste)
    except OSError:
        return LedgerUnwritable(f"{name}, which uid {us} cannot reach ({reason})", _LOCAL)
    if os.path.isdir(path):  # pathlib's raises where we may not look
        return LedgerUnwritable(f"{name}, a directory", _LOCAL, f"KEYPROXY_LEDGER={path}/ledger")
    return LedgerUnwritable(
        f"{name}, which uid {us} cannot write ({reason}); its folder has mode"
        f" {stat.S_IMODE(about.st_mode):04o} and owner uid {about.st_uid}",
        f"{_LOCAL}; in a container: a volume that belongs to uid {us}",
        f"chown -R {us} {folder}" if _is_about_rights(error) else None,
    )


def _is_about_rights(error: Exception) -> bool:
    return isinstance(error, PermissionError) or code_of(error) in _OF_RIGHTS
