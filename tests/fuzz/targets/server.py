"""Files beside the program: certificates, keys and DERP maps of an operator's, secrets of our own; and settings of systemd's."""

import contextlib
import tempfile
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import msgspec
from tests.fuzz.feeding import argument_of, feed, in_loop, text_of
from tests.support.clock import FakeClock
from tests.support.mmdb import countries

from doorward.config import Settings
from doorward.errors import BadInput
from doorward.protocol.keys import DERPPrivate, MachinePrivate
from doorward.relay.certificate import self_signed_leaf
from doorward.server import outside, relay_certificate, relay_shard, relays, sockets, tls
from doorward.server.countries import read_countries
from doorward.server.relay_process import RelayOptions
from doorward.store import secrets

COVERS = (
    "server.outside:issuer_of",
    "server.outside:Outside.is_ticket",
    "server.relay_certificate:_first",
    "server.relay_certificate:_kept_leaf",
    "server.relay_certificate:_plain",
    "server.relay_process:RelayOptions.check_hostname",
    "server.relay_shard:derp_key",
    "server.relay_shard:derp_map",
    "server.relay_shard:_address",
    "server.relays:parse",
    "server.relays:OtherRelays.read",
    "server.relays:address_of",
    "server.relays:host_of",
    "server.sockets:activated",
    "server.sockets:_count",
    "relay.certificate:self_signed_leaf",
    "server.tls:_parse_leaf",
    "server.tls:_parse_key",
    "store.secrets:load_or_create",
    "store.secrets:_read",
)
LIMIT = 256 << 10  # of a map here; a fetched one has at most MAX_MAP bytes
NOW = datetime(2026, 1, 2, tzinfo=UTC)
LEAF = self_signed_leaf("127.0.0.1", NOW).encode()
SEEDS = (
    LEAF,
    countries({"192.0.2.0/24": "DE", "2001:db8::/32": "AT"}),
    MachinePrivate(b"\x11" * 32).serialize().encode() + b"\n",
    (
        b'{"Regions":{"901":{"RegionID":901,"RegionCode":"ny","RegionName":"New York","Nodes":[{"Name":"901a","RegionID":901,'
        b'"HostName":"relay.example.com","CertName":"sha256-raw:aa","IPv4":"192.0.2.1","IPv6":"none","STUNPort":3478,"DERPPort":443,'
        b'"CanPort80":false}]}},"OmitDefaultRegions":true,"HomeParams":{"RegionScore":{"901":0.5}}}'
    ),
    b"3",
    b'{"issuer":"https://door.example.com"}',
    b"1767312000." + b"0" * 64,
    b"relay.example.com",
    b"[::]:443",
    b"https://[2001:db8::1]:8443",
)
_OUTSIDE = outside.Outside(
    Settings(),
    outside.Keys(MachinePrivate(b"\x11" * 32), DERPPrivate(b"\x11" * 32).public()),
    lambda: None,
    "",
    FakeClock(),
    bytes,
)
WORDS = (
    b"-----BEGIN CERTIFICATE-----",
    b"-----END CERTIFICATE-----",
    b"-----BEGIN PRIVATE KEY-----",
    b'"InsecureForTests":true',
)


def _files(folder: Path, data: bytes) -> None:
    file = folder / "file"
    file.write_bytes(data)
    file.chmod(0o600)
    for read in (tls._read_leaf, tls._read_key):
        feed(file, read, refusal=tls.CertificateError)
    clock = FakeClock()
    _countries(file)
    feed(
        file,
        lambda path: secrets.load_or_create(path, str),
        lambda path: MachinePrivate.parse(secrets.load_or_create(path, str)),
        lambda path: relay_shard.derp_key(
            RelayOptions(folder=folder, hostname="a", listen="", key_file=path)
        ),
        lambda path: relay_certificate._kept_leaf(path, "127.0.0.1", clock),
        lambda path: tls.OwnCertificate(path, path, "127.0.0.1", clock),
    )


def _countries(file: Path) -> None:
    with contextlib.suppress(BadInput):
        country_of = read_countries(file)
        for text in ("192.0.2.1", "2001:db8::7"):
            country = country_of(ip_address(text))
            assert country is None or len(country) == 2


async def _relays(file: Path) -> None:
    with contextlib.suppress(BadInput):
        await relays.OtherRelays([str(file)], None).read()


def _relay(folder: Path, text: str) -> None:
    """The words of ``doorward relay``'s command line."""
    options = RelayOptions(folder=folder / "relay", hostname=text, listen="0.0.0.0:443", stun="0.0.0.0:3478")
    feed(options, lambda given: relay_shard.derp_map(given, 901, "New York"))
    feed(
        text,
        lambda given: relay_shard.derp_map(
            msgspec.structs.replace(options, hostname="a", listen=given), 901, "x"
        ),
    )


def fuzz(data: bytes) -> None:
    """Used, or refused with the file's name; never a fault that says nothing."""
    text = argument_of(data)
    with tempfile.TemporaryDirectory() as folder:
        _files(Path(folder), data)
        if len(text) < 300:
            _relay(Path(folder), text)
        map_file = Path(folder) / "map.json"
        map_file.write_bytes(data)
        in_loop(lambda: _relays(map_file))
    feed(data, lambda given: relays.parse(given, "map.json"))
    feed(LEAF[:40] + data, relay_certificate._first, refusal=ValueError)
    relay_certificate._plain(text)
    relays.address_of(text)
    outside.issuer_of(data)
    assert not _OUTSIDE.is_ticket(text_of(data))
    feed(text, relays.host_of, refusal=ValueError)  # ``url`` was checked when the settings were read
    feed(
        text,
        lambda given: sockets.activated({"LISTEN_PID": "1", "LISTEN_FDS": given, "LISTEN_FDNAMES": "x"}, 1),
        refusal=sockets.SocketError,
    )
