from ipaddress import ip_network

from tests.support.policy import make_node, make_user

from doorward.model import Node, User
from doorward.policy import parse_policy
from doorward.policy.roster import People, Roster
from doorward.policy.selectors import Names, parse_selector
from doorward.policy.sources import Sources

NAMES = Names(frozenset(), frozenset(["tag:a"]), {})
ALICE = make_user(1, "alice")
BOB = make_user(2, "bob", suspended=True)
ROUTER = make_node(3, tags=("tag:a",), advertised=("10.0.0.0/8",), approved=("10.0.0.0/8",))


def _sources(words: str, users: list[User], nodes: list[Node]) -> Sources:
    roster = Roster(People(parse_policy("{}"), users), nodes)
    return Sources.resolve([parse_selector(word, NAMES) for word in words.split()], roster)


def test_everyone_is_the_tailnet_and_the_subnets_behind_it() -> None:
    found = _sources("*", [ALICE], [make_node(1, user=1), ROUTER])
    assert found.texts == [
        "100.64.0.0-100.115.91.255",
        "100.115.94.0-100.127.255.255",
        "fd7a:115c:a1e0::/48",
        "10.0.0.0/8",
    ]
    assert found.nodes == {1, 3}
    assert found.people == {1}
    assert found.starts_in(ip_network("10.2.0.0/16"))


def test_nodes_by_name_then_literal_addresses_each_once() -> None:
    found = _sources("100.64.0.1 tag:a alice alice 10.0.0.0/16", [ALICE], [make_node(1, user=1), ROUTER])
    assert found.texts == [
        "100.64.0.1",
        "100.64.0.3",
        "fd7a:115c:a1e0::1",
        "fd7a:115c:a1e0::3",
        "10.0.0.0/16",
    ]
    assert found.starts_in(ip_network("10.0.0.0/8"))
    assert not found.starts_in(ip_network("192.168.0.0/16"))


def test_the_suspended_and_doorwards_own_nodes_are_cut_out_of_everything() -> None:
    nodes = [make_node(1, user=1), make_node(2, user=2), make_node(4, system=True)]
    found = _sources("* autogroup:member 100.64.0.2 100.64.0.4/31", [ALICE, BOB], nodes)
    assert found.nodes == {1}
    assert found.people == {1}
    assert found.texts[:2] == ["100.64.0.1", "fd7a:115c:a1e0::1"]
    assert found.texts[2:5] == ["100.64.0.0/31", "100.64.0.3", "100.64.0.5-100.115.91.255"]
    assert "100.64.0.2" not in found.texts
    assert found.texts[-1] == "100.64.0.5"


def test_danger_all_is_the_whole_world() -> None:
    assert _sources("autogroup:danger-all", [], []).texts == ["0.0.0.0/0", "::/0"]


def test_nobody() -> None:
    found = _sources("nobody tag:a", [ALICE], [make_node(1, user=1)])
    assert (found.texts, found.nodes, found.people) == ([], frozenset(), frozenset())
