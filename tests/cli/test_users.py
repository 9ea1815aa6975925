from tests.cli.conftest import Play


async def test_the_script_of_users(play_script: Play) -> None:
    assert await play_script("users") > 10


async def test_the_script_of_people_who_sign_in(play_script: Play) -> None:
    assert await play_script("people") > 30
