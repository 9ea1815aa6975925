"""Who may do what, and that nobody hands out more than they hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.api.access import ADMINISTRATOR, ALLOWED, Permission, Principal
from doorward.errors import NotPermitted
from doorward.model import Role


def allows(role: Role, permission: Permission) -> bool:
    try:
        Principal("token:1", role).require(permission)
    except NotPermitted:
        return False
    return True


def test_every_role_has_its_row_and_the_table_is_this() -> None:
    letters = {
        role: "".join(permission[0] for permission in Permission if allows(role, permission)) for role in Role
    }
    assert letters == {  # read, users, keys, nodes, policy, tokens, dns, checks
        Role.OWNER: "ruknptdc",
        Role.ADMIN: "ruknptdc",
        Role.NETWORK_ADMIN: "rknpd",
        Role.IT_ADMIN: "rukn",
        Role.BILLING_ADMIN: "r",
        Role.AUDITOR: "r",
        Role.MEMBER: "",
    }
    assert set(ALLOWED) == set(Role)


def test_the_cure_names_who_may() -> None:
    with pytest.raises(NotPermitted) as caught:
        Principal("token:1", Role.AUDITOR).require(Permission.POLICY)
    assert caught.value.cure == "Ask with one of these roles: owner, admin, network-admin."


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


@given(st.sampled_from(Role), st.sampled_from(Role))
def test_whoever_may_act_for_a_role_may_all_that_it_may(asker: Role, other: Role) -> None:
    try:
        Principal("token:1", asker).require_rank(other)
    except NotPermitted:
        return
    assert ALLOWED[other] <= ALLOWED[asker]
