import pytest
from starlette.requests import Request
from starlette.responses import Response
from tests.support.office import Office, Party

from doorward.issuer.claims import SCOPES
from doorward.issuer.desk import FORM, one, opened, read_pairs
from doorward.issuer.errors import TokenError
from doorward.login.apps import OURS
from doorward.login.doors import WrongDoor


def request(body: bytes, kind: str = FORM, host: str = "door.tailnet.internal:8443") -> Request:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", kind.encode()), (b"host", host.encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"a=1", "application/json"),
        (b"a=1", ""),
        (b"a=%ff", FORM),
        (b"a=\xff", FORM),
        (b"&".join(b"a=1" for _ in range(61)), FORM),
        (b"a=" + b"x" * 40_000, FORM),
    ],
)
async def test_what_is_no_form_is_refused(body: bytes, kind: str) -> None:
    with pytest.raises(TokenError) as caught:
        await read_pairs(request(body, kind))
    assert caught.value.code == "invalid_request"


async def test_a_field_is_read_once() -> None:
    pairs = await read_pairs(request(b"a=1&b=&b=2", FORM + "; charset=utf-8"))
    assert one(pairs, "a") == "1"
    assert one(pairs, "c") == ""
    with pytest.raises(TokenError, match="twice"):
        one(pairs, "b")


async def test_what_an_app_does_is_on_record(office: Office) -> None:
    party = await office.app()
    desk = office.issuer._desk
    await desk.note(None, party.app, "app.token", resources=[])
    (event,) = await office.audited("app.token")
    assert (event.actor, event.target) == ("app:grafana", "app:grafana")
    desk.require_door(request(b""))
    with pytest.raises(WrongDoor):
        desk.require_door(request(b"", host="evil.example"))


async def test_what_any_page_may_read_carries_no_credentials() -> None:
    headers = opened(Response()).headers
    assert headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in headers


async def test_scopes_are_those_of_the_app_and_of_the_resources_that_it_names(office: Office) -> None:
    mcp = "https://mcp.example"
    await office.app("server", resources=(mcp,), scopes=("files:read", "files:write"))
    await office.app("elsewhere", resources=("https://other.example",), scopes=("other:all",))
    tool = await office.app("tool", resources=(mcp, "https://more.example"), scopes=("tool:own",))
    stranger = await office.app("stranger")
    desk = office.issuer._desk

    async def more(party: Party, *resources: str) -> set[str]:
        pairs = [("resource", one) for one in resources]
        return set(await desk.scopes_known(party.app, pairs)) - set(SCOPES)

    assert await more(tool) == {"tool:own"}
    assert await more(tool, f"{mcp}/", "https://more.example") == {"tool:own", "files:read", "files:write"}
    # Naming a resource that is not the app's gives nothing, whoever has it.
    assert await more(tool, "https://other.example") == {"tool:own"}
    assert await more(stranger, mcp) == set()


async def test_a_token_has_the_scopes_of_its_resource_that_the_policy_allows(office: Office) -> None:
    mcp = "https://mcp.example"
    server = await office.app("server", resources=(mcp,), scopes=("files:read", "files:write"))
    tool = await office.app("tool", asks=True, resources=(mcp,))
    await office.person()
    browser = tool.browser()
    page = await tool.send(browser, scope="files:read files:write files:burn", resource=mcp)
    assert "use files:read" in page.text
    await tool.press(browser)
    assert (await tool.redeem()).json()["scope"] == "files:read files:write"
    told = (await server.post("/introspect", token=tool.tokens["access_token"])).json()
    assert (told["active"], told["scope"], told["aud"]) == (True, "files:read files:write", mcp)
    await office.policy(
        '{"grants": [{"src": ["ann"], "dst": ["*"], "app": {"doorward.dev/cap/app": [{"scopes": ["files:read"]}]}}]}'
    )
    await tool.send(browser, scope="files:read files:write", resource=mcp)
    assert (await tool.redeem()).json()["scope"] == "files:read"
    await tool.send(browser, scope="files:write", resource=mcp)
    assert tool.answer["error"] == "access_denied"
    # Without the resource these words mean nothing.
    await tool.send(browser, scope="files:read")
    assert tool.answer["error"] == "invalid_scope"


def test_no_app_can_call_a_scope_of_its_own_what_all_apps_have() -> None:
    assert set(SCOPES) <= OURS
