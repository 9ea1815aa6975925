import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from doorward.engine.base import EngineError, Status, WhoIs
from doorward.identity.connection import Tailnet

ALICE = WhoIs(
    stable_id="n1",
    name="laptop.tail.net.",
    addresses=("100.64.0.2/32",),
    tags=(),
    login="alice@tail.net",
    capabilities={"example.com/cap": [{"role": "editor"}]},
)


class Daemon:
    """Answers as a daemon does, and keeps what it was asked."""

    def __init__(self, *, tun: bool, state: str = "Running", found: WhoIs | None = ALICE) -> None:
        own: dict[str, Any] = {"ID": "n9", "TailscaleIPs": ["100.64.0.9"]}
        said = {"BackendState": state, "TUN": tun, "Self": own}
        self._status = msgspec.json.decode(json.dumps(said), type=Status)
        self._found = found
        self.asked: list[str] = []

    async def status(self, *, peers: bool = True) -> Status:
        del peers
        status: Status = self._status
        return status

    async def whois(self, address: str) -> WhoIs | None:
        self.asked.append(address)
        return self._found


def tailnet(daemon: Daemon) -> Tailnet:
    made = Tailnet(Path("/nowhere"))
    made._api = daemon  # type: ignore[assignment]
    return made


async def test_a_person_behind_a_daemon_in_user_space() -> None:
    daemon = Daemon(tun=False)
    who = await tailnet(daemon).identify(("127.0.0.1", 4711), ("127.0.0.1", 80))
    assert who is not None
    assert (who.subject, who.login, who.node) == ("n1", "alice@tail.net", "laptop.tail.net")
    assert who.capability("example.com/cap") == [{"role": "editor"}]
    assert daemon.asked == ["127.0.0.1:4711"]


async def test_a_person_on_the_interface_of_the_host_s_daemon() -> None:
    daemon = Daemon(tun=True)
    assert await tailnet(daemon).identify(("100.64.0.2", 4711), ("100.64.0.9", 80))
    assert await tailnet(daemon).identify(("fd7a:115c:a1e0::2", 4711), ("100.64.0.9", 80))
    assert daemon.asked == ["100.64.0.2:4711", "[fd7a:115c:a1e0::2]:4711"]


@pytest.mark.parametrize(
    ("tun", "peer", "local"),
    [
        (False, ("100.64.0.2", 4711), ("127.0.0.1", 80)),  # a header's word, or a forged packet
        (False, ("100.64.0.2", 4711), ("100.64.0.9", 80)),
        (False, ("127.0.0.1", 0), ("127.0.0.1", 80)),  # a server that took it from X-Forwarded-For
        (True, ("127.0.0.1", 4711), ("127.0.0.1", 80)),  # a program on this computer
        (True, ("100.64.0.2", 4711), ("192.168.1.5", 80)),  # not one of our tailnet addresses
        (True, ("100.64.0.2", 0), ("100.64.0.9", 80)),
        (False, None, ("127.0.0.1", 80)),
        (False, ("127.0.0.1", 4711), ("/run/socket", None)),
        (False, ("somebody", 4711), ("127.0.0.1", 80)),
    ],
)
async def test_other_ways_carry_no_identity_and_nobody_is_asked(tun: bool, peer: Any, local: Any) -> None:
    daemon = Daemon(tun=tun)
    assert await tailnet(daemon).identify(peer, local) is None
    assert daemon.asked == []


async def test_a_daemon_that_is_not_up_knows_nobody() -> None:
    assert (
        await tailnet(Daemon(tun=False, state="Stopped")).identify(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
    )


async def test_unknown_sources_are_nobody() -> None:
    assert await tailnet(Daemon(tun=False, found=None)).identify(("127.0.0.1", 1), ("127.0.0.1", 2)) is None


async def test_a_tagged_node_is_no_person() -> None:
    tagged = WhoIs(
        stable_id="n2", name="ci.", addresses=(), tags=("tag:ci",), login="tagged-devices", capabilities={}
    )
    who = await tailnet(Daemon(tun=False, found=tagged)).identify(("127.0.0.1", 1), ("127.0.0.1", 2))
    assert who is not None
    assert (who.login, who.tags) == ("", ("tag:ci",))


async def test_a_daemon_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        await Tailnet(tmp_path / "s").identify(("127.0.0.1", 1), ("127.0.0.1", 2))
