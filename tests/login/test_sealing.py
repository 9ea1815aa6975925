"""Client secrets at rest."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import BadInput, Unavailable
from doorward.login.sealing import Sealer

ISSUER = "https://id.example.com"
SEALER = Sealer(bytes(range(32)), os.urandom)


@pytest.mark.parametrize("secret", ["", "s", "s3cret/+ä", "x" * 2000])
def test_what_is_sealed_opens_to_what_it_was(secret: str) -> None:
    kept = SEALER.seal(secret, ISSUER)
    assert SEALER.open(kept, ISSUER) == secret
    assert len(secret) < 5 or secret not in kept


def test_no_two_are_alike_and_all_are_bound() -> None:
    kept = SEALER.seal("secret", ISSUER)
    assert kept != SEALER.seal("secret", ISSUER)
    spoilt = kept[:-6] + ("A" if kept[-6] != "A" else "B") + kept[-5:]
    tries = (
        (SEALER, kept, "https://evil.example.com"),  # the row of a provider that somebody else runs
        (Sealer(bytes(32), os.urandom), kept, ISSUER),
        (SEALER, spoilt, ISSUER),
        (SEALER, kept[:20], ISSUER),
        (SEALER, "sealed-1.", ISSUER),
        (SEALER, "plain text from the database", ISSUER),
        (SEALER, "sealed-1.ü", ISSUER),
    )
    for sealer, text, issuer in tries:
        with pytest.raises(Unavailable) as refused:
            sealer.open(text, issuer)
        assert "providers change" in refused.value.cure
        assert "plain text" not in refused.value.sentence()


@pytest.mark.parametrize("secret", ["a\nb", "\x00", "x" * 2001])
def test_what_cannot_be_a_secret(secret: str) -> None:
    with pytest.raises(BadInput) as refused:
        SEALER.seal(secret, ISSUER)
    assert refused.value.place == "$.client_secret"
    assert secret not in refused.value.sentence()


@given(st.text())
def test_whatever_stands_in_the_database_is_opened_or_refused(kept: str) -> None:
    try:
        assert SEALER.open(kept, ISSUER) == ""
    except Unavailable:
        return
