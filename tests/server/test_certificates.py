"""Which certificate each listener has, and that one which cannot be renewed keeps none of the others back."""

import os
from pathlib import Path

import pytest
from tests.support.clock import FakeClock
from tests.support.workers import settings_in, write_certificate

from doorward.clock import SystemClock
from doorward.config import Settings
from doorward.config.settings import Acme, Certificate, Ports, Relay, Tls
from doorward.protocol.keys import DERPPrivate
from doorward.server import tls
from doorward.server.certificates import Certificates


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(SystemClock().now())


def certificates(folder: Path, clock: FakeClock, settings: Settings) -> Certificates:
    authority = tls.Authority.open(folder / "tls", clock)
    return Certificates(settings.settled(Ports()), authority, clock, DERPPrivate.from_entropy(os.urandom(32)))


def test_without_files_the_authority_signs_for_door_and_relay(tmp_path: Path, clock: FakeClock) -> None:
    made = certificates(tmp_path, clock, settings_in(tmp_path, url="http://192.168.1.10:8080"))
    assert made.public is None
    assert not made.relay_is_public
    assert [name for name, _ in made.named()] == ["door", "relay"]
    assert made.relay.pin != made.door.pin


def test_with_a_certificate_of_its_own_control_s_listener_is_the_relay_s_too(
    tmp_path: Path, clock: FakeClock
) -> None:
    file, key, _ = write_certificate(tmp_path, "control.test")
    own = {"url": "https://control.test", "tls": Tls(url=Certificate(cert=file, key=key))}
    made = certificates(tmp_path, clock, settings_in(tmp_path, **own))
    assert made.relay_is_public
    assert [name for name, _ in made.named()] == ["control address", "door", "relay"]
    apart = certificates(tmp_path, clock, settings_in(tmp_path, relay=Relay(host="192.0.2.1"), **own))
    assert not apart.relay_is_public


def test_what_acme_provides_stands_where_no_files_do(tmp_path: Path, clock: FakeClock) -> None:
    file, key, _ = write_certificate(tmp_path, "control.test")
    acme = Acme(directory="https://ca.example/dir", agree=True)
    both = {"url": "https://control.test", "door": "https://door.test", "tls": Tls(acme=acme)}
    made = certificates(tmp_path, clock, settings_in(tmp_path, **both))
    assert set(made.ordered) == {"control.test", "door.test"}
    assert made.public is made.ordered["control.test"]
    assert made.door is made.ordered["door.test"]
    assert made.relay_is_public
    assert made.acme is not None
    own = Tls(url=Certificate(cert=file, key=key), acme=acme)
    made = certificates(tmp_path, clock, settings_in(tmp_path, **both | {"tls": own}))
    assert set(made.ordered) == {"door.test"}
    made = certificates(tmp_path, clock, settings_in(tmp_path, url="https://control.test"))
    assert (made.ordered, made.acme) == ({}, None)


def test_one_that_cannot_be_renewed_keeps_none_of_the_others_back(tmp_path: Path, clock: FakeClock) -> None:
    file, key, _ = write_certificate(tmp_path, "control.test")
    own = {"url": "https://control.test", "tls": Tls(url=Certificate(cert=file, key=key))}
    made = certificates(tmp_path, clock, settings_in(tmp_path, **own))
    before = {name: one.leaf for name, one in made.named()}
    file.unlink()
    clock.advance(tls.LEAF_LIFE.total_seconds())
    made.refresh()
    after = {name: one.leaf for name, one in made.named()}
    assert after["control address"] == before["control address"]
    assert after["door"] != before["door"]
    assert after["relay"] != before["relay"]
