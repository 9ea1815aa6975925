"""Host keys as people and programs write them."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import BadInput
from doorward.protocol.hostkeys import KINDS, MOST, fingerprint, parse_host_key

RAW = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + bytes(range(32))
KEY = f"ssh-ed25519 {base64.b64encode(RAW).decode()}"


@pytest.mark.parametrize(
    "text", [KEY, f"{KEY} root@host", f"  {KEY}\n", f"host,192.0.2.1 {KEY}", f"@revoked host {KEY} comment"]
)
def test_a_key_is_found_where_files_have_it(text: str) -> None:
    assert parse_host_key(text) == KEY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "ssh-dss AAAA",
        "ssh-ed25519 ====",
        "ssh-ed25519 AAAA",
        f"ssh-rsa {KEY.split()[1]}",
        f"ssh-ed25519 {base64.b64encode(RAW[:17]).decode()}",
        KEY + "x" * MOST,
    ],
)
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(BadInput):
        parse_host_key(text)


def test_its_fingerprint_is_what_ssh_keygen_shows() -> None:
    assert fingerprint(KEY) == "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA"


@given(st.sampled_from(sorted(KINDS)), st.binary(min_size=8, max_size=600))
def test_what_is_read_is_read_again(kind: str, rest: bytes) -> None:
    raw = len(kind).to_bytes(4) + kind.encode() + rest
    once = parse_host_key(f"{kind} {base64.b64encode(raw).decode()} comment")
    assert parse_host_key(once) == once
