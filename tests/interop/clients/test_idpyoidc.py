"""idpyoidc, whose family of libraries is certified, and strict."""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from tests.support.house import House, MadeApp, Program, ProgramError
from tests.support.meeting import agent
from tests.support.relying import BACK, come_back

pytestmark = [
    pytest.mark.interop,
    pytest.mark.heavy,
    pytest.mark.timeout(180),
    pytest.mark.client("idpyoidc", "pypi:interop"),
]


async def begin(program: Program, app: MadeApp, *scopes: str) -> None:
    settings: dict[str, Any] = {"issuer": app.issuer, "client_id": app.client_id, "secret": app.secret}
    await program.do("discover", **settings, redirect_uri=BACK, scopes=["openid", "profile", *scopes])


@pytest.mark.proves("silent", "pkce", "iss", "policy")
async def test_signs_in_without_a_click_and_looks_who_answers(house: House) -> None:
    app = await house.app("idpy", "--redirect", BACK, "--algorithm", "ES256")
    async with agent(house, "relying") as program:
        await begin(program, app)
        assert "code_challenge_method=S256" in await program.do("start")
        url = await come_back(house, program)
        found = await program.do("finish", url=url)
        assert found["claims"]["acr"] == "urn:doorward:acr:network"
        assert (found["userinfo"]["name"], found["userinfo"]["sub"]) == ("alice", found["claims"]["sub"])
        told = dict(parse_qsl(urlsplit(await come_back(house, program)).query))
        mixed_up = f"{BACK}?{urlencode(told | {'iss': 'https://evil.example.com'})}"
        with pytest.raises(ProgramError):
            await program.do("finish", url=mixed_up)
        nobody = {"src": ["alice"], "dst": ["*"], "app": {"doorward.dev/cap/app": [{"apps": ["another"]}]}}
        async with house.policy(nobody):
            away = await come_back(house, program)
            assert await program.do("finish", url=away) == {"error": "access_denied"}


@pytest.mark.proves("click", "deny", "refresh", "replay")
async def test_asks_for_a_yes_where_it_wants_to_stay_signed_in(house: House) -> None:
    app = await house.app("idpy-stays", "--redirect", BACK)
    async with agent(house, "relying") as program:
        await begin(program, app, "offline_access")  # for which it sends prompt=consent (Core section 11)
        denied = await come_back(house, program, press="no")
        assert await program.do("finish", url=denied) == {"error": "access_denied"}
        await program.do("finish", url=await come_back(house, program, press="yes"))
        turned = await program.do("refresh")
        assert turned["before"] != turned["after"]
        await program.do("put_back", token=turned["before"])
        with pytest.raises(ProgramError, match="invalid_grant"):
            await program.do("refresh")
        await program.do("put_back", token=turned["after"])
        with pytest.raises(ProgramError, match="invalid_grant"):
            await program.do("refresh")
