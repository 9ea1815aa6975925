import pytest
from tests.support.clock import FakeClock
from tests.support.proving import proof, thumbprint

from doorward.errors import Unavailable
from doorward.identity.possession import Proofs, SeenHere
from doorward.identity.refusals import ProofRefused
from doorward.login.proofs import WINDOW

HERE = "https://api.example.com/mcp"


def made(clock: FakeClock, **more: object) -> bytes:
    return proof("POST", HERE, clock.now().timestamp(), token="t", **more).encode()  # type: ignore[arg-type]


def read(proofs: Proofs, *headers: bytes) -> object:
    return proofs.read(list(headers), method="POST", address=HERE, token="t")


async def test_a_proof_is_good_once() -> None:
    clock = FakeClock()
    proofs = Proofs(clock=clock)
    found = proofs.read([made(clock)], method="POST", address=HERE, token="t")
    assert found.thumbprint == thumbprint()
    await proofs.use(found)
    with pytest.raises(ProofRefused, match="before") as caught:
        await proofs.use(found)
    assert caught.value.code == "invalid_dpop_proof"


def test_there_is_exactly_one() -> None:
    clock = FakeClock()
    proofs = Proofs(clock=clock)
    for headers in ([], [made(clock), made(clock)], [b"x"]):
        with pytest.raises(ProofRefused) as caught:
            read(proofs, *headers)
        assert caught.value.code == "invalid_dpop_proof"


def test_with_nonces_a_proof_cannot_be_made_ahead() -> None:
    clock = FakeClock()
    proofs = Proofs(nonces=True, clock=clock)
    first = proofs.nonce()
    for bad in (None, "", "x", first[::-1]):
        with pytest.raises(ProofRefused) as caught:
            read(proofs, made(clock, nonce=bad))
        assert caught.value.code == "use_dpop_nonce"
    read(proofs, made(clock, nonce=first))
    clock.advance(120)
    assert proofs.nonce() != first
    read(proofs, made(clock, nonce=first))  # it was the one when the program made it
    clock.advance(120)
    with pytest.raises(ProofRefused):
        read(proofs, made(clock, nonce=first))


def test_processes_that_share_a_secret_know_each_other_s_nonces() -> None:
    clock = FakeClock()
    one, other, third = (Proofs(nonces=True, secret=secret, clock=clock) for secret in (b"a", b"a", b""))
    assert one.nonce() == other.nonce() != third.nonce()


async def test_what_was_seen_is_forgotten_in_time_and_never_too_soon() -> None:
    clock = FakeClock()
    seen = SeenHere(clock, most=2)
    assert await seen.first(b"a", 10)
    clock.advance(5)
    assert await seen.first(b"b", 10)
    with pytest.raises(Unavailable):  # rather than to forget one that is still good
        await seen.first(b"c", 10)
    assert not await seen.first(b"a", 10)
    clock.advance(5)
    assert await seen.first(b"a", 10)
    assert not await seen.first(b"b", 10)


async def test_a_proof_is_remembered_as_long_as_it_is_good() -> None:
    clock = FakeClock()
    proofs = Proofs(clock=clock)
    late = proof("POST", HERE, clock.now().timestamp() + WINDOW, token="t").encode()
    found = proofs.read([late], method="POST", address=HERE, token="t")
    await proofs.use(found)
    clock.advance(2 * WINDOW - 1)
    proofs.read([late], method="POST", address=HERE, token="t")  # good by itself
    with pytest.raises(ProofRefused):
        await proofs.use(found)
