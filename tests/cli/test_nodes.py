from tests.cli.conftest import Play


async def test_the_script_of_nodes(play_script: Play) -> None:
    assert await play_script("nodes") > 10


async def test_the_script_of_browsers_tabs(play_script: Play) -> None:
    assert await play_script("nodes_tabs") > 5
