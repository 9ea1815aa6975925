from datetime import timedelta

import msgspec
import pytest
from tests.support.world import World

from doorward.errors import Unavailable
from doorward.issuer.keys import AHEAD, KEPT, LOOK, TERM, Keys, Ring
from doorward.issuer.tokens import BadToken, read, sign
from doorward.store import signing_keys


@pytest.fixture(autouse=True)
def _quick_keys() -> None:
    """Here they are all different."""


def keys_of(world: World, secret: bytes = b"k" * 32) -> Keys:
    writer = world.registry.writer
    return Keys(writer.database, world.clock, writer.entropy, secret)


def kids_of(ring: Ring) -> set[str]:
    return {one.kid for one in ring.signing.values()}


def kids(ring: Ring) -> set[str]:
    return {one["kid"] for one in ring.published}


async def test_there_is_a_key_of_each_kind_and_only_its_public_half_is_shown(world: World) -> None:
    ring = await keys_of(world).ring()
    assert [(one["kty"], one["alg"], one["use"]) for one in reversed(ring.published)] == [
        ("RSA", "RS256", "sig"),
        ("EC", "ES256", "sig"),
        ("OKP", "EdDSA", "sig"),
    ]
    assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & {name for one in ring.published for name in one}
    assert set(ring.signing) == {"RS256", "ES256", "EdDSA"}


async def test_all_processes_have_the_same_keys_and_subjects(world: World) -> None:
    first, second = await keys_of(world).ring(), await keys_of(world).ring()
    assert kids(first) == kids(second)
    assert first.subject(1) == second.subject(1) != first.subject(2)
    assert read(second, sign(first, "ES256", "JWT", {"a": 1}), "JWT") == {"a": 1}


async def test_people_have_the_number_that_apps_know_from_tsidp_and_nobody_else_has(world: World) -> None:
    writer = world.registry.writer
    keys = Keys(writer.database, world.clock, writer.entropy, b"k" * 32, {2: 7234567890123456, 3: 1})
    ring, opaque = await keys.ring(), await keys_of(world).ring()
    assert (ring.subject(2), ring.subject(3)) == ("userid:7234567890123456", "userid:1")
    # Whose number here is one of tsidp's is not whom tsidp meant.
    assert ring.subject(1) == opaque.subject(1)
    assert ":" not in ring.subject(1)


async def test_a_new_key_is_published_before_it_signs_and_an_old_one_after(world: World) -> None:
    keys = keys_of(world)
    old = await keys.ring()
    world.clock.advance(TERM - AHEAD)
    announced = await keys.ring()
    assert kids(old) < kids(announced)
    assert announced.signing["ES256"].kid == old.signing["ES256"].kid
    world.clock.advance(AHEAD)
    changed = await keys.ring()
    assert changed.signing["ES256"].kid not in kids(old)
    assert kids(old) < kids(changed)
    token = sign(old, "ES256", "JWT", {"a": 1})
    assert read(changed, token, "JWT") == {"a": 1}
    world.clock.advance(KEPT)
    assert kids(await keys.ring()) == kids(announced) - kids(old)


async def test_a_process_learns_of_what_another_made_long_before_it_signs(world: World) -> None:
    one, other = keys_of(world), keys_of(world)
    await one.ring()
    await other.ring()
    world.clock.advance(TERM - AHEAD)
    made = await one.ring()
    world.clock.advance(LOOK)
    assert kids(await other.ring()) == kids(made)
    assert LOOK * 3 < AHEAD


async def test_the_database_alone_signs_nothing(world: World) -> None:
    await keys_of(world).ring()
    database = world.registry.writer.database
    for each in await database.read(signing_keys.load_all):
        assert b'"d"' not in each.sealed
        assert "sealed" not in repr(each)
    thief = await keys_of(world, b"other" * 8).ring()
    mine = await keys_of(world).ring()
    assert not kids_of(thief) & kids_of(mine)
    token = sign(thief, "ES256", "JWT", {"a": 1})
    with pytest.raises(BadToken):
        read(mine, token, "JWT")


async def test_a_sealed_key_that_was_touched_is_not_used(world: World) -> None:
    before = await keys_of(world).ring()
    database = world.registry.writer.database
    for each in await database.read(signing_keys.load_all):
        spoilt = msgspec.structs.replace(each, id=0, generation=9, sealed=each.sealed[:-1] + b"x")
        await database.run(signing_keys.delete, [each.id])
        await database.run(signing_keys.insert, spoilt)
    after = await keys_of(world).ring()
    for algorithm in ("ES256", "EdDSA"):
        assert after.signing[algorithm].kid != before.signing[algorithm].kid


async def test_a_store_that_cannot_be_asked_stops_nobody_who_has_keys(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = keys_of(world)
    ring = await keys.ring()

    async def broken(*_: object) -> None:
        raise Unavailable("the database is away")

    monkeypatch.setattr(world.registry.writer.database, "read", broken)
    world.clock.advance(timedelta(hours=2))
    assert await keys.ring() is ring
    with pytest.raises(Unavailable):
        await keys_of(world).ring()
