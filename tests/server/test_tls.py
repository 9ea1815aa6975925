import os
import ssl
import threading
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.support.clock import FakeClock

from doorward.clock import SystemClock
from doorward.server.tls import (
    LEAF_LIFE,
    Authority,
    CertificateError,
    IssuedCertificate,
    OwnCertificate,
    ServerCertificate,
    choose_by_name,
)

HOME = ip_address("127.0.0.1")


@pytest.fixture
def clock() -> FakeClock:
    # Handshakes look at the machine's own clock, so the story starts today.
    return FakeClock(SystemClock().now().replace(microsecond=0))


@pytest.fixture
def authority(tmp_path: Path, clock: FakeClock) -> Authority:
    return Authority.open(tmp_path / "tls", clock)


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """Both ends in memory; the client's end, whose methods tell what it saw."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(up, down, server_side=True)
    here = client.wrap_bio(down, up, server_hostname=name)
    done = {here: False, there: False}
    for _ in range(10):
        for end in done:
            try:
                end.do_handshake()
                done[end] = True
            except ssl.SSLWantReadError:
                pass
    assert all(done.values())
    return here


def _trusting(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.pem)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def test_the_authority_is_made_once_and_its_key_is_ours_alone(tmp_path: Path, clock: FakeClock) -> None:
    first = Authority.open(tmp_path / "tls", clock)
    again = Authority.open(tmp_path / "tls", clock)
    assert first.pem == again.pem
    assert first.file.read_text() == first.pem
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "tls/authority.key").stat().st_mode & 0o777 == 0o600
    life = first.certificate.not_valid_after_utc - clock.now()
    assert timedelta(days=3649) < life < timedelta(days=3651)
    assert {file.name for file in (tmp_path / "tls").iterdir()} == {"authority.key", "authority.pem"}


def test_those_that_start_at_once_end_up_with_one_authority(tmp_path: Path, clock: FakeClock) -> None:
    ready, seen = threading.Barrier(8), set()

    def start() -> None:
        ready.wait()
        seen.add(Authority.open(tmp_path / "tls", clock).pem)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {(tmp_path / "tls/authority.pem").read_text()}


def test_a_lost_certificate_follows_from_the_key(authority: Authority, clock: FakeClock) -> None:
    key = authority.certificate.public_key()
    authority.file.unlink()
    assert Authority.open(authority.folder, clock).certificate.public_key() == key


def test_a_certificate_of_another_key_is_refused(
    authority: Authority, tmp_path: Path, clock: FakeClock
) -> None:
    other = Authority.open(tmp_path / "other", clock)
    authority.file.write_text(other.pem)
    with pytest.raises(CertificateError, match="another key") as refused:
        Authority.open(authority.folder, clock)
    assert refused.value.place == str(authority.file)


def test_a_broken_key_is_refused_without_repeating_it(authority: Authority, clock: FakeClock) -> None:
    (authority.folder / "authority.key").write_text("-----BEGIN PRIVATE KEY-----\nsecret\n")
    with pytest.raises(CertificateError) as refused:
        Authority.open(authority.folder, clock)
    assert "secret" not in str(refused.value.public())


def test_browsers_reach_the_door_by_name_with_http_1_alone(authority: Authority, clock: FakeClock) -> None:
    door = IssuedCertificate(authority, "door", clock, names=["door.tailnet.internal"])
    seen = _handshake(door.context, _trusting(authority), "door.tailnet.internal")
    assert seen.selected_alpn_protocol() == "http/1.1"
    assert seen.version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        _handshake(door.context, _trusting(authority), "localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(door.context, ssl.create_default_context(), "door.tailnet.internal")
    assert (authority.folder / "door.pem").stat().st_mode & 0o777 == 0o600


def test_nothing_older_than_tls_1_2(authority: Authority, clock: FakeClock) -> None:
    door = IssuedCertificate(authority, "door", clock, names=["door.tailnet.internal"])
    assert door.context.minimum_version is ssl.TLSVersion.TLSv1_2
    client = _trusting(authority)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert _handshake(door.context, client, "door.tailnet.internal").version() == "TLSv1.2"


def _presented(connection: ssl.SSLObject) -> list[bytes]:
    chain = connection._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return [bytes(one.public_bytes(2)) for one in chain]


def test_the_relay_presents_its_leaf_and_the_meta_certificate_and_nothing_else(
    authority: Authority, tmp_path: Path, clock: FakeClock
) -> None:
    # Any certificate serves as the extra one here: what matters is what goes over the wire.
    extra = Authority.open(tmp_path / "meta", clock).certificate.public_bytes(serialization.Encoding.DER)
    relay = IssuedCertificate(authority, "relay", clock, addresses=[HOME], extra=lambda _: extra)
    seen = _handshake(relay.context, _trusting(authority), "127.0.0.1")
    leaf = seen.getpeercert(binary_form=True)
    assert leaf is not None
    assert _presented(seen) == [leaf, extra]
    assert x509.load_der_x509_certificate(leaf) == relay.leaf
    assert relay.pin.startswith("sha256-raw:")
    assert len(relay.pin) == len("sha256-raw:") + 64


def test_a_restart_keeps_the_leaf_and_so_the_pin(authority: Authority, clock: FakeClock) -> None:
    first = IssuedCertificate(authority, "relay", clock, addresses=[HOME])
    assert IssuedCertificate(authority, "relay", clock, addresses=[HOME]).pin == first.pin
    assert first.refresh() is False


def test_the_extra_certificate_is_made_anew_without_touching_the_pin(
    authority: Authority, tmp_path: Path, clock: FakeClock
) -> None:
    made: list[datetime] = []
    der = Authority.open(tmp_path / "meta", clock).certificate.public_bytes(serialization.Encoding.DER)

    def extra(now: datetime) -> bytes:
        made.append(now)
        return der

    relay = IssuedCertificate(authority, "relay", clock, addresses=[HOME], extra=extra)
    pin = relay.pin
    clock.advance(timedelta(days=11))
    assert relay.refresh() is False
    assert made == [clock.now() - timedelta(days=11), clock.now()]
    assert relay.pin == pin


def test_certificates_bear_a_clock_that_is_off_by_most_of_a_year_either_way(
    authority: Authority, clock: FakeClock
) -> None:
    _, leaf = authority.issue(["door.example.com"], [], clock.now())
    for certificate in (leaf, authority.certificate):
        assert certificate.not_valid_before_utc <= clock.now() - timedelta(days=365)
    assert leaf.not_valid_after_utc >= clock.now() + timedelta(days=365)
    # Apple's systems refuse what is valid for longer, whoever signed it.
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc < timedelta(days=825)


def test_a_leaf_is_renewed_when_a_third_of_its_life_is_left_in_the_same_context(
    authority: Authority, clock: FakeClock
) -> None:
    door = IssuedCertificate(authority, "door", clock, names=["door.tailnet.internal"])
    context, before = door.context, door.leaf
    whole = before.not_valid_after_utc - before.not_valid_before_utc
    clock.advance(before.not_valid_after_utc - whole / 3 - timedelta(days=1) - clock.now())
    assert door.refresh() is False
    clock.advance(timedelta(days=2))
    assert door.refresh() is True
    assert door.context is context
    assert door.expires > before.not_valid_after_utc


def test_new_connections_see_the_renewed_leaf(authority: Authority) -> None:
    # The clock starts 200 days ago, so that what is renewed now is valid for the machine's own clock.
    clock = FakeClock(SystemClock().now() - timedelta(days=200))
    door = IssuedCertificate(authority, "door", clock, names=["door.tailnet.internal"])
    old = _handshake(door.context, _trusting(authority), "door.tailnet.internal").getpeercert(
        binary_form=True
    )
    clock.advance(timedelta(days=200))
    assert door.refresh() is True
    new = _handshake(door.context, _trusting(authority), "door.tailnet.internal").getpeercert(
        binary_form=True
    )
    assert old != new
    assert new == door.leaf.public_bytes(serialization.Encoding.DER)


def test_a_leaf_for_other_hosts_or_of_an_older_authority_is_replaced(
    authority: Authority, tmp_path: Path, clock: FakeClock
) -> None:
    first = IssuedCertificate(authority, "door", clock, names=["door.a.internal"])
    second = IssuedCertificate(authority, "door", clock, names=["door.b.internal"])
    assert first.leaf != second.leaf
    for name in ("authority.key", "authority.pem"):
        (authority.folder / name).unlink()
    fresh = Authority.open(authority.folder, clock)
    third = IssuedCertificate(fresh, "door", clock, names=["door.b.internal"])
    third.leaf.verify_directly_issued_by(fresh.certificate)
    (authority.folder / "door.pem").write_text("not a certificate")
    assert IssuedCertificate(fresh, "door", clock, names=["door.b.internal"]).leaf != third.leaf


def test_one_listener_two_names(authority: Authority, clock: FakeClock) -> None:
    control = IssuedCertificate(authority, "url", clock, names=["control.example.com"])
    door = IssuedCertificate(authority, "door", clock, names=["door.example.com"])
    context = choose_by_name(control, {"door.example.com": door})
    for name, certificate in (("control.example.com", control), ("door.example.com", door)):
        seen = _handshake(context, _trusting(authority), name)
        assert seen.getpeercert(binary_form=True) == certificate.leaf.public_bytes(serialization.Encoding.DER)
        assert seen.selected_alpn_protocol() == "http/1.1"


@pytest.fixture
def own(authority: Authority, tmp_path: Path, clock: FakeClock) -> tuple[Path, Path]:
    key, leaf = authority.issue(["door.example.com", "*.wild.example.com"], [HOME], clock.now())
    (tmp_path / "own.key").write_bytes(key)
    (tmp_path / "own.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    return tmp_path / "own.pem", tmp_path / "own.key"


@pytest.mark.parametrize("host", ["door.example.com", "a.wild.example.com", "127.0.0.1"])
def test_own_files(own: tuple[Path, Path], clock: FakeClock, authority: Authority, host: str) -> None:
    certificate: ServerCertificate = OwnCertificate(*own, host, clock)
    assert _handshake(certificate.context, _trusting(authority), host).version() == "TLSv1.3"
    assert certificate.refresh() is False


def test_own_files_are_read_again_when_they_changed(
    own: tuple[Path, Path], clock: FakeClock, authority: Authority
) -> None:
    certificate = OwnCertificate(*own, "door.example.com", clock)
    before = certificate.leaf
    key, leaf = authority.issue(["door.example.com"], [], clock.now())
    own[0].write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    os.utime(own[0], ns=(1, 1))
    with pytest.raises(CertificateError, match="does not belong"):
        certificate.refresh()
    # The key had not arrived yet; what was there before still answers.
    assert certificate.leaf == before
    assert _handshake(certificate.context, _trusting(authority), "door.example.com").version() == "TLSv1.3"
    own[1].write_bytes(key)
    assert certificate.refresh() is True
    assert certificate.leaf == leaf


def test_own_files_that_cannot_serve(own: tuple[Path, Path], clock: FakeClock, tmp_path: Path) -> None:
    pem, key = own
    other = ec.generate_private_key(ec.SECP256R1())
    rsa_key = rsa.generate_private_key(65537, 2048)
    plain = serialization.NoEncryption()
    locked = serialization.BestAvailableEncryption(b"x")
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    (tmp_path / "other.key").write_bytes(other.private_bytes(*form, plain))
    (tmp_path / "rsa.key").write_bytes(rsa_key.private_bytes(*form, plain))
    (tmp_path / "locked.key").write_bytes(other.private_bytes(*form, locked))
    cases = [
        (tmp_path / "none.pem", key, "door.example.com", "cannot be read: No such file"),
        (pem, tmp_path / "none.key", "door.example.com", "cannot be read: No such file"),
        (pem, tmp_path / "other.key", "door.example.com", "does not belong"),
        (pem, tmp_path / "rsa.key", "door.example.com", "does not belong"),
        (pem, tmp_path / "locked.key", "door.example.com", "has a passphrase"),
        (key, key, "door.example.com", "no certificate in the file"),
        (pem, pem, "door.example.com", "no private key"),
        (pem, key, "elsewhere.example.com", "not for elsewhere.example.com, but for door.example.com"),
        (pem, key, "a.b.wild.example.com", "not for"),
    ]
    for certificate, private, host, says in cases:
        with pytest.raises(CertificateError, match=says) as refused:
            OwnCertificate(certificate, private, host, clock)
        assert refused.value.cure
        assert refused.value.place
    clock.advance(LEAF_LIFE)
    with pytest.raises(CertificateError, match="ended on"):
        OwnCertificate(pem, key, "door.example.com", clock)


def test_a_certificate_that_cannot_be_kept_is_presented_all_the_same(
    authority: Authority, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        issued = IssuedCertificate(authority, "door", clock, names=("door.example",))
    # Neither the file nor half of one is there, and the listener has what it needs.
    assert sorted(file.name for file in authority.folder.iterdir()) == ["authority.key", "authority.pem"]
    _handshake(issued.context, _trusting(authority), "door.example")
    assert IssuedCertificate(authority, "door", clock, names=("door.example",)).leaf != issued.leaf
    assert (authority.folder / "door.pem").exists()


def test_workers_that_renew_at_once_end_up_with_one_leaf(authority: Authority, clock: FakeClock) -> None:
    def made() -> IssuedCertificate:
        return IssuedCertificate(authority, "relay", clock, addresses=[HOME])

    workers = [made() for _ in range(8)]
    assert len({worker.pin for worker in workers}) == 1
    clock.advance(LEAF_LIFE.total_seconds())
    renewing = [threading.Thread(target=worker.refresh) for worker in workers]
    for thread in renewing:
        thread.start()
    for thread in renewing:
        thread.join()
    (pin,) = {worker.pin for worker in workers}
    assert made().pin == pin
