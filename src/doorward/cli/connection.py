"""Where the server is, and how the command line talks to it: one request, one answer, by the standard library.

``http.client`` over a Unix socket loads in a sixth of the time that a modern HTTP library takes, and the whole command
is to be done before a person notices.
"""

import http.client
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from cyclopts import Group, Parameter

from doorward.api.types import Diagnostic, Problem
from doorward.config.folders import default_data_dir, expanded, find_socket
from doorward.errors import BadInput, DoorwardError, NotPermitted, RemoteProtocolError, Unavailable

T = TypeVar("T")

PREFIX = "/api/v1"
SOCKET_NAME = "doorward.sock"

TIMEOUT = 60.0  # seconds; a policy of a large tailnet compiles in a few
ANSWER_LIMIT = 256 * 1024 * 1024  # bytes; ten thousand nodes with all they report are about 20 MB

_WHERE = Group("Which server", sort_key=90)

# An option that is there or not: --json, and no --no-json.
Flag = Annotated[bool, Parameter(negative=(), show_default=False)]


class ServerRefusedError(DoorwardError):
    """The server said no. The words are the server's; ``diagnostics`` are the faults of a refused policy."""

    status: ClassVar[int] = 502

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.title, cure=problem.cure, place=problem.place)
        self.kind = problem.type
        self.diagnostics: tuple[Diagnostic, ...] = problem.diagnostics


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over the socket in the data directory."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found.settimeout(self.timeout)
        try:
            found.connect(str(self._path))
        except BaseException:
            found.close()
            raise
        self.sock = found


@Parameter(name="*", group=_WHERE)
@dataclass(frozen=True)
class Target:
    """Which server a command is for. What is given on the command line counts before the environment.

    Args:
        data_dir: Data directory of a server on this machine. [environment: DOORWARD_DATA_DIR]
        server: Address of a server elsewhere, such as https://door.example.com. [environment: DOORWARD_SERVER]
        token: API token for --server, made by `doorward tokens create`. [environment: DOORWARD_TOKEN]
    """

    data_dir: Path | None = None
    server: str | None = None
    token: Annotated[str | None, Parameter(show_default=False)] = None

    def folder(self) -> Path:
        """The data directory."""
        if self.data_dir is not None:
            return expanded(self.data_dir).absolute()
        return default_data_dir(os.environ, root=os.geteuid() == 0)

    def is_local(self) -> bool:
        """True if it is asked over the socket in the data directory."""
        return self._address() is None

    def _address(self) -> str | None:
        if self.server is None and self.data_dir is None:
            return os.environ.get("DOORWARD_SERVER") or None
        return self.server

    def __repr__(self) -> str:
        return f"Target(data_dir={self.data_dir}, server={self.server}, token={'hidden' if self.token else None})"

    def call(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        body: msgspec.Struct | None = None,
        query: Mapping[str, object] | None = None,
        if_match: int | None = None,
    ) -> T:
        """Ask the API and return its answer.

        Args:
            method: of HTTP.
            path: below /api/v1, made by ``api_path``.
            answer: the type of the answer; NoneType where there is none.
            body: the request.
            query: query parameters; those that are None are left out.
            if_match: the version that a change is made for; the server refuses it once there is another.

        Raises:
            ServerRefusedError: the server said no.
            Unavailable: nobody answers there.
            NotPermitted: the socket is not ours to use.
            RemoteProtocolError: what answers is not doorward.
        """
        return self._open().call(method, path, answer, body=body, query=query, if_match=if_match)

    def _open(self) -> "Server":
        server = self._address()
        if server is None:
            return _LocalServer(self.folder())
        return _RemoteServer(server, self.token or os.environ.get("DOORWARD_TOKEN") or "")


def api_path(*parts: object) -> str:
    """A path below /api/v1 from its parts, each quoted whole: a name with a slash stays one part."""
    return "".join("/" + quote(str(part), safe="") for part in parts)


class Server:
    """What is common to both ways of asking."""

    base = ""

    def connect(self) -> http.client.HTTPConnection:
        """A new connection, not opened yet."""
        raise NotImplementedError

    def headers(self) -> dict[str, str]:
        """What proves who we are."""
        raise NotImplementedError

    def explain(self, error: OSError) -> DoorwardError:
        """Why nobody could be asked."""
        raise NotImplementedError

    def call(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        body: msgspec.Struct | None,
        query: Mapping[str, object] | None,
        if_match: int | None,
    ) -> T:
        """See Target.call."""
        given = {name: _query_text(value) for name, value in (query or {}).items() if value is not None}
        target = self.base + PREFIX + path + ("?" + urlencode(given) if given else "")
        headers = {"Accept": "application/json", **self.headers()}
        if if_match is not None:
            headers["If-Match"] = f'"{if_match}"'
        content = None
        if body is not None:
            content = msgspec.json.encode(body)
            headers["Content-Type"] = "application/json"
        connection = self.connect()
        try:
            connection.request(method, target, body=content, headers=headers)
            response = connection.getresponse()
            data = response.read(ANSWER_LIMIT)
            if response.length or response.read(1):
                raise RemoteProtocolError(
                    "the server's answer broke off, or is longer than any answer of doorward"
                )
        except TimeoutError:
            raise Unavailable(
                f"doorward did not answer within {TIMEOUT:.0f} s", cure="Look at the server's log."
            ) from None
        except OSError as error:
            raise self.explain(error) from None
        except http.client.HTTPException as error:
            raise RemoteProtocolError(
                f"what answers there does not speak HTTP ({type(error).__name__})"
            ) from None
        finally:
            connection.close()
        return _read(response.status, response.getheader("Content-Type", ""), data, answer)


def _query_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(status: int, media_type: str, data: bytes, answer: type[T]) -> T:
    if media_type.startswith("application/problem+json"):
        try:
            raise ServerRefusedError(msgspec.json.decode(data, type=Problem))
        except (ValueError, RecursionError):  # msgspec and UTF-8 say the first, depth the second
            raise RemoteProtocolError(f"the server's refusal ({status}) cannot be read") from None
    if answer is type(None) and status == 204:
        return None
    try:
        if not 200 <= status < 300:
            raise RemoteProtocolError(
                f"what answers there is not doorward's API (HTTP status {status})",
                cure="Give the address of the door or of control, without a path.",
            )
        return msgspec.json.decode(data, type=answer)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(
            f"the server's answer cannot be read: {error}",
            cure="Use the same version of doorward here and there.",
        ) from None


class _LocalServer(Server):
    """The server whose data directory this is. Whoever may use its socket is the administrator."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def connect(self) -> http.client.HTTPConnection:
        return _UnixConnection(find_socket(self._folder, SOCKET_NAME))

    def headers(self) -> dict[str, str]:
        return {}

    def explain(self, error: OSError) -> DoorwardError:
        if isinstance(error, PermissionError):
            return NotPermitted(
                f"the server with the data directory {self._folder} is somebody else's",
                cure="Run this as the user that runs doorward, perhaps with sudo; or use --server and --token.",
            )
        return Unavailable(
            f"no doorward runs with the data directory {self._folder}",
            cure="Start it with `doorward serve`, or say which one you mean with --data-dir or --server.",
        )


class _RemoteServer(Server):
    """A server reached over HTTP with an API token."""

    def __init__(self, address: str, token: str) -> None:
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or "@" in parts.netloc:
            raise BadInput(
                f"{address!r} is not a server's address", cure="Write it as https://door.example.com."
            )
        if not token:
            raise BadInput(
                f"{address} asks for an API token",
                cure="Make one on the server with `doorward tokens create`, and give it with --token or "
                "DOORWARD_TOKEN.",
            )
        if not token.isascii() or not token.isprintable():
            raise BadInput("the API token holds characters that no token has")
        self._scheme, self._host, self._port = parts.scheme, parts.hostname, port
        self._address, self._token = address, token
        self.base = parts.path.rstrip("/")

    def connect(self) -> http.client.HTTPConnection:
        if self._scheme == "https":
            return http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT)
        return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    def explain(self, error: OSError) -> DoorwardError:
        import ssl  # noqa: PLC0415 - only this answer needs it, and it is slow to load

        if isinstance(error, ssl.SSLCertVerificationError):
            return Unavailable(
                f"the certificate of {self._address} is not trusted here: {error.verify_message}",
                cure="If it is made by doorward's own authority, set SSL_CERT_FILE to what `doorward ca` prints there.",
            )
        reason = error.strerror or str(error) or type(error).__name__
        return Unavailable(
            f"{self._address} does not answer: {reason}", cure="Check the address, and that the server runs."
        )


def read_text(file: Path) -> str:
    """The text of a file, line ends as they are, or of stdin for ``-``. Raises BadInput where it cannot be read."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_bytes().decode()
    except UnicodeDecodeError:
        raise BadInput(f"{file} is not UTF-8 text") from None
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}", cure="Check the path.") from None
