import pytest
from tests.support.office import Office

from doorward.issuer.decision import Known, Level
from doorward.issuer.who import Who


@pytest.mark.parametrize(
    ("level", "clicked", "now"),
    [
        (Level.NETWORK, False, Level.NETWORK),
        (Level.NETWORK, True, Level.CLICK),
        (Level.SESSION, True, Level.SESSION),
        (Level.PASSKEY, True, Level.PASSKEY),
    ],
)
def test_a_yes_is_more_than_a_device_and_no_more(level: Level, *, clicked: bool, now: Level) -> None:
    who = Who(Known.DEVICE, None, 7, "", level, ("network",), None)
    assert who.level_now(clicked=clicked) is now
    assert who.amr_now(clicked=clicked) == (("network", "user") if clicked else ("network",))


def test_only_a_device_vouches() -> None:
    for known, vouching in ((Known.DEVICE, 7), (Known.SESSION, None)):
        assert Who(known, None, 7, "", Level.NETWORK, (), None).vouching == vouching
    twice = Who(Known.SESSION, None, None, "", Level.PASSKEY, ("pop", "user"), None)
    assert twice.amr_now(clicked=True) == ("pop", "user")


async def test_who_signed_in_comes_before_the_device(office: Office) -> None:
    """And a device that is somebody else's is not named beside them."""
    browser = await office.resident("bob")
    await office.person("ann")
    grafana = await office.app()
    assert (await grafana.sign_in(browser))["acr"] == Level.PASSKEY
    (event,) = await office.audited("app.signin")
    assert (event.actor, event.details["by"], event.details["node"]) == ("user:bob", "session", None)
