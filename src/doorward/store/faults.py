"""What went wrong in the database, in our own words: every driver's error becomes one of the error tree's.

::

    Unavailable
    ├── CommitFailed     the batch could not be committed: nothing of it happened
    ├── CommitUnknown    the connection broke during the commit: only the database knows
    └── UnusableDatabase it is damaged, not ours, or written by a newer program
    Conflict             unique, foreign key, check; ``place`` says which columns
    BadInput             a value that no column can keep

The driver's own text goes into ``detail``, for the log alone: it may hold stored values.
"""

import sqlite3
from typing import Any

from sqlalchemy import Index, PrimaryKeyConstraint, UniqueConstraint
from sqlalchemy.exc import DataError as SQLDataError
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError, StatementError

from doorward.errors import BadInput, Conflict, DoorwardError, Unavailable
from doorward.store.tables import metadata


class CommitFailed(Unavailable):
    """A batch could not be committed. Nothing of it happened, and each of its units may be tried again.

    ``why`` is what was wrong with the database, without that it was noticed at a commit.
    """

    why = ""


class CommitUnknown(Unavailable):
    """The connection broke while the commit was under way: it may have happened. Read before trying again."""


class UnusableDatabase(Unavailable):
    """What was opened is no database that this program may use."""


_FULL = ("the disk that holds the database is full", "Free space on it; nothing was changed, so try again.")
_READ_ONLY = (
    "the database cannot be written",
    "Check that its file and folder are writable, or that the server is not a standby.",
)
_LOCKED = (
    "another program holds the database locked",
    "Stop the other program that writes to it, then try again.",
)
_DISK = (
    "the disk that holds the database reports an error",
    "Check the disk; the system log names the fault.",
)
_DAMAGED = (
    "the database file is damaged or is no SQLite database",
    "Stop doorward and restore the file from a backup.",
)
_CANNOT_OPEN = (
    "the database file cannot be opened",
    "Check that its folder exists and that doorward may write there.",
)
_GONE = (
    "the database server cannot be reached",
    "Check that PostgreSQL runs and that the address in the setting is right, then try again.",
)
_REFUSED = (
    "the database server refused the sign-in",
    "Check the user, the password and the database's name in the setting.",
)
_BUSY = ("the database server is out of resources", "Give it room (connections, memory), then try again.")

# SQLite's result codes by the start of their name; the longest match is first where one is inside another.
_SQLITE: tuple[tuple[str, tuple[str, str]], ...] = (
    ("SQLITE_FULL", _FULL),
    ("SQLITE_READONLY", _READ_ONLY),
    ("SQLITE_PERM", _READ_ONLY),
    ("SQLITE_BUSY", _LOCKED),
    ("SQLITE_LOCKED", _LOCKED),
    ("SQLITE_IOERR", _DISK),
    ("SQLITE_CORRUPT", _DAMAGED),
    ("SQLITE_NOTADB", _DAMAGED),
    ("SQLITE_CANTOPEN", _CANNOT_OPEN),
)

# PostgreSQL's SQLSTATE by its start (PostgreSQL manual, appendix A).
_POSTGRESQL: tuple[tuple[str, tuple[str, str]], ...] = (
    ("53100", _FULL),
    ("53", _BUSY),
    ("25006", _READ_ONLY),
    ("55P03", _LOCKED),
    ("40", _LOCKED),
    ("28", _REFUSED),
    ("3D000", _REFUSED),
    ("57P", _GONE),
    ("08", _GONE),
    ("58", _DISK),
    ("XX001", _DAMAGED),
    ("XX002", _DAMAGED),
)

# While a connection is being made psycopg knows no SQLSTATE, only what the server wrote.
_REFUSALS = ("authentication failed", "no password supplied", "does not exist", "pg_hba.conf")

# The name of each primary key, unique constraint and unique index, to the columns as SQLite writes them: PostgreSQL tells only the name.
_UNIQUE: dict[str, str] = {
    str(part.name): ", ".join(f"{table.name}.{column.name}" for column in part.columns)
    for table in metadata.tables.values()
    for part in (*table.constraints, *table.indexes)
    if isinstance(part, UniqueConstraint | PrimaryKeyConstraint) or (isinstance(part, Index) and part.unique)
}


def translate(error: BaseException) -> BaseException:
    """The error to show for one that was raised while talking to the database; others are returned as they are."""
    if isinstance(error, IntegrityError):
        return _conflict(error)
    if isinstance(error, SQLDataError):
        return BadInput("a value does not fit the column it was meant for", detail=str(error.orig))
    if isinstance(error, DBAPIError):
        return _unavailable(error)
    if isinstance(error, StatementError) and isinstance(error.orig, DoorwardError | TypeError):
        return error.orig  # raised by a column type while it took a value
    if isinstance(error, SQLAlchemyError):
        return DoorwardError("the database was used wrongly", detail=str(error))
    if isinstance(error, sqlite3.Error):
        return _unavailable_because(error)
    return error


def _conflict(error: IntegrityError) -> Conflict:
    text = str(error.orig)
    _, found, columns = text.partition("UNIQUE constraint failed: ")
    place = columns if found else _UNIQUE.get(_constraint(error), "")
    if place:
        return Conflict(f"another has the same {place}", place=place, detail=text)
    if "FOREIGN KEY" in text or _state(error.orig) == "23503":
        return Conflict("something refers to it, or it refers to something that is not there", detail=text)
    if "append-only" in text:
        return Conflict("the audit log is append-only", detail=text)
    return Conflict("it does not fit what is stored already", detail=text)


def _constraint(error: IntegrityError) -> str:
    diagnosis: Any = getattr(error.orig, "diag", None)
    return str(getattr(diagnosis, "constraint_name", "") or "")


def _state(error: object) -> str:
    return str(getattr(error, "sqlstate", "") or "")


def _unavailable(error: DBAPIError) -> DoorwardError:
    if isinstance(error.orig, Exception):
        return _unavailable_because(error.orig, lost=error.connection_invalidated)
    return Unavailable(_GONE[0], cure=_GONE[1])


def _unavailable_because(error: Exception, *, lost: bool = False) -> DoorwardError:
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, sqlite3.Error):
        name = str(getattr(error, "sqlite_errorname", ""))
        table, code = _SQLITE, name
    else:
        table, code = _POSTGRESQL, _state(error)
    for start, (message, cure) in table:
        if code.startswith(start):
            kind = UnusableDatabase if (message, cure) == _DAMAGED else Unavailable
            return kind(message, cure=cure, detail=detail)
    if not code and any(sign in detail for sign in _REFUSALS):
        return Unavailable(_REFUSED[0], cure=_REFUSED[1], detail=detail)
    if lost or (not code and not isinstance(error, sqlite3.Error)):
        return Unavailable(_GONE[0], cure=_GONE[1], detail=detail)
    return DoorwardError("the database refused a statement", detail=detail)
