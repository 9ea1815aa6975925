"""The database of countries: what it says, and what is refused."""

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.mmdb import countries, mmdb

from doorward.errors import BadInput
from doorward.server.countries import countries_of, country_in, read_countries

WORLD = {"192.0.2.0/24": "DE", "198.51.100.7/32": "FR", "2001:db8::/32": "AT"}


def written(folder: Path, data: bytes) -> Path:
    file = folder / "countries.mmdb"
    file.write_bytes(data)
    return file


def test_addresses_are_in_countries_or_in_none(tmp_path: Path) -> None:
    country_of = read_countries(written(tmp_path, countries(WORLD)))
    said = {
        text: country_of(ip_address(text))
        for text in ("192.0.2.0", "192.0.2.255", "192.0.3.0", "198.51.100.7", "2001:db8::7", "2001:db9::7")
    }
    assert list(said.values()) == ["DE", "DE", None, "FR", "AT", None]


def test_a_file_of_ipv4_alone_knows_nothing_of_ipv6(tmp_path: Path) -> None:
    data = mmdb({"192.0.2.0/24": {"country_code": "DE"}}, version=4)
    country_of = read_countries(written(tmp_path, data))
    assert country_of(ip_address("192.0.2.1")) == "DE"
    assert country_of(ip_address("2001:db8::7")) is None


async def test_what_was_read_stays_when_the_file_goes(tmp_path: Path) -> None:
    file = written(tmp_path, countries(WORLD))
    country_of = await countries_of(file)
    assert country_of is not None
    file.write_bytes(b"")
    file.unlink()
    assert country_of(ip_address("192.0.2.1")) == "DE"
    assert await countries_of(None) is None


@pytest.mark.parametrize(
    ("record", "country"),
    [
        ({"country": {"iso_code": "DE", "geoname_id": 1}, "registered_country": {"iso_code": "FR"}}, "DE"),
        ({"country": {"names": {"en": "Germany"}}}, None),
        ({"registered_country": {"iso_code": "FR"}}, None),
        ({"country_code": "de"}, "DE"),
        ({"country": {"iso_code": "DEU"}}, None),
        ({"country": {"iso_code": 49}}, None),
        ({"country": {"iso_code": "4\u00df"}}, None),
        ({"country": []}, None),
        (["DE"], None),
        (None, None),
    ],
)
def test_what_a_record_says(record: Any, country: str | None) -> None:
    assert country_in(record) == country


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file") as caught:
        read_countries(tmp_path / "none.mmdb")
    assert caught.value.place == str(tmp_path / "none.mmdb")
    assert "geoip" in caught.value.cure


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b\x08 an archive", countries(WORLD)[:-30]])
def test_a_file_that_is_something_else_or_a_part_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadInput, match="not a MaxMind DB file, or not a whole one") as caught:
        read_countries(written(tmp_path, data))
    assert caught.value.cure


def test_a_database_about_something_else_is_refused(tmp_path: Path) -> None:
    data = mmdb({"192.0.2.0/24": {"autonomous_system_number": 64496}}, kind="Test-ASN")
    with pytest.raises(BadInput, match="knows no countries: it is a 'Test-ASN'"):
        read_countries(written(tmp_path, data))


@given(st.integers(min_value=0), st.binary(min_size=1, max_size=4), st.ip_addresses())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_broken_file_is_refused_or_answers(tmp_path: Path, at: int, noise: bytes, address: Any) -> None:
    data = bytearray(countries(WORLD))
    at %= len(data)
    data[at : at + len(noise)] = noise
    try:
        country_of = read_countries(written(tmp_path, bytes(data)))
    except BadInput:
        return  # that it is nothing else is what counts
    for one in (address, ip_address("192.0.2.1")):
        country = country_of(one)
        assert country is None or len(country) == 2
