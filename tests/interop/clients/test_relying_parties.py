"""Programs that sign people in with libraries nobody here wrote, each through the same story."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from joserfc.jwk import ECKey
from tests.support.clients import StockClient
from tests.support.house import House, ProgramError
from tests.support.relying import BACK, come_back, discover, script, sign_in

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

WEB = [
    pytest.param("openid-client", marks=pytest.mark.client("openid-client", "npm:web")),
    pytest.param("oauth4webapi", marks=pytest.mark.client("oauth4webapi", "npm:web")),
]
GO = pytest.param("go-oidc", marks=pytest.mark.client("github.com/coreos/go-oidc/v3", "go:golang"))
each_client = pytest.mark.parametrize("client", [*WEB, GO])
each_web_client = pytest.mark.parametrize("client", WEB)


@contextlib.asynccontextmanager
async def posing_as(house: House) -> AsyncIterator[str]:
    """An address at which somebody else hands out what the issuer says of itself."""
    async with house.visitor() as browser:
        told = (await browser.fetch("GET", f"{house.issuer}/.well-known/openid-configuration")).content

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(told)}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + told)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def refused(doing: Any) -> ProgramError:
    """What a client did not like."""
    with pytest.raises(ProgramError) as caught:
        await doing
    return caught.value


@each_client
@pytest.mark.proves("silent", "pkce", "more")
async def test_signs_in_without_a_click_and_a_code_is_the_apps_own(house: House, client: str) -> None:
    app = await house.app(f"{client}-silent", "--redirect", BACK, "--algorithm", "ES256")
    async with script(house, client) as program:
        said = await discover(program, app, algorithm="ES256", method="client_secret_post")
        assert said["issuer"] == app.issuer == house.issuer
        found = await sign_in(house, program)
        assert found["claims"]["acr"] == "urn:doorward:acr:network"
        assert found["refresh"]
        person = await program.do("userinfo")
        assert (person["sub"], person["name"]) == (found["claims"]["sub"], "alice")
        stolen = await come_back(house, program)
        told = (await refused(program.do("finish", url=stolen, verifier="w" * 43))).told
        assert told["error"] == "invalid_grant"


@each_client
@pytest.mark.proves("click", "deny")
async def test_asks_once_and_no_is_an_answer(house: House, client: str) -> None:
    app = await house.app(f"{client}-asks", "--redirect", BACK, "--ask")
    async with script(house, client) as program:
        await discover(program, app)
        unasked = await come_back(house, program, prompt="none")
        assert (await refused(program.do("finish", url=unasked))).told["error"] == "consent_required"
        denied = await come_back(house, program, press="no")
        assert (await refused(program.do("finish", url=denied))).told["error"] == "access_denied"
        assert (await sign_in(house, program, press="yes"))["claims"]["acr"] == "urn:doorward:acr:click"
        assert (await sign_in(house, program))["claims"]["acr"] == "urn:doorward:acr:network"


@each_client
@pytest.mark.proves("refresh", "replay", "audience")
async def test_tokens_are_exchanged_once_and_are_for_one_app(house: House, client: str) -> None:
    app = await house.app(f"{client}-refresh", "--redirect", BACK)
    other = await house.app(f"{client}-other", "--redirect", BACK)
    async with script(house, client) as program, script(house, client) as another:
        await discover(program, app)
        await discover(another, other)
        first = await sign_in(house, program)
        turned = await program.do("refresh")
        assert turned["before"] != turned["after"]
        assert turned["claims"]["sub"] == first["claims"]["sub"]
        assert turned["claims"]["auth_time"] == first["claims"]["auth_time"]
        # Neither a token nor a code of one app is of use to the other.
        foreign = await refused(another.do("refresh", token=turned["after"]))
        assert foreign.told["error"] == "invalid_grant"
        code = dict(parse_qsl(urlsplit(await come_back(house, program)).query))["code"]
        own = dict(parse_qsl(urlsplit(await come_back(house, another)).query))
        injected = await refused(another.do("finish", url=f"{BACK}?{urlencode(own | {'code': code})}"))
        assert injected.told["error"] == "invalid_grant"
        # A refresh token that comes twice was stolen, and the one after it ends, too.
        again = await refused(program.do("refresh", token=turned["before"]))
        assert again.told["error"] == "invalid_grant"
        assert (await refused(program.do("refresh"))).told["error"] == "invalid_grant"


@each_web_client
@pytest.mark.proves("audience", "more")
async def test_requests_left_first_and_tokens_asked_about_and_given_back(house: House, client: str) -> None:
    app = await house.app(f"{client}-more", "--redirect", BACK)
    other = await house.app(f"{client}-more-other", "--redirect", BACK)
    async with script(house, client) as program, script(house, client) as another:
        await discover(program, app)
        await discover(another, other)
        # The browser carries nothing but the request's name.
        await sign_in(house, program, pushed=True)
        said = await program.do("introspect")
        assert (said["active"], said["client_id"], said["iss"]) == (True, app.client_id, house.issuer)
        assert (await another.do("introspect", token=await program.do("access")))["active"] is False
        await program.do("revoke")
        assert (await refused(program.do("refresh"))).told["error"] == "invalid_grant"
        assert (await program.do("introspect"))["active"] is False


@each_web_client
@pytest.mark.parametrize("options", [("--public",), ("--dpop",)])
@pytest.mark.proves("more")
async def test_tokens_that_are_bound_to_a_key(house: House, client: str, options: tuple[str, ...]) -> None:
    app = await house.app(f"{client}-bound{options[0].strip('-')}", "--redirect", BACK, *options)
    public = "--public" in options
    async with script(house, client) as program:
        await discover(program, app, dpop=True, method="none" if public else "client_secret_basic")
        assert (await sign_in(house, program))["token_type"] == "dpop"
        assert (await program.do("userinfo"))["name"] == "alice"
        assert "invalid_token" in str((await refused(program.do("userinfo", bearer=True))).told)
        first = await program.do("refresh")
        assert first["token_type"] == "dpop"
        await program.do("newKey")
        # Another key: nothing that an access token can be shown with, nor a refresh token of an app without a secret.
        assert "invalid_token" in str((await refused(program.do("userinfo"))).told)
        if public:
            assert (await refused(program.do("refresh"))).told["error"] in {
                "invalid_grant",
                "invalid_dpop_proof",
            }
        else:
            await program.do("refresh")
            assert (await program.do("userinfo"))["name"] == "alice"


@each_client
@pytest.mark.proves("policy")
async def test_who_is_taken_out_of_the_policy_is_out(house: House, client: str) -> None:
    app = await house.app(f"{client}-policy", "--redirect", BACK)
    async with script(house, client) as program:
        await discover(program, app)
        allowed = {"src": ["alice"], "dst": ["*"], "app": {"doorward.dev/cap/app": [{"apps": [app.name]}]}}
        async with house.policy(allowed):
            await sign_in(house, program)
            await program.do("refresh")
        nobody = {"src": ["alice"], "dst": ["*"], "app": {"doorward.dev/cap/app": [{"apps": ["another"]}]}}
        async with house.policy(nobody):
            assert (await refused(program.do("refresh"))).told["error"] == "invalid_grant"
            assert "invalid_token" in str((await refused(program.do("userinfo"))).told)
            away = await come_back(house, program)
            assert (await refused(program.do("finish", url=away))).told["error"] == "access_denied"


@each_web_client
@pytest.mark.proves("click", "more")
async def test_an_app_registers_itself_where_the_policy_lets_its_person(house: House, client: str) -> None:
    async with script(house, client) as program:
        told = {"issuer": house.issuer, "redirect_uri": BACK}
        await refused(program.do("register", **told))
        allowed = {"src": ["alice"], "dst": ["*"], "app": {"doorward.dev/cap/register-apps": [{}]}}
        async with house.policy(allowed):
            made = await program.do("register", **told)
            assert made["redirect_uris"] == [BACK]
            found = await sign_in(house, program, press="yes")
            assert found["claims"]["aud"] == made["client_id"]
            await sign_in(house, program)


@each_web_client
@pytest.mark.proves("logout")
async def test_who_has_signed_out_is_asked_again(house: House, client: str) -> None:
    out = "https://app.example.com/out"
    app = await house.app(f"{client}-leaves", "--redirect", BACK, "--signed-out", out)
    async with script(house, client) as program:
        await discover(program, app)
        await sign_in(house, program)
        async with house.visitor() as browser:
            leaving = await program.do("leave", post_logout_redirect_uri=out, state="a state")
            left = await browser.go(leaving, ends_at=out)
            assert (left.answer, left.pressed) == ({"state": "a state"}, ())
        assert (await refused(program.do("refresh"))).told["error"] == "invalid_grant"
        silently = await come_back(house, program, prompt="none")
        assert (await refused(program.do("finish", url=silently))).told["error"] == "login_required"
        await sign_in(house, program, press="yes")
        await sign_in(house, program)


@each_web_client
@pytest.mark.proves("iss")
async def test_an_answer_of_another_issuer_is_refused(house: House, client: str) -> None:
    app = await house.app(f"{client}-mixed-up", "--redirect", BACK)
    async with script(house, client) as program:
        await discover(program, app)
        url = await come_back(house, program)
        told = dict(parse_qsl(urlsplit(url).query))
        assert told["iss"] == house.issuer
        for other in (
            {**told, "iss": "https://evil.example.com"},
            {k: v for k, v in told.items() if k != "iss"},
        ):
            mixed_up = await refused(program.do("finish", url=f"{BACK}?{urlencode(other)}"))
            assert "iss" in mixed_up.message + mixed_up.told["because"]
        # It was never sent anywhere, so the code is still good.
        assert (await program.do("finish", url=url))["claims"]["iss"] == house.issuer


@each_client
@pytest.mark.parametrize("skew", [-60, 60])
@pytest.mark.proves("skew")
async def test_a_clock_that_is_a_minute_off_hurts_nobody(house: House, client: str, skew: int) -> None:
    app = await house.app(f"{client}-skew{skew}", "--redirect", BACK)
    async with script(house, client) as program:
        await discover(program, app, skew=skew)
        await sign_in(house, program)
        await program.do("refresh")
        assert (await program.do("userinfo"))["name"] == "alice"


@each_web_client
@pytest.mark.parametrize("skew", [-60, 60])
@pytest.mark.proves("skew", "more")
async def test_an_app_that_signs_may_have_a_clock_of_its_own(
    house: House, client: str, skew: int, tmp_path: Path
) -> None:
    key = ECKey.generate_key("P-256", auto_kid=True)
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    app = await house.app(f"{client}-signs{skew}", "--redirect", BACK, "--keys", str(file))
    async with script(house, client) as program:
        private = key.as_dict(private=True) | {"kid": key.kid}
        await discover(program, app, method="private_key_jwt", key=private, skew=skew)
        found = await sign_in(house, program, max_age=3600)
        assert found["claims"]["aud"] == app.client_id
        await program.do("refresh")


@each_client
@pytest.mark.proves("outside", "tagged")
async def test_who_is_not_known_and_who_is_nobody(house: House, client: str) -> None:
    app = await house.app(f"{client}-outside", "--redirect", BACK)
    async with script(house, client) as program, StockClient("robot") as robot:
        await discover(program, app)
        async with house.outsider() as browser:
            page = await browser.go(await program.do("start"), ends_at=BACK, press="yes")
            assert page.url.startswith(house.issuer)
            assert page.pressed == ()
            assert "passkey" in page.text
            none = await browser.go(await program.do("start", prompt="none"), ends_at=BACK)
            assert (await refused(program.do("finish", url=none.url))).told["error"] == "login_required"
        await robot.up(house.server.url, await house.server.key("--tag", "tag:robot"))
        async with house.visitor(on=robot) as browser:
            tagged = await browser.go(await program.do("start"), ends_at=BACK, press="yes")
            assert (await refused(program.do("finish", url=tagged.url))).told["error"] == "access_denied"


@each_client
@pytest.mark.proves("more")
async def test_an_app_by_itself_and_a_program_without_a_browser(house: House, client: str) -> None:
    resource = "https://api.example.com/"
    service = await house.app(f"{client}-service", "--service", "--resource", resource)
    screen = await house.app(f"{client}-screen", "--device", "--public")
    async with script(house, client) as program:
        await discover(program, service)
        assert (await program.do("own", parameters={"resource": resource}))["expires_in"] == 300
        if client != "go-oidc":
            said = await program.do("introspect")
            assert (said["active"], said["aud"], said["client_id"]) == (True, resource, service.client_id)
            kept = await refused(program.do("revoke", which="access_token"))
            assert kept.told["error"] == "unsupported_token_type"
        await discover(program, screen, method="none")
        shown = await program.do("device")
        async with house.visitor() as browser:
            page = await browser.go(shown["link"], press=shown["user_code"])
            assert "is signed in to" in page.text
        assert (await program.do("poll"))["refresh"]
        assert (await program.do("userinfo"))["name"] == "alice"


@each_client
@pytest.mark.proves("rotation")
async def test_new_keys_of_the_issuer_break_nobody(house: House, client: str) -> None:
    app = await house.app(f"{client}-rotation", "--redirect", BACK)
    async with script(house, client) as program:
        await discover(program, app)
        await sign_in(house, program)
        old = await program.do("signed")
        # Three months later there are new ones: first they are known, a day later they sign.
        for days, is_new in ((89.5, False), (1, True)):
            await house.age_keys(days)
            await program.do("later", seconds=120)
            turned = await program.do("refresh")
            assert turned["claims"]["iss"] == house.issuer
            now = await program.do("signed")
            assert (now["kid"] != old["kid"]) is is_new
            assert {old["kid"], now["kid"]} < await house.published_keys()


@pytest.mark.client("github.com/coreos/go-oidc/v3", "go:golang")
@pytest.mark.proves("iss")
async def test_an_issuer_that_calls_itself_otherwise_is_refused(house: House) -> None:
    app = await house.app("go-oidc-mixed-up", "--redirect", BACK)
    async with script(house, "go-oidc") as program, posing_as(house) as other:
        mixed_up = await refused(discover(program, app, issuer=other))
        assert house.issuer in mixed_up.message
        assert other in mixed_up.message
