"""The ledger's file opened for writing: made, given its tables, switched to WAL.

Knows no queue and no queries. WAL with ``synchronous=NORMAL`` (sqlite.org/wal.html): a commit
survives the end of the process at once, and a loss of power up to the last checkpoint.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import structlog

from keyproxy.folders import user_folder
from keyproxy.ledger import schema
from keyproxy.ledger.file import (
    APPLICATION_ID,
    LOCAL,
    LedgerUnwritable,
    code_of,
    fault_of,
    unwritable,
    version_of,
)
from keyproxy.settings.grammar import shown

# Read in a tenth of a second; a larger file is looked at as it is used.
_CHECKED_BYTES = 64 << 20
_WAL_BYTES = 8 << 20  # what the -wal file is cut back to after a rush
_LOOK_AGAIN_SECONDS = 0.02
_RENEWAL_SECONDS = 60.0
_log = structlog.get_logger("keyproxy.ledger")


def open_writer(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """A connection that may write; the file, mode 0600, and the default folder are made.

    Every statement waits up to ``busy_seconds`` for other processes. Raises ``LedgerFault``.
    """
    try:
        _make(path)
        connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise unwritable(path, error) from error
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


def _make_tables(path: Path, connection: sqlite3.Connection) -> None:
    """Today's, whichever are there; the file is as it was where that is broken off."""
    if (version := version_of(path, connection)) == schema.VERSION:
        return
    if version:  # another process may be at it, and a large file takes its time
        connection.execute(f"PRAGMA busy_timeout = {int(_RENEWAL_SECONDS * 1000)}")
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        version = version_of(path, connection)  # another process may have made them meanwhile
        if version == schema.VERSION:
            return
        if version:
            copy = _copied(path)
        else:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        schema.renew(connection, version)
        connection.execute(f"PRAGMA user_version = {schema.VERSION}")
    if version:
        _log.info("the ledger's tables are renewed", path=str(path), copy_of_before=str(copy))


def _copied(path: Path) -> Path:
    """Where a copy of the file as it is lies beside it now, whole and only its owner's to read.
    For whoever has the lock to write. Raises ``LedgerUnwritable``."""
    real = Path(os.path.realpath(path))
    copy, begun = real.with_name(f"{real.name}.bak"), real.with_name(f"{real.name}.bak.new")
    try:
        begun.unlink(missing_ok=True)
        os.close(os.open(begun, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(sqlite3.connect(real)) as source, closing(sqlite3.connect(begun)) as target:
            target.execute("PRAGMA journal_mode = OFF")
            source.backup(target)
        with begun.open("r+b") as file:
            os.fsync(file.fileno())
        begun.replace(copy)
    except (OSError, sqlite3.Error) as error:
        raise LedgerUnwritable(
            f"{shown(str(path))}, in the tables of an older keyproxy, which are not renewed"
            f" without a copy of it in {shown(str(copy))} ({error})",
            f"a disk with room for two more of its {real.stat().st_size} bytes",
        ) from error
    finally:
        with suppress(OSError):
            begun.unlink(missing_ok=True)
    return copy


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
                raise LedgerUnwritable(f"{shown(str(path))} on a disk without WAL", LOCAL)
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
