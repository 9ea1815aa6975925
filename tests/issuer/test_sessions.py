from datetime import timedelta

from tests.support.office import Office

from doorward.issuer.sessions import IDLE, LONGEST


async def test_a_device_that_was_away_for_long_begins_anew(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    first = await party.sign_in()
    office.world.clock.advance(IDLE)
    second = await party.sign_in()
    assert second["auth_time"] == first["auth_time"]
    office.world.clock.advance(IDLE + timedelta(seconds=1))
    third = await party.sign_in()
    assert third["auth_time"] > first["auth_time"]
    assert third["sid"] != first["sid"]


async def test_one_that_is_used_all_the_time_ends_too(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    first = await party.sign_in()
    for _ in range(int(LONGEST / timedelta(hours=8)) + 1):
        office.world.clock.advance(timedelta(hours=8))
        last = await party.sign_in()
    assert last["sid"] != first["sid"]


async def test_a_yes_is_something_done_on_purpose(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    first = await party.sign_in()
    office.world.clock.advance(timedelta(minutes=1))
    browser = office.browser()
    await party.send(browser, prompt="consent")
    await party.press(browser)
    await party.redeem()
    assert (await party.claims())["auth_time"] == first["auth_time"] + 60
    assert (await party.sign_in())["auth_time"] == first["auth_time"] + 60


async def test_two_devices_are_two(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    first = await party.sign_in()
    await office.person("ann", 2)
    assert (await party.sign_in())["sid"] != first["sid"]
