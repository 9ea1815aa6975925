from pathlib import Path

import pytest

from doorward.config import ConfigError, Ports, Settings, leaves, reference, split_listen
from doorward.config.settings import Apps


def test_every_leaf_has_its_own_variable_and_a_description() -> None:
    found = leaves()
    assert len({leaf.variable for leaf in found}) == len(found)
    assert all(leaf.description.endswith(".") for leaf in found)
    assert {leaf.variable for leaf in found} >= {
        "DOORWARD_DATA_DIR",
        "DOORWARD_TLS_DOOR_CERT",
        "DOORWARD_LOG_JSON",
    }


def test_settled_derives_the_addresses_from_the_ports() -> None:
    settled = Settings(data_dir=Path("/d"), listen="127.0.0.1:0").settled(
        Ports(listen=9, door=10, relay=11, stun=12)
    )
    assert (settled.listen, settled.url) == ("127.0.0.1:9", "http://127.0.0.1:9")
    assert settled.door == "https://door.tailnet.internal:10"
    assert (settled.ports.door, settled.ports.relay, settled.ports.stun) == (10, 11, 12)


def test_settled_keeps_what_was_given_and_leaves_out_the_usual_https_port() -> None:
    assert Settings(url="https://c.example.com").settled(Ports()).url == "https://c.example.com"
    assert Settings().settled(Ports(door=443)).door == "https://door.tailnet.internal"
    assert Settings(listen="[::1]:0").settled(Ports(listen=7)).url == "http://[::1]:7"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:8080", "127.0.0.1", 8080), ("[::1]:0", "::1", 0), ("0.0.0.0:65535", "0.0.0.0", 65535)],
)
def test_split_listen(text: str, host: str, port: int) -> None:
    assert split_listen(text) == (host, port)


@pytest.mark.parametrize("text", ["", "8080", ":8080", "::1:8080", "a:b", "a:65536", "a:-1", "[]:1", "a:²"])
def test_split_listen_refuses(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        split_listen(text)
    assert "HOST:PORT" in refused.value.cure


def test_the_reference_page_names_every_setting_its_variable_and_default() -> None:
    page = reference()
    for leaf in leaves():
        assert f"| `{leaf.name}` |" in page
        assert f"`{leaf.variable}`" in page
    assert '| `domain` | `"tailnet.internal"` |' in page
    assert "| `relay.enabled` | `true` |" in page


def test_the_numbers_that_apps_know_are_one_for_each_person() -> None:
    known = Settings(apps=Apps(tsidp_numbers=("3=7234567890123456", " 4 = 5")))
    assert known.known_numbers() == {3: 7234567890123456, 4: 5}
    assert Settings().known_numbers() == {}
