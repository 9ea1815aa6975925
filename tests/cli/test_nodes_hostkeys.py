from tests.cli.conftest import Play


async def test_the_script_of_host_keys(play_script: Play) -> None:
    assert await play_script("nodes_hostkeys") > 8
