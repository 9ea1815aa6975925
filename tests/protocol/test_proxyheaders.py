import pytest

from doorward.protocol.proxyheaders import is_identity_header


@pytest.mark.parametrize(
    "name",
    [
        b"Tailscale-User-Login",
        b"tailscale_user_name",
        b"TAILSCALE-APP-CAPABILITIES",
        b"Remote_User",
        b"X-Forwarded-User",
        b"X-WebAuth-User",
        b"cf-access-jwt-assertion",
    ],
)
def test_a_claim_of_identity_is_known_however_it_is_written(name: bytes) -> None:
    assert is_identity_header(name)


@pytest.mark.parametrize(
    "name", [b"host", b"authorization", b"x-forwarded-for", b"remote-port", b"\xff", b""]
)
def test_other_headers_are_left(name: bytes) -> None:
    assert not is_identity_header(name)
