import asyncio
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.support.programs import require_root

from doorward.config import Ports, Settings, load, load_ports
from doorward.server.sockets import Bound, SocketError, activated, bind, bind_shared


def _settings(folder: Path, **flags: object) -> Settings:
    return load(environ={"HOME": "/"}, flags={"data_dir": str(folder), "listen": "127.0.0.1:0"} | flags)


def _free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def _taken(port: int = 0, kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[int]:
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", port))
        if kind == socket.SOCK_STREAM:
            one.listen()
        yield one.getsockname()[1]


def _port(bound: Bound, name: str) -> int:
    return int(bound.sockets[name][0].getsockname()[1])


@pytest.fixture(autouse=True)
def usual(monkeypatch: pytest.MonkeyPatch) -> Ports:
    """Usual ports that are free here, so that two test runs at once do not meet."""
    ports = Ports(listen=_free(), door=_free(), relay=_free(), stun=_free())
    monkeypatch.setattr("doorward.server.sockets.USUAL", ports)
    monkeypatch.setattr("doorward.server.sockets.TRIES", 2)
    return ports


def _acme(**more: object) -> dict[str, object]:
    return {
        "url": "https://control.example.com",
        "door": "https://door.example.com",
        "tls.acme.directory": "https://ca.example/dir",
        "tls.acme.agree": True,
        "ports.door": _free(),
        **{f"tls.acme.{name}": value for name, value in more.items()},
    }


def test_a_plain_listener_is_there_for_http_01_alone(tmp_path: Path) -> None:
    plain = _free()
    flags = _acme(challenge="http-01", listen=f"127.0.0.1:{plain}")
    with closing(bind(_settings(tmp_path / "a", **flags), {})) as bound:
        assert _port(bound, "acme") == plain
        assert "relay" not in bound.sockets  # it shares control's listener, which has a certificate
    with closing(bind(_settings(tmp_path / "b", **_acme()), {})) as bound:
        assert "acme" not in bound.sockets
    with _taken() as port, pytest.raises(SocketError, match=f"listens on 127.0.0.1 port {port}"):
        bind(_settings(tmp_path / "c", **_acme(challenge="http-01", listen=f"127.0.0.1:{port}")), {})


def test_the_first_start_takes_the_usual_ports_and_settles_the_addresses(
    tmp_path: Path, usual: Ports
) -> None:
    with closing(bind(_settings(tmp_path), {})) as bound:
        assert set(bound.sockets) == {"public", "door", "relay", "stun", "admin"}
        assert (_port(bound, "door"), _port(bound, "relay"), _port(bound, "stun")) == (
            usual.door,
            usual.relay,
            usual.stun,
        )
        assert bound.settings.url == f"http://127.0.0.1:{_port(bound, 'public')}"
        assert bound.settings.door == f"https://door.tailnet.internal:{usual.door}"
        assert bound.sockets["stun"][0].type == socket.SOCK_DGRAM
        assert all(not one.getblocking() for group in bound.sockets.values() for one in group)
        # The queue is open before there is any worker.
        socket.create_connection(("127.0.0.1", _port(bound, "public")), timeout=1).close()


def test_free_ports_are_taken_where_the_usual_ones_are_not_to_be_had_and_then_kept(
    tmp_path: Path, usual: Ports
) -> None:
    with (
        _taken(usual.door),
        _taken(usual.relay),
        _taken(usual.stun, socket.SOCK_DGRAM),
        closing(bind(_settings(tmp_path), {})) as bound,
    ):
        first = bound.settings
        kept = load_ports(tmp_path)
        assert first.ports.door != usual.door
    assert kept is not None
    # The usual ones are free again, but people know the others by now.
    with closing(bind(_settings(tmp_path), {})) as bound:
        assert bound.settings == first
        assert load_ports(tmp_path) == kept


def test_a_kept_port_that_is_taken_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    bind(_settings(tmp_path), {}).close()
    kept = load_ports(tmp_path)
    assert kept is not None
    with _taken(kept.door), pytest.raises(SocketError, match=f"127.0.0.1 port {kept.door}") as refused:
        bind(_settings(tmp_path), {})
    assert "ports.json" in refused.value.cure
    # And nothing stayed bound, nor locked.
    bind(_settings(tmp_path), {}).close()


def test_a_port_that_the_settings_name_must_be_free(tmp_path: Path) -> None:
    with _taken() as port:
        for name in ("listen", "ports.door", "ports.relay"):
            value: object = f"127.0.0.1:{port}" if name == "listen" else port
            with pytest.raises(SocketError, match="something else listens"):
                bind(_settings(tmp_path, **{name: value}), {})
    mine = _free()
    with closing(bind(_settings(tmp_path, **{"ports.door": mine}), {})) as bound:
        assert bound.settings.door.endswith(f":{mine}")


def test_the_door_s_own_address_gives_the_identity_listener_s_port(tmp_path: Path) -> None:
    port = _free()
    with closing(bind(_settings(tmp_path, door=f"https://door.example.com:{port}"), {})) as bound:
        assert bound.sockets["door"][0].getsockname() == ("127.0.0.1", port)


def test_without_a_relay_there_is_neither_relay_nor_stun(tmp_path: Path) -> None:
    with closing(bind(_settings(tmp_path, **{"relay.enabled": False}), {})) as bound:
        assert set(bound.sockets) == {"public", "door", "admin"}


def test_a_certificate_for_control_makes_the_relay_s_own_port_needless(tmp_path: Path) -> None:
    own = {"tls.url.cert": "/a.pem", "tls.url.key": "/a.key", "url": "https://c.example.com"}
    with closing(bind(_settings(tmp_path, **own), {})) as bound:
        assert "relay" not in bound.sockets
        assert "stun" in bound.sockets
    # Unless the relay is reached under another address than control.
    with closing(bind(_settings(tmp_path, **own, **{"relay.host": "192.0.2.5"}), {})) as bound:
        assert "relay" in bound.sockets


def test_the_admin_socket_is_for_the_owner_alone_and_replaces_one_left_behind(tmp_path: Path) -> None:
    (tmp_path / "doorward.sock").write_text("left behind")
    with closing(bind(_settings(tmp_path), {})):
        found = (tmp_path / "doorward.sock").stat()
        assert found.st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "doorward.sock"))
    assert not (tmp_path / "doorward.sock").exists()


def test_one_doorward_for_a_data_directory(tmp_path: Path) -> None:
    with closing(bind(_settings(tmp_path), {})):
        with pytest.raises(SocketError, match="another doorward serves") as refused:
            bind(_settings(tmp_path), {})
        assert refused.value.place == str(tmp_path)
        assert (tmp_path / "doorward.sock").exists()


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    with pytest.raises(SocketError, match=r"192\.0\.2\.1") as refused:
        bind(_settings(tmp_path, listen="192.0.2.1:8080", url="https://c.example.com"), {})
    assert "this machine" in refused.value.cure


def test_a_low_port_needs_rights(tmp_path: Path) -> None:
    require_root()  # which this test gives up in another process
    code = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        from doorward.config import load
        from doorward.server.sockets import SocketError, bind
        # Once with rights: everything is loaded before the interpreter's own folder may be out of reach.
        bind(load(None, {"HOME": "/"}, {"data_dir": sys.argv[1] + "/root", "listen": "127.0.0.1:0"}), {}).close()
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        try:
            bind(load(None, {"HOME": "/"}, {"data_dir": sys.argv[1], "listen": "127.0.0.1:81"}), {})
        except SocketError as error:
            print(error.sentence())
    """)
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o755)
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "may not listen on 127.0.0.1 port 81" in answer.stdout, answer.stderr
    assert "CAP_NET_BIND_SERVICE" in answer.stdout


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_several_sockets_share_an_address_and_one_shares_with_no_one(kind: socket.SocketKind) -> None:
    made = bind_shared("127.0.0.1", 0, kind, 3)
    (port,) = {one.getsockname()[1] for one in made}
    with pytest.raises(SocketError, match=f"listens on 127.0.0.1 port {port}"):
        bind_shared("127.0.0.1", port, kind, 1)
    for one in made:
        one.close()
    made = bind_shared("127.0.0.1", port, kind, 1)
    with pytest.raises(SocketError, match="something else"):
        bind_shared("127.0.0.1", port, kind, 2)
    made[0].close()


BROUGHT = """
import os, socket, sys
from doorward.server.sockets import activated
ports = []
for number in (3, 4):
    one = socket.socket()
    one.bind(("127.0.0.1", 0))
    one.listen()
    ports.append(one.getsockname()[1])
    os.dup2(one.detach(), number + 100)
for number in (3, 4):
    os.dup2(number + 100, number)
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": sys.argv[1]}
for name, group in activated(environ, os.getpid()).items():
    for one in group:
        assert not one.get_inheritable()
        print(name, ports.index(one.getsockname()[1]))
os._exit(0)
"""


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("public:door", "public 0\ndoor 1\n"),
        ("relay:unknown", "relay 0\npublic 1\n"),
        ("doorward.socket:doorward.socket", "public 0\npublic 1\n"),
        ("", "public 0\npublic 1\n"),
    ],
)
def test_systemd_brings_sockets_by_name(names: str, found: str) -> None:
    # In a process of its own: the descriptors have fixed numbers.
    answer = subprocess.run(
        [sys.executable, "-c", BROUGHT, names], capture_output=True, text=True, check=False
    )
    assert (answer.stdout, answer.stderr) == (found, "")


def test_sockets_for_another_process_are_not_ours_and_unknown_names_are_refused() -> None:
    assert activated({}, 5) == {}
    assert activated({"LISTEN_PID": "4", "LISTEN_FDS": "1"}, 5) == {}
    with pytest.raises(SocketError, match="called 'web'"):
        activated({"LISTEN_PID": "5", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}, 5)


async def test_a_port_that_is_let_go_a_moment_later_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the workers of a parent that was killed: nobody should have to start doorward twice."""
    monkeypatch.setattr("doorward.server.sockets.TRIES", 200)
    async with asyncio.TaskGroup() as group:
        with _taken() as port:
            settings = _settings(tmp_path, listen=f"127.0.0.1:{port}")
            binding = group.create_task(asyncio.to_thread(bind, settings, {}))
            await asyncio.sleep(0.1)
            assert not binding.done()
    with closing(binding.result()) as bound:
        assert _port(bound, "public") == port


# Several workers


def _several(folder: Path, count: int, **flags: object) -> Settings:
    database = "postgresql://user@/name"
    return _settings(folder, workers=count, **{"database.url": database}, **flags)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all listen on one socket")
def test_each_worker_has_sockets_of_its_own_and_one_with_all(tmp_path: Path) -> None:
    with closing(bind(_several(tmp_path, 3), {})) as bound:
        shares = [bound.share(index) for index in range(3)]
        for name in ("public", "door", "relay", "stun", "worker"):
            assert len({one for share in shares for one in share[name]}) == 3
            assert all(len(share[name]) == 1 for share in shares)
        for name in ("public", "door", "relay", "stun"):
            assert len({share[name][0].getsockname() for share in shares}) == 1
        assert len({one for share in shares for one in share["admin"]}) == 1
        assert bound.paths == tuple(tmp_path / f"worker-{number}.sock" for number in (1, 2, 3))
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in bound.paths)
        port = _port(bound, "public")
        with pytest.raises(SocketError, match="something else listens"):
            bind(_several(tmp_path / "other", 3, listen=f"127.0.0.1:{port}"), {})
    assert not list(tmp_path.glob("*.sock"))


def test_a_lone_worker_has_everything_and_no_socket_among_workers(tmp_path: Path) -> None:
    with closing(bind(_settings(tmp_path), {})) as bound:
        assert bound.share(0) == bound.sockets
        assert bound.paths == ()


def test_what_systemd_brings_is_everybody_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two addresses for two workers: each serves on both."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        brought = [one.dup(), other.dup()]
        monkeypatch.setattr("doorward.server.sockets.activated", lambda *_: {"public": list(brought)})
        with closing(bind(_several(tmp_path, 2), {})) as bound:
            assert [bound.share(index)["public"] for index in range(2)] == [brought, brought]
            assert bound.settings.url == f"http://127.0.0.1:{one.getsockname()[1]}"
