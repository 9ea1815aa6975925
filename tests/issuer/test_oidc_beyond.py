"""What the conformance suite does not look at and a server gets wrong all the same: each through the real endpoints."""

import base64
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from tests.support.conformance import FORM_POST, QUERY, Run
from tests.support.office import BACK, PAGE, VERIFIER, Office, Party, challenge

FORM = "application/x-www-form-urlencoded"
LOOPBACK = "http://127.0.0.1/cb"
PROGRAMS = ("/token", "/par", "/device_authorization", "/introspect", "/revoke")


@pytest.fixture(params=[QUERY, FORM_POST])
def run(office: Office, request: pytest.FixtureRequest) -> Run:
    return Run(office, request.param)


@pytest.fixture
async def party(office: Office) -> Party:
    await office.person("ann")
    return await office.app()


async def raw(party: Party, path: str, content: bytes, kind: str = FORM, **headers: str) -> httpx2.Response:
    """A body as it is."""
    async with party.program() as client:
        return await client.post(path, content=content, headers={"content-type": kind} | headers)


def basic(name: str, secret: str) -> str:
    return f"Basic {base64.b64encode(f'{name}:{secret}'.encode()).decode()}"


# PKCE -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [43, 128])
async def test_a_verifier_may_be_as_long_as_the_specification_says(run: Run, party: Party, size: int) -> None:
    verifier = ("aZ09-._~" * 16)[:size]
    browser = await run.authorize(party, code_challenge=challenge(verifier))
    run.heard(party, browser.page)
    run.tokens(party, await party.redeem(code_verifier=verifier))


@pytest.mark.parametrize(
    "verifier",
    ["", "x" * 42, "x" * 129, "ä" * 43, VERIFIER + " ", VERIFIER + "\n", VERIFIER.upper(), challenge()],
    ids=repr,
)
async def test_another_verifier_is_no_verifier(run: Run, party: Party, verifier: str) -> None:
    browser = await run.authorize(party)
    run.heard(party, browser.page)
    run.refused(await party.redeem(code_verifier=verifier), "invalid_grant")
    run.tokens(party, await party.redeem())


@pytest.mark.parametrize("verifier", ["x" * 42, "x" * 129, "ä" * 43, "x" * 42 + " "])
async def test_a_verifier_that_is_none_does_not_count_even_where_it_fits(
    run: Run, party: Party, verifier: str
) -> None:
    browser = await run.authorize(party, code_challenge=challenge(verifier))
    run.heard(party, browser.page)
    run.refused(await party.redeem(code_verifier=verifier), "invalid_grant")


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge_method": "plain", "code_challenge": VERIFIER},
        {"code_challenge_method": None},
        {"code_challenge_method": "s256"},
        {"code_challenge": None},
        {"code_challenge": challenge() + "="},
    ],
    ids=repr,
)
async def test_a_challenge_of_another_kind(run: Run, party: Party, changes: dict[str, str | None]) -> None:
    browser = await run.authorize(party, None, **changes)
    assert run.heard(party, browser.page, error=True)["error"] == "invalid_request"


# Redirects ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("registered", "asked"),
    [
        (LOOPBACK, "http://127.0.0.1:1/cb"),
        (LOOPBACK, "http://127.0.0.1:65535/cb"),
        ("http://localhost/cb", "http://localhost:3118/cb"),
        ("http://[::1]/cb", "http://[::1]:8080/cb"),
        ("http://127.0.0.1:5000/cb?a=b", "http://127.0.0.1:6000/cb?a=b"),
    ],
)
async def test_the_port_of_a_program_on_the_device_is_its_own(
    office: Office, registered: str, asked: str
) -> None:
    await office.person("ann")
    tool = await office.app("tool", redirect_uris=(registered,), public=True)
    page = await tool.send(redirect_uri=asked)
    assert 'action="/authorize/answer"' in page.text


@pytest.mark.parametrize(
    ("registered", "asked"),
    [
        (BACK, BACK + "/"),
        (BACK, BACK + "?"),
        (BACK, BACK + "#x"),
        (BACK, BACK + "?next=https://evil.example"),
        (BACK, BACK.replace("/login", "/Login")),
        (BACK, BACK.replace("grafana.", "GRAFANA.")),
        (BACK, BACK.replace("https://", "HTTPS://")),
        (BACK, BACK.replace("https://", "http://")),
        (BACK, BACK.replace("/login", "/%6Cogin")),
        (BACK, BACK.replace("/login", "/./login")),
        (BACK, BACK.replace("/login", "/x/../login")),
        (BACK, BACK.replace("/login", "//login")),
        (BACK, BACK.replace(".com", ".com:443")),
        (BACK, BACK.replace(".com", ".com.")),
        (BACK, BACK.replace("://", "://x@")),
        (BACK, BACK.replace("https://grafana.example.com", "https://grafana.example.com@evil.example")),
        (BACK, BACK.replace("https://grafana.example.com", "https://grafana.example.com.evil.example")),
        (BACK, BACK + "\t"),
        (BACK, " " + BACK),
        (BACK, BACK + "\x00"),
        (BACK, "//grafana.example.com/login/generic_oauth"),
        (BACK, "/login/generic_oauth"),
        (BACK, "javascript:alert(1)"),
        (LOOPBACK, "http://127.0.0.1:80@evil.example/cb"),
        (LOOPBACK, "http://127.0.0.1:5000/cb/"),
        (LOOPBACK, "http://127.0.0.1:5000/cb?x"),
        (LOOPBACK, "http://127.0.0.1:/cb"),
        (LOOPBACK, "http://127.0.0.1:123456/cb"),
        (LOOPBACK, "http://localhost:5000/cb"),
        (LOOPBACK, "http://127.0.0.2/cb"),
        (LOOPBACK, "http://0x7f.1/cb"),
        (LOOPBACK, "https://127.0.0.1/cb"),
        (LOOPBACK, "http://127.0.0.1\\@evil.example/cb"),
    ],
)
async def test_an_address_is_compared_sign_by_sign(office: Office, registered: str, asked: str) -> None:
    run = Run(office, QUERY)
    await office.person("ann")
    party = await office.app(redirect_uris=(registered,), public=registered == LOOPBACK)
    browser = await run.authorize(party, redirect_uri=asked)
    run.stays(browser.page)
    # Not even where something else is wrong with the request, of which the app would be told.
    browser = await run.authorize(party, redirect_uri=asked, response_type="token")
    run.stays(browser.page)


# Parameters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["response_type", "scope", "nonce", "code_challenge", "code_challenge_method", "prompt", "unheard-of"],
)
async def test_a_parameter_that_is_there_twice(office: Office, party: Party, name: str) -> None:
    url = party.url(prompt="consent") + "&" + urlencode([(name, "x"), (name, "x")])
    page = await office.browser().client.get(url, headers=PAGE)
    assert Run(office, QUERY).heard(party, page, error=True)["error"] == "invalid_request"


@pytest.mark.parametrize("name", ["client_id", "redirect_uri", "response_mode", "state"])
async def test_one_that_says_where_the_answer_goes_leads_nowhere(
    office: Office, party: Party, name: str
) -> None:
    page = await office.browser().client.get(f"{party.url(response_mode='query')}&{name}=x", headers=PAGE)
    Run(office, QUERY).stays(page)


@pytest.mark.parametrize(
    "name", ["grant_type", "code", "redirect_uri", "code_verifier", "client_id", "scope"]
)
async def test_a_field_that_is_there_twice(office: Office, party: Party, name: str) -> None:
    await party.send()
    form = [
        ("grant_type", "authorization_code"),
        ("code", party.answer["code"]),
        ("redirect_uri", BACK),
        ("code_verifier", VERIFIER),
    ]
    body = urlencode([*form, (name, "x"), (name, "x")]).encode()
    said = await raw(party, "/token", body, authorization=basic(party.app.client_id, party.secret))
    # A scope that nobody asks for here is not looked at; whatever is, is there once.
    if name == "scope":
        assert said.status_code in {200, 400}
    else:
        Run(office, QUERY).refused(said, "invalid_request")


async def test_several_resources_are_no_mistake(office: Office) -> None:
    await office.person("ann")
    mcp = await office.app("mcp", resources=("https://a.example", "https://b.example"))
    page = await mcp.send(resource="https://a.example")
    assert page.status_code == 303
    two = mcp.url() + "&resource=https%3A%2F%2Fa.example&resource=https%3A%2F%2Fb.example"
    page = await office.browser().client.get(two, headers=PAGE)
    mcp.heard(page)
    said = await mcp.redeem()
    assert said.status_code == 200, said.text
    told = (await mcp.post("/introspect", token=mcp.tokens["access_token"])).json()
    assert told["aud"] == ["https://a.example", "https://b.example"]


# Forms ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PROGRAMS)
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"grant_type":"authorization_code"}', "application/json"),
        (b"grant_type=authorization_code", "text/plain"),
        (b"grant_type=authorization_code", ""),
        (b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x"),
        (b"grant_type=\xff\xfe", FORM),
        (b"grant_type=%FF", FORM),
        (b"&".join(b"a%d=1" % number for number in range(100)), FORM),
    ],
    ids=["json", "text", "nothing", "multipart", "bytes", "percent", "many"],
)
async def test_what_is_no_form(office: Office, party: Party, path: str, content: bytes, kind: str) -> None:
    said = await raw(party, path, content, kind, authorization=basic(party.app.client_id, party.secret))
    Run(office, QUERY).refused(said, "invalid_request")


@pytest.mark.parametrize("path", PROGRAMS)
async def test_what_is_huge(party: Party, path: str) -> None:
    said = await raw(party, path, b"code=" + b"x" * 5_000_000)
    assert said.status_code in {400, 413}
    assert said.headers["cache-control"] == "no-store"


async def test_a_huge_request_to_sign_in(office: Office, run: Run, party: Party) -> None:
    browser = await run.authorize(party, state="s" * 40_000)
    run.stays(browser.page)
    browser = office.browser()
    browser.page = await browser.client.post(
        "/authorize", content=b"state=" + b"s" * 5_000_000, headers=PAGE | {"content-type": FORM}
    )
    assert browser.page.status_code in {400, 413}
    run.stays(browser.page, browser.page.status_code)


STRANGE = ("\x00", "a\x00b", "a\r\nSet-Cookie: x=y", "\u2028", "é世\u202e", "%00%0d%0a")


@pytest.mark.parametrize("name", ["state", "nonce", "scope", "login_hint", "ui_locales", "prompt"])
async def test_strange_signs_are_only_signs(run: Run, party: Party, name: str) -> None:
    for text in STRANGE:
        page = (await run.authorize(party, None, **{name: text})).page
        assert page.status_code in {200, 303}, page.text
        assert "set-cookie" not in page.headers or name == "login_hint"  # a page that asks has one of its own
        assert all("\n" not in value and "\x00" not in value for value in page.headers.values())
        assert "x=y" not in page.headers.get("set-cookie", "")
        if name == "state":
            run.heard(party, page, state=text)
        if name == "nonce" and "\x00" in text:  # which no database keeps
            assert run.heard(party, page, error=True)["error"] == "invalid_request"


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "PATCH", "TRACE", "FOO"])
@pytest.mark.parametrize("path", ["/authorize", *PROGRAMS, "/userinfo"])
async def test_a_method_that_there_is_not(office: Office, party: Party, method: str, path: str) -> None:
    target = party.url() if path == "/authorize" else path
    said = await office.browser().client.request(method, target, headers=PAGE)
    assert said.status_code == 405 or (method, path) == ("HEAD", "/userinfo")
    assert "location" not in said.headers
    assert await office.audited("app.signin") == []


# Who the app is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PROGRAMS)
async def test_an_unknown_app(office: Office, party: Party, path: str) -> None:
    run = Run(office, QUERY)
    body = b"token=x&grant_type=authorization_code"
    said = await raw(party, path, body, authorization=basic("app-unknown", "x"))
    run.refused(said, "invalid_client", 401)
    assert said.headers["www-authenticate"].startswith("Basic ")
    said = await raw(party, path, body + b"&client_id=app-unknown&client_secret=x")
    run.refused(said, "invalid_client", 401)
    assert "www-authenticate" not in said.headers
    run.refused(await raw(party, path, body), "invalid_client", 401)


@pytest.mark.parametrize("path", PROGRAMS)
async def test_a_secret_that_is_shown_in_two_ways(office: Office, party: Party, path: str) -> None:
    body = urlencode({"token": "x", "client_id": party.app.client_id, "client_secret": party.secret})
    said = await raw(party, path, body.encode(), authorization=basic(party.app.client_id, party.secret))
    Run(office, QUERY).refused(said, "invalid_request")


async def test_a_code_is_of_the_app_and_the_address_that_it_was_made_for(office: Office, run: Run) -> None:
    await office.person("ann")
    second = "https://grafana.example.com/other"
    party, other = await office.app(redirect_uris=(BACK, second)), await office.app("wiki")
    browser = await run.authorize(party)
    code = run.heard(party, browser.page)["code"]
    run.refused(await other.redeem(code), "invalid_grant")
    run.refused(await party.redeem(redirect_uri=second), "invalid_grant")
    run.refused(await party.redeem(redirect_uri=""), "invalid_grant")
    run.tokens(party, await party.redeem())


async def test_nothing_that_anybody_is_told_is_kept(office: Office, run: Run, party: Party) -> None:
    pages: list[Any] = [(await run.authorize(party)).page, (await run.authorize(party, scope="x")).page]
    pages.append((await run.authorize(party, redirect_uri="https://evil.example")).page)
    run.heard(party, pages[0])
    pages += [await party.redeem(), await party.redeem(), await party.userinfo(), await party.userinfo("x")]
    for path in PROGRAMS:
        pages.append(await party.post(path, token="x"))
    for page in pages:
        assert "no-store" in page.headers["cache-control"], page.request.url
