from pathlib import Path

from tests.support.nouns import node, session, user
from tests.support.world import open_world

from doorward.login.leaving import Leaver, leaver, sign_out
from doorward.login.sessions import SignedIn, Visitor
from doorward.model import User
from doorward.store import apps, signin

ANN, BOB = user(1, id=1), user(2, id=2)


def signed_in(who: User, number: int = 5) -> SignedIn:
    return SignedIn(who, session(who.id, id=number))


def test_who_leaves_is_known_by_all_that_says_so() -> None:
    laptop = node(7, ANN.id, id=7)
    assert leaver(Visitor(laptop, ANN, signed_in(ANN)), ANN, "m") == Leaver(ANN, 5, 7, ANN.id, "m")
    assert leaver(Visitor(laptop, ANN, None), ANN, "m") == Leaver(ANN, None, 7, ANN.id, "m")
    assert leaver(Visitor(None, None, signed_in(ANN)), ANN, "m") == Leaver(ANN, 5, None, None, "m")
    assert leaver(Visitor(laptop, ANN, signed_in(BOB)), BOB, "m") == Leaver(BOB, 5, 7, ANN.id, "m")
    assert leaver(Visitor(laptop, ANN, signed_in(BOB)), ANN, "m").session is None
    assert leaver(Visitor(node(8, None, id=8, tags=("tag:x",)), None, None), ANN, "m").node is None


async def test_a_guest_ends_their_own_and_leaves_the_device_asked(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        bob = await world.registry.create_user("cli", "bob")
        ann = await world.registry.create_user("cli", "ann")
        laptop = await world.join(1, "laptop", "ann")
        database, now = world.registry.writer.database, world.clock.now()
        session = await database.run(signin.insert_session, signed_in(bob, 0).session)
        who = Leaver(bob, session.id, laptop.id, ann.id, "marker")
        assert await database.run(sign_out, who, now) == []
        kept = await database.read(signin.session_by_id, session.id)
        assert kept is not None
        assert kept.ended == now
        marked = await database.read(apps.session, apps.device_key(laptop.id, ann.id))
        assert marked is not None
        assert (marked.user_id, marked.sid, marked.signed_out) == (ann.id, "marker", now)
        assert await database.read(apps.session, apps.device_key(laptop.id, bob.id)) is None
