import pytest

from doorward.errors import BadInput
from doorward.login.redirects import LONGEST, allows, check_redirect, is_local, origin_of, shown_host

GOOD = [
    "https://grafana.example.com/login",
    "https://app.example.com:8443/cb?kept=1",
    "http://127.0.0.1/cb",
    "http://[::1]:9000/cb",
    "http://localhost:8250/oidc/callback",
]
BAD = [
    "",
    "https://",
    "grafana.example.com/login",
    "http://grafana.example.com/login",
    "http://127.0.0.1.example.com/cb",
    "http://grafana/login",
    "https://app.example.com/cb#part",
    "https://user@app.example.com/cb",
    "https://*.example.com/cb",
    "https://app.example.com\\@evil.example/cb",
    "https://app.example.com/c b",
    "https://app.example.com/\x00",
    "https://app.example.com/\n",
    'https://app.example.com/"',
    "https://bücher.example/cb",
    "https://[::1/cb",
    "https://app.example.com:99999/cb",
    "javascript:alert(1)",
    "JavaScript:alert(1)",
    "data:text/html,x",
    "file:///etc/passwd",
    "blob:https://app.example.com/x",
    "view-source:https://app.example.com",
    "ws://app.example.com/",
    "https://app.example.com/" + "a" * LONGEST,
]


@pytest.mark.parametrize("uri", GOOD)
def test_an_app_may_be_answered_there(uri: str) -> None:
    check_redirect(uri, public=False)
    assert allows(uri, uri)


@pytest.mark.parametrize("uri", BAD)
def test_no_app_is_answered_there(uri: str) -> None:
    for public in (False, True):
        with pytest.raises(BadInput):
            check_redirect(uri, public=public)


def test_a_scheme_of_its_own_is_for_programs_without_a_secret() -> None:
    check_redirect("com.example.app:/cb", public=True)
    for uri, public in (("com.example.app:/cb", False), ("myapp:/cb", True)):
        with pytest.raises(BadInput):
            check_redirect(uri, public=public)


@pytest.mark.parametrize(
    ("registered", "asked"),
    [
        ("http://127.0.0.1/cb", "http://127.0.0.1:51234/cb"),
        ("http://127.0.0.1:1/cb", "http://127.0.0.1/cb"),
        ("http://[::1]/cb?a=1", "http://[::1]:7/cb?a=1"),
        ("http://localhost/cb", "http://localhost:7/cb"),
    ],
)
def test_the_port_of_a_loopback_address_is_free(registered: str, asked: str) -> None:
    assert allows(registered, asked)


@pytest.mark.parametrize(
    ("registered", "asked"),
    [
        ("https://app.example.com/cb", "https://app.example.com:443/cb"),
        ("https://app.example.com/cb", "https://app.example.com/cb/"),
        ("https://app.example.com/cb", "https://app.example.com/CB"),
        ("https://app.example.com/cb", "https://App.example.com/cb"),
        ("https://app.example.com/cb", "https://app.example.com/%63b"),
        ("https://app.example.com/cb", "https://app.example.com/cb?x=1"),
        ("https://app.example.com/cb", "https://app.example.com/cb#x"),
        ("http://127.0.0.1/cb", "http://localhost/cb"),
        ("http://127.0.0.1/cb", "http://127.0.0.1:7/other"),
        ("http://127.0.0.1/cb", "https://127.0.0.1/cb"),
        ("http://127.0.0.1/cb", "http://127.0.0.1:7@evil.example/cb"),
        ("http://127.0.0.1", "http://127.0.0.1.evil.example"),
        ("http://localhost/cb", "http://localhost:123456/cb"),
        ("http://localhost/cb", "http://localhost:7/cb\n"),
    ],
)
def test_anything_else_is_another_address(registered: str, asked: str) -> None:
    assert not allows(registered, asked)


def test_where_an_answer_goes_is_shown() -> None:
    assert shown_host("https://app.example.com:8443/cb") == "app.example.com:8443"
    assert shown_host("http://127.0.0.1:7/cb") == "127.0.0.1 (a program on this device)"
    assert shown_host("com.example.app:/cb") == "com.example.app:"
    assert origin_of("https://app.example.com:8443/cb") == "https://app.example.com:8443"
    assert origin_of("com.example.app:/cb") == "com.example.app:"
    assert [is_local(uri) for uri in ("https://a.example/", "http://[::1]/", "com.a:/")] == [
        False,
        True,
        True,
    ]
