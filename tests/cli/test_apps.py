from tests.cli.conftest import Play


async def test_the_script_of_apps(play_script: Play) -> None:
    assert await play_script("apps") > 8
