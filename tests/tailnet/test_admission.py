"""Who gets in, and who does not: every flow of a registration, over the real store."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.support.joining import TAGS, admitted, as_stored, auth_key, in_memory, link, register, reopened
from tests.support.nouns import machine_key, node_key
from tests.support.world import CAPVER, World

from doorward.errors import BadInput, DoorwardError, NotPermitted
from doorward.model import Node
from doorward.protocol.keys import DiscoPublic, NodePublic
from doorward.protocol.tailcfg.hostinfo import Hostinfo, NetInfo
from doorward.protocol.tailcfg.map import MapRequest
from doorward.protocol.tailcfg.register import LOGOUT_EXPIRY, RegisterRequest
from doorward.tailnet.admission import Outcome, Verdict


@pytest.fixture(autouse=True)
async def people(world: World) -> None:
    await world.registry.create_user("test", "ann")
    await world.registry.create_user("test", "bob")
    await world.registry.set_policy("test", TAGS)


# Auth keys


async def test_an_auth_key_lets_a_node_in(world: World) -> None:
    node = await admitted(world, 1)
    assert node == in_memory(world)[0]
    assert (node.name, node.user_id, node.tags) == ("laptop", 1, ())
    assert str(node.ipv4) == "100.64.0.1"
    assert str(node.ipv6) == "fd7a:115c:a1e0::1"
    assert node.key_expiry == world.clock.now() + timedelta(days=180)
    assert node.observed.hostinfo.OS == "linux"
    assert not node.observed.online
    assert await as_stored(world) == [node]
    (event,) = await world.registry.audit(action="node.register")
    assert event.actor == "key:1"
    assert event.target == f"node:{node.stable_id}"
    assert event.details["addresses"] == ["100.64.0.1", "fd7a:115c:a1e0::1"]


async def spent(world: World) -> str:
    key = await auth_key(world)
    await register(world, 90, machine=90, auth=key)
    return key


async def expired(world: World) -> str:
    key = await auth_key(world, expires_in=timedelta(minutes=1))
    world.clock.advance(timedelta(minutes=1))
    return key


async def revoked(world: World) -> str:
    key = await auth_key(world)
    await world.registry.revoke_auth_key("test", 1)
    return key


async def of_nobody(world: World) -> str:
    key = await auth_key(world)
    await world.registry.delete_user("test", "ann")
    return key


async def of_a_suspended_user(world: World) -> str:
    key = await auth_key(world, reusable=True)
    await world.registry.suspend_user("test", "ann", suspended=True)
    return key


async def wrong(world: World) -> str:
    return (await auth_key(world))[:-1]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (spent, "was used already"),
        (expired, "has expired"),
        (revoked, "was revoked"),
        (of_nobody, "there is no such auth key"),
        (of_a_suspended_user, "ann is suspended"),
        (wrong, "there is no such auth key"),
    ],
)
async def test_a_key_that_is_no_good_is_refused_and_changes_nothing(
    world: World, make: Callable[[World], Any], sentence: str
) -> None:
    key = await make(world)
    before, keys = in_memory(world), await world.registry.list_auth_keys()
    with pytest.raises(NotPermitted, match=sentence) as caught:
        await register(world, 1, auth=key)
    assert caught.value.cure
    assert key not in caught.value.sentence()
    assert in_memory(world) == before == await as_stored(world)
    assert await world.registry.list_auth_keys() == keys


async def test_of_two_clients_with_one_single_use_key_exactly_one_gets_in(world: World) -> None:
    key = await auth_key(world)
    outcomes = await asyncio.gather(
        *(register(world, n, machine=n, auth=key) for n in range(1, 9)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, NotPermitted)]
    assert len(refused) == 7
    assert all("was used already" in each.message for each in refused)
    assert len(in_memory(world)) == 1
    assert await as_stored(world) == in_memory(world)


async def test_a_reusable_key_lets_in_many_at_once_each_with_its_own_address_and_name(world: World) -> None:
    key = await auth_key(world, reusable=True)
    await asyncio.gather(*(register(world, n, machine=n, auth=key) for n in range(1, 41)))
    nodes = in_memory(world)
    assert len({node.ipv4 for node in nodes}) == len({node.ipv6 for node in nodes}) == 40
    assert {node.name for node in nodes} == {"laptop", *(f"laptop-{n}" for n in range(1, 40))}
    assert await as_stored(world) == nodes


async def test_a_single_use_key_survives_a_refusal(world: World) -> None:
    key = await auth_key(world, "bob")
    with pytest.raises(NotPermitted, match="may not give the tag tag:web"):
        await register(world, 1, auth=key, Hostinfo=Hostinfo(RequestTags=["tag:web"]))
    assert (await register(world, 1, auth=key)).verdict is Verdict.ADMITTED


# Coming back


async def test_a_restart_needs_no_key_and_no_person(world: World) -> None:
    node = await admitted(world, 1)
    outcome = await register(world, 1)
    assert (outcome.verdict, outcome.node) == (Verdict.ADMITTED, node)


async def test_a_container_repeats_its_spent_key_at_every_start(world: World) -> None:
    key = await auth_key(world)
    first = await register(world, 1, auth=key)
    world.clock.advance(timedelta(days=2))  # the key has expired as well
    again = await register(world, 1, auth=key, registry=await reopened(world))
    assert again.verdict is Verdict.ADMITTED
    assert first.node is not None
    assert again.node is not None
    assert again.node.id == first.node.id


async def test_force_reauth_registers_twice_and_spends_its_key_once(world: World) -> None:
    node = await admitted(world, 1)
    key = await auth_key(world)
    first, second = await asyncio.gather(register(world, 1, auth=key), register(world, 2, old=1, auth=key))
    assert first.verdict is second.verdict is Verdict.ADMITTED
    (now,) = in_memory(world)
    assert now.node_key == node_key(2)
    assert (now.id, now.stable_id, now.name, now.addresses) == (
        node.id,
        node.stable_id,
        node.name,
        node.addresses,
    )
    assert await as_stored(world) == [now]
    with pytest.raises(NotPermitted, match="was used already"):
        await register(world, 3, old=2, auth=key)


async def test_a_new_key_does_not_make_peers_forget_the_node(world: World) -> None:
    """A client does not repeat its network report after a key change, and it has not gone anywhere."""
    node = await admitted(world, 1)
    world.registry.observations.connected(node.id)
    request = MapRequest(
        Version=CAPVER,
        NodeKey=node_key(1),
        DiscoKey=DiscoPublic(b"\x05" * 32),
        Endpoints=["192.0.2.1:41641"],
        Hostinfo=Hostinfo(Hostname="laptop", NetInfo=NetInfo(PreferredDERP=900)),
    )
    await world.registry.observations.report(node.id, request)
    before = world.registry.snapshot.nodes[node.id].observed
    await register(world, 2, old=1, auth=await auth_key(world))
    after = world.registry.snapshot.nodes[node.id].observed
    assert (after.online, after.home_derp, after.endpoints, after.disco_key) == (
        True,
        900,
        ("192.0.2.1:41641",),
        before.disco_key,
    )
    assert after.hostinfo.NetInfo == before.hostinfo.NetInfo


async def test_a_hostname_changed_while_the_client_was_off_renames_the_node(world: World) -> None:
    node = await admitted(world, 1)
    outcome = await register(world, 1, Hostinfo=Hostinfo(Hostname="workstation"))
    assert outcome.node is not None
    assert outcome.node.name == "workstation"
    assert (await as_stored(world))[0].name == "workstation"
    await world.registry.rename_node("test", node.id, "mine")
    outcome = await register(world, 1, Hostinfo=Hostinfo(Hostname="laptop"))
    assert outcome.node is not None
    assert outcome.node.name == "mine"


async def test_what_is_said_at_a_restart_is_written(world: World) -> None:
    node = await admitted(world, 1)
    await register(world, 1, Hostinfo=Hostinfo(Hostname="laptop", OSVersion="13"))
    await world.registry.observations.flush()
    again = await reopened(world)
    assert again.snapshot.nodes[node.id].observed.hostinfo.OSVersion == "13"


async def test_an_ended_key_has_to_be_replaced(world: World) -> None:
    node = await admitted(world, 1)
    world.clock.advance(timedelta(days=180))
    outcome = await register(world, 1)
    assert outcome.verdict is Verdict.KEY_EXPIRED
    again = await admitted(world, 2, old=1)
    assert again.id == node.id
    assert again.key_expiry == world.clock.now() + timedelta(days=180)


async def test_a_client_may_wish_for_a_shorter_key(world: World) -> None:
    soon = world.clock.now() + timedelta(days=3)
    node = await admitted(world, 1, Expiry=soon)
    assert node.key_expiry == soon
    later = await admitted(world, 2, machine=2, Expiry=world.clock.now() + timedelta(days=999))
    assert later.key_expiry == world.clock.now() + timedelta(days=180)


async def test_another_machine_with_the_same_node_key_is_refused(world: World) -> None:
    await admitted(world, 1)
    before = in_memory(world)
    for more in ({}, {"auth": await auth_key(world)}, {"Followup": "http://127.0.0.1:8080/join/x"}):
        with pytest.raises(NotPermitted, match="belongs to another machine"):
            await register(world, 1, machine=2, **more)  # type: ignore[arg-type]
    await register(world, 1, machine=2, Expiry=LOGOUT_EXPIRY)
    assert in_memory(world) == before


async def test_two_that_claim_one_node_key_at_once(world: World) -> None:
    key = await auth_key(world, reusable=True)
    outcomes = await asyncio.gather(
        *(register(world, 1, machine=n, auth=key) for n in (1, 2)), return_exceptions=True
    )
    assert sum(isinstance(outcome, Outcome) for outcome in outcomes) == 1
    assert [each for each in outcomes if isinstance(each, DoorwardError)]
    assert len(in_memory(world)) == 1
    assert await as_stored(world) == in_memory(world)


async def test_another_user_on_the_same_machine_is_another_node(world: World) -> None:
    ann = await admitted(world, 1)
    bob = await admitted(world, 2, user="bob", old=1)
    assert bob.id != ann.id
    assert bob.addresses != ann.addresses
    assert {ann.name, bob.name} == {"laptop", "laptop-1"}
    assert world.registry.snapshot.nodes_of_machine(machine_key(1)) == [ann, bob]
    assert (await admitted(world, 3, old=2)).id == ann.id


async def test_a_suspended_user_is_shut_out_with_a_known_node_too(world: World) -> None:
    await admitted(world, 1)
    await world.registry.suspend_user("test", "ann", suspended=True)
    with pytest.raises(NotPermitted, match="ann is suspended"):
        await register(world, 1)


# Tags


async def test_a_key_gives_its_tags(world: World) -> None:
    outcome = await register(world, 1, auth=await auth_key(world, None, "tag:web", "tag:db"))
    node = outcome.node
    assert node is not None
    assert node.tags == ("tag:db", "tag:web")
    assert node.key_expiry is None
    assert node.user_id is None


async def test_an_owner_of_the_tag_may_ask_for_it(world: World) -> None:
    key = await auth_key(world)
    outcome = await register(world, 1, auth=key, Hostinfo=Hostinfo(RequestTags=["tag:web"]))
    assert outcome.node is not None
    assert outcome.node.tags == ("tag:web",)


@pytest.mark.parametrize(("user", "tags"), [("bob", ()), (None, ("tag:db",)), ("ann", ("tag:db",))])
async def test_a_tag_the_key_may_not_give_is_refused(
    world: World, user: str | None, tags: tuple[str, ...]
) -> None:
    key = await auth_key(world, user, *tags)
    with pytest.raises(NotPermitted, match="this auth key may not give the tag tag:web"):
        await register(world, 1, auth=key, Hostinfo=Hostinfo(RequestTags=["tag:web"]))
    assert in_memory(world) == []


async def test_a_known_node_may_ask_for_other_tags(world: World) -> None:
    node = await admitted(world, 1)
    outcome = await register(world, 1, Hostinfo=Hostinfo(Hostname="laptop", RequestTags=["tag:web"]))
    assert outcome.node is not None
    assert (outcome.node.id, outcome.node.tags, outcome.node.key_expiry) == (node.id, ("tag:web",), None)
    with pytest.raises(NotPermitted, match="tag:other is not yours"):
        await register(world, 1, Hostinfo=Hostinfo(Hostname="laptop", RequestTags=["tag:other"]))
    owned = await register(world, 1, Hostinfo=Hostinfo(Hostname="laptop", RequestTags=["tag:db"]))
    assert owned.node is not None
    assert owned.node.tags == ("tag:db",)


async def test_an_administrators_tags_stand_over_what_the_client_once_asked_for(world: World) -> None:
    asking = Hostinfo(Hostname="laptop", RequestTags=["tag:web"])
    node = await admitted(world, 1, Hostinfo=asking)
    await world.registry.set_tags("test", node.id, ["tag:other"])
    outcome = await register(world, 1, Hostinfo=asking)
    assert outcome.node is not None
    assert outcome.node.tags == ("tag:other",)


async def test_a_person_who_signs_in_with_tags_gives_their_node_away_and_may_take_it_back(
    world: World,
) -> None:
    node = await admitted(world, 1)
    tagged = await admitted(world, 2, old=1, Hostinfo=Hostinfo(Hostname="laptop", RequestTags=["tag:web"]))
    assert (tagged.id, tagged.tags, tagged.addresses) == (node.id, ("tag:web",), node.addresses)
    mine = await admitted(world, 3, old=2)
    assert (mine.id, mine.tags) == (node.id, ())
    assert mine.key_expiry is not None


# Out, and not in at all


async def test_logging_out_ends_the_key(world: World) -> None:
    key = await auth_key(world)
    await register(world, 1, auth=key)
    outcome = await register(world, 1, auth=key, Expiry=LOGOUT_EXPIRY)
    assert outcome.verdict is Verdict.LOGGED_OUT
    (node,) = in_memory(world)
    assert node.key_expiry == world.clock.now()
    assert await as_stored(world) == [node]
    assert (await register(world, 1)).verdict is Verdict.KEY_EXPIRED
    (event,) = await world.registry.audit(action="node.logout")
    assert event.actor == f"node:{node.stable_id}"
    world.clock.advance(5)
    await register(world, 1, Expiry=LOGOUT_EXPIRY)
    assert in_memory(world)[0].key_expiry == node.key_expiry


async def test_an_ephemeral_node_is_gone_when_it_logs_out(world: World) -> None:
    key = await auth_key(world, ephemeral=True)
    outcome = await register(world, 1, auth=key)
    assert outcome.node is not None
    assert outcome.node.ephemeral
    await register(world, 1, Expiry=LOGOUT_EXPIRY)
    assert in_memory(world) == await as_stored(world) == []


async def test_a_client_may_ask_to_be_ephemeral(world: World) -> None:
    assert (await admitted(world, 1, Ephemeral=True)).ephemeral


async def test_an_unknown_client_logs_out_without_a_word(world: World) -> None:
    assert (await register(world, 1, Expiry=LOGOUT_EXPIRY)).verdict is Verdict.LOGGED_OUT


async def test_a_client_that_is_too_old_is_told_what_to_do(world: World) -> None:
    with pytest.raises(NotPermitted, match="too old") as caught:
        await register(world, 1, Version=112, auth=await auth_key(world))
    assert "1.80" in caught.value.cure


async def test_no_node_key_is_no_registration(world: World) -> None:
    request = RegisterRequest(Version=CAPVER, NodeKey=NodePublic.zero())
    with pytest.raises(BadInput, match="no node key"):
        await world.registry.admission.register(machine_key(1), request)


# Doorward's own node


async def test_our_own_node_is_one_and_keeps_its_address(world: World) -> None:
    async def join(key: int, machine: int) -> Node:
        _, secret = await world.registry.create_auth_key("system", user=None, system=True)
        outcome = await register(
            world, key, machine=machine, auth=secret, Hostinfo=Hostinfo(Hostname="doorward")
        )
        assert outcome.node is not None
        return outcome.node

    first = await join(1, 1)
    assert first.system
    assert first.key_expiry is None
    rotated = await join(2, 1)
    emptied = await join(3, 2)  # its client's state was lost: another machine key
    assert emptied.id == rotated.id == first.id
    assert emptied.addresses == first.addresses
    assert emptied.machine_key == machine_key(2)
    assert world.registry.snapshot.system == {first.id}
    assert world.registry.snapshot.nodes_of_machine(machine_key(1)) == []


async def test_what_a_client_says_reaches_the_store_in_shape(world: World) -> None:
    said = Hostinfo(
        Hostname="laptop", OS="\x1b[31mlinux" + "x" * 500, RoutableIPs=["10.0.0.1/8", "10.0.0.0/8"]
    )
    node = await admitted(world, 1, Hostinfo=said)
    assert node.observed.hostinfo.OS.startswith("[31mlinux")
    assert len(node.observed.hostinfo.OS) == 256
    assert node.observed.hostinfo.RoutableIPs == ["10.0.0.0/8"]


async def test_routes_that_the_policy_approves_are_approved_at_once(world: World) -> None:
    policy = """{"autoApprovers": {"routes": {"10.0.0.0/8": ["ann"]}, "exitNode": []},
                 "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}"""
    await world.registry.set_policy("test", policy)
    said = Hostinfo(Hostname="router", RoutableIPs=["10.1.0.0/16", "192.168.0.0/16"])
    node = await admitted(world, 1, Hostinfo=said)
    assert [str(route) for route in node.approved_routes] == ["10.1.0.0/16"]
    more = Hostinfo(Hostname="router", RoutableIPs=["10.1.0.0/16", "10.2.0.0/16"])
    outcome = await register(world, 1, Hostinfo=more)
    assert outcome.node is not None
    assert [str(route) for route in outcome.node.approved_routes] == ["10.1.0.0/16", "10.2.0.0/16"]


async def test_no_flow_leaves_a_secret_in_the_audit_log(world: World) -> None:
    key = await auth_key(world)
    await register(world, 1, auth=key)
    asked = await register(world, 2, machine=2)
    await world.registry.approve("cli", link(asked), user="bob")
    await register(world, 1, auth=key, Expiry=LOGOUT_EXPIRY)
    text = repr(await world.registry.audit(limit=1000))
    assert key.rpartition("-")[2] not in text
    assert asked.link_code not in text
    assert await world.registry.verify_audit() is None
