"""The worker's side of ``supervisor``: loads what is needed, and runs when it is told to.

Then it takes over the sockets of the post that it is told, runs the coroutine it is told of, and stops when told to.

Run as ``python -m doorward.server.child DESCRIPTOR``, the descriptor of a file that holds the ``Order``.
"""

import asyncio
import gc
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from doorward.engine.processes import die_with
from doorward.errors import DoorwardError
from doorward.server import descriptors
from doorward.server.supervisor import READY, Order, Told
from doorward.telemetry import configure


@dataclass
class Child:
    """What a worker's main coroutine is given. It returns soon after ``stop`` is set."""

    payload: bytes
    sockets: dict[str, list[socket.socket]]
    ready: Callable[[], None]  # to be called once it serves
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    reload: asyncio.Event = field(default_factory=asyncio.Event)


Main = Callable[[Child], Awaitable[None]]


def run(order: Order) -> int:
    """Run the worker that ``order`` describes; its exit code. A DoorwardError is said in one line, with its cure."""
    die_with(order.parent)
    descriptors.raise_limit()
    # Until the coroutine chooses another form: stdout belongs to the parent's one line.
    configure()
    threading.Thread(target=_watch, args=(order.alive,), name="parent", daemon=True).start()
    main, loop_factory = _load(order.main), _loop_factory()
    post = os.read(order.go, 1)
    if not post:
        return 0
    os.close(order.go)
    told = order.posts[post[0]]
    _let_go(order, told)
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(_run(main, order, told))
    except DoorwardError as error:
        place = f"{error.place}: " if error.place else ""
        sys.stderr.write(f"doorward: {place}{error.sentence()}\n")
        return 1
    return 0


def _load(path: str) -> Main:
    """The coroutine function ``package.module:name``.

    What is loaded now stays for good, so the collector need not look at it: not while it is being made, which would be a
    tenth of the start, nor ever after.
    """
    module, _, name = path.partition(":")
    gc.disable()
    try:
        main: Main = getattr(importlib.import_module(module), name)
    finally:
        gc.freeze()
        gc.enable()
    return main


def _let_go(order: Order, told: Told) -> None:
    """Close the sockets of the other posts: what is not ours we must not keep open."""
    ours = {number for numbers in told.sockets.values() for number in numbers}
    theirs = {number for other in order.posts for numbers in other.sockets.values() for number in numbers}
    for number in theirs - ours:
        os.close(number)


async def _run(main: Main, order: Order, told: Told) -> None:
    sockets = {
        name: [socket.socket(fileno=number) for number in numbers] for name, numbers in told.sockets.items()
    }
    for group in sockets.values():
        for one in group:
            # Programs that the worker starts must not keep the listeners open.
            one.set_inheritable(False)
    os.set_inheritable(order.ready, False)
    child = Child(told.payload, sockets, lambda: _say_ready(order.ready))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, child.stop.set)
    loop.add_signal_handler(signal.SIGHUP, child.reload.set)
    await main(child)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:  # it is not made for every system; the standard loop does the same, slower
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _say_ready(descriptor: int) -> None:
    os.write(descriptor, READY)
    os.close(descriptor)


def _watch(descriptor: int) -> None:
    """End this process when the parent's end of the pipe is closed: for systems whose kernel does not do it."""
    os.set_inheritable(descriptor, False)
    os.read(descriptor, 1)
    # Nothing to tidy up: whatever a worker keeps must stand a kill at any moment.
    os._exit(1)


def _order(descriptor: int) -> Order:
    with os.fdopen(descriptor, "rb") as told:
        return msgspec.json.decode(told.read(), type=Order)


if __name__ == "__main__":
    sys.exit(run(_order(int(sys.argv[1]))))
