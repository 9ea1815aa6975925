"""Every module of the OpenID Foundation's Basic OP profile, by its name there; the Form Post profile runs all of them again."""

import base64
import json
from datetime import timedelta

import pytest
from cryptography.exceptions import InvalidSignature
from tests.support.browsing import Browser
from tests.support.conformance import NO_PAGE, QUERY, NoAnswerError, Run, is_unguessable
from tests.support.office import Office, Party

from doorward.errors import BadInput

# oidcc-basic-certification-test-plan, without the prefix.
MODULES = (
    "server",
    "response-type-missing",
    "idtoken-signature",
    "idtoken-unsigned",
    "userinfo-get",
    "userinfo-post-header",
    "userinfo-post-body",
    "ensure-request-without-nonce-succeeds-for-code-flow",
    "scope-profile",
    "scope-email",
    "scope-address",
    "scope-phone",
    "scope-all",
    "alternate-happy-flow",
    "display-page",
    "display-popup",
    "prompt-login",
    "prompt-none-not-logged-in",
    "prompt-none-logged-in",
    "max-age-1",
    "max-age-10000",
    "ensure-request-with-unknown-parameter-succeeds",
    "id-token-hint",
    "login-hint",
    "ui-locales",
    "claims-locales",
    "ensure-request-with-acr-values-succeeds",
    "codereuse",
    "codereuse-30seconds",
    "ensure-registered-redirect-uri",
    "ensure-post-request-succeeds",
    "server-client-secret-post",
    "request-uri-unsigned-supported-correctly-or-rejected-as-unsupported",
    "unsigned-request-object-supported-correctly-or-rejected-as-unsupported",
    "claims-essential",
    "ensure-request-object-with-redirect-uri",
    "refresh-token",
    "ensure-request-with-valid-pkce-succeeds",
)
TOLD = {"name": "ann", "preferred_username": "ann", "email": "ann@example.com"}


class Modules:
    """One method a module."""

    mode = QUERY

    @pytest.fixture
    def run(self, office: Office) -> Run:
        return Run(office, self.mode)

    @pytest.fixture
    async def party(self, office: Office) -> Party:
        """The first app; a person sits at a device that vouches for them."""
        await office.person("ann")
        return await office.app()

    @pytest.fixture
    async def browser(self, office: Office) -> Browser:
        """Who can show more than a device, and is signed in."""
        return await office.resident("ann")

    async def test_oidcc_server(self, office: Office, run: Run, party: Party) -> None:
        first = await run.signed_in(party)
        assert first["aud"] == party.app.client_id
        assert await run.userinfo(party, first["sub"]) == TOLD | {"sub": first["sub"]}
        code = party.answer["code"]
        other = await office.app("wiki")
        second = await run.signed_in(other, state="s" * 128)
        assert second["sub"] == first["sub"]
        assert second["aud"] == other.app.client_id != first["aud"]
        assert other.answer["code"] != code
        assert await run.signed_in(party) | {"iat": 0, "exp": 0, "at_hash": ""} == first | {
            "iat": 0,
            "exp": 0,
            "at_hash": "",
        }

    async def test_oidcc_response_type_missing(self, run: Run, party: Party) -> None:
        browser = await run.authorize(party, response_type=None)
        told = run.heard(party, browser.page, error=True)
        assert told["error"] in {"invalid_request", "unsupported_response_type"}

    async def test_oidcc_idtoken_signature(self, run: Run, party: Party) -> None:
        await run.signed_in(party)  # RS256, by kid, with nothing of ours
        first, second, third = party.tokens["id_token"].split(".")
        flipped = third[:-5] + ("A" if third[-5] != "A" else "B") + third[-4:]
        party.tokens["id_token"] = f"{first}.{second}.{flipped}"
        with pytest.raises(InvalidSignature):
            await run.id_token(party)

    async def test_oidcc_idtoken_unsigned(self, office: Office, run: Run, party: Party) -> None:
        document = (await office.browser().client.get("/.well-known/openid-configuration")).json()
        assert "none" not in document["id_token_signing_alg_values_supported"]
        with pytest.raises(BadInput, match="signed with one of"):
            await office.app("unsigned", algorithm="none")
        await run.signed_in(party, id_token_signed_response_alg="none")

    async def test_oidcc_userinfo_get(self, run: Run, party: Party) -> None:
        claims = await run.signed_in(party)
        assert (await run.userinfo(party, claims["sub"]))["name"] == "ann"

    async def test_oidcc_userinfo_post_header(self, run: Run, party: Party) -> None:
        claims = await run.signed_in(party)
        headers = {"authorization": f"Bearer {party.tokens['access_token']}"}
        async with party.program() as client:
            said = await client.post("/userinfo", headers=headers)
        assert run.told(said, claims["sub"]) == await run.userinfo(party, claims["sub"])

    async def test_oidcc_userinfo_post_body(self, run: Run, party: Party) -> None:
        claims = await run.signed_in(party)
        async with party.program() as client:
            said = await client.post("/userinfo", data={"access_token": party.tokens["access_token"]})
        assert run.told(said, claims["sub"]) == await run.userinfo(party, claims["sub"])

    async def test_oidcc_ensure_request_without_nonce_succeeds_for_code_flow(
        self, run: Run, party: Party
    ) -> None:
        assert "nonce" not in await run.signed_in(party, nonce=None)

    @pytest.mark.parametrize(
        ("scope", "told"),
        [
            ("profile", {"name", "preferred_username"}),
            ("email", {"email"}),
            ("address", set[str]()),
            ("phone", set[str]()),
            ("profile email address phone", set(TOLD)),
        ],
        ids=["profile", "email", "address", "phone", "all"],
    )
    async def test_oidcc_scope(self, run: Run, party: Party, scope: str, told: set[str]) -> None:
        """oidcc-scope-profile, -email, -address, -phone and -all: in userinfo, and never in the ID token."""
        claims = await run.signed_in(party, scope=f"openid {scope}")
        assert (await run.userinfo(party, claims["sub"])).keys() == {"sub", *told}

    async def test_oidcc_alternate_happy_flow(self, run: Run, party: Party) -> None:
        """Everything in another order than usual."""
        claims = await run.signed_in(
            party,
            code_challenge_method=None,
            code_challenge=None,
            nonce=None,
            state=None,
            scope="email profile openid",
            response_type="code",
        )
        assert await run.userinfo(party, claims["sub"]) == TOLD | {"sub": claims["sub"]}

    async def test_oidcc_display_page(self, run: Run, party: Party) -> None:
        await run.signed_in(party, display="page")

    async def test_oidcc_display_popup(self, run: Run, party: Party) -> None:
        await run.signed_in(party, display="popup")

    async def test_oidcc_prompt_login(self, office: Office, run: Run, party: Party, browser: Browser) -> None:
        first = await run.signed_in(party, browser)
        office.world.clock.advance(timedelta(seconds=10))
        await run.authorize(party, browser, prompt="login")
        with pytest.raises(NoAnswerError, match="once more"):
            run.heard(party, browser.page)
        await browser.prove()
        second = await run.finish(party, browser)
        assert second["auth_time"] == first["auth_time"] + 10
        assert second["sub"] == first["sub"]

    async def test_oidcc_prompt_none_not_logged_in(self, office: Office, run: Run, party: Party) -> None:
        office.identity = None
        browser = await run.authorize(party, prompt="none")
        assert run.heard(party, browser.page, error=True)["error"] in NO_PAGE

    async def test_oidcc_prompt_none_logged_in(self, office: Office, run: Run, party: Party) -> None:
        first = await run.signed_in(party)
        office.world.clock.advance(timedelta(minutes=30))
        second = await run.signed_in(party, prompt="none")
        same = ("sub", "auth_time", "sid", "acr")
        assert [second[name] for name in same] == [first[name] for name in same]

    async def test_oidcc_max_age_1(self, office: Office, run: Run, party: Party, browser: Browser) -> None:
        first = await run.signed_in(party, browser)
        office.world.clock.advance(timedelta(seconds=2))
        await run.authorize(party, browser, max_age="1")
        with pytest.raises(NoAnswerError, match="once more"):
            run.heard(party, browser.page)
        await browser.prove()
        second = await run.finish(party, browser)
        assert second["auth_time"] > first["auth_time"]
        assert second["sub"] == first["sub"]

    async def test_oidcc_max_age_10000(self, office: Office, run: Run, party: Party) -> None:
        first = await run.signed_in(party, max_age="15000")
        office.world.clock.advance(timedelta(seconds=30))
        second = await run.signed_in(party, max_age="10000")
        assert (second["auth_time"], second["sub"]) == (first["auth_time"], first["sub"])

    async def test_oidcc_ensure_request_with_unknown_parameter_succeeds(self, run: Run, party: Party) -> None:
        await run.signed_in(party, extra="foobar")

    async def test_oidcc_id_token_hint(self, office: Office, run: Run, party: Party) -> None:
        first = await run.signed_in(party)
        hint = party.tokens["id_token"]
        office.world.clock.advance(timedelta(hours=1))
        second = await run.signed_in(party, prompt="none", id_token_hint=hint)
        assert (second["sub"], second["auth_time"]) == (first["sub"], first["auth_time"])
        # Somebody else, and a hint that nobody has signed.
        broken = hint[:-4] + "AAAA"
        for given in (broken, hint):
            if given == hint:
                await office.person("bob", 2)
            browser = await run.authorize(party, prompt="none", id_token_hint=given)
            assert run.heard(party, browser.page, error=True)["error"] == "login_required"

    @pytest.mark.parametrize("hint", ["ann", "ANN", "ann@example.com"])
    async def test_oidcc_login_hint(self, run: Run, party: Party, hint: str) -> None:
        await run.signed_in(party, login_hint=hint)

    async def test_oidcc_login_hint_of_somebody_else(self, run: Run, party: Party) -> None:
        """The suite's own hint is of nobody here, and its browser goes on as who it is."""
        browser = await run.authorize(party, login_hint="buffy@example.com")
        assert "buffy@example.com" in browser.page.text
        await browser.post("/authorize/answer", asking=browser.field("asking"), answer="yes")
        claims = await run.finish(party, browser)
        assert (claims["acr"], claims["amr"]) == ("urn:doorward:acr:click", ["network", "user"])

    async def test_oidcc_ui_locales(self, run: Run, party: Party) -> None:
        await run.signed_in(party, ui_locales="se")

    async def test_oidcc_claims_locales(self, run: Run, party: Party) -> None:
        await run.signed_in(party, claims_locales="se")

    @pytest.mark.parametrize("wanted", ["urn:doorward:acr:network", "1 2", "urn:doorward:acr:network 1"])
    async def test_oidcc_ensure_request_with_acr_values_succeeds(
        self, run: Run, party: Party, wanted: str
    ) -> None:
        claims = await run.signed_in(party, acr_values=wanted)
        assert claims["acr"] == "urn:doorward:acr:network"

    async def test_oidcc_codereuse(self, run: Run, party: Party) -> None:
        await run.signed_in(party)
        run.refused(await party.redeem(), "invalid_grant")

    async def test_oidcc_codereuse_30seconds(self, office: Office, run: Run, party: Party) -> None:
        """What came of the first time is over, too."""
        claims = await run.signed_in(party, scope="openid offline_access")
        await run.userinfo(party, claims["sub"])
        office.world.clock.advance(timedelta(seconds=30))
        run.refused(await party.redeem(), "invalid_grant")
        assert (await party.userinfo()).status_code == 401
        run.refused(await party.refresh(), "invalid_grant")

    async def test_oidcc_ensure_registered_redirect_uri(self, run: Run, party: Party) -> None:
        browser = await run.authorize(party, redirect_uri="https://evil.example/cb")
        run.stays(browser.page)
        assert "evil.example" not in browser.page.text

    async def test_oidcc_ensure_post_request_succeeds(self, run: Run, party: Party) -> None:
        await run.finish(party, await run.authorize_by_post(party))

    async def test_oidcc_server_client_secret_post(self, run: Run, party: Party) -> None:
        browser = await run.authorize(party)
        run.heard(party, browser.page)
        run.tokens(party, await party.redeem(how="post"))
        claims = await run.id_token(party)
        await run.userinfo(party, claims["sub"])

    async def test_oidcc_request_uri_unsigned_supported_correctly_or_rejected_as_unsupported(
        self, run: Run, party: Party
    ) -> None:
        browser = await run.authorize(party, request_uri="https://grafana.example.com/request.jwt")
        told = run.heard(party, browser.page, error=True)
        assert told["error"] == "request_uri_not_supported"

    async def test_oidcc_unsigned_request_object_supported_correctly_or_rejected_as_unsupported(
        self, run: Run, party: Party
    ) -> None:
        browser = await run.authorize(party, request=_unsigned({"scope": "openid"}))
        assert run.heard(party, browser.page, error=True)["error"] == "request_not_supported"

    async def test_oidcc_claims_essential(self, run: Run, party: Party) -> None:
        wanted = json.dumps({"userinfo": {"name": {"essential": True}}})
        claims = await run.signed_in(party, scope="openid", claims=wanted)
        assert (await run.userinfo(party, claims["sub"]))["name"] == "ann"

    async def test_oidcc_ensure_request_object_with_redirect_uri(self, run: Run, party: Party) -> None:
        """The one in the request object is never looked at: an error, told to the address that is the app's, or a page."""
        inside = _unsigned({"redirect_uri": "https://evil.example/cb"})
        browser = await run.authorize(party, request=inside)
        assert run.heard(party, browser.page, error=True)["error"] == "request_not_supported"
        browser = await run.authorize(
            party, request=_unsigned({"redirect_uri": party.app.redirect_uris[0]}), redirect_uri=None
        )
        run.stays(browser.page)

    async def test_oidcc_refresh_token(self, office: Office, run: Run, party: Party) -> None:
        first = await run.signed_in(party, scope="openid email offline_access")
        before = dict(party.tokens)
        office.world.clock.advance(100)
        run.tokens(party, await party.refresh())
        second = await run.id_token(party)
        assert second["iat"] > first["iat"]
        same = ("iss", "sub", "aud", "auth_time", "nonce", "sid", "acr")
        assert [second[name] for name in same] == [first[name] for name in same]
        assert party.tokens["scope"] == before["scope"]
        assert party.tokens["access_token"] != before["access_token"]
        assert party.tokens["refresh_token"] != before["refresh_token"]
        is_unguessable(party.tokens["refresh_token"])
        await run.userinfo(party, first["sub"])
        other = await office.app("wiki")
        await run.signed_in(other, scope="openid offline_access")
        run.refused(await party.refresh(other.tokens["refresh_token"]), "invalid_grant")
        run.tokens(other, await other.refresh())
        run.tokens(party, await party.refresh())

    async def test_oidcc_ensure_request_with_valid_pkce_succeeds(self, run: Run, party: Party) -> None:
        await run.signed_in(party)  # every request of ours has it
        browser = await run.authorize(party)
        run.heard(party, browser.page)
        run.refused(await party.redeem(code_verifier="w" * 43), "invalid_grant")
        run.tokens(party, await party.redeem())


class TestBasic(Modules):
    """response_mode is not given, and so "query"."""


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_missing(module: str) -> None:
    name = f"test_oidcc_{module.replace('-', '_')}"
    if module.startswith("scope-"):
        name = "test_oidcc_scope"
    assert hasattr(Modules, name)


def test_no_module_is_ours_alone() -> None:
    found = {name.removeprefix("test_oidcc_") for name in vars(Modules) if name.startswith("test_")}
    known = {module.replace("-", "_") for module in MODULES} | {"scope", "login_hint_of_somebody_else"}
    assert found <= known


@pytest.mark.parametrize("text", ["a" * 40, "abcdefgh", "0101" * 20])
def test_what_could_be_guessed_is_noticed(text: str) -> None:
    with pytest.raises(AssertionError):
        is_unguessable(text)


def _unsigned(claims: dict[str, str]) -> str:
    """A request object with alg none (Core section 6.1)."""
    parts = ({"alg": "none"}, {"response_type": "code"} | claims)
    texts = [base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=").decode() for one in parts]
    return ".".join((*texts, ""))
