"""JupyterHub, set up with what ``doorward apps create --preset jupyterhub`` prints."""

from typing import Any

import pytest
from tests.support.clients import StockClient
from tests.support.house import House
from tests.support.jupyterhub import HOST, jupyterhub

pytestmark = [
    pytest.mark.interop,
    pytest.mark.heavy,
    pytest.mark.timeout(300),
    pytest.mark.client("oauthenticator", "pypi:interop"),
]

HOME, ADMIN = f"https://{HOST}/hub/home", f"https://{HOST}/hub/admin"
EDITORS = """
c.JupyterHub.load_roles = [{"name": "editors", "groups": ["editors"], "scopes": ["admin-ui", "list:users"]}]
"""


def policy(name: str, **more: Any) -> dict[str, Any]:
    """Alice may use the app of this name, and be more there."""
    return {"src": ["alice"], "dst": ["*"], "app": {"doorward.dev/cap/app": [{"apps": [name], **more}]}}


@pytest.mark.proves("silent", "policy", "logout", "rotation", "outside", "tagged", "more")
async def test_the_printed_settings_sign_people_in_and_groups_are_roles(house: House) -> None:
    made = await house.server.run(
        "apps", "create", "hub", "--preset", "jupyterhub", "--url", f"https://{HOST}"
    )
    async with jupyterhub(house, made.stdout + EDITORS) as port:
        async with house.policy(policy("hub")), house.visitor({HOST: port}) as browser:
            page = await browser.go(HOME)
            assert (page.url, page.status, page.pressed) == (HOME, 200, ()), page.text
            assert 'user: "alice"' in page.text
            assert (await browser.go(ADMIN)).status == 403
        async with house.policy(policy("hub", groups=["editors"])), house.visitor({HOST: port}) as browser:
            assert (await browser.go(HOME)).status == 200
            assert (await browser.go(ADMIN)).status == 200
        async with house.policy(policy("another")), house.visitor({HOST: port}) as browser:
            page = await browser.go(HOME)
            assert page.answer["error"] == "access_denied"
            assert page.status == 400
            assert "the policy does not let them" in page.text
        async with house.outsider({HOST: port}) as browser:
            page = await browser.go(HOME, press="yes")
            assert page.url.startswith(house.issuer)
            assert "passkey" in page.text
        async with StockClient("robot") as robot:
            await robot.up(house.server.url, await house.server.key("--tag", "tag:robot"))
            async with house.visitor({HOST: port}, on=robot) as browser:
                assert (await browser.go(HOME)).answer["error"] == "access_denied"
        await house.age_keys(91)
        async with house.visitor({HOST: port}) as browser:
            assert (await browser.go(HOME)).status == 200
            # Whoever signs out there is asked here, and led back; and the next sign-in takes a yes.
            page = await browser.go(f"https://{HOST}/hub/logout", press="yes")
            assert (page.url, page.pressed) == (f"{house.issuer}/end_session/answer", ("yes",)), page.text
            assert f'href="https://{HOST}/"' in page.text
            page = await browser.go(HOME)
            assert page.url.startswith(f"{house.issuer}/authorize")
            assert "Yes, sign in" in page.text
