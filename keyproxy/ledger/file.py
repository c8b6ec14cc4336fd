"""The ledger's file: where it lies, opened for reading, or refused with what to do.

Knows no queue and no queries.

``STATE_DIRECTORY``: systemd.exec(5).
"""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from keyproxy.dataclass import dataclass
from keyproxy.errors import KeyproxyError
from keyproxy.folders import project_name, user_folder
from keyproxy.ledger import schema
from keyproxy.settings.grammar import shown

APPLICATION_ID = 0x6B70_7278  # "kprx": tells our files from other programs' (application_id)
_FILE_NAME = "ledger.sqlite3"
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_OF_FILES = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN)
_OF_RIGHTS = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
_OF_CONTENT = (0, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG)
LOCAL = "a file in a folder of a local disk that we may write"
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
        version = version_of(path, connection)
        if not version:
            raise sqlite3.DatabaseError("file is empty")
        if version < schema.VERSION:
            schema.show_renewed(connection, version)
    except BaseException:
        connection.close()
        raise
    return connection


def version_of(path: Path, connection: sqlite3.Connection) -> int:
    """Of its tables: today's, one that can become it, or 0 where there are none. Files with other
    tables, and those of other programs, are left as they are. Raises ``LedgerFault``."""
    name = shown(str(path))
    [version] = connection.execute("PRAGMA user_version").fetchone()
    [application] = connection.execute("PRAGMA application_id").fetchone()
    [count] = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application != APPLICATION_ID and (application or version or count):
        raise LedgerDamaged(f"{name}, a database of another program", "a file of keyproxy's own")
    if version > schema.VERSION:
        raise _newer(path)
    if 0 < version < schema.OLDEST:
        raise LedgerFault(
            f"{name}, written by an older keyproxy in other tables",
            "another file; move this one away (with its -wal and -shm) to begin a new one",
        )
    return int(version)


def _newer(path: Path) -> LedgerNewer:
    return LedgerNewer(
        f"{shown(str(path))}, written by a newer keyproxy", "that version, or another file"
    )


def _is_newer(path: Path) -> bool:
    """Whether the tables were renewed while we had the file open: then names of ours are gone."""
    try:
        open_reader(path).close()
    except LedgerNewer:
        return True
    except LedgerFault:
        pass
    return False


def code_of(error: BaseException) -> int:
    """SQLite's result code without its extension (sqlite.org/rescode.html); 0 without one."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def fault_of(path: Path, error: Exception) -> LedgerFault:
    """What ``error`` means for the operator, and what to do."""
    name = shown(str(path))
    if isinstance(error, LedgerFault):
        return error
    if code_of(error) == sqlite3.SQLITE_ERROR and _is_newer(path):
        return _newer(path)
    if code_of(error) in _BUSY:
        return LedgerFault(f"{name}, locked by another process", "a file that becomes free")
    if isinstance(error, sqlite3.Error) and code_of(error) in _OF_CONTENT:
        return LedgerDamaged(
            f"{name}, damaged or no ledger ({error})",
            "a whole ledger; move the file away (with its -wal and -shm) to begin a new one, and"
            " read the old one with: sqlite3 FILE .recover",
        )
    return unwritable(path, error)


def unwritable(path: Path, error: Exception) -> LedgerUnwritable:
    """A fault that names our uid, the path and the cure."""
    us = getattr(os, "geteuid", lambda: "unknown")()  # no uid on Windows
    reason = getattr(error, "strerror", None) or str(error)
    name, folder = shown(str(path)), path.absolute().parent
    try:
        about = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        paste = f"mkdir -p {folder}"
        return LedgerUnwritable(f"{name}, whose folder is not there for uid {us}", LOCAL, paste)
    except OSError:
        return LedgerUnwritable(f"{name}, which uid {us} cannot reach ({reason})", LOCAL)
    if os.path.isdir(path):  # pathlib's raises where we may not look
        return LedgerUnwritable(f"{name}, a directory", LOCAL, f"KEYPROXY_LEDGER={path}/ledger")
    return LedgerUnwritable(
        f"{name}, which uid {us} cannot write ({reason}); its folder has mode"
        f" {stat.S_IMODE(about.st_mode):04o} and owner uid {about.st_uid}",
        f"{LOCAL}; in a container: a volume that belongs to uid {us}",
        f"chown -R {us} {folder}" if _is_about_rights(error) else None,
    )


def _is_about_rights(error: Exception) -> bool:
    return isinstance(error, PermissionError) or code_of(error) in _OF_RIGHTS
