"""Nodes: what they are (``nodes``, audited by whoever writes it) and what they last reported (``node_observations``).

Each node has exactly one row in both. ``update`` writes only the first and ``observe`` only the second, so that a late
observation can never undo a decision.
"""

from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from doorward.model import Node, Observed
from doorward.protocol.keys import MachinePublic, NodePublic
from doorward.store import rows
from doorward.store.tables import node_observations, nodes

_STATE = [column.name for column in nodes.columns]
_OBSERVED = [column.name for column in node_observations.columns if column.name != "node_id"]
_PRESENCE = frozenset(("online", "last_seen", "held_by", "came_from"))
_MOST_PARAMETERS = 1000  # of one statement
_EVERYTHING = sa.select(
    *nodes.columns, *(column for column in node_observations.columns if column.name != "node_id")
).join_from(nodes, node_observations)

# Made once: a statement costs more to put together than to run, and these are run for each node that joins.
_IN_ORDER = _EVERYTHING.order_by(nodes.c.id)
_BY_ID = _IN_ORDER.where(nodes.c.id == sa.bindparam("wanted"))
_BY_NODE_KEY = _IN_ORDER.where(nodes.c.node_key == sa.bindparam("wanted"))
_BY_MACHINE_KEYS = _IN_ORDER.where(nodes.c.machine_key.in_(sa.bindparam("wanted", expanding=True)))
_WITH_ADDRESSES = sa.select(nodes.c.ipv4, nodes.c.ipv6).where(
    sa.or_(
        nodes.c.ipv4.in_(sa.bindparam("wanted4", expanding=True)),
        nodes.c.ipv6.in_(sa.bindparam("wanted6", expanding=True)),
    )
)
_WITH_KEYS = sa.select(nodes.c.node_key).where(nodes.c.node_key.in_(sa.bindparam("wanted", expanding=True)))
_WITH_NAMES = sa.select(nodes.c.name).where(nodes.c.name.in_(sa.bindparam("wanted", expanding=True)))
_IDS = sa.select(nodes.c.stable_id, nodes.c.id).where(
    nodes.c.stable_id.in_(sa.bindparam("wanted", expanding=True))
)
_INSERT = sa.insert(nodes)
_INSERT_OBSERVATION = sa.insert(node_observations)


def insert(connection: Connection, draft: Node) -> Node:
    """Store a new node with what was observed of it.

    Raises Conflict; ``place`` tells which: "nodes.name", "nodes.node_key", "nodes.ipv4", "nodes.ipv6",
    "nodes.stable_id", or "nodes.machine_key, nodes.user_id" for a second untagged node of one user on one machine;
    without a place when the user is not there.
    """
    return insert_all(connection, [draft])[0]


def insert_all(connection: Connection, drafts: Sequence[Node]) -> list[Node]:
    """Store new nodes, with three statements for all of them. Raises as ``insert`` does, and then nothing may be kept."""
    if not drafts:
        return []
    if any(draft.id for draft in drafts):
        raise ValueError("a draft for nodes has id 0: ids are given by the database")
    connection.execute(_INSERT, [rows.fields(nodes, draft) for draft in drafts])
    given = connection.execute(_IDS, {"wanted": [draft.stable_id for draft in drafts]})
    ids: dict[str, int] = {row.stable_id: row.id for row in given}
    made = [msgspec.structs.replace(draft, id=ids[draft.stable_id]) for draft in drafts]
    connection.execute(_INSERT_OBSERVATION, [_observation(node.id, node.observed) for node in made])
    return made


def update(connection: Connection, node: Node) -> Node:
    """Store the node's state, not its observations. Raises NotFound for one that is gone, Conflict as ``insert``."""
    rows.change(connection, nodes, node)
    return node


def delete(connection: Connection, node_id: int) -> None:
    """Delete a node with its observations. Raises NotFound."""
    rows.remove(connection, nodes, node_id)


def observe(
    connection: Connection,
    observations: Iterable[tuple[int, Observed]],
    *,
    reports: bool = True,
    presence: bool = True,
) -> None:
    """Store what nodes reported, all at once, and whether they are there, and where; or only one of the two.

    One that is gone meanwhile is passed over.
    """
    names = [name for name in _OBSERVED if (presence if name in _PRESENCE else reports)]
    batch = [
        {"of": node_id, **{name: getattr(observed, name) for name in names}}
        for node_id, observed in observations
    ]
    if not batch:
        return
    columns: dict[str, Any] = {name: sa.bindparam(name) for name in names}
    statement = sa.update(node_observations).where(node_observations.c.node_id == sa.bindparam("of"))
    connection.execute(statement.values(columns), batch)


def load_all(connection: Connection) -> list[Node]:
    """Every node with its observations, by id."""
    return _load(connection)


def by_ids(connection: Connection, node_ids: Sequence[int]) -> list[Node]:
    """Those of these nodes that are there, by id."""
    found: list[Node] = []
    for start in range(0, len(node_ids), _MOST_PARAMETERS):
        found += _load(connection, nodes.c.id.in_(node_ids[start : start + _MOST_PARAMETERS]))
    return sorted(found, key=lambda node: node.id)


def by_id(connection: Connection, node_id: int) -> Node | None:
    """The node with this id."""
    return _first(_run(connection, _BY_ID, node_id))


def tabs_of(connection: Connection, user_id: int) -> list[Node]:
    """The browsers' tabs of a person, by id."""
    # As text: to the column itself, None is a value like any other.
    is_tab = sa.type_coerce(nodes.c.tab, sa.Text()) != "null"
    return _load(connection, nodes.c.user_id == user_id, is_tab)


def by_stable_id(connection: Connection, stable_id: str) -> Node | None:
    """The node with this name in the protocol."""
    return _one(connection, nodes.c.stable_id == stable_id)


def by_node_key(connection: Connection, key: NodePublic) -> Node | None:
    """The node that has this node key now."""
    return _first(_run(connection, _BY_NODE_KEY, key))


def by_name(connection: Connection, name: str) -> Node | None:
    """The node with this first DNS label."""
    return _one(connection, nodes.c.name == name)


def by_address(connection: Connection, address: IPv4Address | IPv6Address) -> Node | None:
    """The node with this tailnet address."""
    return _one(connection, _has(address))


def by_machine_keys(connection: Connection, keys: Iterable[MachinePublic]) -> list[Node]:
    """Every node on these machines, by id: one for each user who signed in there, and tagged ones."""
    return _run(connection, _BY_MACHINE_KEYS, list(keys))


def node_keys_in_use(connection: Connection, keys: Iterable[NodePublic]) -> frozenset[NodePublic]:
    """Those of these node keys that a node has."""
    return frozenset(connection.execute(_WITH_KEYS, {"wanted": list(keys)}).scalars())


def addresses_in_use(
    connection: Connection, pairs: Collection[tuple[IPv4Address, IPv6Address]]
) -> frozenset[IPv4Address | IPv6Address]:
    """The tailnet addresses of the nodes that have one of these."""
    wanted = {"wanted4": [ipv4 for ipv4, _ in pairs], "wanted6": [ipv6 for _, ipv6 in pairs]}
    return frozenset(address for row in connection.execute(_WITH_ADDRESSES, wanted) for address in row)


def names_in_use(connection: Connection, names: Iterable[str]) -> frozenset[str]:
    """Those of these names that a node has."""
    return frozenset(connection.execute(_WITH_NAMES, {"wanted": list(names)}).scalars())


def names_like(connection: Connection, base: str) -> set[str]:
    """The names in use that are ``base`` or start with ``base-``: what a new name with a suffix must differ from."""
    if connection.dialect.name == "sqlite":
        # Its LIKE knows no letter case, so no index can serve it. Names are compared by their bytes here: "." follows "-".
        longer = sa.and_(nodes.c.name >= f"{base}-", nodes.c.name < f"{base}.")
    else:
        longer = nodes.c.name.startswith(f"{base}-", autoescape=True)
    condition = sa.or_(nodes.c.name == base, longer)
    return set(connection.execute(sa.select(nodes.c.name).where(condition)).scalars())


def _has(address: IPv4Address | IPv6Address) -> ColumnElement[bool]:
    return nodes.c.ipv4 == address if isinstance(address, IPv4Address) else nodes.c.ipv6 == address


def _observation(node_id: int, observed: Observed) -> dict[str, Any]:
    return {"node_id": node_id, **{name: getattr(observed, name) for name in _OBSERVED}}


def _load(connection: Connection, *conditions: ColumnElement[bool]) -> list[Node]:
    return _run(connection, _IN_ORDER.where(*conditions))


def _run(connection: Connection, statement: sa.Select[Any], wanted: object = None) -> list[Node]:
    split = len(_STATE)
    return [
        Node(
            **dict(zip(_STATE, row[:split], strict=True)),
            observed=Observed(**dict(zip(_OBSERVED, row[split:], strict=True))),
        )
        for row in connection.execute(statement, {"wanted": wanted})
    ]


def _one(connection: Connection, condition: ColumnElement[bool]) -> Node | None:
    return _first(_load(connection, condition))


def _first(found: list[Node]) -> Node | None:
    return found[0] if found else None
