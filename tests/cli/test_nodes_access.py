from tests.cli.conftest import Play


async def test_the_script_of_ending_access(play_script: Play) -> None:
    assert await play_script("nodes_access") > 10
