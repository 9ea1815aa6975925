"""A throw-away PostgreSQL from Debian's package: one cluster for the test run, one database for each test."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest
from tests.support.require import missing

ACCOUNT = "postgres"  # the package's own; PostgreSQL refuses to run as root


class Cluster:
    """A running server that listens on a socket in a private folder and nowhere else. Nothing of it is durable."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._number = count(1)

    def address(self, database: str) -> str:
        return f"postgresql://{ACCOUNT}@/{database}?host={self._folder}"

    def create_database(self) -> str:
        """A new empty database; returns its address."""
        name = f"test{next(self._number)}"
        self.execute("postgres", f"CREATE DATABASE {name}")
        return self.address(name)

    def drop_database(self, address: str) -> None:
        name = address.partition("@/")[2].partition("?")[0]
        self.execute("postgres", f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, database: str, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.address(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def start(self) -> None:
        settings = f"-c unix_socket_directories={self._folder} -c listen_addresses= -c fsync=off -c log_min_messages=fatal"
        self.run("pg_ctl", "start", "-w", "-D", "data", "-l", "log", "-o", settings)

    def stop(self, mode: str = "immediate") -> None:
        """``immediate`` is what a crash looks like to those who are connected."""
        self.run("pg_ctl", "stop", "-w", "-D", "data", "-m", mode)

    def run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid", ACCOUNT, "--regid", ACCOUNT, "--init-groups", "--", *command]
        # Output to a file: a started server inherits the handles, and a pipe would be waited for until it ends.
        output = self._folder / "output"
        with output.open("wb") as handle:
            done = subprocess.run(command, cwd=self._folder, stdout=handle, stderr=handle, check=False)
        assert done.returncode == 0, output.read_text()


def find_programs() -> Path | None:
    """The folder of the newest installed server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


@contextmanager
def cluster() -> Iterator[Cluster]:
    programs = find_programs()
    if programs is None:
        missing("PostgreSQL is not installed (Debian: apt install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="doorward-pg-", dir="/tmp"))  # a socket's path must be short
    try:
        if os.geteuid() == 0:
            account = pwd.getpwnam(ACCOUNT)
            os.chown(folder, account.pw_uid, account.pw_gid)
        made = Cluster(programs, folder)
        made.run("initdb", "-D", "data", "-U", ACCOUNT, "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8")
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """The cluster of this test run; import it into a conftest to use it."""
    with cluster() as made:
        yield made
