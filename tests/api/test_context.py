"""What each operation gets: the tailnet as it is at that moment."""

from tests.support.world import World

from doorward.api.access import ADMINISTRATOR
from doorward.api.context import Call


async def test_a_call_sees_the_newest_snapshot(world: World) -> None:
    call = Call(world.context, ADMINISTRATOR)
    before = call.snapshot
    await call.registry.create_user(call.actor, "ann")
    assert before.user_by_name("ann") is None
    assert call.snapshot.user_by_name("ann") is not None
    assert call.actor == "cli"
