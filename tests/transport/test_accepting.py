"""Taking connections: the gate, descriptors that run out, and neither a loop that spins nor one that stops."""

import asyncio
import contextlib
import errno
import resource
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.waiting import until

from doorward.transport.accepting import PAUSE, Acceptor


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        yield made


@contextlib.contextmanager
def _visitors(bound: socket.socket, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            visitor = stack.enter_context(socket.socket())
            visitor.connect(bound.getsockname())
            made.append(visitor)
        yield made


async def test_connections_wait_while_the_gate_is_closed(bound: socket.socket) -> None:
    taken: list[socket.socket] = []
    is_open = False
    acceptor = Acceptor(bound, lambda accepted, _: taken.append(accepted), gate=lambda: is_open)
    acceptor.start()
    try:
        with _visitors(bound, 50):
            await asyncio.sleep(0.05)
            assert taken == []
            is_open = True
            await until(lambda: len(taken) == 50)
    finally:
        acceptor.close()
        for accepted in taken:
            accepted.close()


async def test_without_descriptors_it_waits_and_goes_on_by_itself(bound: socket.socket) -> None:
    taken: list[socket.socket] = []
    calls = 0

    def exhausted() -> None:
        nonlocal calls
        calls += 1

    acceptor = Acceptor(bound, lambda accepted, _: taken.append(accepted), exhausted=exhausted)
    acceptor.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        with _visitors(bound, 5):
            # The lowest free number is what the next descriptor would be.
            with socket.socket() as probe:
                lowest = probe.fileno()
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            began = time.monotonic()
            await until(lambda: calls >= 3)
            assert taken == []
            assert calls <= (time.monotonic() - began) / PAUSE + 2  # not as fast as it can
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await until(lambda: len(taken) == 5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        acceptor.close()
        for accepted in taken:
            accepted.close()


async def test_an_error_of_another_kind_does_not_end_it(bound: socket.socket) -> None:
    class Broken:
        """A listening socket whose first accept fails in a way that nobody thought of."""

        def __init__(self) -> None:
            self.failures = 1

        def accept(self) -> tuple[socket.socket, Any]:
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EPROTO, "protocol error")
            return bound.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(bound, name)

    taken: list[socket.socket] = []
    acceptor = Acceptor(Broken(), lambda accepted, _: taken.append(accepted))  # type: ignore[arg-type]
    acceptor.start()
    try:
        with _visitors(bound, 3):
            await until(lambda: len(taken) == 3)
    finally:
        acceptor.close()
        for accepted in taken:
            accepted.close()


async def test_stopped_it_leaves_the_socket_open(bound: socket.socket) -> None:
    taken: list[socket.socket] = []
    acceptor = Acceptor(bound, lambda accepted, _: taken.append(accepted))
    acceptor.start()
    acceptor.stop()
    with _visitors(bound, 1):
        await asyncio.sleep(0.02)
        assert taken == []
        again = Acceptor(bound, lambda accepted, _: taken.append(accepted))
        again.start()
        await until(lambda: len(taken) == 1)
        again.close()
    taken[0].close()
    with pytest.raises(OSError), _visitors(bound, 1):  # noqa: PT011 - of a closed socket no name is known
        pass
