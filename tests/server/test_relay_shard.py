"""What a relay of its own tells control's operator, and the files it keeps. The processes are in test_relay_process."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.relay import HOST, make_leaf

from doorward.errors import BadInput, Unavailable
from doorward.server import relays
from doorward.server.relay_process import RelayOptions
from doorward.server.relay_shard import _shared_mesh_key, derp_key, derp_map, open_certificate


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "relay"


def options(folder: Path, **more: object) -> RelayOptions:
    given = {"folder": folder, "hostname": HOST, "listen": f"{HOST}:8443", "admit_anyone": True, **more}
    return RelayOptions(**given)  # type: ignore[arg-type]


def node_of(told: RelayOptions) -> dict[str, Any]:
    (node,) = json.loads(derp_map(told, 901, "New York"))["Regions"]["901"]["Nodes"]
    assert isinstance(node, dict)
    return node


def test_the_map_is_one_that_control_takes(folder: Path) -> None:
    told = options(folder, stun=f"{HOST}:3479")
    (region,) = relays.parse(derp_map(told, 901, "New York"), "new-york.json")
    assert (region.RegionID, region.RegionCode, region.RegionName) == (901, "new-york", "New York")
    assert node_of(told) == {
        "Name": "901a",
        "RegionID": 901,
        "HostName": HOST,
        "CertName": open_certificate(told, derp_key(told)).pin,
        "IPv4": HOST,
        "IPv6": "none",
        "DERPPort": 8443,
        "STUNPort": 3479,
    }
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("hostname", "listen", "ipv4", "ipv6"),
    [
        ("relay.example.com", "0.0.0.0:443", None, "none"),
        ("relay.example.com", "[::]:443", None, None),
        ("192.0.2.7", "0.0.0.0:443", "192.0.2.7", "none"),
        ("2001:db8::7", "[::]:443", "none", "2001:db8::7"),
    ],
)
def test_a_family_that_it_does_not_have_is_said(
    folder: Path, hostname: str, listen: str, ipv4: str | None, ipv6: str | None
) -> None:
    node = node_of(options(folder, hostname=hostname, listen=listen))
    assert (node["HostName"], node.get("IPv4"), node.get("IPv6")) == (hostname, ipv4, ipv6)
    assert node["STUNPort"] == -1


def test_a_certificate_that_others_vouch_for_is_not_pinned(folder: Path, tmp_path: Path) -> None:
    files = {"certificate": tmp_path / "cert.pem", "certificate_key": tmp_path / "key.pem"}
    files["certificate"].write_bytes(make_leaf().pem)
    files["certificate_key"].write_bytes(make_leaf().key_pem)
    assert "CertName" not in node_of(options(folder, **files))


def test_clients_must_be_told_real_numbers(folder: Path) -> None:
    for told in (options(folder, listen=f"{HOST}:0"), options(folder, stun=f"{HOST}:0")):
        with pytest.raises(BadInput, match="must be told a port"):
            derp_map(told, 901, "x")
    for region in (0, -1, 65536):
        with pytest.raises(BadInput, match="from 1 to 65535"):
            derp_map(options(folder), region, "x")


def test_the_key_is_made_once_for_its_owner_alone(folder: Path, tmp_path: Path) -> None:
    key = derp_key(options(folder))
    assert derp_key(options(folder)) == key
    assert (folder / "derp.key").stat().st_mode & 0o777 == 0o600
    elsewhere = tmp_path / "other.key"
    assert derp_key(options(folder, key_file=elsewhere)) != key
    assert elsewhere.exists()


def test_the_mesh_key_is_never_made_and_must_be_private(folder: Path, tmp_path: Path) -> None:
    assert _shared_mesh_key(options(folder)) == ""
    file = tmp_path / "mesh.key"
    told = options(folder, mesh_key_file=file)
    with pytest.raises(BadInput, match="there is no mesh key"):
        _shared_mesh_key(told)
    file.write_text("5A" * 32 + "\n")
    file.chmod(0o644)
    with pytest.raises(Unavailable, match="can be read by others"):
        _shared_mesh_key(told)
    file.chmod(0o600)
    assert _shared_mesh_key(told) == "5a" * 32
    file.write_text("no key")
    with pytest.raises(BadInput, match="64 hex digits"):
        _shared_mesh_key(told)
