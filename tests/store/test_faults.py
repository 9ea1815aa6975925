import sqlite3

import psycopg
import pytest
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InvalidRequestError,
    OperationalError,
    StatementError,
)

from doorward.errors import BadInput, Conflict, DoorwardError, Unavailable
from doorward.store.faults import _UNIQUE, UnusableDatabase, translate


def sqlite_error(name: str) -> OperationalError:
    error = sqlite3.OperationalError("hush")
    error.sqlite_errorname = name
    return OperationalError("SELECT 1", {}, error)


def postgresql_error(state: str) -> OperationalError:
    return OperationalError("SELECT 1", {}, psycopg.errors.lookup(state)("hush"))


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("SQLITE_FULL", "full"),
        ("SQLITE_READONLY", "cannot be written"),
        ("SQLITE_READONLY_DBMOVED", "cannot be written"),
        ("SQLITE_PERM", "cannot be written"),
        ("SQLITE_BUSY", "locked"),
        ("SQLITE_BUSY_SNAPSHOT", "locked"),
        ("SQLITE_LOCKED", "locked"),
        ("SQLITE_IOERR_FSYNC", "disk"),
        ("SQLITE_CANTOPEN", "opened"),
        ("SQLITE_CORRUPT", "damaged"),
        ("SQLITE_NOTADB", "damaged"),
    ],
)
def test_sqlite_faults_have_a_cure(name: str, word: str) -> None:
    shown = translate(sqlite_error(name))
    assert isinstance(shown, Unavailable)
    assert isinstance(shown, UnusableDatabase) == (word == "damaged")
    assert word in shown.message
    assert shown.cure
    assert "hush" not in shown.sentence()
    assert "hush" in shown.detail


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("53100", "full"),
        ("53300", "resources"),
        ("25006", "cannot be written"),
        ("55P03", "locked"),
        ("40P01", "locked"),
        ("28P01", "sign-in"),
        ("3D000", "sign-in"),
        ("57P01", "reached"),
        ("08006", "reached"),
        ("58030", "disk"),
        ("XX001", "damaged"),
    ],
)
def test_postgresql_faults_have_a_cure(state: str, word: str) -> None:
    shown = translate(postgresql_error(state))
    assert isinstance(shown, Unavailable)
    assert isinstance(shown, UnusableDatabase) == (word == "damaged")
    assert word in shown.message
    assert shown.cure
    assert "hush" not in shown.sentence()


def test_a_lost_connection_has_no_state() -> None:
    lost = OperationalError(
        "SELECT 1", {}, psycopg.OperationalError("server closed the connection unexpectedly")
    )
    refused = OperationalError(
        "", {}, psycopg.OperationalError('password authentication failed for user "x"')
    )
    assert "reached" in str(translate(lost))
    assert "sign-in" in str(translate(refused))
    wrapped = DBAPIError("SELECT 1", {}, psycopg.errors.UndefinedTable("x"), connection_invalidated=True)
    assert "reached" in str(translate(wrapped))


def test_a_statement_that_is_wrong_is_our_own_fault() -> None:
    for error in (
        postgresql_error("42P01"),
        sqlite_error("SQLITE_ERROR"),
        InvalidRequestError("used wrongly"),
    ):
        shown = translate(error)
        assert type(shown) is DoorwardError
        assert shown.status == 500


def test_a_value_that_does_not_fit_is_bad_input() -> None:
    shown = translate(DataError("INSERT", {}, psycopg.errors.NumericValueOutOfRange("hush")))
    assert isinstance(shown, BadInput)
    assert "hush" not in shown.sentence()
    own = BadInput("no zone")
    assert translate(StatementError("x", "INSERT", {}, own)) is own


def test_what_is_not_the_databases_fault_goes_on_as_it_is() -> None:
    for error in (Conflict("x"), ZeroDivisionError(), KeyboardInterrupt()):
        assert translate(error) is error


def test_a_conflict_that_is_neither_unique_nor_a_reference() -> None:
    shown = translate(
        IntegrityError("x", {}, sqlite3.IntegrityError("NOT NULL constraint failed: users.name"))
    )
    assert isinstance(shown, Conflict)
    assert shown.place == ""


def test_every_unique_constraint_can_be_named() -> None:
    assert _UNIQUE["nodes_machine_key_user_id_unique"] == "nodes.machine_key, nodes.user_id"
    assert _UNIQUE["nodes_name_unique"] == "nodes.name"
    assert _UNIQUE["settings_pk"] == "settings.key"
