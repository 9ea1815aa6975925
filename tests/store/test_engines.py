import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.support.postgres import Cluster

from doorward.clock import SystemClock
from doorward.errors import BadInput, DoorwardError, Unavailable
from doorward.store import Database
from doorward.store.engines import check_sqlite, connect, damage, reading, writing
from doorward.store.faults import UnusableDatabase


@pytest.mark.parametrize("version", [(3, 36, 99), (2, 8, 17)])
def test_an_old_sqlite_is_refused_with_the_cure(version: tuple[int, int, int]) -> None:
    with pytest.raises(Unavailable, match=r"3\.37") as caught:
        check_sqlite(version)
    assert "PostgreSQL" in caught.value.cure


def test_a_new_enough_sqlite_is_fine() -> None:
    check_sqlite((3, 37, 0))
    check_sqlite((4, 0, 0))


@pytest.mark.parametrize(
    "address", ["mysql://u:hush@host/db", "sqlite:///x", "postgresql://u:hush@host:port/db"]
)
def test_other_addresses_are_refused_without_repeating_them(address: str) -> None:
    with pytest.raises(BadInput) as caught:
        connect(address, readers=1)
    assert "postgresql://" in caught.value.cure
    assert "hush" not in repr(caught.value) + caught.value.sentence() + caught.value.detail


def test_a_password_is_never_shown() -> None:
    engines = connect("postgresql://ann:hush@db.example.com:5433/door?sslmode=require", readers=1)
    assert engines.where == "postgresql://ann:***@db.example.com:5433/door"
    assert "hush" not in repr(engines)
    engines.dispose()


def test_what_the_address_says_wins_over_our_defaults() -> None:
    url = connect("postgres://h/d?connect_timeout=60", readers=1).writer.url
    assert url.query["connect_timeout"] == "60"
    assert url.query["application_name"] == "doorward"


async def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be reached") as caught:
        await Database.open(f"postgresql://u:hush@/d?host={tmp_path}", clock=SystemClock())
    assert caught.value.cure
    assert "hush" not in repr(caught.value) + caught.value.sentence() + caught.value.detail


async def test_a_database_that_is_not_there_is_named(postgres: Cluster) -> None:
    with pytest.raises(Unavailable, match="refused the sign-in"):
        await Database.open(postgres.address("nowhere"), clock=SystemClock())


async def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be opened") as caught:
        await Database.open(tmp_path / "nowhere" / "doorward.db", clock=SystemClock())
    assert "folder" in caught.value.cure


async def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "doorward.db"
    path.write_bytes(b"this is no database, whatever its name says\n" * 50)
    with pytest.raises(UnusableDatabase, match="damaged") as caught:
        await Database.open(path, clock=SystemClock())
    assert "backup" in caught.value.cure
    assert path.read_bytes().startswith(b"this is no database")


def test_an_error_in_the_block_undoes_it(location: str) -> None:
    engines = connect(location, readers=1)
    with writing(engines.writer) as connection:
        connection.exec_driver_sql("CREATE TABLE t (n INTEGER)")

    def fail() -> None:
        with writing(engines.writer) as connection:
            connection.exec_driver_sql("INSERT INTO t VALUES (1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with reading(engines.reader) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar() == 0
    engines.dispose()


def test_damage_is_found(tmp_path: Path) -> None:
    path = tmp_path / "doorward.db"
    engines = connect(path, readers=1)
    with writing(engines.writer) as connection:
        connection.exec_driver_sql("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql("CREATE TABLE child (id INTEGER REFERENCES parent)")
    with reading(engines.reader) as connection:
        assert damage(connection) == []
    loose = sqlite3.connect(path)
    loose.execute("INSERT INTO child VALUES (5)")  # this connection does not check references
    loose.commit()
    loose.close()
    with reading(engines.reader) as connection:
        assert damage(connection) == ["a row of child refers to a row of parent that is not there"]
    engines.dispose()


def test_an_error_does_not_repeat_the_values_of_a_statement(location: str) -> None:
    engines = connect(location, readers=1)
    with writing(engines.writer) as connection, pytest.raises(sa.exc.SQLAlchemyError) as caught:
        connection.execute(sa.text("INSERT INTO nowhere VALUES (:x)"), {"x": "hush"})
    assert "hush" not in str(caught.value)
    assert not isinstance(caught.value, DoorwardError)
    engines.dispose()
