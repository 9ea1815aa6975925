from ipaddress import ip_network
from pathlib import Path

import pytest

from doorward.config import ConfigError, Settings, decode, encode, load, unknown_variables

WHOLE = """
listen = "127.0.0.1:9000"
domain = "net.internal"
trusted_proxies = ["10.0.0.0/8", "fd00::/8"]
tailscaled = "bin/tailscaled"

[database]
url = "postgresql:///doorward"

[tls.door]
cert = "certs/door.pem"
key = "/etc/door.key"

[addresses]
ipv4 = "100.100.0.0/16"
order = "random"

[relay]
enabled = false
maps = ["more.json", "https://example.com/derp.json"]

[log]
level = "debug"
json = true

[policy]
file = "policy.hujson"
"""


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return path


def _load(tmp_path: Path, text: str = "", environ: dict[str, str] | None = None, **flags: object) -> Settings:
    return load(
        _file(tmp_path, text), {"HOME": str(tmp_path)} | (environ or {}), {"data_dir": str(tmp_path)} | flags
    )


def test_nothing_said_is_enough(tmp_path: Path) -> None:
    settings = load(None, {"HOME": str(tmp_path), "DOORWARD_DATA_DIR": str(tmp_path)}, {})
    assert settings == Settings(data_dir=tmp_path)


def test_a_whole_file(tmp_path: Path) -> None:
    settings = _load(tmp_path, WHOLE)
    assert settings.proxies() == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert settings.tls.door.cert == tmp_path / "certs/door.pem"
    assert settings.tls.door.key == Path("/etc/door.key")
    assert settings.relay.maps == (str(tmp_path / "more.json"), "https://example.com/derp.json")
    assert settings.tailscaled == str(tmp_path / "bin/tailscaled")
    assert settings.policy.file == tmp_path / "policy.hujson"
    assert settings.addresses.ipv4 == ip_network("100.100.0.0/16")
    assert (settings.addresses.order, settings.log.level, settings.log.json) == ("random", "debug", True)
    assert settings.relay.enabled is False


def test_the_environment_speaks_after_the_file_and_the_command_line_last(tmp_path: Path) -> None:
    environ = {
        "DOORWARD_DOMAIN": "env.internal",
        "DOORWARD_LISTEN": "127.0.0.1:1",
        "DOORWARD_RELAY_ENABLED": "true",
        "DOORWARD_PORTS_STUN": "9999",
        "DOORWARD_RELAY_MAPS": "/a.json, https://b.example.com",
        "DOORWARD_LOG_LEVEL": "",
    }
    settings = _load(tmp_path, WHOLE, environ, listen="127.0.0.1:2", url=None)
    assert settings.domain == "env.internal"
    assert settings.listen == "127.0.0.1:2"
    assert settings.relay.enabled is True
    assert settings.ports.stun == 9999
    assert settings.relay.maps == ("/a.json", "https://b.example.com")
    assert settings.log.level == "debug"  # an empty variable counts as not set


@pytest.mark.parametrize(
    ("text", "place", "says", "cure"),
    [
        ("listne = '127.0.0.1:1'", ":1", "no setting called listne", "mean listen"),
        ("\n[relay]\nenable = true", ":3", "no setting called relay.enable", "mean relay.enabled"),
        ("[nothing]\nx = 1", ":1", "no setting called nothing", ""),
        ("relay = true", ":1", "relay is a table", "[relay]"),
        ("[tls]\ndoor = 'x'", ":2", "tls.door is a table", "[tls.door]"),
        ("\nrelay.enabled = 'yes'", ":2", "relay.enabled: expected `bool`", "settings.md"),
        ("[ports]\n\ndoor = 70000", ":3", "ports.door: ", "settings.md"),
        (
            "trusted_proxies = ['10.0.0.1/8']",
            ":1",
            "trusted_proxies: 10.0.0.1/8 has host bits set",
            "10.0.0.0/8",
        ),
        ("trusted_proxies = [1]", ":1", "trusted_proxies: expected `str`, got `int`", "settings.md"),
        ("[addresses]\nipv4 = 'x'", ":2", "addresses.ipv4: ", "settings.md"),
        ("[log]\nlevel = 'loud'", ":2", "log.level: invalid enum value", "settings.md"),
        ("[policy]\nfile = 1", ":2", "policy.file: ", "settings.md"),
        ("x = \n", ":1:5", "not TOML", "quotes"),
        ("url = 'http://example.com'", ":1", "never again", "https"),
    ],
)
def test_faults_are_placed_and_cured(tmp_path: Path, text: str, place: str, says: str, cure: str) -> None:
    with pytest.raises(ConfigError) as refused:
        _load(tmp_path, text)
    assert refused.value.place == f"{tmp_path / 'settings.toml'}{place}"
    assert says in refused.value.message
    assert cure in refused.value.cure
    assert refused.value.cure


def test_faults_in_the_environment_and_in_flags_are_placed_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        _load(tmp_path, "", {"DOORWARD_RELAY_ENABLED": "yes"})
    assert refused.value.place == "$DOORWARD_RELAY_ENABLED"
    with pytest.raises(ConfigError) as refused:
        _load(tmp_path, "", {}, **{"log.level": "loud"})
    assert refused.value.place == "--log-level"


def test_a_named_file_must_be_there_and_be_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read") as refused:
        load(tmp_path / "none.toml", {}, {"data_dir": str(tmp_path)})
    assert refused.value.place == str(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "bad.toml", {}, {"data_dir": str(tmp_path)})
    (tmp_path / "bad.toml").write_text("x = " + "[" * 5000)
    with pytest.raises(ConfigError, match="nested too deeply"):
        load(tmp_path / "bad.toml", {}, {"data_dir": str(tmp_path)})


def test_a_variable_of_other_bytes_than_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not UTF-8"):
        _load(tmp_path, "", {"DOORWARD_LOG_LEVEL": "a\udcff"})


def test_the_file_in_the_data_directory_is_read_and_may_not_name_another(tmp_path: Path) -> None:
    (tmp_path / "doorward.toml").write_text("domain = 'here.internal'")
    environ = {"HOME": "/", "DOORWARD_DATA_DIR": str(tmp_path)}
    assert load(None, environ, {}).domain == "here.internal"
    (tmp_path / "doorward.toml").write_text("data_dir = '/elsewhere'")
    with pytest.raises(ConfigError, match="another"):
        load(None, environ, {})


def test_a_named_file_may_choose_the_data_directory_and_a_flag_or_variable_overrides_it(
    tmp_path: Path,
) -> None:
    path = _file(tmp_path, "data_dir = 'data'")
    assert load(path, {"HOME": "/"}, {}).data_dir == tmp_path / "data"
    assert load(path, {"HOME": "/", "DOORWARD_DATA_DIR": "/e"}, {}).data_dir == Path("/e")
    assert load(path, {"HOME": "/", "DOORWARD_DATA_DIR": "/e"}, {"data_dir": "/f"}).data_dir == Path("/f")


def test_slips_of_the_pen_in_the_environment_are_found() -> None:
    environ = {
        "DOORWARD_DATABASE_ULR": "",
        "DOORWARD_DATABASE_URL": "",
        "DOORWARD_REQUIRE": "all",
        "PATH": "",
    }
    assert unknown_variables(environ) == ["DOORWARD_DATABASE_ULR"]


def test_settings_travel_to_another_process(tmp_path: Path) -> None:
    settings = _load(tmp_path, WHOLE)
    assert decode(encode(settings)) == settings
