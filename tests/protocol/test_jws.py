import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import BadInput
from doorward.protocol.jws import read_bytes, read_object


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@given(st.binary())
def test_what_was_encoded_is_read(raw: bytes) -> None:
    assert read_bytes(encoded(raw), "the token", BadInput) == raw


@pytest.mark.parametrize("part", ["A", "AAAAA", "AA==", "A+A/", "AA A", "AA\n", "AAA\u0661", "AA.A"])
def test_there_is_no_other_form(part: str) -> None:
    with pytest.raises(BadInput, match="the token cannot be decoded"):
        read_bytes(part, "the token", BadInput)
    with pytest.raises(BadInput, match="the token cannot be decoded"):
        read_object(part, "the token", BadInput)


@pytest.mark.parametrize("raw", [b"", b"[]", b"7", b"{", b'"\xff"', b"[" * 10_000, b"null"])
def test_a_part_is_an_object(raw: bytes) -> None:
    with pytest.raises(BadInput, match="a part of the proof is no JSON object"):
        read_object(encoded(raw), "the proof", BadInput)
    assert read_object(encoded(b'{"a": [1]}'), "the proof", BadInput) == {"a": [1]}
