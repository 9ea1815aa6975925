import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.policy import make_node, make_user

from doorward.model import Node, Role, User
from doorward.policy import parse_policy
from doorward.policy.document import Kind, Selector
from doorward.policy.roster import People, Roster, address_of, advertised, member_of
from doorward.policy.selectors import Names, parse_selector

NAMES = Names(frozenset(["group:g"]), frozenset(["tag:a", "tag:b"]), {})
DOCUMENT = parse_policy('{"groups": {"group:g": ["alice", "carol@example.com"]}}')
USERS = [
    make_user(1, "alice", email="alice@example.com", role=Role.OWNER),
    make_user(2, "bob", suspended=True),
    make_user(3, "carol", email="Carol@Example.com"),
    make_user(4, "dave@example.org"),
]
NODES = [
    make_node(1, user=1),
    make_node(2, user=2),
    make_node(3, user=3, advertised=("10.0.0.0/8",), approved=("10.0.0.0/8", "10.1.0.0/16")),
    make_node(4, tags=("tag:a", "tag:b"), user=1),
    make_node(5, user=4, advertised=("0.0.0.0/0", "::/0"), approved=("0.0.0.0/0", "::/0")),
    make_node(6, system=True),
    make_node(7),
]


def _named(text: str, users: list[User] = USERS) -> set[int]:
    return set(Roster(People(DOCUMENT, users), NODES).named(parse_selector(text, NAMES)))


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("*", {1, 2, 3, 4, 5, 7}),
        ("alice", {1}),
        ("ALICE@", {1}),
        ("alice@example.com", {1}),
        ("carol@example.com", {3}),
        ("dave@example.org", {5}),
        ("dave", set()),
        ("nobody", set()),
        ("group:g", {1, 3}),
        ("user:*@example.com", {1, 3}),
        ("user:*@example.org", {5}),
        ("tag:a", {4}),
        ("autogroup:member", {1, 2, 3, 5}),
        ("autogroup:owner", {1}),
        ("autogroup:admin", set()),
        ("autogroup:tagged", {4}),
        ("autogroup:internet", {5}),
        ("autogroup:self", set()),
        ("100.64.0.3", {3}),
        ("100.64.0.0/30", {1, 2, 3}),
        ("10.1.2.3", {3}),
        ("8.8.8.8", set()),
        ("fd7a:115c:a1e0::/48", {1, 2, 3, 4, 5, 7}),
    ],
)
def test_whom_a_word_names(text: str, nodes: set[int]) -> None:
    assert _named(text) == nodes


@pytest.mark.parametrize("role", Role)
def test_every_role_is_an_autogroup_of_its_own(role: Role) -> None:
    users = [make_user(number, f"user{number}", role=each) for number, each in enumerate(Role, 1)]
    nodes = [make_node(user.id, user=user.id) for user in users]
    roster = Roster(People(DOCUMENT, users), nodes)
    found = set(roster.named(parse_selector(f"autogroup:{role}", NAMES)))
    # Whoever has a role is a member besides: that is what every person with a device is.
    assert found == {user.id for user in users if user.role is role or role is Role.MEMBER}


def test_an_address_that_two_users_have_names_neither() -> None:
    twins = [make_user(1, "a", email="x@example.com"), make_user(4, "b", email="x@example.com")]
    assert _named("x@example.com", twins) == set()
    assert _named("a", twins) == {1}


def test_a_login_name_goes_before_somebody_elses_address() -> None:
    users = [make_user(1, "x@example.com"), make_user(4, "b", email="x@example.com")]
    assert _named("x@example.com", users) == {1}


def test_what_is_advertised_comes_from_outside() -> None:
    node = make_node(
        1,
        user=1,
        advertised=("10.0.0.0/8", "nonsense", "10.0.0.1/8", "10.0.0.0/8", "", "::/0", "1.2.3.4"),
        approved=("10.0.0.0/8", "::/0", "172.16.0.0/12"),
    )
    assert [str(route) for route in advertised(node)] == ["10.0.0.0/8", "::/0", "1.2.3.4/32"]
    member = member_of(node)
    assert [str(route) for route in member.routes] == ["10.0.0.0/8"]
    assert [str(route) for route in member.exits] == ["::/0"]


def test_who_starts_nothing_and_whose_addresses_no_range_lets_in() -> None:
    roster = Roster(People(DOCUMENT, USERS), NODES)
    assert roster.blocked == {2}
    assert {str(one) for one in roster.excluded()} == {
        "100.64.0.2",
        "fd7a:115c:a1e0::2",
        "100.64.0.6",
        "fd7a:115c:a1e0::6",
    }


def test_updates_say_what_changed_and_leave_the_old_one_alone() -> None:
    people = People(DOCUMENT, [user for user in USERS if not user.suspended])
    old = Roster(people, NODES)
    tag, member, alice = (parse_selector(text, NAMES) for text in ("tag:a", "autogroup:member", "alice"))
    before = [old.named(one) for one in (tag, member, alice)]
    new, changed = old.updated([make_node(5, tags=("tag:a",))], [4])
    assert changed == frozenset((tag, member))
    assert [new.named(one) for one in (tag, member, alice)] == [{5}, {1, 3}, {1}]
    assert [old.named(one) for one in (tag, member, alice)] == before
    assert new.by_tag["tag:a"] == {5}
    assert 4 not in new.by_owner


def test_updates_that_change_ranges_of_addresses_cannot_be_told_by_selector() -> None:
    old = Roster(People(DOCUMENT, USERS), NODES)
    router = make_node(1, user=1, advertised=("10.9.0.0/16",), approved=("10.9.0.0/16",))
    assert old.updated([router], [])[1] is None
    assert old.updated([make_node(9, system=True)], [])[1] is None
    assert old.updated([], [6])[1] is None
    assert old.updated([make_node(9, user=1)], [])[1] == frozenset()  # nothing was asked for yet


def test_addresses_of_users() -> None:
    assert [address_of(user) for user in USERS] == [
        "alice@example.com",
        "",
        "carol@example.com",
        "dave@example.org",
    ]
    assert Selector(Kind.USER, "alice") == parse_selector("alice", NAMES)


def test_the_addresses_of_a_users_nodes_are_made_once_for_each_roster() -> None:
    document = parse_policy("{}")
    before = Roster(People(document, [make_user(1, "ann")]), [make_node(2, user=1), make_node(1, user=1)])
    texts = before.texts_of(before.by_owner[1])
    assert texts is before.texts_of(before.by_owner[1])
    assert texts == ["100.64.0.1", "100.64.0.2", "fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2"]
    after, _ = before.updated([make_node(3, user=1)], [2])
    assert after.texts_of(after.by_owner[1]) == [
        "100.64.0.1",
        "100.64.0.3",
        "fd7a:115c:a1e0::1",
        "fd7a:115c:a1e0::3",
    ]
    assert before.texts_of(before.by_owner[1]) is texts
    assert before.texts_of(frozenset()) == []


SOME_NODES = st.lists(
    st.builds(
        lambda node_id, user, tags, carries, system: make_node(
            node_id,
            user=None if system else user,
            tags=() if system else tags,
            advertised=("10.9.0.0/16",) if carries else (),
            approved=("10.9.0.0/16",) if carries else (),
            system=system,
        ),
        st.integers(1, 9),
        st.sampled_from([1, 2, 4]),
        st.sampled_from([(), ("tag:a",), ("tag:a", "tag:b")]),
        st.booleans(),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=6,
    unique_by=lambda node: node.id,
)


@given(before=SOME_NODES, changed=SOME_NODES, removed=st.sets(st.integers(1, 9), max_size=4))
def test_many_changes_at_once_end_as_if_everybody_had_come_anew(
    before: list[Node], changed: list[Node], removed: set[int]
) -> None:
    people = People(DOCUMENT, USERS)
    selectors = [
        parse_selector(text, NAMES) for text in ("*", "tag:a", "autogroup:member", "alice", "10.9.0.0/16")
    ]
    old = Roster(people, before)
    for one in selectors:
        old.named(one)
    final = {node.id: node for node in before if node.id not in removed} | {node.id: node for node in changed}
    new, told = old.updated(changed, removed)
    anew = Roster(people, final.values())
    assert [new.named(one) for one in selectors] == [anew.named(one) for one in selectors]
    assert (new.by_owner, new.by_tag, new.routes) == (anew.by_owner, anew.by_tag, anew.routes)
    assert (new.members, new.hidden) == (anew.members, anew.hidden)
    if told is not None:
        differ = {one for one in selectors if old.named(one) != new.named(one)}
        assert differ <= told


def test_outside_groups_hold_those_of_whom_their_provider_says_so() -> None:
    users = [
        make_user(1, "alice", groups=("eng@example.com", "ops@example.com")),
        make_user(2, "bob", suspended=True, groups=("eng@example.com",)),
        make_user(3, "carol", groups=("eng@example.org",)),
    ]
    assert _named("group:eng@example.com", users) == {1, 2}
    assert _named("group:eng@EXAMPLE.org", users) == {3}
    assert _named("group:Eng@example.com", users) == set()
    assert _named("group:nobody@example.com", users) == set()


def test_a_group_of_the_file_is_not_widened_by_a_provider() -> None:
    document = parse_policy('{"groups": {"group:eng@example.com": ["carol"]}}')
    users = [make_user(1, "alice", groups=("eng@example.com",)), make_user(3, "carol")]
    named = Names(frozenset(["group:eng@example.com"]), frozenset(), {})
    selector = parse_selector("group:eng@example.com", named)
    assert People(document, users).named(selector) == {3}
