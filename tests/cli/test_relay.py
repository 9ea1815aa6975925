"""``doorward relay``: what the command line says reaches the relay. That it runs is in tests/server/test_relay_process.py."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.support.scripts import run_captured

from doorward.server.relay_process import RelayOptions


def test_what_is_given_reaches_the_relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[RelayOptions] = []

    def taken(options: RelayOptions, environ: Mapping[str, str]) -> int:
        assert environ is os.environ
        seen.append(options)
        return 3

    monkeypatch.setattr("doorward.server.relay_process.run", taken)
    monkeypatch.setenv("DOORWARD_DATA_DIR", str(tmp_path))
    assert run_captured(["relay", "--hostname", "relay.example.com", "--admit-anyone"]) == (3, [], [])
    assert seen.pop() == RelayOptions(
        folder=tmp_path / "relay",
        hostname="relay.example.com",
        listen="0.0.0.0:443",
        stun="0.0.0.0:3478",
        admit_anyone=True,
    )
    line = (
        "relay --hostname 192.0.2.7 --listen [::]:8443 --stun off --verify-url http://192.0.2.1:8080/verify"
    )
    line += " --verify-fail-open --cert c.pem --cert-key k.pem --key-file derp.key --mesh-key-file mesh.key"
    line += " --mesh-with https://a https://b:8443 --shards 4 --data-dir /srv/x --log-level debug"
    assert run_captured(line.split())[0] == 3
    assert seen.pop() == RelayOptions(
        folder=Path("/srv/x/relay"),
        hostname="192.0.2.7",
        listen="[::]:8443",
        certificate=Path("c.pem"),
        certificate_key=Path("k.pem"),
        key_file=Path("derp.key"),
        verify_url="http://192.0.2.1:8080/verify",
        fail_open=True,
        mesh_key_file=Path("mesh.key"),
        mesh_with=("https://a", "https://b:8443"),
        shards=4,
        log_level="debug",
    )


def test_a_map_is_printed_and_nothing_runs(tmp_path: Path) -> None:
    line = ["relay", "--hostname", "relay.example.com", "--data-dir", str(tmp_path)]
    code, out, err = run_captured([*line, "--print-map", "901", "New York"])
    assert (code, err) == (0, [])
    region = json.loads("\n".join(out))["Regions"]["901"]
    assert region["RegionName"] == "New York"
    assert region["Nodes"][0]["CertName"].startswith("sha256-raw:")
    assert run_captured([*line, "--print-map", "901", "New York"])[1] == out


def test_whom_it_admits_must_be_said(tmp_path: Path) -> None:
    code, out, err = run_captured(["relay", "--hostname", "relay.example.com", "--data-dir", str(tmp_path)])
    assert (code, out) == (1, [])
    assert "not said whom the relay admits" in err[0]
    assert "--verify-url" in err[1]
    assert not (tmp_path / "relay").exists()
