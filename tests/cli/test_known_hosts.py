"""What ssh asks at each connection: the right lines, nothing that a node could slip in, and quickly."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.localapi import OWN_KEY as OTHER
from tests.support.localapi import answered, daemon, peer, status

from doorward.cli import known_hosts
from doorward.cli.app import run

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJzV"


SERVER = peer("server.tail.net.", KEY, OTHER, addresses=("100.64.0.2", "fd7a:115c:a1e0::2"))
PLAIN = peer("plain.tail.net.", addresses=("100.64.0.3",))
SHARED = peer("server.others.net.", "ssh-rsa AAAA", addresses=("100.64.0.9",))


@pytest.mark.parametrize(
    "host",
    [
        "server",
        "Server",
        "server.tail.net",
        "server.tail.net.",
        "100.64.0.2",
        "fd7a:115c:a1e0::2",
        "fd7a:115c:a1e0:0::2",
        "[server]:2222",
    ],
)
def test_a_node_is_known_by_the_names_and_addresses_that_control_gave(host: str) -> None:
    found = known_hosts.lines(host, json.loads(json.dumps(status(SHARED, SERVER))))
    assert found == [f"{host} {KEY}\n", f"{host} {OTHER}\n"]


def test_this_node_itself_is_one_of_them() -> None:
    assert known_hosts.lines("me", status()) == [f"me {OTHER}\n"]


@pytest.mark.parametrize(
    "host",
    ["plain", "whatever", "tail.net", "net", "100.64.0.3", "100.64.0.20", "", ".", "[]:22", "serve", "*"],
)
def test_of_all_others_nothing_is_known(host: str) -> None:
    assert known_hosts.lines(host, status(SERVER, PLAIN)) == []


def test_a_node_of_another_tailnet_is_known_by_its_whole_name_alone() -> None:
    assert known_hosts.lines("server.others.net", status(SHARED)) == ["server.others.net ssh-rsa AAAA\n"]
    assert known_hosts.lines("server", status(SHARED)) == []


def test_without_magic_dns_a_short_name_is_somebody_else_s() -> None:
    assert known_hosts.lines("server", status(SERVER, MagicDNSEnabled=False)) == []
    assert known_hosts.lines("server.tail.net", status(SERVER, MagicDNSEnabled=False))


@pytest.mark.parametrize("host", ["server ", "server\n@cert-authority *", "a,server", "sërver", "!server"])
def test_a_host_that_would_be_more_than_a_word_of_the_file_is_none(host: str) -> None:
    assert known_hosts.lines(host, status(SERVER, peer(f"{host}.tail.net", KEY))) == []


@pytest.mark.parametrize(
    ("published", "key"),
    [
        (f"{KEY} root@server", KEY),
        (f"{KEY}\n@cert-authority * {KEY}", KEY),
        (f"@cert-authority * {KEY}", ""),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", ""),
        ("ssh-ed25519", ""),
        ("ssh-ed25519 AA|AA", ""),
        ("ssh-ed25519 ===", ""),
        ("ssh-ed25519 ÄÄÄÄ", ""),
        ("", ""),
        (None, ""),
        (7, ""),
    ],
)
def test_what_a_node_published_is_a_key_or_nothing(published: Any, key: str) -> None:
    assert known_hosts.plain_key(published) == key
    found = known_hosts.lines("bad", status(peer("bad.tail.net.", published)))
    assert found == ([f"bad {key}\n"] if key else [])


@pytest.mark.parametrize(
    "answer",
    [None, [], 1, {"Peer": []}, {"Peer": {"a": 1}}, {"Self": {"DNSName": 1}}, {"CurrentTailnet": 3}],
)
def test_nonsense_of_the_daemon_holds_no_keys(answer: Any) -> None:
    assert known_hosts.lines("server", answer) == []


def test_the_daemon_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(tmp_path, answered(status(SERVER)), 3) as path:
        option = f"--socket={path}"
        assert known_hosts.quick(["ssh", "known-hosts", option, "--port=22", "--quiet", "--", "server"]) == 0
        assert capsys.readouterr().out == f"server {KEY}\nserver {OTHER}\n"
        assert known_hosts.quick(["ssh", "known-hosts", option, "--", "else"]) == 1
        assert "no node called 'else'" in capsys.readouterr().err
        # The whole program says the same.
        assert run(["ssh", "known-hosts", option, "server"]) == 0
        assert capsys.readouterr().out == f"server {KEY}\nserver {OTHER}\n"


def test_another_port_is_another_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert known_hosts.quick(["ssh", "known-hosts", "--port=2222", "--quiet", "--", "server"]) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("answer", [answered({}, 403), b"", b"HTTP/1.0 200 OK\r\n\r\n{", b"\xff" * 9])
def test_a_daemon_that_does_not_answer_means_no_keys(
    tmp_path: Path, answer: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with daemon(tmp_path, answer, 2) as path:
        assert known_hosts.quick(["ssh", "known-hosts", f"--socket={path}", "--", "server"]) == 1
        assert "tailscaled does not answer" in capsys.readouterr().err
        assert known_hosts.quick(["ssh", "known-hosts", f"--socket={path}", "--quiet", "--", "server"]) == 1
        assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["ssh"],
        ["ssh", "known-hosts"],
        ["ssh", "known-hosts", "server"],
        ["ssh", "known-hosts", "--help", "--", "server"],
        ["ssh", "known-hosts", "--", "server", "more"],
        ["nodes", "list", "--", "server"],
    ],
)
def test_any_other_command_line_is_for_the_whole_program(line: list[str]) -> None:
    assert known_hosts.quick(line) is None
