"""How a connection to SQLite or PostgreSQL is made, and what a transaction begins with.

Two engines for one database: one connection that writes, and a few that can only read. SQLite: WAL, so that readers
never wait for the writer; ``synchronous=FULL``, so that a commit that was answered survives a power cut. PostgreSQL:
each write transaction takes one advisory lock first, so that the writers of several processes take turns and what a
unit of work read is still true when it commits.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool

from doorward.errors import BadInput, Unavailable
from doorward.store import tables
from doorward.store.faults import CommitFailed, CommitUnknown, translate

OLDEST_SQLITE = (3, 37, 0)  # the first with STRICT tables
BUSY_SECONDS = 5  # how long a lock of another process is waited for
WRITE_LOCK = 0x646F6F7277617264  # "doorward"; the advisory lock's number, the same in every process
JOURNAL_LIMIT = 64 << 20  # bytes the write-ahead log is cut back to after a burst

# libpq: a server that vanished is noticed in about 15 s; the lock of a process that froze is free after 30 s.
_POSTGRESQL_DEFAULTS: dict[str, str] = {
    "application_name": "doorward",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "options": "-c lock_timeout=10s -c idle_in_transaction_session_timeout=30s",
}

# SQLAlchemy wraps the drivers' errors, except those of the statements that prepare a new SQLite connection.
DRIVER_ERRORS = (SQLAlchemyError, sqlite3.Error)


class Engines(NamedTuple):
    """The two engines of one open database."""

    writer: Engine
    reader: Engine
    where: str  # the file, or the address without its password; for people
    file: Path | None  # the SQLite file; None for PostgreSQL

    def dispose(self) -> None:
        """Close every connection. The writer is last: SQLite then folds the log into the file."""
        self.reader.dispose()
        self.writer.dispose()


def _engine(url: URL, **options: Any) -> Engine:
    """An engine whose errors do not repeat the values of a statement: they would end up in the log."""
    return create_engine(url, hide_parameters=True, **options)


def connect(location: str | Path, *, readers: int) -> Engines:
    """Engines for a path or a ``postgresql://`` address; connects to nothing yet, but makes the SQLite file.

    Raises BadInput for an address of another kind, Unavailable where the file cannot be made or SQLite is too old.
    """
    text = str(location)
    if text.startswith(("postgresql://", "postgres://")):
        return _postgresql(text, readers)
    if "://" in text:
        raise BadInput(
            "the database is neither a path nor a postgresql:// address",
            cure="Give the path of a file for SQLite, or postgresql://USER:PASSWORD@HOST/NAME.",
        )
    return _sqlite(Path(text), readers)


def check_sqlite(version: tuple[int, int, int]) -> None:
    """Raise Unavailable, with the cure, for a SQLite library without STRICT tables."""
    if version < OLDEST_SQLITE:
        raise Unavailable(
            f"SQLite is {'.'.join(map(str, version))}, but 3.37 or newer is needed",
            cure="Run doorward with a Python that brings a newer SQLite, or use PostgreSQL.",
        )


def _sqlite(file: Path, readers: int) -> Engines:
    check_sqlite(sqlite3.sqlite_version_info)
    _make_private(file)
    url = URL.create("sqlite+pysqlite", database=str(file))
    # isolation_level None: the driver begins nothing by itself, so that BEGIN IMMEDIATE and savepoints are ours.
    arguments: dict[str, Any] = {"timeout": BUSY_SECONDS, "isolation_level": None, "check_same_thread": False}
    writer = _engine(url, poolclass=QueuePool, pool_size=1, max_overflow=0, connect_args=arguments)
    reader = _engine(url, poolclass=QueuePool, pool_size=readers, max_overflow=0, connect_args=arguments)
    event.listen(writer, "connect", _prepare_writer)
    event.listen(reader, "connect", _prepare_reader)
    return Engines(writer, reader, str(file), file)


def _make_private(file: Path) -> None:
    """Make the file for its owner alone. SQLite gives the log and the shared memory the same mode."""
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(handle).st_mode & 0o077:
                os.fchmod(handle, 0o600)
        finally:
            os.close(handle)
    except OSError as error:
        raise Unavailable(
            f"the database file {file} cannot be opened: {error.strerror}",
            cure="Check that its folder exists, that doorward may write there, and that the disk has room.",
        ) from None


def _pragmas(connection: Any, *statements: str) -> None:
    cursor = connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()


def _prepare_writer(connection: Any, _record: object) -> None:
    _pragmas(connection, f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    _choose_wal(connection)
    _pragmas(
        connection,
        "PRAGMA synchronous = FULL",
        "PRAGMA foreign_keys = ON",
        f"PRAGMA journal_size_limit = {JOURNAL_LIMIT}",
    )


def _choose_wal(connection: Any) -> None:
    """Set the journal of a new file. While another connection does the same, SQLite refuses at once, whatever the timeout."""
    for left in reversed(range(100)):
        try:
            _pragmas(connection, "PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} or not left:
                raise
            time.sleep(0.02)
        else:
            return


def _prepare_reader(connection: Any, _record: object) -> None:
    _pragmas(connection, f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}", "PRAGMA query_only = ON")


def migration_engine(engines: Engines) -> Engine:
    """An engine for one migration.

    On SQLite a table is changed by copying and dropping it, and with foreign keys on the drop would delete the rows
    that refer to it; the setting cannot be changed inside a transaction, so it needs a connection of its own.
    """
    if engines.file is None:
        return engines.writer
    engine = _engine(
        engines.writer.url,
        poolclass=NullPool,
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None},
    )
    event.listen(engine, "connect", _prepare_migration)
    return engine


def _prepare_migration(connection: Any, record: object) -> None:
    _prepare_writer(connection, record)
    _pragmas(connection, "PRAGMA foreign_keys = OFF")


def _postgresql(text: str, readers: int) -> Engines:
    try:
        given = make_url(text)
    except (ArgumentError, ValueError):
        raise BadInput(  # never the text itself: it holds a password
            "the database's address cannot be understood",
            cure="Write it as postgresql://USER:PASSWORD@HOST/NAME.",
        ) from None
    tables.load_postgresql()
    url = given.set(drivername="postgresql+psycopg").update_query_dict(
        {name: value for name, value in _POSTGRESQL_DEFAULTS.items() if name not in given.query}
    )
    writer = _engine(url, poolclass=QueuePool, pool_size=1, max_overflow=0)
    reader = _engine(
        url,
        poolclass=QueuePool,
        pool_size=readers,
        max_overflow=0,
        pool_pre_ping=True,
        # One snapshot for the whole read, as SQLite gives it: two tables read one after the other fit together.
        execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
    )
    where = given.set(query={}).render_as_string(hide_password=True)
    return Engines(writer, reader, where, None)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A write transaction: locked against other writers from its start, committed at the end of the block.

    Raises what ``translate`` makes of a failure to begin; CommitFailed or CommitUnknown of one to commit; an error
    raised in the block undoes everything and goes on as it is.
    """
    connection = _begin(engine)
    try:
        try:
            yield connection
        except BaseException:
            _undo(connection)
            raise
        _commit(connection)
    finally:
        connection.close()


def _begin(engine: Engine) -> Connection:
    """Begin, on a new connection if the old one is dead: safe to try again, since nothing has run yet."""
    for last in (False, True):
        try:
            connection = engine.connect()
        except DRIVER_ERRORS as error:
            raise translate(error) from error
        try:
            connection.begin()
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})")
        except SQLAlchemyError as error:
            _undo(connection)
            connection.close()
            if last or not (isinstance(error, DBAPIError) and error.connection_invalidated):
                raise translate(error) from error
        else:
            return connection
    raise AssertionError("unreachable")


def _commit(connection: Connection) -> None:
    try:
        connection.commit()
    except SQLAlchemyError as error:
        _undo(connection)
        shown = translate(error)
        cure = getattr(shown, "cure", "")
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise CommitUnknown(
                "the connection to the database broke while a change was being committed",
                cure=cure,
                detail=str(error.orig),
            ) from error
        failed = CommitFailed(f"the change could not be committed: {shown}", cure=cure, detail=str(error))
        failed.why = str(shown)
        raise failed from error


def _undo(connection: Connection) -> None:
    """Roll back; where even that fails the connection is thrown away, which rolls back as well."""
    with suppress(SQLAlchemyError):
        try:
            connection.rollback()
        except SQLAlchemyError:
            connection.invalidate()


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one moment of the database and can change nothing."""
    try:
        connection = engine.connect()
    except DRIVER_ERRORS as error:
        raise translate(error) from error
    try:
        with connection.begin():
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")
            yield connection
    finally:
        connection.close()


def is_broken(connection: Connection) -> bool:
    """True once the transaction is gone: the server is, or SQLite undid it all (a full disk, an I/O error)."""
    if connection.invalidated or connection.closed:
        return True
    if connection.dialect.name == "sqlite":
        raw: Any = connection.connection.dbapi_connection
        return not raw.in_transaction
    return False


def damage(connection: Connection) -> list[str]:
    """What SQLite's own check finds wrong with the file, one line each; empty for a sound file and for PostgreSQL."""
    if connection.dialect.name != "sqlite":
        return []
    lines = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
    lines = [line for line in lines if line != "ok"]
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    return lines + [f"a row of {row[0]} refers to a row of {row[2]} that is not there" for row in broken]
