import gc
import time
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection
from tests.support import nouns
from tests.support.nouns import NOW, SOON

from doorward.errors import Conflict, NotFound
from doorward.model import Node, Observed
from doorward.protocol.tailcfg.hostinfo import Hostinfo, NetInfo
from doorward.store import Database, nodes, users

SEEN = Observed(
    disco_key=nouns.disco_key(1),
    hostinfo=Hostinfo(
        Hostname="hé\0st", RoutableIPs=["10.0.0.0/8"], NetInfo=NetInfo(DERPLatency={"1-v4": 0.25})
    ),
    endpoints=("192.0.2.1:41641", "[2001:db8::1]:41641"),
    home_derp=900,
    cap_version=140,
    online=True,
    last_seen=NOW,
)


async def add_user(database: Database, number: int = 1) -> int:
    return (await database.run(users.insert, nouns.user(number))).id


async def test_a_node_comes_back_as_it_was_stored(database: Database) -> None:
    owner = await add_user(database)
    draft = nouns.node(
        1,
        owner,
        tags=("tag:a", "tag:b"),
        renamed=True,
        key_expiry=SOON,
        ephemeral=True,
        auth_key_id=77,
        approved_routes=(ip_network("0.0.0.0/0"), ip_network("fd00::/64")),
        system=True,
        observed=SEEN,
    )
    node = await database.run(nodes.insert, draft)
    assert msgspec.structs.replace(node, id=0) == draft
    for find, value in (
        (nodes.by_id, node.id),
        (nodes.by_stable_id, node.stable_id),
        (nodes.by_node_key, node.node_key),
        (nodes.by_name, node.name),
        (nodes.by_address, node.ipv4),
        (nodes.by_address, node.ipv6),
    ):
        ask: Any = find
        assert await database.read(ask, value) == node
    assert await database.read(nodes.by_machine_keys, [node.machine_key]) == [node]
    assert await database.read(nodes.load_all) == [node]
    assert await database.read(nodes.by_node_key, nouns.node_key(2)) is None
    assert await database.read(nodes.by_machine_keys, [nouns.machine_key(2)]) == []


async def test_update_writes_the_state_and_observe_the_observations(database: Database) -> None:
    node = await database.run(nodes.insert, nouns.node(1, await add_user(database)))
    await database.run(nodes.observe, [(node.id, SEEN), (node.id + 1, SEEN)])
    renamed = msgspec.structs.replace(node, name="other", node_key=nouns.node_key(9), key_expiry=SOON)
    await database.run(nodes.update, renamed)
    assert await database.read(nodes.by_id, node.id) == msgspec.structs.replace(renamed, observed=SEEN)
    await database.run(nodes.observe, [])
    assert await database.read(nodes.by_id, node.id) == msgspec.structs.replace(renamed, observed=SEEN)


async def test_many_at_once_are_stored_in_their_order(database: Database) -> None:
    owner = await add_user(database)
    drafts = [nouns.node(number, owner, observed=SEEN if number % 2 else Observed()) for number in (5, 2, 9)]
    made = await database.run(nodes.insert_all, drafts)
    assert made == [
        msgspec.structs.replace(draft, id=node.id) for draft, node in zip(drafts, made, strict=True)
    ]
    assert await database.read(nodes.load_all) == sorted(made, key=lambda node: node.id)
    assert await database.run(nodes.insert_all, []) == []


async def test_a_node_that_has_an_id_is_no_draft(database: Database) -> None:
    node = await database.run(nodes.insert, nouns.node(1, await add_user(database)))
    with pytest.raises(ValueError, match="id 0"):
        await database.run(nodes.insert_all, [node])


async def test_what_several_ask_for_is_found_at_once(database: Database) -> None:
    owner = await add_user(database)
    made = [await database.run(nodes.insert, nouns.node(number, owner)) for number in range(1, 4)]
    keys = [nouns.node_key(2), nouns.node_key(8), nouns.node_key(3)]
    assert await database.read(nodes.node_keys_in_use, keys) == {keys[0], keys[2]}
    machines = [nouns.machine_key(3), nouns.machine_key(1), nouns.machine_key(8)]
    assert await database.read(nodes.by_machine_keys, machines) == [made[0], made[2]]
    assert await database.read(nodes.names_in_use, [made[1].name, "nobody"]) == {made[1].name}
    assert await database.read(nodes.names_in_use, []) == frozenset()


async def test_a_deleted_node_is_gone_and_its_id_stays_used(database: Database) -> None:
    owner = await add_user(database)
    node = await database.run(nodes.insert, nouns.node(1, owner, observed=SEEN))
    await database.run(nodes.delete, node.id)
    assert await database.read(nodes.load_all) == []
    for gone in (nodes.update, nodes.delete):
        act: Any = gone
        with pytest.raises(NotFound):
            await database.run(act, node if gone is nodes.update else node.id)
    again = await database.run(nodes.insert, nouns.node(1, owner))
    assert again.id > node.id
    assert again.observed == Observed()


@pytest.mark.parametrize("field", ["stable_id", "node_key", "name", "ipv4", "ipv6"])
async def test_what_must_be_unique_is_named_when_it_is_not(database: Database, field: str) -> None:
    owner = await add_user(database)
    first = await database.run(nodes.insert, nouns.node(1, owner))
    second = nouns.node(2, owner, **{field: getattr(first, field)})
    with pytest.raises(Conflict) as caught:
        await database.run(nodes.insert, second)
    assert caught.value.place == f"nodes.{field}"
    assert len(await database.read(nodes.load_all)) == 1


async def test_a_machine_has_one_untagged_node_for_each_user(database: Database) -> None:
    ann, bob = await add_user(database, 1), await add_user(database, 2)
    machine = nouns.machine_key(1)
    await database.run(nodes.insert, nouns.node(1, ann, machine_key=machine))
    await database.run(nodes.insert, nouns.node(2, bob, machine_key=machine))
    await database.run(nodes.insert, nouns.node(3, ann, machine_key=machine, tags=("tag:x",)))
    await database.run(nodes.insert, nouns.node(4, None, machine_key=machine, tags=("tag:x",)))
    with pytest.raises(Conflict) as caught:
        await database.run(nodes.insert, nouns.node(5, ann, machine_key=machine))
    assert caught.value.place == "nodes.machine_key, nodes.user_id"
    found = await database.read(nodes.by_machine_keys, [machine])
    assert [node.user_id for node in found] == [ann, bob, ann, None]


async def test_a_node_needs_a_user_who_is_there(database: Database) -> None:
    with pytest.raises(Conflict):
        await database.run(nodes.insert, nouns.node(1, 4711))


async def test_a_key_of_another_kind_is_refused(database: Database) -> None:
    owner = await add_user(database)
    with pytest.raises(TypeError, match="NodePublic"):
        await database.run(nodes.insert, nouns.node(1, owner, node_key=nouns.machine_key(1)))


async def test_addresses_and_names_in_use(database: Database) -> None:
    owner = await add_user(database)
    names = ("web", "web-1", "web-10", "webber", "web_1", "we", "we%", "we%-1")
    for number, name in enumerate(names):
        await database.run(nodes.insert, nouns.node(number, owner, name=name))
    assert await database.read(nodes.names_like, "web") == {"web", "web-1", "web-10"}
    assert await database.read(nodes.names_like, "we%") == {"we%", "we%-1"}
    there = IPv4Address("100.64.0.3"), IPv6Address("fd7a:115c:a1e0::3")
    free = IPv4Address("100.64.0.99"), IPv6Address("fd7a:115c:a1e0::99")
    assert await database.read(nodes.addresses_in_use, [there])
    assert await database.read(nodes.addresses_in_use, [(there[0], free[1])])
    assert await database.read(nodes.addresses_in_use, [(free[0], there[1])])
    assert not await database.read(nodes.addresses_in_use, [free])


async def test_loading_every_node_is_cheap_enough_for_a_start(database: Database) -> None:
    owner = await add_user(database)

    def fill(connection: Connection) -> None:
        for number in range(1, 1001):
            nodes.insert(connection, nouns.node(number, owner, observed=SEEN))

    def timed(connection: Connection) -> tuple[list[Node], float]:
        # Of this thread alone, and without the garbage of all the tests before this one.
        gc.disable()
        try:
            began = time.thread_time()
            return nodes.load_all(connection), time.thread_time() - began
        finally:
            gc.enable()

    await database.run(fill)
    loaded, seconds = await database.read(timed)
    assert [node.id for node in loaded] == sorted(node.id for node in loaded)
    assert len(loaded) == 1000
    assert seconds < 0.5  # some 0.03 on a quiet machine: ten thousand must not cost a start its second


async def test_a_report_alone_leaves_presence_as_it_is(database: Database) -> None:
    owner = await add_user(database)
    there = Observed(online=True, held_by=7, endpoints=("192.0.2.1:1",))
    node = await database.run(nodes.insert, nouns.node(1, owner, observed=there))
    report = Observed(online=False, last_seen=SOON, held_by=8, endpoints=("192.0.2.2:2",), cap_version=9)
    await database.run(nodes.observe, [(node.id, report)], presence=False)
    found = await database.read(nodes.by_id, node.id)
    assert found is not None
    assert found.observed == Observed(online=True, held_by=7, endpoints=("192.0.2.2:2",), cap_version=9)
    await database.run(nodes.observe, [(node.id, Observed(online=True, held_by=8))], reports=False)
    found = await database.read(nodes.by_id, node.id)
    assert found is not None
    assert found.observed == Observed(online=True, held_by=8, endpoints=("192.0.2.2:2",), cap_version=9)


async def test_many_nodes_by_their_ids(database: Database) -> None:
    owner = await add_user(database)
    made = [await database.run(nodes.insert, nouns.node(number, owner)) for number in (1, 2, 3)]
    wanted = [made[2].id, made[0].id, *range(1000, 3500)]
    assert await database.read(nodes.by_ids, wanted) == [made[0], made[2]]
    assert await database.read(nodes.by_ids, []) == []
