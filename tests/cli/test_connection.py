"""Where the server is and how it is asked: over the socket, over HTTP, and when something else answers."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.scripts import run_captured

from doorward.api import types
from doorward.cli.connection import ServerRefusedError, Target, api_path, read_text
from doorward.errors import BadInput, DoorwardError, NotPermitted, RemoteProtocolError, Unavailable


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DOORWARD_DATA_DIR", "DOORWARD_SERVER", "DOORWARD_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads one request and sends these bytes, whatever was asked; its address and what it read."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                seen.append(connection.recv(65536))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
        finally:
            thread.join()


def http(status: str, body: str, media_type: str = "application/json") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def ask(target: Target) -> list[types.Node]:
    return target.call("GET", "/nodes", list[types.Node])


def test_a_request_says_who_asks_and_what_for() -> None:
    with answering(http("200 OK", "[]")) as (address, seen):
        target = Target(server=address + "/below/", token="secret-token")
        assert target.call("GET", "/nodes", list[types.Node], query={"all": True, "x": None}) == []
    head = seen[0].decode()
    assert head.startswith("GET /below/api/v1/nodes?all=true HTTP/1.1\r\n")
    assert "Authorization: Bearer secret-token\r\n" in head
    assert "secret-token" not in repr(target)


def test_a_problem_is_told_in_the_server_s_words() -> None:
    body = '{"type": "conflict", "title": "it is taken", "status": 409, "cure": "Use another.", "place": "$.name", "new": 1}'
    answer = http("409 Conflict", body, "application/problem+json")
    with answering(answer) as (address, _), pytest.raises(ServerRefusedError) as caught:
        ask(Target(server=address, token="x"))
    error = caught.value
    assert (error.message, error.cure, error.place, error.kind) == (
        "it is taken",
        "Use another.",
        "$.name",
        "conflict",
    )


@pytest.mark.parametrize(
    "answer",
    [
        http("200 OK", "<html>hello</html>", "text/html"),
        http("404 Not Found", "<html>", "text/html"),
        http("302 Found", "[]"),
        http("200 OK", '[{"id": "one"}]'),
        http("500 Oops", "{", "application/problem+json"),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n[]",
    ],
)
def test_whatever_else_answers_is_an_error_with_words(answer: bytes) -> None:
    with answering(answer) as (address, _), pytest.raises((RemoteProtocolError, Unavailable)) as caught:
        ask(Target(server=address, token="x"))
    assert caught.value.message


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no doorward runs with the data directory"):
        ask(Target(data_dir=tmp_path))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(Unavailable, match="does not answer"):
            ask(Target(server=address, token="x"))


def test_a_socket_left_behind_by_a_server_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind("doorward.sock")
    with pytest.raises(Unavailable, match="no doorward runs"):
        ask(Target(data_dir=tmp_path))


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doorward.cli.connection.TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unavailable, match="did not answer within"):
            ask(Target(server=address, token="x"))


def refused(error: OSError) -> Callable[..., None]:
    def connect(*_: object) -> None:
        raise error

    return connect


def test_somebody_else_s_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("doorward.cli.connection._UnixConnection.connect", refused(PermissionError(13, "no")))
    with pytest.raises(NotPermitted) as caught:
        ask(Target(data_dir=tmp_path))
    assert "sudo" in caught.value.cure


def test_a_certificate_that_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    error = ssl.SSLCertVerificationError(1, "bad")
    error.verify_message = "self-signed certificate"
    monkeypatch.setattr("http.client.HTTPSConnection.connect", refused(error))
    with pytest.raises(Unavailable, match="self-signed") as caught:
        ask(Target(server="https://door.example.com", token="x"))
    assert "doorward ca" in caught.value.cure


@pytest.mark.parametrize(
    "address",
    ["door.example.com", "ftp://x", "http://", "https://u:p@x", "http://x?y", "http://x:port", "http://[x"],
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(BadInput, match="not a server's address"):
        ask(Target(server=address, token="x"))


@pytest.mark.parametrize("token", ["a\r\nX-Evil: 1", "gr\u00fcn", "a\tb"])
def test_a_token_that_is_none_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(BadInput) as caught:
        ask(Target(server="http://127.0.0.1:1", token=token))
    assert token not in str(caught.value)


def test_the_command_line_counts_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def said(target: Target) -> str:
        with pytest.raises(DoorwardError) as caught:
            ask(target)
        return caught.value.message

    monkeypatch.setenv("DOORWARD_DATA_DIR", str(tmp_path / "by-environment"))
    assert "by-environment" in said(Target())
    assert "by-option" in said(Target(data_dir=tmp_path / "by-option"))
    monkeypatch.setenv("DOORWARD_SERVER", "http://127.0.0.1:1")
    assert "http://127.0.0.1:1 asks for an API token" in said(Target())
    monkeypatch.setenv("DOORWARD_TOKEN", "x")
    assert "http://127.0.0.1:1 does not answer" in said(Target())
    assert "by-option" in said(Target(data_dir=tmp_path / "by-option"))
    assert "http://127.0.0.1:2 does not answer" in said(Target(server="http://127.0.0.1:2"))


def test_paths_are_quoted_whole() -> None:
    assert api_path("users", "a/b?c d", 1) == "/users/a%2Fb%3Fc%20d/1"
    assert api_path("users", "..") == "/users/.."


def test_text_comes_from_a_file_or_from_stdin(tmp_path: Path) -> None:
    file = tmp_path / "policy.hujson"
    file.write_text("{} // \u00e4", encoding="utf-8")
    assert read_text(file) == "{} // \u00e4"
    file.write_bytes(b"\xff")
    with pytest.raises(BadInput, match="not UTF-8"):
        read_text(file)
    with pytest.raises(BadInput, match="Is a directory"):
        read_text(tmp_path)


def test_errors_reach_the_person_as_two_lines(tmp_path: Path) -> None:
    code, out, err = run_captured(["users", "list", "--server", "nonsense"])
    assert (code, out) == (1, [])
    assert err == [
        "doorward: 'nonsense' is not a server's address",
        "  Write it as https://door.example.com.",
    ]
