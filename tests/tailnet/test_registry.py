"""Every way in which people change the tailnet: what it does, what it refuses, and what the audit log says of it."""

import asyncio
import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.joining import TAGS, admitted, in_memory, register, reopened
from tests.support.world import World

from doorward.errors import BadInput, Conflict, DoorwardError, NotFound, Unauthenticated
from doorward.model import AuditEvent, Role
from doorward.policy import DEFAULT_POLICY, PolicyError
from doorward.policy.edit import AddName
from doorward.protocol.tailcfg.derpmap import DERPMap, DERPRegion
from doorward.protocol.tailcfg.dns import DNSRecord
from doorward.tailnet.settings import DNS
from doorward.tailnet.units import PolicyChanged


async def last_event(world: World) -> AuditEvent:
    return (await world.registry.audit(limit=1))[0]


async def unchanged(world: World, act: Any, error: type[DoorwardError], match: str) -> None:
    """The action is refused with a cure, and leaves neither a change nor an event."""
    before = (world.registry.snapshot, await world.registry.audit(limit=1000))
    with pytest.raises(error, match=match) as caught:
        await act
    assert caught.value.cure
    assert (world.registry.snapshot, await world.registry.audit(limit=1000)) == before


# Users


async def test_a_user(world: World) -> None:
    user = await world.registry.create_user(
        "cli", " Ann@Example.com ", email="a@example.com", display_name="Ann", role=Role.OWNER
    )
    assert (user.id, user.name, user.role, user.created) == (
        1,
        "ann@example.com",
        Role.OWNER,
        world.clock.now(),
    )
    assert world.registry.snapshot.user_by_name("ann@example.com") == user
    assert (await reopened(world)).snapshot.users[1] == user
    event = await last_event(world)
    assert (event.actor, event.action, event.target) == ("cli", "user.create", "user:ann@example.com")
    assert event.details == {"role": "owner", "email": "a@example.com"}


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "-a", "ä", "a/b", "a@", "@b", "a@b@c", "a" * 64, "a\n", 'a"', "group:x"]
)
async def test_what_cannot_be_a_name(world: World, name: str) -> None:
    if name == "a\n":
        assert (await world.registry.create_user("cli", name)).name == "a"
        return
    await unchanged(world, world.registry.create_user("cli", name), BadInput, "cannot be a user's name")


async def test_a_name_is_taken_once(world: World) -> None:
    await world.registry.create_user("cli", "ann")
    await unchanged(
        world, world.registry.create_user("cli", "ANN"), Conflict, "there is a user 'ann' already"
    )
    outcomes = await asyncio.gather(
        *(world.registry.create_user("cli", "bob") for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 4
    assert len(world.registry.snapshot.users) == 2


async def test_roles_and_suspension(world: World) -> None:
    await world.registry.create_user("cli", "ann")
    assert (await world.registry.set_role("cli", "ann", Role.AUDITOR)).role is Role.AUDITOR
    assert (await last_event(world)).details == {"role": "auditor", "before": {"role": "member"}}
    assert (await world.registry.suspend_user("cli", "Ann", suspended=True)).suspended
    assert (await last_event(world)).action == "user.suspend"
    assert not (await world.registry.suspend_user("cli", "ann", suspended=False)).suspended
    user = world.registry.snapshot.user_by_name("ann")
    assert (await reopened(world)).snapshot.user_by_name("ann") == user
    await unchanged(world, world.registry.set_role("cli", "eve", Role.ADMIN), NotFound, "no user 'eve'")


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.MEMBER])
async def test_a_role_counts_in_the_policy_at_once(world: World, role: Role) -> None:
    grant = {"src": [f"autogroup:{role}"], "dst": ["tag:web"], "ip": ["22"]}
    await world.registry.set_policy("cli", json.dumps({"tagOwners": {"tag:web": []}, "grants": [grant]}))
    await world.registry.create_user("cli", "olga", role=Role.OWNER)
    await world.registry.create_user("cli", "ann")
    mine, web = await admitted(world, 1), await world.join(2, "server", "ann", "tag:web")
    assert world.registry.snapshot.policy.peers(mine.id) == frozenset()
    await world.registry.set_role("cli", "ann", role)
    assert world.registry.snapshot.policy.peers(mine.id) == {web.id}
    (found,) = world.registry.snapshot.policy.filter_rules(web.id)
    assert str(mine.ipv4) in found.SrcIPs
    await world.registry.set_role("cli", "ann", Role.MEMBER)
    assert world.registry.snapshot.policy.peers(mine.id) == frozenset()
    assert world.registry.snapshot.policy.filter_rules(web.id) == []


async def test_the_only_owner_is_neither_demoted_nor_shut_out_nor_deleted(world: World) -> None:
    registry = world.registry
    for name in ("ann", "bob"):
        await registry.create_user("cli", name, role=Role.OWNER)
    await registry.suspend_user("cli", "bob", suspended=True)  # who is suspended owns nothing
    for act in (
        registry.set_role("cli", "ann", Role.ADMIN),
        registry.suspend_user("cli", "ann", suspended=True),
        registry.delete_user("cli", "ann"),
    ):
        await unchanged(world, act, Conflict, "ann is the only owner")
    await registry.set_role("cli", "bob", Role.MEMBER)
    await registry.suspend_user("cli", "bob", suspended=False)
    await registry.set_role("cli", "bob", Role.OWNER)
    outcomes = await asyncio.gather(
        registry.set_role("cli", "ann", Role.MEMBER),
        registry.set_role("cli", "bob", Role.MEMBER),
        return_exceptions=True,
    )
    assert [isinstance(outcome, Conflict) for outcome in outcomes] == [False, True], (
        "both at once is one too many"
    )


async def test_a_suspended_users_nodes_start_nothing(world: World) -> None:
    await world.registry.create_user("cli", "ann")
    node = await admitted(world, 1)
    assert world.registry.snapshot.policy.filter_rules(node.id)
    await world.registry.suspend_user("cli", "ann", suspended=True)
    assert world.registry.snapshot.policy.filter_rules(node.id) == []


async def test_deleting_a_user(world: World) -> None:
    await world.registry.set_policy("cli", TAGS)
    await world.registry.create_user("cli", "ann")
    await world.registry.create_auth_key("cli", user="ann")
    mine = await admitted(world, 1)
    tagged = await world.join(2, "server", "ann", "tag:web")
    await unchanged(world, world.registry.delete_user("cli", "ann"), Conflict, "ann still has 1 node: laptop")
    await world.registry.delete_node("cli", mine.id)
    await world.registry.delete_user("cli", "ann")
    event = await last_event(world)
    assert (event.action, event.details) == ("user.delete", {"auth_keys": [1, 2, 3]})
    assert world.registry.snapshot.nodes[tagged.id].user_id is None
    assert await world.registry.list_auth_keys() == []
    assert dict((await reopened(world)).snapshot.users) == dict(world.registry.snapshot.users) == {}


async def test_deleting_a_user_with_all_that_is_theirs(world: World) -> None:
    registry = world.registry
    await registry.set_policy("cli", TAGS)
    ann = await registry.create_user("cli", "ann")
    mine = [await admitted(world, number, machine=number) for number in (1, 2)]
    tagged = await world.join(3, "server", "ann", "tag:web")
    await registry.access.cut("cli", mine[0].id, tagged.id)
    _, text = await registry.create_api_token("cli", description="x", owner=ann)
    stream = registry.writer.changes.subscribe(mine[0].id)
    await registry.delete_user("cli", "ann", with_nodes=True)
    assert stream.ended
    assert [node.id for node in in_memory(world)] == [tagged.id]
    assert not registry.snapshot.cuts
    with pytest.raises(Unauthenticated):
        await registry.check_api_token(text)
    gone, first, second = await registry.audit(limit=3)
    assert (gone.action, gone.details["tokens"]) == ("user.delete", [1])
    assert [one.details["reason"] for one in (first, second)] == ["its person was deleted"] * 2
    again = await reopened(world)
    assert (dict(again.snapshot.users), list(again.snapshot.nodes)) == ({}, [tagged.id])


async def test_a_persons_tokens_end_when_they_are_suspended_and_nobody_elses(world: World) -> None:
    registry = world.registry
    ann, bob = [await registry.create_user("cli", name) for name in ("ann", "bob")]
    made = [
        await registry.create_api_token("cli", description="x", owner=owner) for owner in (ann, bob, None)
    ]
    await registry.suspend_user("cli", "ann", suspended=True)
    (event,) = await registry.audit(limit=1)
    assert (event.action, event.details["tokens"]) == ("user.suspend", [1])
    await registry.suspend_user("cli", "ann", suspended=False)
    with pytest.raises(Unauthenticated):
        await registry.check_api_token(made[0][1])
    assert [(await registry.check_api_token(text)).id for _, text in made[1:]] == [2, 3]
    # One that was made at the very moment, or by a process that did not know yet.
    await registry.suspend_user("cli", "bob", suspended=True)
    late = (await registry.create_api_token("cli", description="x", owner=bob))[1]
    with pytest.raises(Unauthenticated):
        await registry.check_api_token(late)


# Auth keys and tokens


async def test_an_auth_key(world: World) -> None:
    await world.registry.set_policy("cli", TAGS)
    await world.registry.create_user("cli", "ann")
    key, text = await world.registry.create_auth_key(
        "cli", user="ann", tags=["tag:web", "tag:db", "tag:web"], reusable=True, ephemeral=True
    )
    assert text.startswith(key.prefix + "-")
    assert key.tags == ("tag:db", "tag:web")
    assert key.expires == world.clock.now() + timedelta(hours=1)
    assert await world.registry.list_auth_keys() == [key]
    event = await last_event(world)
    assert (event.action, event.target, event.details["prefix"]) == ("key.create", "key:1", key.prefix)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"user": None}, BadInput, "needs an owner"),
        ({"user": "eve"}, NotFound, "no user 'eve'"),
        ({"user": None, "tags": ["tag:web"]}, BadInput, "the policy knows no tag:web"),
        ({"user": "ann", "expires_in": timedelta(0)}, BadInput, "lives between"),
        ({"user": "ann", "expires_in": timedelta(days=731)}, BadInput, "lives between"),
        ({"user": "ann", "expires_in": timedelta(seconds=-1)}, BadInput, "lives between"),
    ],
)
async def test_an_auth_key_that_cannot_be(
    world: World, options: dict[str, Any], error: type[DoorwardError], match: str
) -> None:
    await world.registry.create_user("cli", "ann")
    await unchanged(world, world.registry.create_auth_key("cli", **options), error, match)


async def test_revoking_a_key_twice_is_once(world: World) -> None:
    await world.registry.create_user("cli", "ann")
    await world.registry.create_auth_key("cli", user="ann")
    revoked = await world.registry.revoke_auth_key("cli", 1)
    assert revoked.revoked == world.clock.now()
    world.clock.advance(9)
    events = await world.registry.audit(limit=1000)
    assert await world.registry.revoke_auth_key("cli", 1) == revoked
    assert await world.registry.audit(limit=1000) == events
    await unchanged(world, world.registry.revoke_auth_key("cli", 2), NotFound, "no auth key 2")


async def test_a_token(world: World) -> None:
    token, text = await world.registry.create_api_token(
        "cli", description="backup", role=Role.AUDITOR, expires_in=timedelta(hours=2)
    )
    assert await world.registry.check_api_token(text) == token
    assert await world.registry.list_api_tokens() == [token]
    for wrong in ("", text[:-1], text + "x", token.prefix):
        with pytest.raises(Unauthenticated, match="not valid"):
            await world.registry.check_api_token(wrong)
    world.clock.advance(timedelta(hours=2))
    with pytest.raises(Unauthenticated, match="not valid"):
        await world.registry.check_api_token(text)


async def test_a_revoked_token_is_useless_at_once(world: World) -> None:
    token, text = await world.registry.create_api_token("cli", description="x")
    assert token.expires is None
    revoked = await world.registry.revoke_api_token("cli", token.id)
    with pytest.raises(Unauthenticated, match="not valid"):
        await world.registry.check_api_token(text)
    assert (await last_event(world)).action == "token.revoke"
    assert await world.registry.revoke_api_token("cli", token.id) == revoked
    await unchanged(world, world.registry.revoke_api_token("cli", 9), NotFound, "no API token 9")


# Nodes


@pytest.fixture
async def pair(world: World) -> tuple[int, int]:
    await world.registry.set_policy("cli", TAGS)
    await world.registry.create_user("cli", "ann")
    first = await admitted(world, 1)
    second = await admitted(world, 2, machine=2)
    return first.id, second.id


async def test_renaming(world: World, pair: tuple[int, int]) -> None:
    node = await world.registry.rename_node("cli", pair[0], " Desk ")
    assert (node.name, node.renamed) == ("desk", True)
    assert world.registry.snapshot.node_by_name("desk") == node
    assert world.registry.snapshot.node_by_name("laptop") is None
    assert (await last_event(world)).details == {
        "name": "desk",
        "renamed": True,
        "before": {"name": "laptop", "renamed": False},
    }
    await unchanged(
        world, world.registry.rename_node("cli", pair[1], "desk"), Conflict, "another node is called"
    )
    for name in ("", "a_b", "-a", "a-", "a.b", "a" * 64):
        await unchanged(
            world, world.registry.rename_node("cli", pair[1], name), BadInput, "cannot be a node's name"
        )
    assert (await world.registry.rename_node("cli", pair[0], "desk")).name == "desk"


async def test_expiring(world: World, pair: tuple[int, int]) -> None:
    node = await world.registry.expire_node("cli", pair[0])
    assert node.key_expiry == world.clock.now()
    assert (await last_event(world)).action == "node.expire"
    world.clock.advance(5)
    events = await world.registry.audit(limit=1000)
    assert await world.registry.expire_node("cli", pair[0]) == node
    assert await world.registry.audit(limit=1000) == events


async def test_deleting(world: World, pair: tuple[int, int]) -> None:
    gone = world.registry.snapshot.nodes[pair[0]]
    await world.registry.delete_node("cli", pair[0])
    snapshot = world.registry.snapshot
    assert set(snapshot.nodes) == {pair[1]}
    assert snapshot.node_by_key(gone.node_key) is None
    event = await last_event(world)
    assert (event.action, event.details["name"]) == ("node.delete", "laptop")
    for act in (
        world.registry.delete_node("cli", pair[0]),
        world.registry.expire_node("cli", pair[0]),
        world.registry.rename_node("cli", pair[0], "x"),
        world.registry.set_tags("cli", pair[0], ["tag:web"]),
        world.registry.set_routes("cli", pair[0], approve=["10.0.0.0/8"]),
    ):
        await unchanged(world, act, NotFound, "this node was deleted")


async def test_tags(world: World, pair: tuple[int, int]) -> None:
    node = await world.registry.set_tags("cli", pair[0], ["tag:web", "tag:db", "tag:db"])
    assert (node.tags, node.key_expiry) == (("tag:db", "tag:web"), None)
    assert (await last_event(world)).details == {
        "tags": ["tag:db", "tag:web"],
        "key_expiry": None,
        "before": {"tags": [], "key_expiry": "2026-07-01T03:04:05+00:00"},
    }
    await unchanged(
        world, world.registry.set_tags("cli", pair[0], ["tag:nope"]), BadInput, "knows no tag:nope"
    )
    events = await world.registry.audit(limit=1000)
    await world.registry.set_tags("cli", pair[0], ["tag:db", "tag:web"])
    assert await world.registry.audit(limit=1000) == events
    back = await world.registry.set_tags("cli", pair[0], [])
    assert back.tags == ()
    assert back.key_expiry == world.clock.now() + timedelta(days=180)
    nobodys = await world.join(3, "server", None, "tag:web")
    await unchanged(world, world.registry.set_tags("cli", nobodys.id, []), Conflict, "belong to nobody")


async def test_routes(world: World, pair: tuple[int, int]) -> None:
    async def set_routes(**changes: list[str]) -> list[str]:
        return [
            str(each) for each in (await world.registry.set_routes("cli", pair[0], **changes)).approved_routes
        ]

    assert await set_routes(approve=["10.0.0.0/8", " 192.168.1.0/24 "]) == ["10.0.0.0/8", "192.168.1.0/24"]
    assert (await last_event(world)).details == {
        "approved_routes": ["10.0.0.0/8", "192.168.1.0/24"],
        "before": {"approved_routes": []},
    }
    assert await set_routes(approve=["0.0.0.0/0"], reject=["10.0.0.0/8"]) == [
        "0.0.0.0/0",
        "192.168.1.0/24",
        "::/0",
    ]
    assert await set_routes(reject=["::/0", "172.16.0.0/12"]) == ["192.168.1.0/24"]
    events = await world.registry.audit(limit=1000)
    assert await set_routes(approve=["192.168.1.0/24"]) == ["192.168.1.0/24"]
    assert await world.registry.audit(limit=1000) == events
    for wrong in ("10.0.0.1/8", "home", "", "fe80::%eth0/64", "10.0.0.0/33"):
        act = world.registry.set_routes("cli", pair[0], approve=[wrong])
        await unchanged(world, act, BadInput, "is not a route")


# Policy


async def test_a_new_store_gets_the_default_policy_once(world: World) -> None:
    assert world.registry.policy_text == DEFAULT_POLICY
    again = await reopened(world)
    assert again.policy_text == DEFAULT_POLICY
    assert len(await again.policy_history()) == 1


async def test_a_policy_is_in_force_at_once_and_kept(world: World, pair: tuple[int, int]) -> None:
    closed = '// nobody\n{"grants": []}'
    version = await world.registry.set_policy("user:ann", closed)
    assert world.registry.policy_text == closed
    assert world.registry.snapshot.policy.peers(pair[0]) == frozenset()
    assert (await reopened(world)).policy_text == closed
    event = await last_event(world)
    assert (event.actor, event.action, event.details["version"]) == ("user:ann", "policy.set", version.id)


async def test_a_bad_policy_changes_nothing(world: World, pair: tuple[int, int]) -> None:
    for text in (
        "",
        "{",
        '{"grants": [{"src": ["tag:nope"], "dst": ["*"], "ip": ["*"]}]}',
        "[]",
        '{"hosts": 7}',
    ):
        before = (world.registry.snapshot, await world.registry.policy_history(), pair)
        with pytest.raises(PolicyError, match=r"mine\.hujson:1:"):
            await world.registry.set_policy("cli", text, filename="mine.hujson")
        assert (world.registry.snapshot, await world.registry.policy_history(), pair) == before


async def test_rollback_is_a_new_version(world: World) -> None:
    first = (await world.registry.policy_history())[0]
    await world.registry.set_policy("cli", TAGS)
    version = await world.registry.rollback_policy("user:ann", first.id, comment="too early")
    text = DEFAULT_POLICY
    assert world.registry.policy_text == text
    assert version.id > first.id
    assert version.comment == "back to version 1: too early"
    ids = [each.id for each in await world.registry.policy_history()]
    assert [(await world.registry.policy_version(each)).text for each in ids] == [text, TAGS, text]
    assert [each.id for each in await world.registry.policy_history(1)] == [version.id]
    assert [each.id for each in await world.registry.policy_history(before=2)] == [first.id]
    event = await last_event(world)
    assert (event.actor, event.action, event.details["restores"]) == ("user:ann", "policy.rollback", 1)
    await unchanged(world, world.registry.rollback_policy("cli", 99), NotFound, "no policy version 99")
    assert (await world.registry.rollback_policy("cli")).text == TAGS


async def test_a_first_policy_has_none_before_it(world: World) -> None:
    await unchanged(world, world.registry.rollback_policy("cli"), Conflict, "no earlier version")


async def test_a_rollback_is_checked_by_the_rules_of_today(world: World) -> None:
    guarded = '{"grants": [], "tests": [{"src": "ann", "deny": ["100.64.0.1:22"]}]}'
    await world.registry.create_user("cli", "ann")
    node = await world.join(1, "laptop", "ann")
    await world.registry.set_policy("cli", guarded)
    await world.registry.set_policy("cli", TAGS)
    await world.registry.delete_node("cli", node.id)
    await unchanged(world, world.registry.rollback_policy("cli"), PolicyError, r"version 2:1:\d+: test")


async def test_every_version_says_who_why_and_how_much(world: World) -> None:
    await world.registry.set_policy("cli", "{\n}\n")
    version = await world.registry.set_policy(
        "user:ann", '{\n  "grants": [],\n  "acls": [],\n}\n', comment="closed"
    )
    assert (version.actor, version.comment, version.added, version.removed) == ("user:ann", "closed", 2, 0)
    event = await last_event(world)
    assert event.details == {
        "version": version.id,
        "comment": "closed",
        "sha256": hashlib.sha256(version.text.encode()).hexdigest(),
        "added": 2,
        "removed": 0,
        "before": {"version": version.id - 1, "sha256": hashlib.sha256(b"{\n}\n").hexdigest()},
    }
    assert await world.registry.current_policy() == version


async def test_the_text_that_is_in_force_makes_no_version(world: World) -> None:
    before = (world.registry.snapshot, await world.registry.audit(limit=1000))
    version = await world.registry.set_policy("cli", DEFAULT_POLICY, comment="again")
    assert (version.id, version.comment) == (1, "default")
    assert (world.registry.snapshot, await world.registry.audit(limit=1000)) == before


async def test_of_two_who_edit_at_once_the_second_is_told(world: World) -> None:
    seen = (await world.registry.current_policy()).id
    first = await world.registry.set_policy("user:ann", TAGS, expected=seen)
    with pytest.raises(PolicyChanged) as caught:
        await world.registry.set_policy("user:bob", '{"grants": []}', expected=seen)
    told = caught.value.sentence()
    assert f"version {first.id} of the policy is in force, set by user:ann at 2026-01-02 03:04:05 UTC" in told
    assert f"`doorward policy history diff {seen} {first.id}`" in told
    assert world.registry.policy_text == TAGS
    stale = world.registry.rollback_policy("user:bob", 1, expected=seen)
    await unchanged(world, stale, PolicyChanged, "made for version 1")
    assert (await world.registry.set_policy("user:bob", DEFAULT_POLICY, expected=first.id)).id == first.id + 1


async def test_of_many_at_once_only_one_is_not_told(world: World) -> None:
    """The version is compared inside the transaction: no change slips in between."""
    texts = [f'// {number}\n{{"grants": []}}' for number in range(20)]
    tried = [world.registry.set_policy("cli", text, expected=1) for text in texts]
    done = await asyncio.gather(*tried, return_exceptions=True)
    assert [type(each) for each in done].count(PolicyChanged) == 19
    (winner,) = (each for each in done if not isinstance(each, BaseException))
    assert world.registry.policy_text == winner.text
    assert len(await world.registry.policy_history()) == 2


async def test_an_edit_is_made_again_on_what_somebody_else_set_meanwhile(world: World) -> None:
    edits = [AddName("groups", "group:ops", "ann")]
    theirs = '// theirs\n{"grants": []}\n'
    async with asyncio.TaskGroup() as group:
        group.create_task(world.registry.set_policy("user:bob", theirs))
        mine = group.create_task(world.registry.edit_policy("user:ann", edits))
    before, after = await mine
    text = world.registry.policy_text
    assert text == '// theirs\n{"grants": [], "groups": {"group:ops": ["ann"]}}\n'
    assert (before.text, after.text) == (theirs, text)
    assert (after.actor, after.comment) == ("user:ann", "add ann to group:ops")
    again, same = await world.registry.edit_policy("user:ann", edits)
    assert again.id == same.id == after.id
    await unchanged(
        world, world.registry.edit_policy("user:ann", edits, expected=1), PolicyChanged, "for version 1"
    )


async def test_a_file_that_owns_the_policy_is_the_only_way_to_change_it(world: World, tmp_path: Path) -> None:
    file = tmp_path / "policy.hujson"
    file.write_text(TAGS)
    await world.registry.own_policy(file)
    assert world.registry.policy_text == TAGS
    entry = (await world.registry.policy_history())[0]
    assert (entry.actor, entry.comment) == ("file", str(file))
    await unchanged(world, world.registry.set_policy("cli", DEFAULT_POLICY), Conflict, "is owned by")
    await unchanged(world, world.registry.rollback_policy("cli", 1), Conflict, "is owned by")
    edits = [AddName("groups", "group:ops", "ann")]
    await unchanged(world, world.registry.edit_policy("cli", edits), Conflict, "is owned by")
    versions = await world.registry.policy_history()
    await world.registry.own_policy(file)
    assert await world.registry.policy_history() == versions
    file.write_text("{")
    with pytest.raises(PolicyError, match=r"policy\.hujson:1:"):
        await world.registry.own_policy(file)
    assert world.registry.policy_text == TAGS
    file.write_bytes(b"\xff")
    await unchanged(world, world.registry.own_policy(file), BadInput, "cannot be read")
    file.unlink()
    await unchanged(world, world.registry.own_policy(file), BadInput, "cannot be read")


async def test_a_file_that_was_never_good_does_not_own_the_policy(world: World, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        await world.registry.own_policy(tmp_path / "none")
    await world.registry.set_policy("cli", TAGS)
    assert world.registry.policy_text == TAGS


# DNS and relays


async def test_dns_is_kept(world: World) -> None:
    dns = DNS(search=("example.com",), records=(DNSRecord(Name="a.example", Value="192.0.2.1"),))
    assert await world.registry.set_dns("cli", dns) == dns
    assert world.registry.snapshot.settings.dns == dns
    assert (await reopened(world)).snapshot.settings.dns == dns
    event = await last_event(world)
    assert (event.action, event.details["search"]) == ("dns.set", ["example.com"])


async def test_relays_wake_everybody_once(world: World, pair: tuple[int, int]) -> None:
    stream = world.registry.writer.changes.subscribe(pair[0])
    stream.take()
    relays = DERPMap(Regions={901: DERPRegion(RegionID=901, RegionCode="x", RegionName="X")})
    await world.registry.set_derp_map(relays)
    assert world.registry.snapshot.settings.derp_map == relays
    assert stream.take() is None
    await world.registry.set_derp_map(relays)
    assert stream.take() == frozenset()


# The audit log


async def test_every_change_is_one_event_of_a_whole_chain(world: World, pair: tuple[int, int]) -> None:
    registry = world.registry
    before = len(await registry.audit(limit=1000))
    _, key = await registry.create_auth_key("cli", user="ann", reusable=True)
    _, token = await registry.create_api_token("cli", description="x")
    asked = await register(world, 3, machine=3)
    await registry.approve("cli", asked.link_code)
    await registry.set_tags("cli", pair[0], ["tag:web"])
    await registry.set_routes("cli", pair[0], approve=["10.0.0.0/8"])
    await registry.rename_node("cli", pair[0], "desk")
    await registry.expire_node("cli", pair[0])
    await registry.delete_node("cli", pair[1])
    await registry.set_dns("cli", DNS(magic_dns=False))
    await registry.set_policy("cli", DEFAULT_POLICY)
    await registry.set_role("cli", "ann", Role.ADMIN)
    for suspended in (True, True, False, False):  # what is so already is no event
        await registry.suspend_user("cli", "ann", suspended=suspended)
    await registry.revoke_auth_key("cli", 1)
    await registry.revoke_api_token("cli", 1)
    events = list(reversed(await registry.audit(limit=1000)))[before:]
    assert [event.action for event in events] == [
        "key.create",
        "token.create",
        "node.register",
        "node.tags",
        "node.routes",
        "node.rename",
        "node.expire",
        "node.delete",
        "dns.set",
        "policy.set",
        "user.update",
        "user.suspend",
        "user.restore",
        "key.revoke",
        "token.revoke",
    ]
    assert {event.actor for event in events} == {"cli"}
    assert await registry.verify_audit() is None
    everything = repr(await registry.audit(limit=1000)) + repr(in_memory(world))
    for secret in (key, token, asked.link_code):
        assert secret.rpartition("-")[2] not in everything
