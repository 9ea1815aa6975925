"""What is kept of ACME: whole, secret, and read without trust in what a crash or a hand left there."""

import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from tests.support.clock import FakeClock

from doorward.server import tls
from doorward.server.acme.folder import Answer, Folder, State, leaf_pem

HOST = "door.example.com"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "tls" / "acme")


def issued(folder: Path, clock: FakeClock, host: str = HOST) -> bytes:
    """What an authority answers: a key, a leaf and its chain."""
    authority = tls.Authority.open(folder / "somebody", clock)
    key, leaf = authority.issue((host,), (), clock.now())
    return key + leaf_pem(leaf) + authority.pem.encode()


def test_an_account_s_key_is_made_once_for_each_directory_and_secret(folder: Folder) -> None:
    first = folder.account_key("https://a.example/dir")
    assert folder.account_key("https://a.example/dir") == first
    assert folder.account_key("https://b.example/dir") != first
    serialization.load_pem_private_key(first, None)
    files = list(folder.path.glob("account-*.key"))
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


def test_a_certificate_is_kept_whole_or_refused(folder: Folder, clock: FakeClock, tmp_path: Path) -> None:
    assert folder.certificate(HOST, clock.now()) is None
    pem = issued(tmp_path, clock)
    leaf = folder.keep_certificate(HOST, pem, clock.now())
    held = folder.certificate(HOST, clock.now())
    assert held is not None
    assert (held.pem, held.leaf) == (pem, leaf)
    assert stat.S_IMODE(folder.certificate_file(HOST).stat().st_mode) == 0o600
    other_key = issued(tmp_path, clock).partition(b"-----BEGIN CERTIFICATE")[0]
    mixed = other_key + b"".join(pem.partition(b"-----BEGIN CERTIFICATE")[1:])
    for bad, reason in (
        (issued(tmp_path, clock, "other.example.com"), "is not for door.example.com"),
        (mixed, "belongs to another key"),
        (b"<html>", "no certificate"),
        (pem.partition(b"-----BEGIN CERTIFICATE")[0], "no certificate"),
        (leaf_pem(leaf), "no private key"),
    ):
        with pytest.raises(tls.CertificateError, match=reason):
            folder.keep_certificate(HOST, bad, clock.now())
    kept = folder.certificate(HOST, clock.now())
    assert kept is not None
    assert kept.leaf == leaf


def test_one_that_has_ended_is_none(folder: Folder, clock: FakeClock, tmp_path: Path) -> None:
    folder.keep_certificate(HOST, issued(tmp_path, clock), clock.now())
    clock.advance(tls.LEAF_LIFE + timedelta(seconds=1))
    assert folder.certificate(HOST, clock.now()) is None


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"\xff\xfe", b'{"failures":"many"}'])
def test_what_is_damaged_counts_as_not_there(folder: Folder, clock: FakeClock, damage: bytes) -> None:
    for name in (f"{HOST}.json", f"{HOST}.pem", "answers.json"):
        (folder.path / name).write_bytes(damage)
    assert folder.state(HOST) == State()
    assert folder.answers() == ()
    assert folder.certificate(HOST, clock.now()) is None


def test_state_and_answers_come_back_as_they_were(folder: Folder, clock: FakeClock) -> None:
    state = State(
        failures=2, last=clock.now(), next=clock.now(), reason="no", firm=True, directory="https://d"
    )
    folder.keep_state(HOST, state)
    assert folder.state(HOST) == state
    answers = (Answer(host=HOST, challenge="http-01", token="t", authorization="t.x"),)
    folder.keep_answers(answers)
    assert folder.answers() == answers
    folder.keep_answers(())
    assert not (folder.path / "answers.json").exists()
    folder.keep_answers(())


def test_the_leaf_alone_is_what_an_authority_is_asked_about(clock: FakeClock, tmp_path: Path) -> None:
    leaf = x509.load_pem_x509_certificates(issued(tmp_path, clock))[0]
    assert leaf_pem(leaf).count(b"BEGIN") == 1
