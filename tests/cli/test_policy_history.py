from tests.cli.conftest import Play


async def test_the_script_of_policy_history(play_script: Play) -> None:
    assert await play_script("policy_history") > 10
