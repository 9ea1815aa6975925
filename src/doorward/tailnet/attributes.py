"""What an administrator says about nodes, for postures to judge them by: the rules, and the transactions behind them.

Names and values follow the hosted service (protocol note ssh.md, section 7.3): ``custom:`` and letters, digits, ``_`` and ``:``;
a short text, a whole number, true or false. An attribute with an end is taken back when that has come, within a second.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from doorward.errors import BadInput, Conflict, NotFound
from doorward.model import Attribute, Node
from doorward.store import Connection, audit, nodes
from doorward.tailnet.writer import Effect

MAX_ATTRIBUTES = 100  # of one node: every change of one is a write of all
_KEY_MAX = 128  # characters
_KEY = re.compile(r"custom:[A-Za-z0-9_:]+")
_TEXT = re.compile(r"[A-Za-z0-9_.-]{1,50}")
_WHOLE_MAX = 2**53 - 1  # what a double holds exactly


def check_key(key: str) -> str:
    """The key. Raises BadInput for one that cannot be given."""
    if len(key) > _KEY_MAX or not _KEY.fullmatch(key):
        raise BadInput(
            f"{key!r} cannot be an attribute's name",
            cure=f'Write "custom:" and letters, digits, "_" or ":", at most {_KEY_MAX} characters.',
        )
    return key


def check_attribute(attribute: Attribute, now: datetime) -> Attribute:
    """The attribute. Raises BadInput for a name or value that cannot be, and for an end that has passed."""
    check_key(attribute.key)
    value = attribute.value
    if isinstance(value, str):
        fine = bool(_TEXT.fullmatch(value))
    else:
        fine = isinstance(value, bool) or (isinstance(value, int) and abs(value) <= _WHOLE_MAX)
    if not fine:
        raise BadInput(
            f"{value!r} cannot be the value of {attribute.key}",
            cure='Give true, false, a whole number, or up to 50 letters, digits, "_", "." and "-".',
        )
    if attribute.expires is not None and attribute.expires <= now:
        raise BadInput("the end of the attribute has passed already", cure="Give a time to come.")
    return attribute


def set_attributes(
    connection: Connection,
    actor: str,
    node_id: int,
    said: Iterable[Attribute],
    gone: Iterable[str],
    comment: str,
    now: datetime,
) -> Effect[Node]:
    """Say things about a node, and take others back. Keys are compared without regard to case."""
    node = nodes.by_id(connection, node_id)
    if node is None:
        raise NotFound("this node was deleted", cure="`doorward nodes list` shows the nodes there are.")
    dropped = {key.lower() for key in gone}
    known = {one.key.lower(): one for one in node.attributes if one.key.lower() not in dropped}
    known |= {one.key.lower(): one for one in said}
    if len(known) > MAX_ATTRIBUTES:
        raise Conflict(
            f"a node has at most {MAX_ATTRIBUTES} attributes", cure="Take back what is not needed any more."
        )
    attributes = tuple(known[key] for key in sorted(known))
    if attributes == node.attributes:
        return Effect(result=node)
    details: dict[str, Any] = {"attributes": [msgspec.to_builtins(one) for one in attributes]}
    if comment:
        details["comment"] = comment
    return _store(connection, actor, node, attributes, details, now)


def end_attributes(connection: Connection, node_id: int, now: datetime) -> Effect[None]:
    """Take back what has ended. Of several processes the first does it; for the others nothing is left to do."""
    node = nodes.by_id(connection, node_id)
    if node is None:
        return Effect(result=None)
    left = tuple(one for one in node.attributes if one.expires is None or one.expires > now)
    if left == node.attributes:
        # Another process was first: what it wrote is read again here, in case this process has not heard of it yet.
        return Effect(result=None, nodes=(node,))
    ended = [one.key for one in node.attributes if one not in left]
    effect = _store(connection, "system", node, left, {"ended": ended}, now)
    return Effect(result=None, nodes=effect.nodes)


def _store(
    connection: Connection,
    actor: str,
    node: Node,
    attributes: tuple[Attribute, ...],
    details: dict[str, Any],
    now: datetime,
) -> Effect[Node]:
    changed = nodes.update(connection, msgspec.structs.replace(node, attributes=attributes))
    details["before"] = {"attributes": [msgspec.to_builtins(one) for one in node.attributes]}
    audit.append(connection, actor, "node.attributes", f"node:{node.stable_id}", details, now)
    return Effect(result=changed, nodes=(changed,))
