import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import BadInput
from doorward.tailnet import secrets


@given(st.binary(min_size=secrets.ENTROPY, max_size=secrets.ENTROPY))
def test_a_secret_is_found_again_by_its_digest_alone(entropy: bytes) -> None:
    secret = secrets.make(secrets.AUTH_KEY, entropy)
    assert secrets.digest(f"  {secret.text}\n") == secret.digest
    assert secret.text.startswith(secret.prefix + "-")
    assert secret.text.removeprefix(secret.prefix) not in secret.prefix
    assert len(secret.digest) == 32


@given(st.binary(min_size=24, max_size=24), st.binary(min_size=24, max_size=24))
def test_other_entropy_other_secret(one: bytes, other: bytes) -> None:
    assert (secrets.make("k", one).digest == secrets.make("k", other).digest) == (one == other)


def test_a_code_carries_160_bits() -> None:
    code = secrets.make_code(bytes(range(24)))
    assert len(code.text) == 32
    assert secrets.digest(code.text) == code.digest


def test_too_little_entropy_is_refused() -> None:
    for make in (lambda raw: secrets.make("k", raw), secrets.make_code):
        with pytest.raises(BadInput, match="24 random bytes"):
            make(b"short")
