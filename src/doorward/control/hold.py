"""``GET /machine/ssh/action/SOURCE/to/TARGET``: a node asks whether an ssh may go on (ssh.md, section 2).

The answer is always 200 with an action. Any other status makes the node ask again for half an hour while the person
waits, so it is given only for what passes by itself (no database).
"""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from doorward.protocol.tailcfg.codec import encode
from doorward.protocol.tailcfg.ssh import SSHAction
from doorward.tailnet.registry import Registry
from doorward.tailnet.sshrules import Attempt
from doorward.telemetry import log

# What is done about an attempt; the number is that of the check of which the person has been told already.
DecideSSH = Callable[[Attempt, int | None], Awaitable[SSHAction]]

_NAME_LIMIT = 256  # characters of a name; Linux allows 32
_DIGITS = 18  # no more fit into the database

_log = log("control")


class Hold:
    """The endpoint. Only the target itself may ask, which its machine key proves."""

    def __init__(self, registry: Registry, decide: DecideSSH) -> None:
        self._registry = registry
        self._decide = decide

    async def action(self, request: Request) -> Response:
        """Answer, which may take as long as a person does."""
        await request.body()
        source, target = (_number(request.path_params[name]) for name in ("source", "target"))
        query = request.query_params
        ssh_user, account = query.get("ssh_user", ""), query.get("local_user", "")
        node = None if target is None else self._registry.snapshot.nodes.get(target)
        if source is None or node is None or node.machine_key != request.state.machine_key:
            _log.warning("a node asked about ssh to another", machine=request.state.machine_key.short())
            return _answer(_no("This node may not ask about ssh to another."))
        if not ssh_user or max(len(ssh_user), len(account)) > _NAME_LIMIT:
            return _answer(_no("No account has a name like that."))
        attempt = Attempt(source_id=source, target_id=node.id, ssh_user=ssh_user, account=account)
        return _answer(await self._decide(attempt, _number(query.get("check", ""))))


async def malformed(request: Request) -> Response:
    """An address that we gave to nobody."""
    await request.body()
    return _answer(_no("doorward does not know what this node asks."))


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None


def _no(sentence: str) -> SSHAction:
    return SSHAction(reject=True, message=f"{sentence}\r\n")


def _answer(action: SSHAction) -> Response:
    return Response(encode(action), media_type="application/json")
