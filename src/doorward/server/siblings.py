"""Questions that only one worker of a ``serve`` can answer, put to it over its Unix socket by whichever was asked.

A node has its map stream at one worker, and only down that stream can it be asked anything. The administrator's socket and
the public listener lead to any worker. So who is asked and does not have the stream asks the one that has it; that one
answers or refuses, and never asks on.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from doorward.api.types import Pong, Problem
from doorward.asgi import json_answer, problem
from doorward.errors import DoorwardError, NotFound, NotPermitted, Unavailable
from doorward.model import Node
from doorward.server.sockets import WORKER
from doorward.server.team import Team
from doorward.tailnet.registry import Registry

PATH = "/worker/ping"
PATIENCE = 17.0  # seconds; a node is given fifteen
ANSWER_LIMIT = 64 * 1024  # bytes, with the head
QUESTION_LIMIT = 1024  # bytes

Reach = Callable[[Node, Node | None], Awaitable[Pong]]


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Is the target there, or does the source reach it. Both by their number."""

    target: int
    source: int | None


class Siblings:
    """The other workers of our ``serve``.

    Args:
        team: where they are.
        registry: says which of them has a node's stream.
        reach: asks a node whose stream we have ourselves (``control.Questions.reach``).
    """

    def __init__(self, team: Team, registry: Registry, reach: Reach) -> None:
        self._team = team
        self._registry = registry
        self._reach = reach
        self.routes = [Route(PATH, self._answer, methods=["POST"])] if team.paths else []

    async def ping(self, target: Node, source: Node | None) -> Pong:
        """Ask a node, whichever worker has its stream. Raises Unavailable, with the reason, where no answer comes."""
        path = self._path_to(target if source is None else source)
        if path is None:
            return await self._reach(target, source)
        question = Question(target=target.id, source=None if source is None else source.id)
        status, body = await _post(path, msgspec.json.encode(question))
        try:
            if status == 200:
                return msgspec.json.decode(body, type=Pong)
            said = msgspec.json.decode(body, type=Problem)
        except msgspec.MsgspecError as error:
            raise Unavailable("another worker answered nonsense", detail=str(error)) from None
        raise Unavailable(said.title, cure=said.cure)

    def _path_to(self, asked: Node) -> Path | None:
        """The socket of the worker that has a node's stream; None where that is us, or nobody of ours."""
        neighbours = self._registry.neighbours
        if neighbours is None or self._registry.writer.changes.connected(asked.id):
            return None
        holder = next((one for one in neighbours.siblings if one.id == asked.observed.held_by), None)
        return None if holder is None else self._team.path_of(holder.worker)

    async def _answer(self, request: Request) -> Response:
        if request.scope["state"]["listener"] != WORKER:
            return problem(NotPermitted("this is for the workers of one doorward among themselves"))
        try:
            content = await request.body()
            if len(content) > QUESTION_LIMIT:
                raise NotPermitted("the question is too long")
            question = msgspec.json.decode(content, type=Question)
            source = None if question.source is None else self._node(question.source)
            return json_answer(await self._reach(self._node(question.target), source))
        except msgspec.MsgspecError as error:
            return problem(Unavailable("the question cannot be read", detail=str(error)))
        except DoorwardError as error:
            return problem(error)

    def _node(self, number: int) -> Node:
        node = self._registry.snapshot.nodes.get(number)
        if node is None:
            raise NotFound("this node was deleted")
        return node


async def _post(path: Path, body: bytes) -> tuple[int, bytes]:
    """Status and body of the answer. Raises Unavailable."""
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=ANSWER_LIMIT)
            try:
                writer.write(head.encode() + body)
                content = bytearray()
                while (part := await reader.read(ANSWER_LIMIT)) and len(content) < ANSWER_LIMIT:
                    content += part
            finally:
                writer.close()
        top, _, rest = bytes(content).partition(b"\r\n\r\n")
        return int(top.split(b" ", 2)[1]), rest
    except (OSError, TimeoutError, ValueError, IndexError) as error:
        raise Unavailable(
            "the worker that has the node's stream does not answer",
            cure="It is most likely being started again: ask again in a moment.",
            detail=repr(error),
        ) from None
