import msgspec
import pytest
import sqlalchemy as sa

from doorward import model
from doorward.errors import Conflict
from doorward.store import Database, tables

# Which struct of the model each table keeps, and the fields that are elsewhere or have another column.
KEPT: list[tuple[sa.Table, type[msgspec.Struct], set[str]]] = [
    (tables.users, model.User, set()),
    (tables.nodes, model.Node, {"observed"}),
    (tables.auth_keys, model.AuthKey, set()),
    (tables.api_tokens, model.ApiToken, set()),
    (tables.registrations, model.Registration, set()),
    (tables.policy_versions, model.PolicyVersion, set()),
    (tables.audit, model.AuditEvent, set()),
    (tables.ssh_checks, model.Check, set()),
    (tables.tab_ends, model.TabEnd, set()),
    (tables.host_keys, model.HostKey, set()),
    (tables.changes, model.Change, set()),
]


@pytest.mark.parametrize(("table", "kind", "elsewhere"), KEPT, ids=lambda value: getattr(value, "name", ""))
def test_every_field_of_the_model_has_its_column(
    table: sa.Table, kind: type[msgspec.Struct], elsewhere: set[str]
) -> None:
    assert {column.name for column in table.columns} == set(kind.__struct_fields__) - elsewhere


def test_observations_have_their_columns_too() -> None:
    columns = {column.name for column in tables.node_observations.columns}
    assert columns == {"node_id", *model.Observed.__struct_fields__}


def test_the_newest_migration_has_the_number_of_the_tables() -> None:
    from doorward.store.schema import CURRENT  # noqa: PLC0415 - what is under test is its folder

    newest = max(path.name for path in (CURRENT.migrations / "versions").glob("[0-9]*.py"))
    assert newest.startswith(f"{tables.VERSION:04}_")
    assert 1 <= tables.OLDEST <= tables.VERSION


async def test_a_value_of_the_wrong_kind_is_refused_by_the_table_itself(database: Database) -> None:
    """STRICT in SQLite: what PostgreSQL refuses, SQLite refuses too."""

    def spoil(connection: sa.Connection) -> None:
        connection.exec_driver_sql("INSERT INTO settings (key, value) VALUES ('a', NULL)")

    with pytest.raises(Conflict):
        await database.run(spoil)


async def test_truncate_does_not_get_around_the_guard(database: Database) -> None:
    statement = "TRUNCATE audit" if database.kind == "postgresql" else "DELETE FROM audit"

    def wipe(connection: sa.Connection) -> None:
        connection.exec_driver_sql(
            "INSERT INTO audit VALUES (1, 0, 'a', 'b', 'c', '{}', '', '')"
            if database.kind == "postgresql"
            else "INSERT INTO audit VALUES (1, 0, 'a', 'b', 'c', '{}', x'', x'')"
        )
        connection.exec_driver_sql(statement)

    with pytest.raises(Conflict, match="append-only"):
        await database.run(wipe)
