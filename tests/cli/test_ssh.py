from tests.cli.conftest import Play
from tests.support.checking import POLICY, Scene
from tests.support.world import World


async def test_the_script_of_checks(play_script: Play, world: World) -> None:
    await world.registry.create_user("test", "ann")
    await world.registry.set_policy("test", POLICY)
    laptop = await world.join(1, "laptop", "ann")
    runner = await world.join(3, "runner", None, "tag:ci")
    scene = Scene(world, laptop, laptop, runner, await world.join(4, "server", None, "tag:server"))
    await scene.ask(scene.attempt())
    await scene.ask(scene.attempt(runner, ssh_user="deploy"))
    assert await play_script("ssh") > 5
