import asyncio
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection
from tests.support import nouns
from tests.support.postgres import Cluster

from doorward.clock import SystemClock
from doorward.errors import Unavailable
from doorward.model import Node
from doorward.store import Database, audit, checkpoints, nodes, schema, settings, tables, users
from doorward.store.engines import Engines, connect, damage, migration_engine, writing
from doorward.store.faults import UnusableDatabase
from doorward.store.schema import CURRENT, Schema

# The next migration that these tests pretend there is: it rebuilds a table that others refer to.
SECOND = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "{next}", "{newest}", None, None


def upgrade():
    with op.batch_alter_table("users", recreate="auto") as batch:
        batch.add_column(sa.Column("pronouns", sa.Text(), nullable=False, server_default=""))
        batch.alter_column("email", nullable=True)
    op.execute("UPDATE users SET pronouns = 'they'")
    {then}
"""


NEWEST, NEXT = CURRENT.revision, f"{tables.VERSION + 1:04}"


def later(folder: Path, *, oldest: int = tables.VERSION + 1, then: str = "pass") -> Schema:
    migrations = folder / "migrations"
    shutil.copytree(CURRENT.migrations, migrations, ignore=shutil.ignore_patterns("__pycache__"))
    (migrations / "versions" / f"{NEXT}_next.py").write_text(
        SECOND.format(then=then, next=NEXT, newest=NEWEST)
    )
    return Schema(version=tables.VERSION + 1, oldest=oldest, migrations=migrations)


async def opened(location: str, wanted: Schema = CURRENT) -> Database:
    return await Database.open(location, clock=SystemClock(), schema=wanted)


def add_node(connection: Connection) -> Node:
    person = users.insert(connection, nouns.user())
    audit.append(connection, "cli", "user.create", person.name, {}, nouns.NOW)
    return nodes.insert(connection, nouns.node(1, person.id))


def pronouns(connection: Connection) -> list[str]:
    return [row[0] for row in connection.exec_driver_sql("SELECT pronouns FROM users")]


def number(connection: Connection) -> str:
    return str(connection.execute(sa.select(tables.schema_version)).scalar_one())


def copies(location: str) -> list[Path]:
    return list(Path(location).parent.glob("*.schema-*"))


def describe(connection: Connection) -> dict[str, Any]:
    """Everything about the tables that a program could tell them apart by."""
    inspector = sa.inspect(connection)
    found: dict[str, Any] = {}
    for name in sorted(inspector.get_table_names()):
        if name == "schema_version":
            continue
        found[name] = {
            "columns": [{**column, "type": str(column["type"])} for column in inspector.get_columns(name)],
            "primary": inspector.get_pk_constraint(name),
            "foreign": sorted(map(str, inspector.get_foreign_keys(name))),
            "unique": sorted(map(str, inspector.get_unique_constraints(name))),
            "indexes": sorted(
                (index["name"] or "", index["unique"]) for index in inspector.get_indexes(name)
            ),
            "options": inspector.get_table_options(name) if connection.dialect.name == "sqlite" else {},
        }
    if connection.dialect.name == "sqlite":
        triggers = "SELECT name, sql FROM sqlite_master WHERE type IN ('trigger', 'index') ORDER BY name"
        numbered = (
            "SELECT name, sql LIKE '%AUTOINCREMENT%' FROM sqlite_master WHERE type = 'table' ORDER BY name"
        )
        strict = "SELECT name, strict, wr FROM pragma_table_list WHERE name <> 'schema_version' ORDER BY name"
        questions = [triggers, numbered, strict]
    else:
        questions = [
            "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1",
            "SELECT proname, prosrc FROM pg_proc WHERE proname LIKE 'audit%' ORDER BY 1",
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'schema_version' ORDER BY 1",
        ]
    found["more"] = [
        [tuple(row) for row in connection.exec_driver_sql(question.replace("%", "%%"))]
        if connection.dialect.name == "postgresql"
        else [tuple(row) for row in connection.exec_driver_sql(question)]
        for question in questions
    ]
    return found


def empty(engines: Engines) -> None:
    """Only Alembic's own table, as if no migration had ever run."""
    with writing(engines.writer) as connection:
        tables.schema_version.create(connection)


def test_migrations_and_metadata_make_the_same_tables(location: str, tmp_path: Path, request: Any) -> None:
    if location.startswith("postgresql"):
        cluster: Cluster = request.getfixturevalue("postgres")
        other = cluster.create_database()
    else:
        other = str(tmp_path / "migrated.db")
    described = []
    for where in (location, other):
        engines = connect(where, readers=1)
        if where == location:
            schema.prepare(engines)
        else:
            empty(engines)
            with writing(migration_engine(engines)) as connection:
                schema.upgrade(connection)
        with writing(engines.writer) as connection:
            assert number(connection) == CURRENT.revision
            described.append(describe(connection))
        engines.dispose()
    if location.startswith("postgresql"):
        cluster.drop_database(other)
    fresh, migrated = described
    assert set(fresh) > {"users", "nodes", "audit"}
    assert fresh == migrated


async def test_a_database_of_the_first_version_is_migrated_with_what_it_holds(location: str) -> None:
    engines = connect(location, readers=1)
    empty(engines)
    with writing(migration_engine(engines)) as connection:
        schema.upgrade(connection, Schema(version=1))
    with writing(engines.writer) as connection:
        connection.exec_driver_sql(
            "INSERT INTO users VALUES (1, 'ann', '', '', 'member', 0, NULL)".replace(
                "NULL", "0" if engines.file else "false"
            )
        )
    engines.dispose()
    async with await opened(location) as database:
        assert await database.read(number) == CURRENT.revision
        node = await database.run(nodes.insert, nouns.node(1, 1))
        assert await database.read(nodes.load_all) == [node]
        assert [user.name for user in await database.read(users.load_all)] == ["ann"]


async def test_a_fresh_database_says_who_made_it(database: Database) -> None:
    assert await database.read(number) == NEWEST
    assert await database.read(settings.get, schema.OLDEST_KEY, int) == tables.OLDEST
    assert await database.read(settings.get, schema.WRITTEN_BY, str)


async def test_what_is_stored_is_there_when_it_is_opened_again(location: str) -> None:
    async with await opened(location) as database:
        node = await database.run(add_node)
    async with await opened(location) as database:
        assert await database.read(nodes.load_all) == [node]
    assert location.startswith("postgresql") or copies(location) == []


async def test_several_may_open_a_fresh_database_at_once(location: str) -> None:
    databases = await asyncio.gather(*(opened(location) for _ in range(3)))
    for database in databases:
        await database.run(settings.put, "x", 1)
        await database.close()


async def test_an_older_database_is_migrated_and_a_copy_kept(location: str, tmp_path: Path) -> None:
    async with await opened(location) as database:
        node = await database.run(add_node)
    async with await opened(location, later(tmp_path)) as database:
        assert await database.read(number) == NEXT
        assert await database.read(pronouns) == ["they"]
        assert await database.read(nodes.load_all) == [node]  # rebuilding users did not take its nodes along
        assert await database.read(settings.get, schema.OLDEST_KEY, int) == tables.VERSION + 1
        assert (await database.read(checkpoints.verify)).problems == ()
        assert await database.read(damage) == []
    if location.startswith("postgresql"):
        return
    (copy,) = copies(location)
    assert copy.name == f"doorward.db.schema-{tables.VERSION}"
    assert copy.stat().st_mode & 0o777 == 0o600
    async with await opened(str(copy)) as database:
        assert await database.read(nodes.load_all) == [node]


@pytest.mark.parametrize("then", ["raise RuntimeError('half way')", "op.execute('nonsense')"])
async def test_a_migration_that_fails_changes_nothing(location: str, tmp_path: Path, then: str) -> None:
    async with await opened(location) as database:
        node = await database.run(add_node)
        before = await database.read(describe)
    with pytest.raises(Exception, match=r"half way|refused a statement"):
        await opened(location, later(tmp_path, then=then))
    async with await opened(location) as database:
        assert await database.read(number) == NEWEST
        assert await database.read(describe) == before
        assert await database.read(nodes.load_all) == [node]


async def test_a_migration_that_breaks_references_is_undone(tmp_path: Path) -> None:
    location = str(tmp_path / "doorward.db")
    async with await opened(location) as database:
        node = await database.run(add_node)
    with pytest.raises(UnusableDatabase, match="break references of nodes"):
        await opened(location, later(tmp_path, then="op.execute('DELETE FROM users')"))
    async with await opened(location) as database:
        assert await database.read(nodes.load_all) == [node]


async def test_a_copy_that_finds_no_room_stops_the_migration(tmp_path: Path) -> None:
    location = str(tmp_path / "doorward.db")
    async with await opened(location):
        pass
    (tmp_path / f"doorward.db.schema-{tables.VERSION}.partial").mkdir()  # in the way of the copy
    with pytest.raises(Unavailable, match="copied before its migration") as caught:
        await opened(location, later(tmp_path))
    assert caught.value.cure
    async with await opened(location) as database:
        assert await database.read(number) == NEWEST


async def test_a_newer_database_is_refused_by_name(location: str, tmp_path: Path) -> None:
    async with await opened(location) as database:
        await database.run(settings.put, schema.WRITTEN_BY, "9.8.7")
    async with await opened(location, later(tmp_path)) as database:
        await database.run(settings.put, schema.WRITTEN_BY, "9.8.7")
    with pytest.raises(UnusableDatabase) as caught:
        await opened(location)
    assert "9.8.7" in caught.value.message
    assert f"schema {tables.VERSION + 1}" in caught.value.message
    assert "Install doorward 9.8.7" in caught.value.cure


async def test_a_newer_database_that_allows_it_is_opened(location: str, tmp_path: Path) -> None:
    async with await opened(location) as database:
        node = await database.run(add_node)
    async with await opened(location, later(tmp_path, oldest=2)):
        pass
    async with await opened(location) as database:
        assert await database.read(nodes.load_all) == [node]
        await database.run(users.insert, nouns.user(2))
        assert len(await database.read(users.load_all)) == 2
        assert await database.read(number) == NEXT


async def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "photos.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE photos (id)")
    with pytest.raises(UnusableDatabase, match="photos"):
        await opened(str(path))
    with closing(sqlite3.connect(path)) as other:
        assert [row[0] for row in other.execute("SELECT name FROM sqlite_master")] == ["photos"]


async def test_a_postgresql_schema_may_be_shared_while_no_name_is_taken(postgres: Cluster) -> None:
    location = postgres.create_database()
    name = location.partition("@/")[2].partition("?")[0]
    postgres.execute(name, "CREATE TABLE photos (id int)")
    async with await opened(location) as database:
        await database.run(users.insert, nouns.user())
    postgres.drop_database(location)
    location = postgres.create_database()
    postgres.execute(location.partition("@/")[2].partition("?")[0], "CREATE TABLE users (id int)")
    with pytest.raises(UnusableDatabase, match="users"):
        await opened(location)
    postgres.drop_database(location)


@pytest.mark.parametrize(
    "statement", ["DELETE FROM schema_version", "UPDATE schema_version SET version_num = 'x'"]
)
async def test_a_database_without_a_number_is_refused(location: str, statement: str) -> None:
    async with await opened(location) as database:
        await database.run(lambda connection: connection.exec_driver_sql(statement).close())
    with pytest.raises(UnusableDatabase, match="does not say"):
        await opened(location)


def test_opening_does_not_import_alembic(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; from doorward.store import Database; from doorward.clock import SystemClock\n"
        "async def main():\n"
        "    for _ in range(2):\n"
        "        async with await Database.open(sys.argv[1], clock=SystemClock()): pass\n"
        "asyncio.run(main()); print('alembic' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "doorward.db")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"
