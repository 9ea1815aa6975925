"""What an operator writes: the settings file, the environment, addresses to listen on; and the ports kept in a file."""

import tempfile
from contextlib import suppress
from pathlib import Path

from tests.fuzz.feeding import argument_of, feed

from doorward import config
from doorward.config import folders
from doorward.config.check import is_dns_name
from doorward.config.settings import Apps, ConfigError, Settings, leaves, split_listen

COVERS = (
    "config.check:check",
    "config.check:_check_url",
    "config.check:_check_audit",
    "config.check:_is_syslog",
    "config.check:_check_door",
    "config.check:_check_origin",
    "config.check:_is_address",
    "config.check:_check_acme",
    "config.check:_check_challenge",
    "config.check:_web_host",
    "config.check:is_dns_name",
    "config.folders:load_ports",
    "config.load:load",
    "config.load:decode",
    "config.load:_take_file",
    "config.load:_take_environment",
    "config.load:_line_of",
    "config.load:_convert",
    "config.load:_from_text",
    "config.settings:Settings.known_numbers",
    "config.settings:Settings.ordered",
    "config.settings:Settings.plain_listener",
    "config.settings:Settings.private_networks",
    "config.settings:Settings.proxies",
    "config.settings:Settings.relay_listens_on",
    "config.settings:Settings.settled",
    "config.settings:split_listen",
)
LIMIT = 64 << 10  # a file of the operator's own: it is read whole, and is not an attacker's
SEEDS = (
    b"3=7234567890123456, 4=5",
    (
        b'listen = "0.0.0.0:8080"\nurl = "http://192.168.1.5:8080"\ndoor = "https://door.example.com"\ndomain = "ts.example"\n'
        b'trusted_proxies = ["10.0.0.0/8"]\n[relay]\nenabled = true\nregion = 901\nmaps = ["a.json", "https://x/y"]\n'
        b'[addresses]\nipv4 = "100.64.0.0/16"\nipv6 = "fd7a:115c:a1e0::/64"\n[log]\nlevel = "debug"\njson = true\n'
        b'[tls.url]\ncert = "c.pem"\nkey = "k.pem"\n[ports]\ndoor = 8443\n[policy]\nfile = "p.hujson"\n'
    ),
    b'url = "https://control.example.com:8443"\ndoor = "http://localhost:9"\ntailscaled = "off"\n',
    (
        b'listen = "127.0.0.1:8443"\nurl = "https://control.example.com"\ndoor = "https://door.example.com"\n[tls.acme]\n'
        b'directory = "https://ca.example/dir"\nagree = true\nemail = "me@example.com"\nchallenge = "http-01"\n'
    ),
    b"relay = {enabled = false}\n\"domain\" = 'x.y'\n",
    b'{"listen":1,"door":2,"relay":3,"stun":4}',
    b"[::1]:8080",
    b"https://[fe80::1%25eth0]:1/",
    b'relay = {listen = "::1"}\n[console]\norigins = ["https://console.example.com:8443"]\n',
    b"door.example.com",
    b"10.0.0.0/8, 192.0.2.7",
    b'[audit]\nfile = "a.jsonl"\nsyslog = "tls://[::1]:6514"\nwebhook = "https://u@x/y"\n',
    b'audit = {syslog = "unix:/dev/log", webhook = "http://[::1"}\n',
    b"true",
)
WORDS = tuple(leaf.name.encode() for leaf in leaves())


def _file(folder: Path, data: bytes) -> None:
    path = folder / "doorward.toml"
    path.write_bytes(data)
    settings = config.load(path, {"DOORWARD_DATA_DIR": str(folder), "HOME": str(folder)}, {})
    settings.plain_listener()
    settings.relay_listens_on()


def _kept(folder: Path, data: bytes) -> None:
    (folder / folders.PORTS_NAME).write_bytes(data)
    folders.load_ports(folder)


def fuzz(data: bytes) -> None:
    """As a file, as each variable, as a flag, as each kind of address: refused with a ConfigError, or taken."""
    text = argument_of(data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        feed(
            data, lambda given: _file(folder, given), lambda given: _kept(folder, given), refusal=ConfigError
        )
        (folder / "doorward.toml").unlink()
        base = {"DOORWARD_DATA_DIR": name}
        if "\0" not in text and len(data) <= 300:  # no variable holds a NUL
            leaf = leaves()[1 + len(data) % (len(leaves()) - 1)]  # the first is the data directory
            feed(
                text, lambda given: config.load(None, base | {leaf.variable: given}, {}), refusal=ConfigError
            )
            feed(
                text,
                lambda given: config.load(None, base, {"url": given, "door": given}),
                refusal=ConfigError,
            )
    feed(text, split_listen, refusal=ConfigError)
    is_dns_name(text)
    with suppress(ValueError):
        Settings(trusted_proxies=(text,)).proxies()
    with suppress(ValueError):
        Settings(apps=Apps(networks=(text,))).private_networks()
    with suppress(ValueError):
        numbers = Settings(apps=Apps(tsidp_numbers=tuple(text.split(",")))).known_numbers()
        assert len(set(numbers.values())) == len(numbers)
    whole = config.encode(Settings())
    assert config.decode(whole) == Settings()
