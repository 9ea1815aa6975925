"""Programs that sign people in with libraries nobody here wrote, each through the same story."""

import pytest
from tests.support.house import House, ProgramError
from tests.support.relying import BACK, come_back, discover, script, sign_in

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

each_client = pytest.mark.parametrize(
    "client",
    [
        pytest.param("openid-client", marks=pytest.mark.client("openid-client", "npm:web")),
    ],
)


@each_client
@pytest.mark.proves("silent", "pkce", "more")
async def test_signs_in_without_a_click_and_a_code_is_the_apps_own(house: House, client: str) -> None:
    app = await house.app(f"{client}-silent", "--redirect", BACK)
    async with script(house, client) as program:
        said = await discover(program, app)
        assert said["issuer"] == app.issuer == house.issuer
        found = await sign_in(house, program)
        assert found["claims"]["acr"] == "urn:doorward:acr:network"
        assert found["refresh"]
        person = await program.do("userinfo")
        assert (person["sub"], person["name"]) == (found["claims"]["sub"], "alice")
        stolen = await come_back(house, program)
        with pytest.raises(ProgramError) as refused:
            await program.do("finish", url=stolen, verifier="w" * 43)
        assert refused.value.told["error"] == "invalid_grant"
