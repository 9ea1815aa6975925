"""Small tailnets and policies for tests of properties: few names, so that rules and nodes meet often."""

from typing import Any

import msgspec
from hypothesis import strategies as st
from tests.support.policy import make_node, make_user

from doorward.model import Attribute, Node, Role

USERS = [
    make_user(1, "alice", role=Role.ADMIN),
    make_user(2, "bob", email="bob@example.com"),
    make_user(3, "eve", suspended=True),
]
TAGS: dict[str, list[str]] = {"tag:a": ["bob"], "tag:b": ["tag:a"], "tag:c": ["group:g"], "tag:d": []}
GROUPS = {"group:g": ["alice", "bob"]}
IPSETS = {"ipset:s": ["add 100.64.0.0/30", "remove 100.64.0.1", "add 10.1.2.0/24"]}
POSTURES = {"posture:ok": ["custom:ok == true"], "posture:linux": ["node:os == 'linux'", "custom:ok IS SET"]}
BASE: dict[str, Any] = {"tagOwners": TAGS, "groups": GROUPS, "ipsets": IPSETS, "postures": POSTURES}
ROUTER = make_node(
    4, tags=("tag:a",), advertised=("10.0.0.0/8", "0.0.0.0/0"), approved=("10.0.0.0/8", "0.0.0.0/0", "::/0")
)
NODES = [make_node(1, user=1), make_node(2, user=2), make_node(3, user=3), ROUTER, make_node(5, system=True)]

_WHO = st.sampled_from(
    [
        "*",
        "alice",
        "bob",
        "eve",
        "group:g",
        "tag:a",
        "tag:b",
        "autogroup:member",
        "autogroup:tagged",
        "10.0.0.0/8",
        "100.64.0.2",
        "100.64.0.0/29",
        "ipset:s",
    ]
)
_WHERE = st.one_of(_WHO, st.sampled_from(["autogroup:internet", "10.1.0.0/16"]))
_APP: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"src": st.lists(_WHO, min_size=1, max_size=2), "dst": st.lists(_WHO, max_size=2)},
).map(lambda grant: grant | {"app": {"tailscale.com/cap/drive": [{}]}})
_POSTURES = st.lists(st.sampled_from(sorted(POSTURES)), max_size=2)
GRANT = st.one_of(
    st.fixed_dictionaries(
        {
            "src": st.lists(_WHO, min_size=1, max_size=2),
            "dst": st.lists(_WHERE, min_size=1, max_size=2),
            "ip": st.lists(st.sampled_from(["*", "22", "tcp:80"]), min_size=1, max_size=2),
        }
    ),
    st.sampled_from(["alice", "autogroup:member", "group:g"]).map(
        lambda who: {"src": [who], "dst": ["autogroup:self"], "ip": ["*"]}
    ),
    _APP,
    st.builds(
        lambda who, where, postures: {"src": [who], "dst": [where], "ip": ["*"], "srcPosture": postures},
        _WHO,
        _WHO,
        _POSTURES,
    ),
    st.builds(
        lambda who, postures: {"src": [who], "dst": ["autogroup:self"], "ip": ["22"], "srcPosture": postures},
        st.sampled_from(["alice", "autogroup:member"]),
        _POSTURES,
    ),
)
GRANTS = st.lists(GRANT, max_size=4)

# What the simple grants leave out: sets of addresses, routers that are named, conditions on sources.
RICH = BASE | {
    "ipsets": IPSETS | {"ipset:few": ["add 100.64.0.1-100.64.0.4", "remove 100.64.0.3", "add 10.1.2.0/24"]},
    "postures": POSTURES | {"posture:linux": ["node:os == 'linux'"], "posture:known": ["node:os NOT SET"]},
    "hosts": {"two": "100.64.0.2"},
}
_RICH_WHO = st.one_of(_WHO, st.sampled_from(["ipset:few", "two", "autogroup:danger-all", "autogroup:admin"]))
_RICH_WHERE = st.one_of(_WHERE, st.sampled_from(["ipset:few", "two"]))
_VIA = st.fixed_dictionaries(
    {
        "src": st.lists(_RICH_WHO, min_size=1, max_size=2),
        "dst": st.lists(st.sampled_from(["10.1.0.0/16", "autogroup:internet"]), min_size=1, max_size=1),
        "ip": st.just(["*"]),
        "via": st.lists(st.sampled_from(["tag:a", "tag:b"]), min_size=1, max_size=1),
    }
)
_RICH = st.fixed_dictionaries(
    {
        "src": st.lists(_RICH_WHO, min_size=1, max_size=2),
        "dst": st.lists(_RICH_WHERE, min_size=1, max_size=2),
        "ip": st.lists(st.sampled_from(["*", "22", "tcp:80", "icmp:*"]), min_size=1, max_size=2),
    },
    optional={
        "srcPosture": st.lists(st.sampled_from(["posture:linux", "posture:known"]), min_size=1, max_size=1)
    },
)
RICH_GRANTS = st.lists(st.one_of(GRANT, _RICH, _VIA), max_size=4)
SSH = st.lists(
    st.fixed_dictionaries(
        {
            "action": st.just("accept"),
            "src": st.lists(
                st.sampled_from(["alice", "eve", "autogroup:member", "group:g"]), min_size=1, max_size=2
            ),
            "dst": st.lists(st.sampled_from(["tag:a", "autogroup:self", "tag:b"]), max_size=2),
            "users": st.just(["root", "localpart:*@example.com"]),
        }
    ),
    max_size=2,
)


@st.composite
def _nodes(draw: st.DrawFn) -> Node:
    node_id = draw(st.integers(1, 6))
    tags = draw(st.sets(st.sampled_from(["tag:a", "tag:b"]), max_size=2))
    routes = draw(st.sets(st.sampled_from(["10.0.0.0/8", "10.1.2.0/24", "0.0.0.0/0"]), max_size=2))
    said = draw(st.sampled_from([None, True, False]))
    node = make_node(
        node_id,
        user=draw(st.sampled_from([1, 2, 3, None])),
        tags=tags,
        advertised=sorted(routes),
        approved=sorted(routes),
        system=draw(st.integers(0, 9)) == 0,
    )
    host = msgspec.structs.replace(node.observed.hostinfo, OS=draw(st.sampled_from(["", "linux"])))
    return msgspec.structs.replace(
        node,
        attributes=() if said is None else (Attribute(key="custom:ok", value=said),),
        suspended=draw(st.integers(0, 9)) == 0,
        observed=msgspec.structs.replace(node.observed, hostinfo=host),
    )


CUTS = st.lists(st.tuples(st.integers(1, 3), st.integers(4, 6)), max_size=2)
TAILNETS = st.lists(_nodes(), max_size=6, unique_by=lambda node: node.id)
