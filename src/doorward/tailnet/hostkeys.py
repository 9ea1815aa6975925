"""The host keys of machines that publish none: pinned by an administrator for all, or said yes to by one person.

A machine whose client serves ssh publishes its keys, and those alone count. Of any other the person is shown the fingerprint
once; what they answered is kept here, and another key is then refused, until they replace that very answer on purpose. Where an
administrator has pinned keys nobody is asked, and nobody's answer counts.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from doorward.errors import BadInput, Conflict, NotFound
from doorward.model import HostKey, Node, User
from doorward.protocol.hostkeys import parse_host_key
from doorward.store import Connection, Database, audit, nodes
from doorward.store import tabs as stored
from doorward.tailnet.writer import Effect, Writer

MOST_PINS = 20  # of one node


class KeyChanged(Conflict):
    """A host has another key than the one that is known."""

    problem = "host-key-changed"


class Known(NamedTuple):
    """The keys of a host, and who says so."""

    keys: tuple[str, ...]
    source: Literal["node", "pinned", "you", "none"]


async def known(database: Database, node: Node, user_id: int) -> Known:
    """What a person is to compare a host's key with."""
    if published := node.observed.hostinfo.sshHostKeys:
        return Known(tuple(published), "node")
    found = await database.read(stored.keys_of, node.id, user_id)
    if pinned := tuple(one.key for one in found if one.user_id is None):
        return Known(pinned, "pinned")
    mine = tuple(one.key for one in found)
    return Known(mine, "you" if mine else "none")


async def accept(writer: Writer, actor: str, user: User, node: Node, key: str, replaces: str | None) -> None:
    """Keep a person's yes to a key. ``replaces`` is the one that they have said yes to before, and take back.

    Raises BadInput for what is no key, KeyChanged where another is known, and Conflict where it is not theirs to say.
    """
    good = parse_host_key(key)
    old = None if replaces is None else parse_host_key(replaces)
    if node.observed.hostinfo.sshHostKeys:
        raise Conflict(
            f"{node.name} publishes its host keys itself",
            cure="If its key is another one, restart tailscaled there: it then publishes what it has now.",
        )
    draft = HostKey(id=0, node_id=node.id, user_id=user.id, key=good, actor=actor, created=writer.now())
    await writer.apply(_accept, actor, draft, old, node.stable_id)


async def pin(
    writer: Writer, actor: str, node: Node, add: Sequence[str] = (), remove: Sequence[str] = ()
) -> tuple[HostKey, ...]:
    """Pin keys of a node for everybody, and take others back; those that are pinned then."""
    added, removed = [parse_host_key(one) for one in add], [parse_host_key(one) for one in remove]
    return await writer.apply(_pin, actor, node.id, added, removed, writer.now())


async def pinned(database: Database, node_id: int) -> tuple[HostKey, ...]:
    """The keys of a node that are pinned."""
    return tuple(await database.read(stored.keys_of, node_id))


def _accept(
    connection: Connection, actor: str, draft: HostKey, old: str | None, stable_id: str
) -> Effect[None]:
    if nodes.by_id(connection, draft.node_id) is None:
        raise NotFound("this machine was deleted", cure="Go back to the list of machines.")
    found = stored.keys_of(connection, draft.node_id, draft.user_id)
    if any(one.user_id is None for one in found):
        raise Conflict(
            "an administrator has pinned the keys of this machine",
            cure="Ask them whether its key has changed.",
        )
    before = [one.key for one in found]
    if before == [draft.key]:
        return Effect(result=None)
    if before and old not in before:
        raise KeyChanged(
            "this machine had another key when you said yes to it",
            cure="If you know why its key has changed, say on the page that it takes the place of the old one.",
        )
    stored.delete_keys(connection, [one.id for one in found])
    stored.add_key(connection, draft)
    details = {"key": draft.key, "before": {"keys": before}}
    audit.append(connection, actor, "hostkey.accept", f"node:{stable_id}", details, draft.created)
    return Effect(result=None)


def _pin(
    connection: Connection, actor: str, node_id: int, add: list[str], remove: list[str], now: datetime
) -> Effect[tuple[HostKey, ...]]:
    node = nodes.by_id(connection, node_id)
    if node is None:
        raise NotFound("this node was deleted", cure="`doorward nodes list` shows the nodes there are.")
    before = stored.keys_of(connection, node_id)
    have = {one.key: one.id for one in before}
    missing = [key for key in remove if key not in have]
    if missing:
        raise NotFound(
            f"that key is not pinned for {node.name}", cure="`doorward nodes host-keys NODE` shows them."
        )
    fresh = [key for key in dict.fromkeys(add) if key not in have]
    if len(have) + len(fresh) - len(set(remove)) > MOST_PINS:
        raise BadInput(f"at most {MOST_PINS} keys are pinned for a node")
    stored.delete_keys(connection, [have[key] for key in set(remove)])
    for key in fresh:
        draft = HostKey(id=0, node_id=node_id, user_id=None, key=key, actor=actor, created=now)
        stored.add_key(connection, draft)
    after = tuple(stored.keys_of(connection, node_id))
    if fresh or remove:
        details = {"keys": [one.key for one in after], "before": {"keys": list(have)}}
        audit.append(connection, actor, "hostkey.pin", f"node:{node.stable_id}", details, now)
    return Effect(result=after)
