from pathlib import Path

import pytest

from doorward.config import ConfigError, Settings, is_dns_name, load


def _load(tmp_path: Path, **flags: object) -> Settings:
    return load(environ={"HOME": str(tmp_path)}, flags={"data_dir": str(tmp_path)} | flags)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "http://localhost:8080",
        "http://192.168.1.2:80",
        "http://10.0.0.1",
        "http://172.31.0.1",
        "http://[fd00::1]:8080",
        "https://control.example.com",
        "https://203.0.113.9",
    ],
)
def test_a_control_address_that_clients_come_back_to(tmp_path: Path, url: str) -> None:
    _load(tmp_path, url=url)


@pytest.mark.parametrize(
    "url",
    [
        "http://control.example.com",
        "http://myhost:8080",
        "http://8.8.8.8",
        "http://172.32.0.1",
        "http://100.64.0.1",
        "http://169.254.1.1",
        "http://[2001:db8::1]:8080",
        "http://[fe80::1]:8080",
        "http://localhost.example.com",
    ],
)
def test_plain_http_that_clients_would_never_redial_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="connect once and never again") as refused:
        _load(tmp_path, url=url)
    assert refused.value.place == "--url"
    assert "https" in refused.value.cure


def test_the_same_holds_for_an_address_that_follows_from_listen(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="never again"):
        _load(tmp_path, listen="203.0.113.9:80")
    with pytest.raises(ConfigError, match="without --url"):
        _load(tmp_path, listen="0.0.0.0:80")
    _load(tmp_path, listen="0.0.0.0:80", url="http://192.168.1.2")


@pytest.mark.parametrize("domain", ["example.com", "control.example.com"])
def test_control_may_not_lie_inside_the_magic_dns_domain(tmp_path: Path, domain: str) -> None:
    with pytest.raises(ConfigError, match="inside the MagicDNS domain"):
        _load(tmp_path, url="https://control.example.com", domain=domain)
    _load(tmp_path, url="https://control.example.com", domain="net.example.com")
    _load(tmp_path, url="https://mycontrol.example.com", domain="control.example.com")


@pytest.mark.parametrize("url", ["x", "ftp://a", "http://", "https://a/", "https://u@a", "https://a:x"])
def test_addresses_are_an_origin(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="not an address of the form"):
        _load(tmp_path, url=url)
    with pytest.raises(ConfigError, match="not an address of the form"):
        _load(tmp_path, door=url)


@pytest.mark.parametrize("path", ["/tailnet", "/a/b.c/d_e-f", "/" + "x" * 99])
def test_the_door_may_have_a_path_and_control_may_not(tmp_path: Path, path: str) -> None:
    _load(tmp_path, door=f"https://intranet.example.com:8443{path}")
    with pytest.raises(ConfigError, match="not an address of the form"):
        _load(tmp_path, url=f"https://control.example.com{path}")


@pytest.mark.parametrize(
    "path",
    [
        "/x/",
        "//x",
        "/x//y",
        "/..",
        "/x/../y",
        "/.well-known",
        "/a%20b",
        "/a b",
        "/a?b",
        "/a#b",
        "/ü",
        "/a\n",
        "/;a",
        "/" + "x" * 100,
    ],
)
def test_a_path_that_could_be_written_in_two_ways_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="not an address of the form") as refused:
        _load(tmp_path, door=f"https://intranet.example.com{path}")
    assert "slashes at the end" in refused.value.cure


@pytest.mark.parametrize(
    ("door", "says"),
    [
        ("http://door.example.com", "not https"),
        ("https://192.168.1.2", "no DNS name"),
        ("https://control.example.com:8443", "same name"),
    ],
)
def test_doors_that_cannot_work(tmp_path: Path, door: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        _load(tmp_path, url="https://control.example.com", door=door)


def test_doors_that_can(tmp_path: Path) -> None:
    _load(tmp_path, door="http://localhost:8080")
    _load(tmp_path, door="https://door.example.com")


@pytest.mark.parametrize(
    "domain", ["internal", "a..b", "A.b", "a.b.", "-a.b", "1.2.3.4", "", "a." + "b" * 64, "a." * 101 + "b"]
)
def test_domains_that_are_none(tmp_path: Path, domain: str) -> None:
    with pytest.raises(ConfigError, match="not a domain") as refused:
        _load(tmp_path, domain=domain)
    assert refused.value.place == "--domain"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("addresses.ipv4", "10.0.0.0/8"),
        ("addresses.ipv4", "100.64.0.0/9"),
        ("addresses.ipv6", "fd00::/8"),
        ("relay.maps", ["http://example.com/derp.json"]),
        ("tls.url.cert", "/a.pem"),
        ("tls.door.key", "/a.pem"),
        ("listen", "8080"),
        ("apps.networks", ["10.0.0.1/8"]),
        ("apps.networks", ["wiki.lan"]),
        ("apps.tsidp_numbers", ["ann=7"]),
        ("apps.tsidp_numbers", ["3=userid:7"]),
        ("apps.tsidp_numbers", ["3=7", "4=007"]),
        ("apps.tsidp_numbers", ["3=7", "03=8"]),
        ("audit.syslog", "logs.example.com"),
        ("audit.syslog", "unix:dev/log"),
        ("audit.syslog", "http://logs.example.com"),
        ("audit.syslog", "tcp://logs.example.com/x"),
        ("audit.syslog", "tcp://logs.example.com:99999"),
        ("audit.webhook", "http://example.com/hook"),
        ("audit.webhook", "https://user:hunter2@example.com/hook"),
        ("audit.webhook", "https://"),
        ("audit.webhook", "ftp://example.com"),
        ("audit.webhook", "https://[::1/hunter2"),
    ],
)
def test_other_settings_that_cannot_hold(tmp_path: Path, name: str, value: object) -> None:
    with pytest.raises(ConfigError) as refused:
        _load(tmp_path, **{name: value})
    assert refused.value.cure
    assert refused.value.place == "--" + name.replace(".", "-").replace("_", "-")
    assert "hunter2" not in refused.value.sentence()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("audit.syslog", "unix:/dev/log"),
        ("audit.syslog", "udp://192.0.2.1"),
        ("audit.syslog", "tls://[2001:db8::1]:6514"),
        ("audit.webhook", "https://example.com/hook?token=x"),
        ("audit.webhook", "http://localhost:9000/"),
    ],
)
def test_where_the_audit_log_may_go(tmp_path: Path, name: str, value: str) -> None:
    _load(tmp_path, **{name: value})


@pytest.mark.parametrize("address", ["", "http://192.168.1.5:8080"])
def test_a_certificate_that_nothing_would_use_is_refused(tmp_path: Path, address: str) -> None:
    pair = {"tls.url.cert": "/a.pem", "tls.url.key": "/a.key"}
    with pytest.raises(ConfigError, match=r"plain http$") as refused:
        _load(tmp_path, **pair, **({"url": address} if address else {}))
    assert refused.value.cure == "Write https in url, or take tls.url.cert and tls.url.key away."
    assert refused.value.place == "--tls-url-cert"
    _load(tmp_path, **pair, url="https://control.example.com")


def test_nor_one_for_a_door_without_tls(tmp_path: Path) -> None:
    pair = {"tls.door.cert": "/a.pem", "tls.door.key": "/a.key"}
    with pytest.raises(ConfigError, match=r"tls\.door is a certificate for http://localhost:9"):
        _load(tmp_path, **pair, door="http://localhost:9")
    _load(tmp_path, **pair, door="https://door.example.com")


def test_several_workers_share_postgresql_alone(tmp_path: Path) -> None:
    def load_with(**flags: object) -> int:
        return load(environ={}, flags={"data_dir": str(tmp_path), **flags}).workers

    assert load_with() == 1
    for url in ("", "sqlite:///x.db"):
        with pytest.raises(ConfigError, match="cannot share SQLite") as refused:
            load_with(workers=2, **{"database.url": url})
        assert refused.value.place == "--workers"
        assert "database.url" in refused.value.cure
    assert load_with(workers=1, **{"database.url": "sqlite:///x.db"}) == 1
    assert load_with(workers=4, **{"database.url": "postgresql://u@h/d"}) == 4
    for count in (0, 65):
        with pytest.raises(ConfigError, match="workers"):
            load_with(workers=count, **{"database.url": "postgresql://u@h/d"})


def test_is_dns_name() -> None:
    assert is_dns_name("a-b.example.com")
    assert not is_dns_name("a_b.example.com")
    assert not is_dns_name("127.0.0.1")
    assert not is_dns_name("::1")


ACME = {
    "url": "https://control.example.com",
    "door": "https://door.example.com",
    "tls.acme.directory": "https://ca.example/dir",
    "tls.acme.agree": True,
}
DNS = {"tls.acme.challenge": "dns-01"}


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"tls.acme.email": "me@example.com"},
        {"tls.acme.challenge": "http-01"},
        {"tls.acme.challenge": "http-01", "tls.acme.listen": "0.0.0.0:80"},
        {"url": "http://192.168.1.2", "tls.acme.challenge": "http-01"},
        {"url": "http://192.168.1.2", **DNS, "tls.acme.hook": "/usr/bin/hook"},
        {**DNS, "tls.acme.dns.server": "192.0.2.1", "tls.acme.dns.key": "/key"},
        {"tls.acme.names": ["url"], "door": None},
        {"tls.url.cert": "a.pem", "tls.url.key": "a.key"},
    ],
)
def test_acme_that_can_work(tmp_path: Path, flags: dict[str, object]) -> None:
    _load(tmp_path, **ACME | flags)


@pytest.mark.parametrize(
    ("flags", "message", "place"),
    [
        ({"tls.acme.directory": "http://ca.example/dir"}, "not an https address", "directory"),
        ({"tls.acme.directory": "https://ca.example:x/"}, "not an https address", "directory"),
        ({"tls.acme.directory": "https://"}, "not an https address", "directory"),
        ({"tls.acme.directory": "https://ca.example/\n"}, "not an https address", "directory"),
        ({"tls.acme.agree": False}, "terms of service", "directory"),
        ({"tls.acme.email": "me, you"}, "not an e-mail", "email"),
        ({"door": None}, "no name outside", ""),
        ({"tls.acme.names": ["url"], "url": "http://127.0.0.1:8080"}, "no address to order", "directory"),
        ({"url": "https://192.0.2.1"}, "not a name that an authority", "url"),
        ({"url": "http://192.168.1.2"}, "speaks no TLS", ""),
        (DNS, "either a program", "challenge"),
        (
            {**DNS, "tls.acme.hook": "/a", "tls.acme.dns.server": "b", "tls.acme.dns.key": "/c"},
            "either a program",
            "challenge",
        ),
        ({**DNS, "tls.acme.dns.server": "b"}, "takes updates from anybody", "server"),
        ({"tls.acme.account.id": "me"}, "both an identifier and a key", "id"),
        ({"tls.acme.account.key": "/key"}, "both an identifier and a key", "key"),
        ({"tls.acme.listen": "80"}, "not an address to listen on", "listen"),
    ],
)
def test_acme_that_cannot_work_is_refused_with_its_cure(
    tmp_path: Path, flags: dict[str, object], message: str, place: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        _load(tmp_path, **ACME | flags)
    assert refused.value.place.endswith(place)
    assert refused.value.cure


def test_origins_are_written_as_browsers_send_them(tmp_path: Path) -> None:
    _load(
        tmp_path,
        **{
            "console.origins": [
                "https://console.example.com",
                "https://a.example:8443",
                "http://localhost:5173",
            ]
        },
    )


@pytest.mark.parametrize(
    ("origin", "message", "cure"),
    [
        ("*", "any page at all", "Name each"),
        ("null", "any page at all", "Name each"),
        ("console.example.com", "not an address", "paths"),
        ("https://console.example.com/", "not an address", "paths"),
        ("https://*.example.com", "no browser writes", "DNS name"),
        ("http://console.example.com", "is not https", "Use https"),
        ("https://Console.example.com", "no browser writes", "https://console.example.com."),
        ("https://console.example.com:443", "no browser writes", "https://console.example.com."),
        ("http://localhost:80", "no browser writes", "http://localhost."),
        ("https://me@console.example.com", "not an address", "paths"),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(
    tmp_path: Path, origin: str, message: str, cure: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        _load(tmp_path, **{"console.origins": [origin]})
    assert cure in refused.value.cure
    assert refused.value.place == "--console-origins"


BEHIND = {"url": "https://control.example.com", "relay.proxied": True}


def test_a_relay_behind_a_proxy_is_at_the_control_address(tmp_path: Path) -> None:
    settings = _load(tmp_path, **BEHIND, **{"relay.listen": "0.0.0.0"})
    assert settings.relay_is_at_url()
    assert not settings.url_has_certificate()
    assert settings.relay_listens_on() == "0.0.0.0"
    assert not _load(tmp_path, url="https://control.example.com").relay_is_at_url()
    assert _load(tmp_path, listen="[::1]:8080").relay_listens_on() == "::1"


@pytest.mark.parametrize(
    ("flags", "message", "place"),
    [
        (BEHIND | {"relay.host": "192.0.2.1"}, "relay.host that they do elsewhere", "--relay-proxied"),
        (BEHIND | {"url": "http://192.168.1.2"}, "which is not https", "--relay-proxied"),
        (BEHIND | {"url": None}, "which is not https", "--relay-proxied"),
        ({"relay.listen": "localhost"}, "not an address to listen on", "--relay-listen"),
        ({"relay.listen": "0.0.0.0:8444"}, "not an address to listen on", "--relay-listen"),
    ],
)
def test_a_relay_that_nobody_would_find_is_refused(
    tmp_path: Path, flags: dict[str, object], message: str, place: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        _load(tmp_path, **flags)
    assert refused.value.place == place
