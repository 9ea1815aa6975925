from datetime import UTC, datetime, timedelta, timezone
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine import Dialect
from tests.support.nouns import machine_key, node_key

from doorward.errors import BadInput
from doorward.model import Role
from doorward.protocol.keys import MachinePublic
from doorward.store.columns import (
    Address,
    AnyAddress,
    Choice,
    Flag,
    Json,
    Key,
    Moment,
    Prefixes,
    Words,
    from_microseconds,
    to_microseconds,
)

DIALECTS: list[Dialect] = [SQLiteDialect(), PGDialect()]  # type: ignore[no-untyped-call]
STRICT = {"INTEGER", "TEXT", "BLOB"}


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7, minutes=-30))])))
def test_a_time_survives_exactly(moment: datetime) -> None:
    again = from_microseconds(to_microseconds(moment))
    assert again == moment
    assert again.tzinfo is UTC


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_times_sort_as_their_numbers(one: datetime, other: datetime) -> None:
    assert (one < other) == (to_microseconds(one) < to_microseconds(other))


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(BadInput):
        to_microseconds(datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test


@pytest.mark.parametrize(
    "kind",
    [
        Moment(),
        Words(),
        Flag(),
        Choice(Role),
        Key(MachinePublic),
        Address(IPv4Address),
        AnyAddress(),
        Json(dict),
        Prefixes(),
    ],
    ids=lambda kind: type(kind).__name__,
)
def test_every_type_is_one_that_a_strict_table_takes(kind: Any) -> None:
    assert kind.dialect_impl(DIALECTS[0]).compile(DIALECTS[0]) in STRICT


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_flags_and_owners(dialect: Dialect) -> None:
    assert [Flag().process_result_value(value, dialect) for value in (0, 1, False, True, None)] == [
        False,
        True,
        False,
        True,
        None,
    ]
    assert Flag().process_bind_param(None, dialect) is None
    assert Flag().process_bind_param(True, dialect) == 1


def test_a_key_is_its_bytes_and_its_class() -> None:
    column = Key(MachinePublic)
    key = machine_key(1)
    assert column.process_bind_param(key, DIALECTS[0]) == key.raw
    assert column.process_result_value(key.raw, DIALECTS[0]) == key
    with pytest.raises(TypeError):
        column.process_bind_param(node_key(1), DIALECTS[0])


def test_an_address_is_its_bytes_and_its_family() -> None:
    column = Address(IPv4Address)
    assert column.process_bind_param(IPv4Address("100.64.0.1"), DIALECTS[0]) == b"\x64\x40\0\x01"
    with pytest.raises(TypeError):
        column.process_bind_param(IPv6Address("::1"), DIALECTS[0])


def test_equal_values_have_equal_texts() -> None:
    column = Json(dict[str, int])
    assert column.process_bind_param({"b": 1, "a": 2}, DIALECTS[0]) == '{"a":2,"b":1}'


def test_a_choice_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="emperor"):
        Choice(Role).process_bind_param("emperor", DIALECTS[0])  # type: ignore[arg-type]


@given(st.one_of(st.none(), st.ip_addresses()))
def test_an_address_of_either_family_survives(address: IPv4Address | IPv6Address | None) -> None:
    column = AnyAddress()
    for dialect in DIALECTS:
        raw = column.process_bind_param(address, dialect)
        assert raw is None or len(raw) in {4, 16}
        assert column.process_result_value(raw, dialect) == address
