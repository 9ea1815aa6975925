"""Who may do what, and that nobody hands out more than they hold."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.nouns import NOW

from doorward.api.access import ACTS, ADMINISTRATOR, ALLOWED, Permission, Principal, bounded
from doorward.errors import NotPermitted
from doorward.model import Role, User


def allows(role: Role, permission: Permission) -> bool:
    try:
        Principal("token:1", role).require(permission)
    except NotPermitted:
        return False
    return True


def test_every_role_has_its_row_and_the_table_is_this() -> None:
    network = {"read", "keys", "nodes", "approve", "cut"}
    people = {"users", "invite", "sessions", "factors"}
    everything = network | people | {"policy", "dns", "settings", "checks", "tokens", "providers", "apps"}
    found = {
        role: {permission.value for permission in Permission if allows(role, permission)} for role in Role
    }
    assert found == {
        Role.OWNER: everything,
        Role.ADMIN: everything,
        Role.NETWORK_ADMIN: network | {"policy", "dns"},
        Role.IT_ADMIN: network | people | {"settings"},
        Role.BILLING_ADMIN: {"read"},
        Role.AUDITOR: {"read"},
        Role.MEMBER: set(),
    }
    assert set(ALLOWED) == set(Role)
    assert set(ACTS) == set(Permission)


def test_the_cure_names_who_may() -> None:
    with pytest.raises(NotPermitted) as caught:
        Principal("token:1", Role.AUDITOR).require(Permission.POLICY)
    assert caught.value.cure == "Ask with one of these roles: owner, admin, network-admin."


@pytest.mark.parametrize("role", list(Role))
def test_the_console_is_for_people_whatever_their_role(role: Role) -> None:
    with pytest.raises(NotPermitted, match="a person in a browser"):
        Principal("token:1", role).require(Permission.CONSOLE)


def test_the_socket_is_an_owner() -> None:
    assert Principal("cli", Role.OWNER) == ADMINISTRATOR


@pytest.mark.parametrize(
    ("asker", "other", "may"),
    [
        (Role.OWNER, Role.OWNER, True),
        (Role.ADMIN, Role.OWNER, False),
        (Role.ADMIN, Role.ADMIN, True),
        (Role.ADMIN, Role.IT_ADMIN, True),
        (Role.IT_ADMIN, Role.MEMBER, True),
        (Role.IT_ADMIN, Role.AUDITOR, False),
        (Role.IT_ADMIN, Role.IT_ADMIN, False),
        (Role.IT_ADMIN, Role.ADMIN, False),
    ],
)
def test_rank(asker: Role, other: Role, may: bool) -> None:
    if may:
        Principal("token:1", asker).require_rank(other)
        return
    with pytest.raises(NotPermitted, match=other):
        Principal("token:1", asker).require_rank(other)


def test_about_oneself_rank_does_not_matter() -> None:
    ann = User(id=1, name="ann", role=Role.IT_ADMIN, created=NOW)
    bob = User(id=2, name="bob", role=Role.IT_ADMIN, created=NOW)
    herself = Principal("user:ann", Role.IT_ADMIN, ann)
    herself.require_over(ann)
    with pytest.raises(NotPermitted):
        herself.require_over(bob)
    with pytest.raises(NotPermitted):
        Principal("token:1", Role.IT_ADMIN).require_over(ann)


@given(st.sampled_from(Role), st.sampled_from(Role))
def test_whoever_may_act_for_a_role_may_all_that_it_may(asker: Role, other: Role) -> None:
    try:
        Principal("token:1", asker).require_rank(other)
    except NotPermitted:
        return
    assert ALLOWED[other] <= ALLOWED[asker]


def roles_table() -> str:
    """What each role may do, as the guide shows it."""
    roles = [role for role in Role if ALLOWED[role]]
    lines = ["| | " + " | ".join(roles) + " |", "| --- |" + " :-: |" * len(roles)]
    lines += [
        f"| {ACTS[each]} | " + " | ".join("yes" if each in ALLOWED[role] else "" for role in roles) + " |"
        for each in Permission
        if each is not Permission.CONSOLE  # which is about nobody but who asks
    ]
    return "\n".join(lines) + "\n"


def test_the_guide_has_the_table() -> None:
    guide = Path(__file__).parents[2] / "docs" / "guide" / "sign-in.md"
    text = guide.read_text(encoding="utf-8")
    _, _, rest = text.partition("<!-- roles -->\n")
    assert rest.partition("<!-- /roles -->")[0].strip() == roles_table().strip(), roles_table()


@pytest.mark.parametrize(
    ("role", "by", "left"),
    [
        (Role.AUDITOR, Role.ADMIN, Role.AUDITOR),
        (Role.ADMIN, Role.OWNER, Role.ADMIN),
        (Role.OWNER, Role.OWNER, Role.OWNER),
        (Role.OWNER, Role.ADMIN, Role.ADMIN),
        (Role.ADMIN, Role.IT_ADMIN, Role.IT_ADMIN),
        (Role.IT_ADMIN, Role.NETWORK_ADMIN, Role.NETWORK_ADMIN),
        (Role.AUDITOR, Role.MEMBER, Role.MEMBER),
    ],
)
def test_nobody_lends_more_than_they_hold(role: Role, by: Role, left: Role) -> None:
    assert bounded(role, by) is left
