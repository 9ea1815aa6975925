"""Bring a database to the tables of this program, or refuse it.

A fresh database gets every table from ``tables.metadata`` at once and the number of the newest migration. One that is
already there at that number costs one query. An older one is migrated by Alembic in one transaction, after a copy of
the SQLite file was put beside it. A newer one is opened only when it says that a program of our number may.

Alembic takes half a second to import, so it is imported where a migration runs and nowhere else.
"""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import msgspec
from sqlalchemy import Connection, insert, inspect, select

from doorward import __version__
from doorward.errors import Unavailable
from doorward.store import settings, tables
from doorward.store.engines import Engines, migration_engine, writing
from doorward.store.faults import UnusableDatabase
from doorward.telemetry import log

WRITTEN_BY = "schema.written_by"  # setting: the doorward version that made or last migrated the tables
OLDEST_KEY = "schema.oldest"  # setting: the lowest schema number whose program may open this database

_log = log("store")


class Schema(msgspec.Struct, frozen=True):
    """Which tables the program wants; only tests have another than ``CURRENT``."""

    version: int = tables.VERSION
    oldest: int = tables.OLDEST
    migrations: Path = Path(__file__).parent / "migrations"

    @property
    def revision(self) -> str:
        """The number as Alembic knows it."""
        return f"{self.version:04}"


CURRENT = Schema()


def prepare(engines: Engines, schema: Schema = CURRENT) -> None:
    """Make, migrate or accept the database. Raises UnusableDatabase for one that this program must not touch."""
    with writing(engines.writer) as connection:
        found = _found(connection)
        if found is None:
            _create(connection, schema)
            return
    if found > schema.version:
        with writing(engines.writer) as connection:
            _judge_newer(connection, found, schema)
    elif found < schema.version:
        _migrate(engines, schema)


def _found(connection: Connection) -> int | None:
    """The database's schema number; None when it is empty."""
    inspector = inspect(connection)
    if not inspector.has_table("schema_version"):
        there = set(inspector.get_table_names())
        ours = set(tables.metadata.tables)
        # A SQLite file is ours alone; a PostgreSQL schema may be shared, as long as no name is taken.
        if there & ours or (there and connection.dialect.name == "sqlite"):
            raise UnusableDatabase(
                f"the database holds tables that are not doorward's: {', '.join(sorted(there)[:3])}",
                cure="Give doorward a database of its own.",
            )
        return None
    number = connection.execute(select(tables.schema_version.c.version_num)).scalar()
    if number is None or not str(number).isdigit():
        raise UnusableDatabase(
            "the database does not say which version of doorward its tables are of",
            cure="Restore it from a backup, or give doorward a new database.",
        )
    return int(number)


def _create(connection: Connection, schema: Schema) -> None:
    tables.metadata.create_all(connection, checkfirst=False)
    connection.execute(insert(tables.schema_version).values(version_num=f"{tables.VERSION:04}"))
    _sign(connection, schema)


def _sign(connection: Connection, schema: Schema) -> None:
    settings.put(connection, WRITTEN_BY, __version__)
    settings.put(connection, OLDEST_KEY, schema.oldest)


def _judge_newer(connection: Connection, found: int, schema: Schema) -> None:
    oldest = settings.get(connection, OLDEST_KEY, int) or found
    writer = settings.get(connection, WRITTEN_BY, str) or "a newer version"
    if oldest > schema.version:
        raise UnusableDatabase(
            f"the database was written by doorward {writer} (schema {found}); this is doorward {__version__}, "
            f"which knows schemas up to {schema.version}",
            cure=f"Install doorward {writer} or newer, or restore the copy that was made before the migration.",
        )
    _log.warning("the database is newer than this program, and allows it", schema=found, written_by=writer)


def _migrate(engines: Engines, schema: Schema) -> None:
    engine = migration_engine(engines)
    with writing(engine) as connection:
        found = _found(
            connection
        )  # again: another process may have been faster, and we hold the lock only now
        if found is None or found >= schema.version:
            return
        if engines.file is not None:
            copy = _back_up(engines.file, found)
            _log.info("copied the database before its migration", copy=str(copy))
        upgrade(connection, schema)
        if connection.dialect.name == "sqlite":
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
            if broken is not None:
                raise UnusableDatabase(
                    f"the migration to schema {schema.version} would break references of {broken[0]}; undone",
                    cure="Keep the version of doorward that wrote the database, and report this.",
                )
        _sign(connection, schema)
    _log.info("migrated the database", before=found, after=schema.version)


def upgrade(connection: Connection, schema: Schema = CURRENT) -> None:
    """Run every migration that the database lacks, inside the caller's transaction."""
    from alembic import command  # noqa: PLC0415 - half a second that only a migration should cost
    from alembic.config import Config  # noqa: PLC0415 - the same

    config = Config()
    config.set_main_option("script_location", str(schema.migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, schema.revision)


def _back_up(file: Path, number: int) -> Path:
    """A consistent copy beside the file, log included, for its owner alone; an older copy of that number is replaced."""
    copy = file.with_name(f"{file.name}.schema-{number}")
    partial = copy.with_name(f"{copy.name}.partial")
    try:
        with suppress(FileNotFoundError):
            partial.unlink()
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(partial)) as target:
            source.backup(target)
        handle = os.open(partial, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        partial.replace(copy)
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(
            f"the database could not be copied before its migration: {error}",
            cure=f"Make room for a second copy of {file.name} in its folder; nothing was changed.",
        ) from error
    return copy
