import pytest
from starlette.requests import Request

from doorward.login.doors import Doors, Place, WrongDoor, asker, place_of, safe_path


def request(host: str | None) -> Request:
    headers = [] if host is None else [(b"host", host.encode())]
    return Request({"type": "http", "method": "GET", "path": "/", "headers": headers, "query_string": b""})


def test_the_host_says_which_door() -> None:
    doors = Doors("https://Door.example.com", 8080)
    main = Place("https://door.example.com", "door.example.com")
    local = Place("http://localhost:8080", "localhost")
    assert doors.of(request("door.example.com")) == main
    assert doors.of(request("DOOR.example.com:443")) == main
    assert doors.of(request("localhost:8080")) == local
    assert (main.secure, main.port, local.secure, local.port) == (True, 443, False, 8080)
    for other in ("evil.example.com", "door.example.com:8443", "localhost", "127.0.0.1:8080", "", None):
        assert doors.of(request(other)) is None
        with pytest.raises(WrongDoor) as refused:
            doors.require(request(other))
        assert "https://door.example.com" in refused.value.cure
        assert "http://localhost:8080" in refused.value.cure
    assert doors.origins == {"https://door.example.com", "http://localhost:8080"}
    assert Doors("https://door.example.com").local is None
    assert Doors("https://door.example.com:443").origins == {"https://door.example.com"}


def test_a_door_may_have_a_path_that_is_none_of_its_origin() -> None:
    doors = Doors("https://intranet.example.com/tailnet/", 8080)
    assert doors.main == Place("https://intranet.example.com", "intranet.example.com", "/tailnet")
    assert doors.main.base == "https://intranet.example.com/tailnet"
    assert doors.local is not None
    assert doors.local.base == doors.local.origin
    assert doors.of(request("intranet.example.com:443")) == doors.main
    assert doors.origins == {"https://intranet.example.com", "http://localhost:8080"}
    with pytest.raises(WrongDoor) as refused:
        doors.require(request("other.example.com"))
    assert "https://intranet.example.com/tailnet" in refused.value.cure


def test_an_origin_is_written_as_browsers_do() -> None:
    assert place_of("https://[fd7a::1]:8443/x").origin == "https://[fd7a::1]:8443"
    assert place_of("http://localhost:80").origin == "http://localhost"


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("/me", "/me"),
        ("/check/abc?refresh=no", "/check/abc?refresh=no"),
        ("https://evil.example.com", "/me"),
        ("//evil.example.com", "/me"),
        ("/\\evil.example.com", "/me"),
        ("/a\\b", "/me"),
        ("/a\r\nSet-Cookie: x", "/me"),
        ("/\t/evil.example.com", "/me"),
        ("javascript:alert(1)", "/me"),
        ("", "/me"),
        ("/" + "a" * 1000, "/me"),
        ("/ümlaut", "/me"),
    ],
)
def test_nobody_is_sent_elsewhere(given: str, path: str) -> None:
    assert safe_path(given) == path


def test_limits_count_devices_and_else_addresses() -> None:
    outside = Request({"type": "http", "headers": [], "client": ("192.0.2.7", 1)})
    inside = Request({"type": "http", "headers": [], "client": ("127.0.0.1", 1), "state": {"identity": "n1"}})
    assert asker(inside) == "node:n1"
    assert asker(outside) not in {
        asker(inside),
        asker(Request({"type": "http", "headers": [], "client": None})),
    }
