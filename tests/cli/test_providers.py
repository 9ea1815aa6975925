from tests.cli.conftest import Play


async def test_the_script_of_providers(play_script: Play) -> None:
    assert await play_script("providers") > 20
